//! What is sent: bytes that are here, or a part of a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Read at once: some system calls per MiB, and no more memory than that for each upload.
const CHUNK: u64 = 256 * 1024;

/// A request's body.
#[derive(Debug)]
pub(crate) enum Payload {
    Bytes(Bytes),
    File(FilePart),
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// The bytes of a file from one offset to another. It reads by position, so that a second attempt does not
/// disturb one that is still being given up.
#[derive(Debug)]
pub(crate) struct FilePart {
    file: Arc<File>,
    next: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// Hears how far the reading is.
    progress: watch::Sender<u64>,
}

impl FilePart {
    pub(crate) fn new(file: Arc<File>, start: u64, end: u64, progress: watch::Sender<u64>) -> Self {
        Self { file, next: start, end, reading: None, progress }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.next >= self.end {
            return Poll::Ready(None);
        }
        let Self { file, next, end, reading, .. } = self;
        let task = reading.get_or_insert_with(|| {
            let (file, offset, length) = (file.clone(), *next, CHUNK.min(*end - *next));
            tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; usize::try_from(length).unwrap_or(0)];
                file.read_exact_at(&mut chunk, offset)?;
                Ok(chunk)
            })
        });
        let ended = ready!(Pin::new(task).poll(cx));
        self.reading = None;
        Poll::Ready(Some(match ended {
            Ok(Ok(chunk)) => {
                self.next += chunk.len() as u64;
                self.progress.send_replace(self.next);
                Ok(chunk.into())
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }))
    }
}

impl Body for Payload {
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
            Self::File(part) => part.next >= part.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.end.saturating_sub(part.next),
        })
    }
}
