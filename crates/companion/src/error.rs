//! What can go wrong between the daemon and the process.

use std::io;

use rustix::io::Errno;

/// Why the process does not do what it was asked. `does` is its task, as in [`crate::Role::does`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process has ended, or has not answered in time; with it all that it was told.
    #[error("the process that {does} has gone")]
    Gone { does: &'static str },
    /// The process cannot do what it was asked for.
    #[error("{0}")]
    Refused(String),
    #[error("the process that {does} says what is not understood: {why}")]
    BadAnswer { does: &'static str, why: String },
    #[error("cannot {action}")]
    System {
        action: String,
        #[source]
        errno: Errno,
    },
}

impl Error {
    /// Whether there is no process any more.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }

    /// For a call of the kernel's that failed.
    pub fn system(action: impl Into<String> + Clone) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { action: action.clone().into(), errno }
    }

    /// The same for one of the standard library's.
    pub fn io(action: impl Into<String> + Clone) -> impl Fn(io::Error) -> Self {
        move |error| Self::system(action.clone())(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
