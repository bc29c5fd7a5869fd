//! What can go wrong with a volume.

use std::io;
use std::path::PathBuf;

use wharf_archive::ArchiveError;
use wharf_rooted_path::RootError;
use wharf_store::StoreError;

/// What kind of failure it is; the server alone makes an HTTP status of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such volume (404).
    NotFound,
    /// The request makes no sense (400).
    Invalid,
    /// It cannot be done in the state that things are in (409).
    Conflict,
    /// The host failed (500).
    System,
}

/// A failed operation on volumes. The texts are Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("get {0}: no such volume")]
    NotFound(String),
    #[error(
        "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Name(String),
    #[error("create {0}: volume name is too short, names should be at least two alphanumeric characters")]
    ShortName(String),
    #[error("create {0}: volume name is too long, names have at most 255 characters")]
    LongName(String),
    #[error("{action} {name}: {why}")]
    NoDriver { action: &'static str, name: String, why: String },
    #[error("{action} {name}: {why}")]
    Plugin { action: &'static str, name: String, why: String },
    #[error("create {name}: driver '{driver}' already has volume '{name}': volume name must be unique")]
    OtherDriver { name: String, driver: String },
    #[error("create {name}: {why}")]
    Options { name: String, why: String },
    #[error("create {name}: no volume of a size can be made: {why}")]
    NoLimit { name: String, why: String },
    #[error("the content of {what} has no room in a volume of {bytes} bytes: give a larger size (`-o size=…`)")]
    TooSmall { what: String, bytes: u64 },
    #[error("error while mounting volume '{}': failed to mount local volume: {what}", path.display())]
    Mount {
        path: PathBuf,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("{action} {name}: volume is in use - [{}]", containers.join(", "))]
    InUse { action: &'static str, name: String, containers: Vec<String> },
    #[error("{action} {name}: volume is in use by containers that run: stop them first - [{}]", containers.join(", "))]
    Busy { action: &'static str, name: String, containers: Vec<String> },
    #[error("copy {name}: containers write to it - [{}]", containers.join(", "))]
    Moving { name: String, containers: Vec<String> },
    #[error("remove {name}: volume has snapshots, which would go with it: remove them first, or use force - [{}]", snapshots.join(", "))]
    HasSnapshots { name: String, snapshots: Vec<String> },
    #[error("create {name}: it is there already")]
    Exists { name: String },
    #[error("import {name}: volume is not empty: import under another name, or remove it first")]
    NotEmpty { name: String },
    #[error(
        "{action} {name}: its content is not this engine's to replace, but that of its driver or its options: clone the snapshot, or import under another name"
    )]
    Elsewhere { action: &'static str, name: String },
    #[error("\"{name}\" is no name for a snapshot of {volume}: use \"[a-zA-Z0-9][a-zA-Z0-9_.-]+\"")]
    SnapshotName { volume: String, name: String },
    #[error("cannot {action} {what}")]
    Tree {
        action: &'static str,
        what: String,
        #[source]
        source: RootError,
    },
    #[error("import {name}")]
    Import {
        name: String,
        #[source]
        source: Box<ArchiveError>,
    },
    #[error("export {what}")]
    Export {
        what: String,
        #[source]
        source: Box<ArchiveError>,
    },
    #[error("cannot {action} `{}`", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy `{path}` of the image into volume {name}")]
    Copy {
        name: String,
        path: String,
        #[source]
        source: Box<ArchiveError>,
    },
    #[error(transparent)]
    Path(#[from] RootError),
    #[error("no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VolumeError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            // In a start nobody has named it.
            Self::NoDriver { action: "mount" | "unmount", .. } => ErrorKind::System,
            Self::NoDriver { .. } => ErrorKind::NotFound,
            Self::Name(_)
            | Self::ShortName(_)
            | Self::LongName(_)
            | Self::Options { .. }
            | Self::SnapshotName { .. }
            | Self::TooSmall { .. }
            | Self::Elsewhere { .. } => ErrorKind::Invalid,
            // A full disk is the host's, and a bad archive its sender's.
            Self::Import { source, .. } => match **source {
                ArchiveError::Read(_) | ArchiveError::Write(_) => ErrorKind::System,
                _ => ErrorKind::Invalid,
            },
            Self::InUse { .. }
            | Self::OtherDriver { .. }
            | Self::Busy { .. }
            | Self::Moving { .. }
            | Self::HasSnapshots { .. }
            | Self::Exists { .. }
            | Self::NotEmpty { .. } => ErrorKind::Conflict,
            Self::Mount { .. }
            | Self::Plugin { .. }
            | Self::NoLimit { .. }
            | Self::Tree { .. }
            | Self::Export { .. }
            | Self::File { .. }
            | Self::Copy { .. }
            | Self::Path(_)
            | Self::Random(_)
            | Self::Store(_) => ErrorKind::System,
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
