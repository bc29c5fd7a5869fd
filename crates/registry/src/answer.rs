//! Answers: heads that all of them share, bodies from memory or from a file.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::task::JoinHandle;

use crate::error::ApiError;

/// Read at once: a few system calls per MiB, and twice that much memory for each download.
const CHUNK: u64 = 512 * 1024;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(crate) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

pub(crate) type Answer = Response<Body>;

/// A body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Bytes),
    File(FilePart),
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    bytes(status, "", Bytes::new())
}

/// An answer of bytes; without a type when `media_type` is empty.
pub(crate) fn bytes(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let length = body.len() as u64;
    let mut answer = Response::new(Body::Bytes(body));
    *answer.status_mut() = status;
    if !media_type.is_empty() {
        set(&mut answer, CONTENT_TYPE, media_type);
    }
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        set(&mut answer, CONTENT_LENGTH, &length.to_string());
    }
    set(&mut answer, API_VERSION, "registry/2.0");
    set(&mut answer, NOSNIFF, "nosniff");
    answer
}

/// An answer of the bytes `start` to `end` of a file.
pub(crate) fn file(status: StatusCode, file: File, start: u64, end: u64) -> Answer {
    let mut answer = bytes(status, "application/octet-stream", Bytes::new());
    set(&mut answer, CONTENT_LENGTH, &end.saturating_sub(start).to_string());
    *answer.body_mut() = Body::File(FilePart { file: Arc::new(file), next: start, end, reading: None });
    answer
}

pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Result<Answer, ApiError> {
    let text = serde_json::to_vec(value).map_err(io::Error::from)?;
    Ok(bytes(status, "application/json", text))
}

pub(crate) fn refusal(error: &ApiError) -> Answer {
    bytes(error.status(), "application/json", error.body())
}

/// Sets a header. What could be none has been checked before: names, digests and numbers are all there is.
pub(crate) fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// The bytes of a file from one offset to another. The next ones are read while those before are sent.
#[derive(Debug)]
pub(crate) struct FilePart {
    file: Arc<File>,
    next: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl FilePart {
    fn read(&mut self) -> Option<JoinHandle<io::Result<Vec<u8>>>> {
        let (file, offset, length) = (self.file.clone(), self.next, CHUNK.min(self.end - self.next));
        (length > 0).then(|| {
            self.next += length;
            tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; usize::try_from(length).unwrap_or(0)];
                file.read_exact_at(&mut chunk, offset)?;
                Ok(chunk)
            })
        })
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.reading.is_none() {
            self.reading = self.read();
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(reading).poll(cx));
        self.reading = self.read();
        Poll::Ready(Some(match ended {
            Ok(chunk) => chunk.map(Bytes::from),
            Err(error) => Err(io::Error::other(error)),
        }))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::File(part) => Poll::Ready(ready!(part.poll_chunk(cx)).map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::File(part) => part.reading.is_none() && part.next >= part.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // The header says it; this is only what is left, some of which is being read.
            Self::File(_) => SizeHint::default(),
        }
    }
}
