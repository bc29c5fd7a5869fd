//! How far something has come, told to whoever waits for it.

use tokio::sync::mpsc;

/// One message, as the API's progress streams have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is about: a layer, a tag; empty for the whole.
    pub id: String,
    pub status: String,
    /// Bytes so far, and in all.
    pub current: Option<u64>,
    pub total: Option<u64>,
    /// What it tells programs, as moby's `aux`; such a message has nothing else.
    pub aux: Option<serde_json::Value>,
}

/// Where messages go. Nobody listening is no error.
pub type ProgressSender = mpsc::UnboundedSender<Progress>;

impl Progress {
    pub fn new(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: id.into(), status: status.into(), ..Self::default() }
    }

    pub(crate) fn bytes(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self { id: id.into(), status: status.into(), current: Some(current), total: Some(total), aux: None }
    }

    pub(crate) fn aux(value: serde_json::Value) -> Self {
        Self { aux: Some(value), ..Self::default() }
    }
}
