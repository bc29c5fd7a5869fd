//! The messages that go out in a body.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use prost::Message;
use tokio::sync::mpsc;

use super::{Status, framed};

/// Messages that wait for room on the connection.
const WAITING: usize = 16;

/// A body of messages, with the status behind them where a server sends them.
#[derive(Debug)]
pub(crate) struct Outgoing {
    first: Option<Bytes>,
    messages: Option<mpsc::Receiver<Result<Bytes, Status>>>,
    /// Trailers that are still to come.
    status: Option<Option<Status>>,
}

/// Where they are put.
#[derive(Clone, Debug)]
pub(crate) struct Sender(mpsc::Sender<Result<Bytes, Status>>);

impl Sender {
    /// Waits for room. False when nobody reads any more.
    pub(crate) async fn send(&self, message: &impl Message) -> bool {
        self.0.send(Ok(framed(message))).await.is_ok()
    }

    /// Ends the call.
    pub(crate) async fn fail(&self, status: Status) {
        let _ = self.0.send(Err(status)).await;
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Outgoing {
    /// The answer to a call that has one.
    pub(super) fn one(answer: Result<Bytes, Status>) -> Self {
        let (first, status) = match answer {
            Ok(bytes) => (Some(bytes), None),
            Err(status) => (None, Some(status)),
        };
        Self { first, messages: None, status: Some(status) }
    }

    /// One message and no status: what a client sends.
    pub(super) fn question(message: Bytes) -> Self {
        Self { first: Some(message), messages: None, status: None }
    }

    /// Bytes with no end behind them.
    #[cfg(test)]
    pub(super) fn unended(bytes: Bytes) -> Self {
        let (sender, messages) = mpsc::channel(1);
        // Never dropped, it never ends.
        std::mem::forget(sender);
        Self { first: Some(bytes), messages: Some(messages), status: None }
    }

    /// Messages as they come; a server's with `trailers`.
    pub(super) fn stream(trailers: bool) -> (Sender, Self) {
        let (sender, messages) = mpsc::channel(WAITING);
        let status = trailers.then_some(None);
        (Sender(sender), Self { first: None, messages: Some(messages), status })
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(messages) = &mut this.messages {
            match ready!(messages.poll_recv(context)) {
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Err(status)) => {
                    this.messages = None;
                    this.status = this.status.take().map(|_| Some(status));
                }
                None => this.messages = None,
            }
        }
        Poll::Ready(this.status.take().map(|status| {
            Ok(Frame::trailers(match status {
                Some(status) => status.trailers(),
                None => HeaderMap::from_iter([(
                    hyper::header::HeaderName::from_static("grpc-status"),
                    hyper::header::HeaderValue::from_static("0"),
                )]),
            }))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.messages.is_none() && self.status.is_none()
    }
}
