//! What goes wrong between here and a registry.

use std::io;

use wharf_reference::Digest;

/// Result of this crate.
pub type Result<T, E = DistributionError> = std::result::Result<T, E>;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The registry has no such repository, manifest or blob.
    NotFound,
    /// Nobody, or nobody whom the registry knows, has asked.
    Unauthorized,
    /// Whoever has asked may not.
    Denied,
    /// What was asked, or what came back, is not of its form.
    Invalid,
    TooManyRequests,
    /// No answer: no address, no connection, no trust.
    Unreachable,
    /// The content is not what its name says.
    WrongDigest,
    /// The registry cannot do it.
    Unsupported,
    /// The registry failed, or this machine.
    Failed,
}

/// A failed operation on a registry. Where Docker has a text for it, the text is Docker's.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    #[error(transparent)]
    Refused(Refusal),
    #[error("{method} \"{url}\"")]
    Unreachable {
        /// `Get`, `Head`, … as Go writes it.
        method: String,
        url: String,
        #[source]
        source: ConnectError,
    },
    #[error("{method} \"{url}\": {reason}")]
    Redirect { method: String, url: String, reason: String },
    #[error("failed to GET {url} with status {status}")]
    Document { url: String, status: String },
    #[error("invalid realm in the challenge of {registry}: {reason}")]
    Realm { registry: String, reason: String },
    #[error("the token service of {registry} gave no token")]
    NoToken { registry: String },
    #[error("invalid registry address `{0}`")]
    Address(String),
    #[error("invalid answer of the registry: {0}")]
    Answer(String),
    #[error("invalid manifest: {0}")]
    InvalidManifest(String),
    #[error(
        "docker image manifest version 2, schema 1 is not supported: it is obsolete and cannot be verified; \
         push the image again with a current tool"
    )]
    Schema1,
    #[error("unknown manifest type `{0}`")]
    UnknownMediaType(String),
    #[error("the content has digest {found}, not {expected} as promised")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("blob {digest} has {found} bytes, not {expected} as promised")]
    WrongSize { digest: Digest, expected: u64, found: u64 },
    #[error("{mirrors} gave other content than {wanted}, and the next host")]
    Mirrors {
        mirrors: String,
        wanted: String,
        #[source]
        source: Box<DistributionError>,
    },
    #[error("cannot {action} `{path}`")]
    File {
        action: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the configuration `{path}` cannot be used: {reason}")]
    Hosts { path: String, reason: String },
    #[error("invalid certificate or key in `{path}`: {reason}")]
    Certificate { path: String, reason: String },
    #[error("cannot read the content that is to be pushed")]
    Content(#[source] io::Error),
}

impl DistributionError {
    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Mirrors { source, .. } => source.kind(),
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Redirect { .. } | Self::Document { .. } | Self::Realm { .. } | Self::NoToken { .. } => Kind::Failed,
            Self::Address(_) | Self::Answer(_) | Self::InvalidManifest(_) | Self::UnknownMediaType(_) => Kind::Invalid,
            Self::Schema1 => Kind::Unsupported,
            Self::WrongDigest { .. } | Self::WrongSize { .. } => Kind::WrongDigest,
            Self::File { .. } | Self::Hosts { .. } | Self::Certificate { .. } | Self::Content(_) => Kind::Failed,
        }
    }

    /// The message with what caused it, for whoever shows one line.
    pub fn message(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        text
    }

    /// The same failure with the mirrors that gave something wrong before it, if there were any.
    pub(crate) fn after_mirrors(self, wanted: &str, mirrors: &str) -> Self {
        match mirrors {
            "" => self,
            _ => Self::Mirrors { mirrors: mirrors.into(), wanted: wanted.into(), source: Box::new(self) },
        }
    }

    /// Whether the same request may well succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Unreachable { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// The registry's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The code of its error body, as `MANIFEST_UNKNOWN`; empty when there was none.
    pub code: String,
    pub message: String,
    /// What it was about, in front of the registry's own words.
    pub context: Option<String>,
    /// Seconds after which the registry wants to be asked again.
    pub retry_after: Option<u64>,
}

