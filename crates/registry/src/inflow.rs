//! A request's body as it comes in: in pieces that are worth a write, never whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::error::{ApiError, Code};

/// Bytes that are written at once.
const PIECE: usize = 1024 * 1024;
/// A client that sends nothing for so long has gone, or holds the connection for nothing.
const IDLE: Duration = Duration::from_secs(60);

/// A body that is being received.
#[derive(Debug)]
pub(crate) struct Inflow {
    body: Incoming,
    /// The body was cut off behind what was given last; hyper says so once, and then that nothing more comes.
    cut_off: bool,
}

impl Inflow {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, cut_off: false }
    }

    /// What has come, at most about [`PIECE`] bytes; `None` at the end.
    ///
    /// # Errors
    /// `Timeout`; `BLOB_UPLOAD_INVALID` when the connection ends before the body.
    pub(crate) async fn piece(&mut self) -> Result<Option<Vec<Bytes>>, ApiError> {
        let mut piece = Vec::new();
        let mut length = 0;
        while length < PIECE && !self.cut_off {
            let frame = if piece.is_empty() {
                match tokio::time::timeout(IDLE, self.body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(Code::Timeout.into()),
                }
            } else {
                match self.ready().await {
                    Some(frame) => frame,
                    None => break,
                }
            };
            match frame {
                None => break,
                Some(Err(_)) => self.cut_off = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        length += data.len();
                        piece.push(data);
                    }
                }
            }
        }
        if piece.is_empty() && self.cut_off {
            return Err(ApiError::with_detail(Code::BlobUploadInvalid, "the content was cut off"));
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The next frame, if it is here.
    async fn ready(&mut self) -> Option<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
        poll_fn(|cx| match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// The whole body; `None` when it has more than `max` bytes.
    pub(crate) async fn whole(mut self, max: usize) -> Result<Option<Vec<u8>>, ApiError> {
        let mut all = Vec::new();
        if self.body.size_hint().lower() > max as u64 {
            return Ok(None);
        }
        while let Some(piece) = self.piece().await? {
            for bytes in piece {
                if all.len() + bytes.len() > max {
                    return Ok(None);
                }
                all.extend_from_slice(&bytes);
            }
        }
        Ok(Some(all))
    }
}
