use std::io;

use hyper::StatusCode;

/// What may go wrong between this process and the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody answers there.
    #[error("Cannot connect to the Docker daemon at {address}. Is the docker daemon running?")]
    Unreachable {
        /// The address as the user would write it.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The socket is there, but not for us.
    #[error("permission denied while trying to connect to the Docker daemon socket at {address}: {call}: {reason}")]
    PermissionDenied {
        /// The address as the user would write it.
        address: String,
        /// The request that was on its way.
        call: String,
        /// What the system says.
        reason: String,
    },
    /// The program that leads to an engine elsewhere is not installed.
    #[error(
        "Cannot connect to the Docker daemon at {address}: exec: \"ssh\": executable file not found in $PATH: install an SSH client"
    )]
    NoSsh {
        /// The address as the user would write it.
        address: String,
    },
    /// The TLS material cannot be used, or the peer is not whom we asked for.
    #[error("{0}")]
    Tls(String),
    /// The engine's answer is an error.
    #[error("Error response from daemon: {message}")]
    Api {
        /// HTTP status.
        status: StatusCode,
        /// The engine's words.
        message: String,
    },
    /// The engine's answer is an error, and it says no more about it.
    #[error(
        "request returned {} for API route and version {url}, check if the server supports the requested API version",
        .status.canonical_reason().unwrap_or_default()
    )]
    Wordless {
        /// HTTP status.
        status: StatusCode,
        /// What was asked for.
        url: String,
    },
    /// The engine said something that is not in the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The connection broke.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Reading or writing failed on our side.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The answer is not the JSON that was expected.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl ClientError {
    /// The HTTP status, when the engine answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api { status, .. } | Self::Wordless { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The thing that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// No engine could be reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoSsh { .. })
    }
}
