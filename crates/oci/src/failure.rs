//! Why a command did not do what it was asked, and the exit code that says so.

use wharf_report::chain;
use wharf_runtime::RuntimeError;

/// A message, and the program's exit code: 1, or 255 from `exec`, as runc has them.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: u8,
}

/// Result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// `open /x: no such file or directory`.
    pub(crate) fn file(call: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(wharf_report::path(call, path, error))
    }

    /// What the system refused, in words: `cannot read signals: …`.
    pub(crate) fn os(what: &str, errno: rustix::io::Errno) -> Self {
        Self::new(wharf_report::words(format!("cannot {what}: {errno}")))
    }

    /// What was on the way when it happened: `runc create failed: …`.
    pub(crate) fn during(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        // Engines tell a missing command from other failures by these words.
        let start = matches!(error.cause(), RuntimeError::CommandNotFound(_) | RuntimeError::NotExecutable { .. });
        let lead = if start { "unable to start container process: " } else { "" };
        Self::new(format!("{lead}{}", chain(&error)))
    }
}

impl From<wharf_cgroup::CgroupError> for Failure {
    fn from(error: wharf_cgroup::CgroupError) -> Self {
        Self::new(chain(&error))
    }
}
