//! Why a command failed, and with which exit code.

use wharf_client::ClientError;

/// Result of a command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// What is said on standard error, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// The words; nothing is said when they are empty.
    pub(crate) text: String,
}

impl Failure {
    /// An error with exit code 1.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// Nothing to say, only an exit code.
    pub(crate) fn code(code: u8) -> Self {
        Self { code, text: String::new() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(wharf_report::os(&error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
