//! `GET /containers/{id}/attach/ws`: a container's streams over a websocket (RFC 6455).
//!
//! - `frame`: the protocol's frames, pure. `bridge`: both directions, with pings and the closing handshake.
//!
//! Docker sends output without stdcopy's headers here: whoever talks to a terminal in a browser wants plain bytes.

mod bridge;
mod frame;

use base64::Engine as _;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::http::{Answer, ApiError, empty};

pub(crate) use bridge::Output;

/// RFC 6455, section 1.3.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request opens a websocket, and the answer to its key.
///
/// # Errors
/// 400 when it does not, 426 for another version of the protocol.
pub(crate) fn handshake(headers: &HeaderMap) -> Result<String, ApiError> {
    let has = |name, word: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .flat_map(|text| text.split(','))
            .any(|text| text.trim().eq_ignore_ascii_case(word))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return Err(ApiError::bad("this endpoint speaks websocket: an upgrade is needed"));
    }
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "only version 13 of the websocket protocol is spoken"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().trim();
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    if !decoded.is_ok_and(|bytes| bytes.len() == 16) {
        return Err(ApiError::bad("invalid Sec-WebSocket-Key"));
    }
    Ok(accept(key))
}

fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(MAGIC).finalize();
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Answers a request whose key was answered by [`handshake`] with a container's streams.
pub(crate) fn attach(
    request: Request<Incoming>,
    accept: &str,
    streams: Option<UnixStream>,
    before: mpsc::Receiver<bytes::Bytes>,
    output: Output,
) -> Answer {
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => bridge::run(TokioIo::new(upgraded), streams, before, output).await,
            Err(error) => tracing::debug!("the client did not go on: {error}"),
        }
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_key_is_answered_as_the_standard_says() {
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        // The example of RFC 6455, section 1.3.
        assert_eq!(handshake(&headers(&good)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for left_out in 0..good.len() {
            let mut bad = good.to_vec();
            bad.remove(left_out);
            assert!(handshake(&headers(&bad)).is_err(), "{left_out}");
        }
        let mut short = good;
        short[3].1 = "AAAA";
        assert!(handshake(&headers(&short)).is_err());
    }
}
