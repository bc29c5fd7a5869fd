//! A registry's answers: bodies that are small, and what its refusals mean.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;

use crate::challenge::challenges;
use crate::error::{ConnectError, DistributionError, Refusal, Result};
use crate::transport::unreachable;

/// Error bodies are read so far; what is longer is no message.
const MAX_ERROR: u64 = 64 * 1024;
/// No byte of a small body for so long: the connection is lost.
const IDLE: Duration = Duration::from_secs(30);

/// An answer, from wherever redirects led.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads a body of at most `max` bytes.
    pub(crate) async fn bytes(mut self, max: u64) -> Result<Bytes> {
        let (method, uri) = (self.method.clone(), self.uri.clone());
        let lost = |source| unreachable(&method, &uri, source);
        let mut all = Vec::new();
        loop {
            let frame = match tokio::time::timeout(IDLE, self.body.frame()).await {
                Err(_) => return Err(lost(ConnectError::Timeout)),
                Ok(None) => return Ok(all.into()),
                Ok(Some(Err(error))) => return Err(lost(ConnectError::Lost(error.to_string()))),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data() {
                if (all.len() + data.len()) as u64 > max {
                    return Err(DistributionError::Answer(format!("it is larger than {max} bytes")));
                }
                all.extend_from_slice(&data);
            }
        }
    }

    /// The error that this answer is.
    pub(crate) async fn refusal(self) -> DistributionError {
        let (status, headers) = (self.status, self.headers.clone());
        // Without a body that can be read the status has to do.
        let body = self.bytes(MAX_ERROR).await.unwrap_or_default();
        DistributionError::Refused(refusal(status, &headers, &body))
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    /// Docker Hub's token service.
    #[serde(default)]
    details: Option<String>,
    /// OAuth 2 (RFC 6749, section 5.2).
    #[serde(default)]
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let by_status = match status.as_u16() {
        401 => ("UNAUTHORIZED", "authentication required"),
        403 => ("DENIED", "requested access to the resource is denied"),
        429 => ("TOOMANYREQUESTS", "too many requests"),
        _ => ("", ""),
    };
    let of_challenge = challenges(headers).into_iter().filter(|challenge| challenge.scheme == "bearer").find_map(|c| {
        // RFC 6750, section 3.1. Docker Hub says no with it to private and to missing repositories.
        let (code, message) = match c.parameter("error")? {
            "invalid_token" => ("UNAUTHORIZED", "authentication required"),
            "insufficient_scope" => ("DENIED", "requested access to the resource is denied"),
            _ => return None,
        };
        Some((code.to_owned(), c.parameter("error_description").unwrap_or(message).to_owned()))
    });
    let parsed: Option<ErrorBody> = serde_json::from_slice(body).ok();
    let of_body = parsed.and_then(|body| {
        if let Some(first) = body.errors.into_iter().next() {
            let code = if first.code.is_empty() { "UNKNOWN".into() } else { first.code };
            let message = if first.message.is_empty() { by_status.1.to_owned() } else { first.message };
            return Some((code, message));
        }
        let details = body.details.or(body.error_description).filter(|details| !details.is_empty())?;
        Some((by_status.0.to_owned(), details))
    });
    let (code, message) = of_challenge
        .or(of_body)
        .or_else(|| (!by_status.0.is_empty()).then(|| (by_status.0.to_owned(), by_status.1.to_owned())))
        .unwrap_or_else(|| (String::new(), format!("received unexpected HTTP status: {status}")));
    Refusal {
        status: status.as_u16(),
        code: clean(&code, 64),
        message: clean(&message, 1024),
        context: None,
        retry_after: headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse().ok()),
    }
}

/// It ends on terminals: no control characters, and an end.
fn clean(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderValue, WWW_AUTHENTICATE};

    fn text(status: u16, challenge: Option<&'static str>, body: &str) -> String {
        let mut headers = HeaderMap::new();
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        refusal(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()).to_string()
    }

    #[test]
    fn refusals_are_told_in_dockers_words() {
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(text(404, None, unknown), "manifest unknown: manifest unknown");
        assert_eq!(text(401, None, ""), "unauthorized: authentication required");
        assert_eq!(
            text(401, None, r#"{"details":"incorrect username or password"}"#),
            "unauthorized: incorrect username or password"
        );
        assert_eq!(
            text(401, Some(r#"Bearer realm="x",error="insufficient_scope""#), ""),
            "denied: requested access to the resource is denied"
        );
        assert_eq!(text(500, None, "<html>"), "received unexpected HTTP status: 500 Internal Server Error");
        assert_eq!(text(404, None, "{\"errors\":[{\"code\":\"X\\u001b[2J\",\"message\":\"\\u0007m\"}]}"), "x[2j: m");
    }
}
