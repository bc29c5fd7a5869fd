//! What can go wrong between the daemon and the process that answers.

use wharf_netlink::NetlinkError;

/// Why a container cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// After the end of the process [`Server::start`](crate::Server::start) finds it or makes another, and
    /// [`Server::known`](crate::Server::known) tells what it still knows.
    #[error(transparent)]
    Process(#[from] wharf_companion::Error),
    #[error(transparent)]
    Network(#[from] NetlinkError),
}

impl DnsError {
    /// Whether there is no process any more.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Process(error) if error.is_gone())
    }

    /// Whether the process cannot do what it was asked for.
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::Process(wharf_companion::Error::Refused(_)))
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, DnsError>;
