//! What can go wrong on the way to the user's program.

use std::path::PathBuf;

use rustix::io::Errno;

/// A failed launch.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Exit code 127.
    #[error("exec: \"{0}\": executable file not found")]
    CommandNotFound(String),
    /// Exit code 126.
    #[error("exec: \"{command}\": {errno}")]
    NotExecutable { command: String, errno: Errno },
    #[error("invalid configuration: {0}")]
    Invalid(String),
    #[error("not supported: {0}")]
    Unsupported(String),
    #[error("cannot {action} `{path}`")]
    Host {
        action: &'static str,
        path: PathBuf,
        #[source]
        errno: Errno,
    },
    /// A step of the container's own process failed.
    #[error("cannot {step}: {errno}")]
    Setup { step: String, errno: Errno },
    #[error("the container's first process ended before it was ready")]
    Vanished,
    #[error("a container can be made only by a process with one thread; this one has {0}")]
    Threads(usize),
    #[error(transparent)]
    Cgroup(#[from] wharf_cgroup::CgroupError),
    #[error(transparent)]
    Seccomp(#[from] wharf_seccomp::CompileError),
    #[error(transparent)]
    SeccompSection(#[from] wharf_seccomp::OciError),
}

impl RuntimeError {
    /// The exit code by which Docker's users know this failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandNotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    pub(crate) fn host(action: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::Host { action, path: path.into(), errno }
    }
}
