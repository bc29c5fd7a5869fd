//! What a volume is, and what is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
}

impl Volume {
    /// Whether it is kept by this engine, and not by a plugin.
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL
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
    /// Empty means `local`, or whichever has a volume of this name.
    pub driver: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

/// The row of a volume, by its name. What can be computed (the path) is not in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        }
    }
}
