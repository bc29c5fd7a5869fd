//! What the registry says no with (OCI distribution-spec, "Error Codes"), and what keeps it from running.

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;
use serde_json::{Value, json};
use wharf_report::chain;
use wharf_store::StoreError;

use crate::log;

/// A code, its message and its status. The messages are those of the distribution project: tools look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationInvalid,
    RangeInvalid,
    SizeInvalid,
    TagInvalid,
    TooMany,
    TooLarge,
    Unauthorized,
    Denied,
    Unsupported,
    Timeout,
    Full,
    Unknown,
}

impl Code {
    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::BlobUnknown => (404, "BLOB_UNKNOWN", "blob unknown to registry"),
            Self::BlobUploadInvalid => (400, "BLOB_UPLOAD_INVALID", "blob upload invalid"),
            Self::BlobUploadUnknown => (404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
            Self::DigestInvalid => (400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
            Self::ManifestBlobUnknown => (400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"),
            Self::ManifestInvalid => (400, "MANIFEST_INVALID", "manifest invalid"),
            Self::ManifestUnknown => (404, "MANIFEST_UNKNOWN", "manifest unknown"),
            Self::NameInvalid => (400, "NAME_INVALID", "invalid repository name"),
            Self::NameUnknown => (404, "NAME_UNKNOWN", "repository name not known to registry"),
            Self::PaginationInvalid => (400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested"),
            Self::RangeInvalid => (416, "RANGE_INVALID", "invalid content range"),
            Self::SizeInvalid => (400, "SIZE_INVALID", "provided length did not match content length"),
            Self::TagInvalid => (400, "TAG_INVALID", "manifest tag did not match URI"),
            Self::TooMany => (429, "TOOMANYREQUESTS", "too many requests"),
            Self::TooLarge => (413, "SIZE_INVALID", "the manifest is larger than is allowed"),
            Self::Unauthorized => (401, "UNAUTHORIZED", "authentication required"),
            Self::Denied => (403, "DENIED", "requested access to the resource is denied"),
            Self::Unsupported => (405, "UNSUPPORTED", "The operation is unsupported."),
            Self::Timeout => (408, "BLOB_UPLOAD_INVALID", "the content did not come in time"),
            Self::Full => (507, "UNKNOWN", "the disk of the registry is full"),
            Self::Unknown => (500, "UNKNOWN", "unknown error"),
        }
    }
}

/// A refused request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    code: Code,
    detail: Value,
}

impl ApiError {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, detail: Value::Null }
    }

    pub(crate) fn with_detail(code: Code, detail: impl Into<Value>) -> Self {
        Self { code, detail: detail.into() }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.parts().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `{"errors":[{"code":…,"message":…,"detail":…}]}`.
    pub(crate) fn body(&self) -> Vec<u8> {
        let (_, code, message) = self.code.parts();
        let mut error = json!({"code": code, "message": message});
        if !self.detail.is_null() {
            error["detail"] = self.detail.clone();
        }
        format!("{}\n", json!({"errors": [error]})).into_bytes()
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoBlob(_) => Code::BlobUnknown.into(),
            StoreError::WrongDigest { .. } => Code::DigestInvalid.into(),
            StoreError::Full { .. } => Code::Full.into(),
            // The reason is the owner's to know, not the client's.
            other => {
                log_failure(&other);
                Code::Unknown.into()
            }
        }
    }
}

impl From<io::Error> for ApiError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            return Code::Full.into();
        }
        log_failure(&error);
        Code::Unknown.into()
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        log_failure(&error);
        Code::Unknown.into()
    }
}

fn log_failure(error: &dyn std::error::Error) {
    log::note(format_args!("{}", chain(error)));
}

/// Why a registry does not run.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("invalid address `{0}`: it must be ADDRESS:PORT, as 127.0.0.1:5000")]
    Address(String),
    #[error("cannot {action} `{}`", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("invalid certificate or key in `{}`: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("`{}`, line {line}: {reason}", path.display())]
    Passwords { path: PathBuf, line: usize, reason: String },
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_specified_form() {
        let error = ApiError::with_detail(Code::ManifestUnknown, json!({"Tag": "x"}));
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
        let expected = json!({"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {"Tag": "x"}});
        assert_eq!(body, json!({"errors": [expected]}));
        assert_eq!(error.status(), 404);
    }
}
