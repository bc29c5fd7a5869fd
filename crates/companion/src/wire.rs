//! What both sides say beside what the task asks for.

use serde::{Deserialize, Serialize};

/// What any such process is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// Who it is.
    Hello,
    /// To end.
    Quit,
}

/// A request: one of these words, or the task's own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Request<T> {
    Word(Word),
    Own(T),
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply<T> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    #[serde(flatten)]
    pub(crate) own: T,
}
