//! What a volume is, and what is asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A volume, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// RFC 3339, UTC.
    pub created: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Made for one container, which named none: goes with it on `rm -v`, and with `prune`.
    pub anonymous: bool,
    /// Where the content is.
    pub mountpoint: PathBuf,
}

/// What `volume create` asks for.
#[derive(Clone, Debug, Default)]
pub struct CreateVolume {
    /// Empty makes an anonymous volume.
    pub name: String,
    /// Empty means `local`.
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
}

impl Row {
    pub(crate) fn shown(self, name: String, mountpoint: PathBuf) -> Volume {
        Volume {
            name,
            driver: self.driver,
            created: self.created,
            labels: self.labels,
            options: self.options,
            anonymous: self.anonymous,
            mountpoint,
        }
    }
}
