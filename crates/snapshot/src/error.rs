//! What can go wrong with a layer.

use std::error::Error;
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
    #[error("layer {diff_id} is damaged on the disk: {why}")]
    Damaged { diff_id: Digest, why: &'static str },
    #[error("layers cannot be EROFS images here: {0}")]
    NoImages(String),
    #[error("layer {diff_id} is an EROFS image, which cannot be mounted here: {why}")]
    Image { diff_id: Digest, why: String },
    #[error("layer {0} is in use just now: look again")]
    Busy(Digest),
    #[error("the layer cannot be read")]
    Input(#[source] io::Error),
    #[error("the layer cannot be written")]
    Output(#[source] io::Error),
    #[error("the layer's archive cannot be used")]
    Archive(#[from] ArchiveError),
    #[error("cannot {action} `{}`", path.display())]
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
            _ if self.is_full() => false,
            Self::WrongDiffId { .. } | Self::Input(_) => true,
            Self::Archive(error) => !matches!(error, ArchiveError::Write(_) | ArchiveError::Pack { .. }),
            _ => false,
        }
    }

    /// Whether it is the byte budget that is used up: no disk is full, and the error says what is missing.
    pub fn is_over_budget(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = match self {
            Self::Store(error) => Some(error),
            own => own.source(),
        };
        while let Some(error) = next {
            let inside =
                error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<StoreError>());
            let own = error.downcast_ref::<StoreError>().or(inside);
            if matches!(own, Some(StoreError::OverBudget { .. })) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// Whether the disk, or somebody's share of it, is full.
    pub fn is_full(&self) -> bool {
        // A transparent variant is left out of the chain of sources.
        let mut next: Option<&(dyn Error + 'static)> = Some(match self {
            Self::Root(error) => error,
            Self::Store(error) => error,
            own => own,
        });
        while let Some(error) = next {
            let by_root = error.downcast_ref::<RootError>().map(|error| io::Error::from(error.errno));
            let by_io = error.downcast_ref::<io::Error>().or(by_root.as_ref()).map(io::Error::kind);
            let by_store = error.downcast_ref::<StoreError>().is_some_and(StoreError::is_full);
            if by_store || matches!(by_io, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_nobodys_fault() {
        let by_number = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        assert!(SnapshotError::Archive(ArchiveError::Write(by_number())).is_full());
        assert!(SnapshotError::file("write", "/x")(by_number()).is_full());
        let source = RootError { action: "create", path: "x".into(), errno: Errno::NOSPC };
        let unpack = SnapshotError::Archive(ArchiveError::Unpack { name: "x".into(), source: source.clone() });
        assert!(unpack.is_full() && !unpack.is_bad_layer() && SnapshotError::Root(source).is_full());
        assert!(SnapshotError::Store(StoreError::Full { path: "/x".into(), needed: 1 }).is_full());
        assert!(!SnapshotError::Input(io::ErrorKind::UnexpectedEof.into()).is_full());
    }
}
