//! What can go wrong between us and the kernel's networking.

use rustix::io::Errno;

/// A request that the kernel refused, or that could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action}{}", detail.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What was asked, as words that follow "cannot".
    pub action: String,
    /// What the kernel said beside the number (`NETLINK_EXT_ACK`), if anything.
    pub detail: Option<String>,
    #[source]
    pub errno: Errno,
}

impl NetlinkError {
    pub(crate) fn new(action: impl Into<String>, errno: Errno) -> Self {
        Self { action: action.into(), detail: None, errno }
    }
}
