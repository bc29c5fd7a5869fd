//! gRPC over HTTP/2 connections that are there already: both as the server and as the client.
//!
//! Source: grpc/grpc `doc/PROTOCOL-HTTP2.md`. A message is a byte that tells whether it is compressed, its length (u32, big
//! endian) and its bytes; how a call has ended is in the trailers.

mod body;
mod budget;
pub(crate) mod client;
pub(crate) mod server;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use prost::Message;

use crate::proto::{Any, RpcStatus};

pub(crate) use body::{Outgoing, Sender};
use budget::{Budget, Share};

/// A longer message is refused. BuildKit's own bound.
const MAX_MESSAGE: usize = 16 << 20;
const PREFIX: usize = 5;
/// What stands as `%XX` in a message of how a call ended, beside what is no ASCII.
const UNSAFE: &AsciiSet = &CONTROLS.add(b'%');

/// How a call has ended, if not well. Codes: grpc/grpc `doc/statuscodes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// A failed call: `google.rpc.Status`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status(pub(crate) Box<RpcStatus>);

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(RpcStatus { code: code as i32, message: message.into(), details: Vec::new() }))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// What is not supported. Of no kind, as BuildKit's: its clients write a kind before the message, and take
    /// [`Self::unimplemented`] for a method that is not there.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    pub(crate) fn with(mut self, detail: Any) -> Self {
        self.0.details.push(detail);
        self
    }

    pub(crate) fn is(&self, code: Code) -> bool {
        self.0.code == code as i32
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The status that a call's last headers tell; nothing when it has ended well.
    fn of(headers: &HeaderMap) -> Option<Self> {
        use base64::Engine as _;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code: i32 = text("grpc-status")?.parse().unwrap_or(Code::Unknown as i32);
        if code == 0 {
            return None;
        }
        let details = text("grpc-status-details-bin").and_then(|bytes| {
            let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(bytes.trim_end_matches('=')).ok()?;
            RpcStatus::decode(bytes.as_slice()).ok()
        });
        let message = percent_decode_str(text("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
        Some(Self(Box::new(details.unwrap_or(RpcStatus { code, message, details: Vec::new() }))))
    }

    fn trailers(&self) -> HeaderMap {
        use base64::Engine as _;
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", self.0.code.into());
        // Longer headers are refused by clients.
        let message: String = self.0.message.chars().take(4096).collect();
        if let Ok(value) = utf8_percent_encode(&message, UNSAFE).to_string().parse() {
            headers.insert("grpc-message", value);
        }
        if !self.0.details.is_empty() {
            let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(self.0.encode_to_vec());
            if let Ok(value) = details.parse() {
                headers.insert("grpc-status-details-bin", value);
            }
        }
        headers
    }
}

/// A message with what comes before it.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // There is room.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// The messages that come in a body.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Incoming,
    buffer: BytesMut,
    /// What is in the buffer, and the message that was given last.
    share: Share,
    /// The bytes of that.
    given: usize,
    ended: bool,
    /// What the trailers say.
    trailers: Option<HeaderMap>,
}

impl Messages {
    fn new(body: Incoming, budget: &Budget) -> Self {
        let share = Share::of(budget);
        Self { body, buffer: BytesMut::new(), share, given: 0, ended: false, trailers: None }
    }

    /// The next one; nothing at the end. It counts against what the connection may have here until the one after it is asked
    /// for, or this is dropped.
    ///
    /// # Errors
    /// When it is none, too long, or the connection has ended or has too much here.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        self.share.give_back(std::mem::take(&mut self.given));
        loop {
            if let Some(bytes) = self.take()? {
                let message = M::decode(bytes);
                return message.map(Some).map_err(|e| Status::new(Code::Internal, format!("no such message: {e}")));
            }
            if self.ended {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Status::new(Code::Internal, "a message ends in the middle")),
                };
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(error)) => {
                    let what = wharf_report::chain(&error);
                    return Err(Status::unavailable(format!("the client has gone: {what}")));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.share.take(data.len())?;
                        self.buffer.extend_from_slice(&data);
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let [compressed, a, b, c, d, ..] = self.buffer[..] else { return Ok(None) };
        if compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not read"));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_MESSAGE {
            let message = format!("a message has {length} bytes, and may have {MAX_MESSAGE}");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        self.given = PREFIX + length;
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// How the call has ended, once all messages have come.
    fn status(&self) -> Option<Status> {
        self.trailers.as_ref().and_then(Status::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let status =
            Status::invalid("100 % wrong: zwölf\n").with(Any { type_url: "a/b".into(), value: vec![1, 2, 255] });
        assert_eq!(Status::of(&status.trailers()), Some(status));
        let plain = Status::new(Code::NotFound, "zwölf %41 %");
        assert_eq!(Status::of(&plain.trailers()), Some(plain));
        assert_eq!(Status::of(&HeaderMap::new()), None);
    }
}
