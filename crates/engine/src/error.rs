//! What can go wrong, in the user's words.

use std::fmt;
use wharf_report::chain;

/// What kind of failure it is. The server alone maps it to an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request makes no sense (400).
    InvalidParameter,
    /// Something that is named is not there (404).
    NotFound,
    /// It cannot be done in the state that things are in (409).
    Conflict,
    /// It is done already (304).
    NotModified,
    /// The credentials are not good enough (401).
    Unauthorized,
    /// It is not permitted (403).
    Forbidden,
    /// This engine does not do that (501).
    NotImplemented,
    /// The engine or the host failed (500).
    System,
}

/// A failed operation: its kind, and a message that stands alone.
#[derive(Clone, Debug)]
pub struct EngineError {
    pub kind: ErrorKind,
    pub message: String,
}

/// Shorthand for the engine's results.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// An exec that cannot be started once more, and whether it still runs.
    pub fn exec_began(id: &str, running: bool) -> Self {
        Self::conflict(format!("exec command {id} {}", if running { "is already running" } else { "has already run" }))
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    pub fn not_modified() -> Self {
        Self::new(ErrorKind::NotModified, "")
    }
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }
    /// A failure of the host or of a lower layer while doing `what`.
    pub fn from_source(what: &str, source: &dyn std::error::Error) -> Self {
        Self::system(format!("{what}: {}", chain(source)))
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}
