//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

use wharf_reference::Digest;

/// A failed operation of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the data root `{}` is in use by process {pid}; stop it, or choose another with --data-root", root.display())]
    InUse { root: PathBuf, pid: String },
    #[error(
        "the data root `{}` has format {found}, and this version knows none after {known}: a later version of wharf has \
         written it, and what this one does not know it would take for left behind. Start that version again, or choose \
         another root with --data-root", root.display()
    )]
    Newer { root: PathBuf, found: u32, known: u32 },
    #[error("`{}` does not say which format the data root has: it must be a number. Write the one that it had", .0.display())]
    Format(PathBuf),
    #[error("`{}` is no data root of wharf: there is no wharf.redb in it", .0.display())]
    NoStore(PathBuf),
    #[error(
        "the database `{}` is damaged and cannot be repaired: bring back a copy of it, or move it away to begin anew \
         (images, containers and volumes are then not known any more, though volumes' files stay)", path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("cannot {action} `{}`", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no space left on device: {needed} more bytes were to be written to `{}`", path.display())]
    Full { path: PathBuf, needed: u64 },
    #[error(
        "no space left in the byte budget: {missing} more bytes than the {max} of storage-max-bytes, and nothing is left \
         that may go; remove containers, volumes or images in use, unpin some, or give the daemon more"
    )]
    OverBudget { max: u64, missing: u64 },
    #[error("the database cannot {action}")]
    Database {
        action: &'static str,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("the row `{key}` of `{table}` cannot be read")]
    Row {
        table: &'static str,
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("there is no blob {0}")]
    NoBlob(Digest),
    #[error("blob {0} is larger than {1} bytes")]
    TooLarge(Digest, u64),
    #[error("the content has digest {found}, not {expected} as promised")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the content has {found} bytes, not {expected} as promised")]
    WrongSize { expected: u64, found: u64 },
}

impl StoreError {
    /// Whether the disk, or somebody's share of it, is full.
    pub fn is_full(&self) -> bool {
        let full =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match self {
            Self::Full { .. } | Self::OverBudget { .. } => true,
            Self::File { source, .. } => full(source),
            Self::Database { source, .. } => matches!(&**source, redb::Error::Io(error) if full(error)),
            _ => false,
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn database(action: &'static str, source: impl Into<redb::Error>) -> Self {
        Self::Database { action, source: Box::new(source.into()) }
    }
}
