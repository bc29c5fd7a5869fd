//! Bodies that are made a piece at a time, when there is room for it on the way to the client: nothing waits in memory
//! for a client that reads slowly, and one that waits costs no task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame};

use crate::http::{Answer, with_type};

/// An answer whose pieces `next` makes, each out of what the one before has left, until there is none.
pub(crate) fn pulled<S, F, Making>(content_type: &'static str, state: S, mut next: F) -> Answer
where
    F: FnMut(S) -> Making + Send + Unpin + 'static,
    Making: Future<Output = Option<(Bytes, S)>> + Send + 'static,
{
    let making = Some(Box::pin(next(state)));
    with_type(Response::new(Pulled { making, next }.boxed_unsync()), content_type)
}

struct Pulled<F, Making> {
    next: F,
    /// The next piece; `None` after the last.
    making: Option<Pin<Box<Making>>>,
}

impl<S, F, Making> Body for Pulled<F, Making>
where
    F: FnMut(S) -> Making + Unpin,
    Making: Future<Output = Option<(Bytes, S)>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let Some(making) = &mut this.making else { return Poll::Ready(None) };
        let Some((bytes, state)) = ready!(making.as_mut().poll(context)) else {
            this.making = None;
            return Poll::Ready(None);
        };
        // In the same place on the heap.
        making.set((this.next)(state));
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn pieces_are_made_when_they_are_asked_for() {
        let made = Arc::new(AtomicU32::new(0));
        let counting = Arc::clone(&made);
        let next = move |left: u32| {
            let counting = Arc::clone(&counting);
            async move {
                let left = left.checked_sub(1)?;
                counting.fetch_add(1, Ordering::Relaxed);
                Some((Bytes::from(left.to_string()), left))
            }
        };
        let mut body = pulled("text/plain", 3, next).into_body();
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "2");
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "10");
    }
}
