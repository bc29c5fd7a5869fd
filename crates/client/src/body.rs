use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// What a request carries.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes that are all there.
    Full(Bytes),
    /// Bytes that come while they are sent; see [`Body::channel`].
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

/// The writing end of a streamed body. Dropped: the body's end.
#[derive(Clone, Debug)]
pub struct BodySender(mpsc::Sender<io::Result<Bytes>>);

impl Body {
    /// A body that is written while it is sent. The writer waits when the engine does not keep up.
    pub fn channel() -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(8);
        (BodySender(sender), Self::Stream(receiver))
    }
}

impl BodySender {
    /// Sends a chunk.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when nobody reads the body any more.
    pub async fn send(&self, chunk: Bytes) -> io::Result<()> {
        self.0.send(Ok(chunk)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Breaks the request off: the engine must not take the part for the whole.
    pub async fn fail(&self, error: io::Error) {
        let _ = self.0.send(Err(error)).await;
    }

    /// The same for a writer that is not in async code.
    pub fn blocking(self) -> impl io::Write + Send {
        Blocking(self.0)
    }
}

struct Blocking(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(receiver) => receiver.poll_recv(context).map(|chunk| chunk.map(|c| c.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
