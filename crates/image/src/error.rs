//! What can go wrong with an image.

use std::io;

use wharf_archive::ArchiveError;
use wharf_distribution::{DistributionError, Kind};
use wharf_reference::{Digest, ReferenceError};
use wharf_snapshot::SnapshotError;
use wharf_store::StoreError;

/// What kind of failure it is; the server alone makes an HTTP status of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Invalid,
    Conflict,
    Denied,
    /// The disk is full.
    Full,
    System,
}

/// A failed operation on images. The texts are Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("No such image: {0}")]
    NotFound(String),
    #[error("multiple images match the prefix {0}: give more of it")]
    Ambiguous(String),
    #[error("invalid reference format: {0}")]
    Reference(#[from] ReferenceError),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Conflict(String),
    #[error("the image's configuration is damaged")]
    Config(#[source] serde_json::Error),
    #[error("the image needs layer {0}, which is not here")]
    NoLayer(Digest),
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    #[error("the archive cannot be used")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Registry(#[from] DistributionError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoPlatform(_) => ErrorKind::NotFound,
            Self::Ambiguous(_) | Self::Reference(_) | Self::Invalid(_) | Self::Config(_) | Self::Archive(_) => {
                ErrorKind::Invalid
            }
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Store(StoreError::Full { .. }) => ErrorKind::Full,
            Self::Snapshot(error) if error.is_bad_layer() => ErrorKind::Invalid,
            Self::Registry(error) => match error.kind() {
                Kind::NotFound => ErrorKind::NotFound,
                Kind::Invalid => ErrorKind::Invalid,
                Kind::Unauthorized | Kind::Denied => ErrorKind::Denied,
                _ => ErrorKind::System,
            },
            _ => ErrorKind::System,
        }
    }
}
