//! What can go wrong between the daemon and the process that passes bytes on.

use std::io;

use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The process has ended, or has not answered in time; with it all its ports.
    #[error("the process that relays ports has gone")]
    Gone,
    /// The process cannot do what it was asked for.
    #[error("{0}")]
    Refused(String),
    #[error("the process that relays ports says what is not understood: {0}")]
    BadAnswer(String),
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        errno: Errno,
    },
}

impl RelayError {
    pub(crate) fn system(action: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { action, errno }
    }

    pub(crate) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::System { action, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RelayError>;
