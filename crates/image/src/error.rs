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
    #[error("An image does not exist locally with the tag: {0}")]
    NotTagged(String),
    #[error("multiple images match the prefix {0}: give more of it")]
    Ambiguous(String),
    #[error(transparent)]
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
    #[error(
        "image with reference {name} was found but its platform ({actual}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform { name: String, wanted: String, actual: String },
    #[error("image with reference {name} was found but does not provide the specified platform ({platform})")]
    NotForPlatform { name: String, platform: String },
    #[error("{what} is no image but an artifact of type {kind}: it cannot be run; tools such as oras fetch it")]
    Artifact { what: String, kind: String },
    #[error("requested platform(s) ({0}) not found: the archive has images for others only")]
    NotInArchive(String),
    #[error("the archive cannot be used")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Io(&'static str, #[source] io::Error),
    #[error("a task of it has ended too early")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Registry(#[from] DistributionError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the mirror {mirrors} gave other content than {digest}, and the next host")]
    Mirrors {
        mirrors: String,
        digest: Digest,
        #[source]
        source: Box<ImageError>,
    },
}

impl ImageError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            _ if self.is_full() => ErrorKind::Full,
            Self::NotFound(_)
            | Self::NotTagged(_)
            | Self::NoPlatform(_)
            | Self::OtherPlatform { .. }
            | Self::NotForPlatform { .. }
            | Self::NotInArchive(_) => ErrorKind::NotFound,
            Self::Ambiguous(_)
            | Self::Reference(_)
            | Self::Invalid(_)
            | Self::Artifact { .. }
            | Self::Config(_)
            | Self::Archive(_) => ErrorKind::Invalid,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Mirrors { source, .. } => source.kind(),
            Self::Store(StoreError::WrongDigest { .. } | StoreError::WrongSize { .. }) => ErrorKind::Invalid,
            Self::Snapshot(error) if error.is_bad_layer() => ErrorKind::Invalid,
            Self::Registry(error) => match error.kind() {
                Kind::NotFound => ErrorKind::NotFound,
                Kind::Invalid | Kind::Unsupported | Kind::WrongDigest => ErrorKind::Invalid,
                Kind::Unauthorized | Kind::Denied => ErrorKind::Denied,
                _ => ErrorKind::System,
            },
            _ => ErrorKind::System,
        }
    }

    /// The same failure with how many of the `needed` bytes had no room, where it is the disk that is full and `free` were
    /// left before.
    pub(crate) fn with_missing(self, store: &wharf_store::Store, needed: u64, free: u64) -> Self {
        let over_budget = match &self {
            Self::Store(StoreError::OverBudget { .. }) => true,
            Self::Snapshot(error) => error.is_over_budget(),
            _ => false,
        };
        match self.is_full() && !over_budget {
            true => store.lacking(needed, free).map_or(self, Self::Store),
            false => self,
        }
    }

    fn is_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Store(error) => error.is_full(),
            Self::Snapshot(error) => error.is_full(),
            Self::Archive(ArchiveError::Write(error)) | Self::Io(_, error) => full(error),
            Self::Archive(ArchiveError::Unpack { source, .. }) => full(&source.errno.into()),
            Self::Mirrors { source, .. } => source.is_full(),
            _ => false,
        }
    }
}
