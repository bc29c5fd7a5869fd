//! What can go wrong on the way to the user's program.

use std::path::PathBuf;

use rustix::io::Errno;

/// A failed launch.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Exit code 127.
    #[error("exec: \"{0}\": {reason}", reason = not_found(.0))]
    CommandNotFound(String),
    /// Exit code 126, and 127 for an interpreter that is missing.
    #[error("exec: \"{command}\": {reason}", reason = not_executable(*.errno))]
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
    /// In runc's words.
    #[error("failed to connect with seccomp agent at `{path}`")]
    Agent {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// What is asked of a network device cannot be done.
    #[error("cannot give the container the network device `{device}`")]
    NetDevice {
        device: String,
        #[source]
        error: wharf_netlink::NetlinkError,
    },
    /// A step of the container's own process failed.
    #[error("cannot {step}: {errno}")]
    Setup { step: String, errno: Errno },
    /// The system's programs for it did not give the IDs.
    #[error("cannot map the container's IDs: {0}")]
    IdMapping(String),
    /// What [`crate::EXEC_PATIENCE`] is for.
    #[error(
        "the process in the container did not come to its next step within {} s: something there may have stopped it",
        crate::EXEC_PATIENCE.as_secs()
    )]
    Silent,
    /// By [`crate::Lifecycle::caller`].
    #[error(
        "it was called off: the process in the container did not come to its next step, something there may have stopped it"
    )]
    CalledOff,
    #[error("the container's first process ended before it was ready")]
    Vanished,
    #[error("a container can be made only by a process with one thread; this one has {0}")]
    Threads(usize),
    /// A hook that runs in the container's namespaces failed there.
    #[error("{0}")]
    ContainerHook(String),
    /// What failed, and what could not be given back after it.
    #[error("{left}, after this")]
    NotGivenBack {
        left: String,
        #[source]
        error: Box<RuntimeError>,
    },
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
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
        match self.cause() {
            Self::CommandNotFound(_) | Self::NotExecutable { errno: Errno::NOENT, .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }

    /// What failed first.
    pub fn cause(&self) -> &Self {
        match self {
            Self::NotGivenBack { error, .. } => error.cause(),
            other => other,
        }
    }

    /// With what could not be given back afterwards, if there is any.
    pub(crate) fn with(self, left: Vec<String>) -> Self {
        if left.is_empty() { self } else { Self::NotGivenBack { left: left.join("; "), error: Box::new(self) } }
    }

    pub(crate) fn host(action: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self::Host { action, path: path.into(), errno }
    }
}

/// As Go's programs say it: those who call a runtime look for these words.
fn not_found(command: &str) -> String {
    if command.contains('/') {
        format!("stat {command}: no such file or directory")
    } else {
        "executable file not found in $PATH".into()
    }
}

fn not_executable(errno: Errno) -> String {
    match errno {
        Errno::ACCESS => "permission denied".into(),
        Errno::ISDIR => "is a directory".into(),
        Errno::NOEXEC => "exec format error".into(),
        Errno::PERM => "operation not permitted".into(),
        Errno::NOENT => "no such file or directory: the program is there, and what interprets it is not".into(),
        other => other.to_string(),
    }
}
