//! What can go wrong with a log.

use std::path::{Path, PathBuf};

/// A log that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} the log `{path}`")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot reach the receiver of the log at {target}")]
    Remote {
        target: String,
        #[source]
        source: std::io::Error,
    },
    #[error("logging driver `{0}` is not supported: json-file, local and none are")]
    Driver(String),
}

impl LogError {
    pub(crate) fn file<E: Into<std::io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::File { action, path: path.into(), source: source.into() }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, LogError>;
