//! What a volume is, and what is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Limit;

/// The driver that is ours.
pub(crate) const LOCAL: &str = "local";

/// A volume, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// `local`, or the plugin that has it.
    pub driver: String,
    /// `local`, or `global` where a plugin has it on all hosts.
    pub scope: String,
    /// RFC 3339, UTC.
    pub created: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Made for one container, which named none: goes with it on `rm -v`, and with `prune`.
    pub anonymous: bool,
    /// Where the content is; empty where a plugin has not said it.
    pub mountpoint: PathBuf,
    /// What a plugin says of it beside that.
    pub status: Map<String, Value>,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
    /// How large it may become.
    pub limit: Option<Limit>,
}

/// The content of a volume at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub volume: String,
    pub name: String,
    /// RFC 3339, UTC.
    pub created: String,
    /// Bytes on the disk, where somebody has counted; blocks that are shared count.
    pub size: Option<u64>,
    /// What was left out when it was made, in words.
    pub skipped: Vec<String>,
}

/// What is copied: a volume, or a snapshot of it (`VOLUME@SNAPSHOT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub volume: String,
    pub snapshot: Option<String>,
}

impl Origin {
    /// Reads `VOLUME` or `VOLUME@SNAPSHOT`; no volume's name has the sign.
    pub fn parse(text: &str) -> Self {
        match text.split_once('@') {
            Some((volume, snapshot)) => Self { volume: volume.into(), snapshot: Some(snapshot.into()) },
            None => Self { volume: text.into(), snapshot: None },
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snapshot {
            Some(snapshot) => write!(f, "{}@{snapshot}", self.volume),
            None => f.write_str(&self.volume),
        }
    }
}

impl Volume {
    /// Whether it is kept by this engine, and not by a plugin.
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL
    }

    /// Whether its content is a directory's of this engine, and not something else that is mounted there.
    pub fn is_own(&self) -> bool {
        self.is_local() && !self.options.contains_key("device")
    }

    /// Whether it is a directory of its own, and nothing is mounted on it.
    pub fn is_plain(&self) -> bool {
        self.is_local() && self.options.is_empty()
    }
}

/// What `volume create` asks for.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty makes an anonymous volume.
    pub name: String,
    /// The name is no user's choice: the volume is anonymous all the same.
    pub anonymous: bool,
    /// Empty means `local`, or whichever has a volume of this name.
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

/// The row of a volume, by its name. What can be computed (the path) is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) driver: String,
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// Of a plugin's volume, when it was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) scope: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) snapshots: BTreeMap<String, SnapshotRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<Limit>,
    /// The name that its directory has until it is renamed to the volume's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from_dir: Option<String>,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRow {
    pub(crate) created: String,
}

impl Row {
    pub(crate) fn shown(self, name: String, mountpoint: PathBuf) -> Volume {
        let local = self.driver == LOCAL;
        Volume {
            name,
            scope: if self.scope.is_empty() { LOCAL.into() } else { self.scope },
            driver: self.driver,
            created: self.created,
            labels: self.labels,
            options: self.options,
            anonymous: self.anonymous,
            // A plugin's is where the plugin says.
            mountpoint: if local { mountpoint } else { PathBuf::new() },
            status: Map::new(),
            snapshots: self.snapshots.into_keys().collect(),
            limit: self.limit,
        }
    }
}
