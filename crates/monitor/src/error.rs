//! Why a container does not run.

use rustix::io::Errno;

/// A launch that failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The container could not be made, or its program not be started.
    #[error("{message}")]
    Failed { message: String, code: u8 },
    #[error("the process that starts containers has gone; restart the daemon")]
    NoSpawner,
    #[error("the container's monitor ended before it had an answer")]
    NoAnswer,
    #[error("the container's monitor answers what is not understood: {0}")]
    BadAnswer(String),
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        errno: Errno,
    },
    #[error("{given} streams for {asked} attachments")]
    Streams { given: usize, asked: usize },
    #[error("a process that starts containers can be prepared only by a process with one thread; this one has {0}")]
    Threads(usize),
}

impl LaunchError {
    /// The code by which Docker's users know this failure: 126, 127, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed { code, .. } => *code,
            _ => 125,
        }
    }

    pub(crate) fn system(action: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::System { action, errno }
    }
}

/// Result of a launch.
pub type Result<T> = std::result::Result<T, LaunchError>;