impl Refusal {
    fn kind(&self) -> Kind {
        match self.code.as_str() {
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" | "BLOB_UPLOAD_UNKNOWN" | "NOT_FOUND" => {
                Kind::NotFound
            }
            "UNAUTHORIZED" => Kind::Unauthorized,
            "DENIED" => Kind::Denied,
            "TOOMANYREQUESTS" => Kind::TooManyRequests,
            "UNSUPPORTED" => Kind::Unsupported,
            "NAME_INVALID"
            | "MANIFEST_INVALID"
            | "DIGEST_INVALID"
            | "SIZE_INVALID"
            | "TAG_INVALID"
            | "MANIFEST_BLOB_UNKNOWN"
            | "MANIFEST_UNVERIFIED" => Kind::Invalid,
            _ => match self.status {
                404 | 410 => Kind::NotFound,
                401 => Kind::Unauthorized,
                403 => Kind::Denied,
                429 => Kind::TooManyRequests,
                405 | 501 => Kind::Unsupported,
                400..=499 => Kind::Invalid,
                _ => Kind::Failed,
            },
        }
    }
}

impl std::error::Error for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(context) = &self.context {
            write!(f, "{context}: ")?;
        }
        if self.code.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.code.to_ascii_lowercase().replace('_', " "), self.message)
    }
}

/// Why there is no connection, or why it ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("dial tcp: lookup {host}: no such host")]
    NoSuchHost { host: String },
    #[error("dial tcp: lookup {host}: {reason}")]
    Lookup { host: String, reason: String },
    #[error("dial tcp {address}: connect: {reason}")]
    Dial { address: std::net::SocketAddr, reason: String },
    #[error("dial tcp {address}: i/o timeout")]
    DialTimeout { address: std::net::SocketAddr },
    #[error("{host} is at {address}, where no registry may send its clients")]
    Forbidden { host: String, address: std::net::IpAddr },
    #[error("http: server gave HTTP response to HTTPS client")]
    NotTls,
    #[error("tls: failed to verify certificate: {0}")]
    Untrusted(String),
    #[error("tls: {0}")]
    Tls(String),
    /// Whoever listens there ended, or said nothing: perhaps it does not know TLS.
    #[error("tls: handshake: {0}")]
    Handshake(String),
    /// Files on this machine, not the other side.
    #[error("{0}")]
    Settings(String),
    #[error("proxy {proxy}: {reason}")]
    Proxy { proxy: String, reason: String },
    #[error("the registry did not answer in time")]
    Timeout,
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl ConnectError {
    pub(crate) fn dial(address: std::net::SocketAddr, error: &io::Error) -> Self {
        Self::Dial { address, reason: reason(error) }
    }

    /// Whether trying again can help. What never answered is not asked again, so that a typing error in a
    /// registry's name is told at once.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout | Self::Lost(_))
    }
}

/// What the system says, as Go writes it: without the number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_dockers() {
        let refusal = Refusal {
            status: 404,
            code: "MANIFEST_UNKNOWN".into(),
            message: "manifest unknown".into(),
            context: Some("manifest for x:1 not found".into()),
            retry_after: None,
        };
        let error = DistributionError::Refused(refusal);
        assert_eq!(error.message(), "manifest for x:1 not found: manifest unknown: manifest unknown");
        assert_eq!(error.kind(), Kind::NotFound);
    }

    #[test]
    fn an_unreachable_registry_is_told_as_go_tells_it() {
        let error = DistributionError::Unreachable {
            method: "Get".into(),
            url: "http://127.0.0.1:1/v2/".into(),
            source: ConnectError::dial(([127, 0, 0, 1], 1).into(), &io::ErrorKind::ConnectionRefused.into()),
        };
        assert_eq!(
            error.message(),
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"
        );
    }
}
