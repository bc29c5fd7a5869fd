use std::io;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::{JsonLines, Result};

/// The engine's answer. Its body is read as it comes.
#[derive(Debug)]
pub struct Response {
    /// HTTP status; always one of success (or 304), the others are errors.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    pub(crate) body: Incoming,
}

impl Response {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next bytes of the body if they are there already.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn chunk_now(&mut self) -> Result<Option<Bytes>> {
        let mut next = std::pin::pin!(self.chunk());
        std::future::poll_fn(|context| {
            Poll::Ready(match next.as_mut().poll(context) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => Ok(None),
            })
        })
        .await
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// The connection broke.
    pub async fn bytes(mut self) -> Result<Bytes> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    ///
    /// The connection broke, or the body is not the JSON that was expected.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_slice(&self.bytes().await?)?)
    }

    /// A body of JSON values, each given to `each` as soon as it is complete.
    ///
    /// # Errors
    ///
    /// The connection broke, the body is not JSON, or `each` failed.
    pub async fn for_each_json<E: From<crate::ClientError>>(
        mut self,
        mut each: impl FnMut(serde_json::Value) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut lines = JsonLines::default();
        while let Some(chunk) = self.chunk().await? {
            for value in lines.push(&chunk).map_err(crate::ClientError::from)? {
                each(value)?;
            }
        }
        if !lines.rest().is_empty() {
            return Err(crate::ClientError::Io(io::ErrorKind::UnexpectedEof.into()).into());
        }
        Ok(())
    }
}
