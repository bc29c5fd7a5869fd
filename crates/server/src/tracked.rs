//! A body whose answer is told of as under way, and that makes no more than its client reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::connection::Answers;

/// A body whose answer is under way, and told of as such, until it is dropped. It is asked for more when the client has
/// read what there was.
#[derive(Debug)]
pub(crate) struct Tracked<B, W> {
    body: B,
    answers: Answers,
    _until_dropped: W,
}

impl<B, W> Tracked<B, W> {
    pub(crate) fn new(body: B, answers: Answers, until_dropped: W) -> Self {
        Self { body, answers, _until_dropped: until_dropped }
    }
}

impl<B: Body<Data = Bytes> + Unpin, W: Unpin> Body for Tracked<B, W> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ready!(self.answers.poll_room(context, self.body.size_hint().exact().is_some()));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            self.answers.given(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::backlog::Backlog;
    use crate::connection::Connection;

    /// Bytes without a length, as an answer that is made while it is sent.
    struct Stream(usize);

    impl Body for Stream {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.0 += 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1000])))))
        }
    }

    #[tokio::test]
    async fn all_answers_together_have_room_and_who_does_not_read_loses_it() {
        static ROOM: Backlog = Backlog::new(3000);
        let frame = |body: &mut Tracked<Stream, ()>| {
            let mut context = Context::from_waker(Waker::noop());
            Pin::new(body).poll_frame(&mut context).is_ready()
        };
        let (one, two) = (Answers::within(&ROOM), Answers::within(&ROOM));
        let mut first = Tracked::new(Stream(0), one.clone(), ());
        let mut second = Tracked::new(Stream(0), two, ());
        assert!(frame(&mut first) && frame(&mut first) && frame(&mut second));
        assert!(!frame(&mut first) && !frame(&mut second));
        // What is there already waits for nobody.
        let whole = http_body_util::Full::new(Bytes::from_static(b"all"));
        let mut whole = Tracked::new(whole, Answers::within(&ROOM), ());
        assert!(Pin::new(&mut whole).poll_frame(&mut Context::from_waker(Waker::noop())).is_ready());

        // The first one's client reads nothing.
        let (_client, server) = tokio::io::duplex(8);
        let mut connection = Connection::new(server, one);
        assert_eq!(connection.write(&[0; 100]).await.unwrap(), 8);
        let stopped = connection.write(&[0; 100]).await.unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::TimedOut);
        drop((connection, first));
        assert!(frame(&mut second) && frame(&mut second));
    }
}
