//! What can go wrong between the daemon and the process that answers.

use std::io;

use rustix::io::Errno;
use wharf_netlink::NetlinkError;

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The process has ended, or has not answered in time. [`Server::start`](crate::Server::start) finds it or makes
    /// another, and [`Server::known`](crate::Server::known) tells what it still knows.
    #[error("the process that answers for names has gone")]
    Gone,
    /// The process cannot do what it was asked for.
    #[error("{0}")]
    Refused(String),
    #[error("the process that answers for names says what is not understood: {0}")]
    BadAnswer(String),
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        errno: Errno,
    },
    #[error(transparent)]
    Network(#[from] NetlinkError),
}

impl DnsError {
    pub(crate) fn system(action: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { action, errno }
    }

    pub(crate) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System { action, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, DnsError>;
