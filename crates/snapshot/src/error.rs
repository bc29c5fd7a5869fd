//! What can go wrong with a layer.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use wharf_archive::ArchiveError;
use wharf_reference::Digest;
use wharf_rooted_path::RootError;
use wharf_store::StoreError;

/// A failed operation on layers.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("layer {0} is not here")]
    NotFound(Digest),
    #[error("wrong diff id: the layer should be {expected} and is {found}")]
    WrongDiffId { expected: Digest, found: Digest },
    #[error("the layer cannot be read")]
    Input(#[source] io::Error),
    #[error("the layer cannot be written")]
    Output(#[source] io::Error),
    #[error("the layer's archive cannot be used")]
    Archive(#[from] ArchiveError),
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file system of the layers cannot be mounted: {step}")]
    Mount {
        step: &'static str,
        #[source]
        errno: Errno,
    },
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SnapshotError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Whether the layer itself is at fault, and not this host.
    pub fn is_bad_layer(&self) -> bool {
        match self {
            Self::WrongDiffId { .. } | Self::Input(_) => true,
            Self::Archive(error) => !matches!(error, ArchiveError::Write(_)),
            _ => false,
        }
    }
}
