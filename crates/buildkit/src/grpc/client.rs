//! Calls that are made.

use std::pin::Pin;

use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Budget, Code, Messages, Outgoing, Sender, Status, framed};

const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// A client of which nothing has come for so long in a call is asked whether it is there. gRPC's servers in Go hang up on those
/// who ask more often than every five minutes.
const QUIET: std::time::Duration = std::time::Duration::from_secs(330);
/// And has so long to answer: one that is stopped holds what it was to take no longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Somebody who answers calls on a connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Callee {
    requests: SendRequest<Outgoing>,
    budget: Budget,
}

type Answering = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// The messages of an answer. Dropped before its end, the call is called off.
pub(crate) struct Answers {
    /// Until its head has come.
    answering: Option<Answering>,
    messages: Option<Messages>,
    budget: Budget,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl Answers {
    /// The next one; nothing when the call has ended well.
    ///
    /// # Errors
    /// How the call has ended, if not well.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if let Some(answering) = self.answering.as_mut() {
            let answered = answering.await;
            self.answering = None;
            let response = answered.map_err(|e| gone(&e))?;
            if let Some(status) = Status::of(response.headers()) {
                return Err(status);
            }
            if response.status() != StatusCode::OK {
                return Err(Status::new(Code::Unknown, format!("the client answers {}", response.status())));
            }
            self.messages = Some(Messages::new(response.into_body(), &self.budget));
        }
        let Some(messages) = &mut self.messages else { return Ok(None) };
        if let Some(message) = messages.next().await? {
            return Ok(Some(message));
        }
        messages.status().map_or(Ok(None), Err)
    }
}

fn gone(error: &hyper::Error) -> Status {
    Status::unavailable(format!("the client has gone: {}", wharf_report::chain(error)))
}

impl Callee {
    /// Makes a connection one for calls. The future is its work, and ends with it.
    ///
    /// # Errors
    /// When the other end speaks something else.
    pub(crate) async fn connect(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> hyper::Result<(Self, impl Future<Output = hyper::Result<()>> + Send + 'static)> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(QUIET)
            .keep_alive_timeout(PATIENCE)
            .handshake(TokioIo::new(io))
            .await?;
        Ok((Self { requests: sender, budget: Budget::default() }, connection))
    }

    fn call(&self, path: &str, metadata: &[(String, String)], body: Outgoing) -> Result<Answers, Status> {
        let bad = |what: String| Status::invalid(format!("a call cannot be made: {what}"));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = format!("http://localhost{path}").parse().map_err(|e| bad(format!("{path}: {e}")))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in metadata {
            let name: HeaderName = name.parse().map_err(|e| bad(format!("{name}: {e}")))?;
            let value = HeaderValue::from_str(value).map_err(|e| bad(format!("{name}: {e}")))?;
            headers.append(name, value);
        }
        let mut sender = self.requests.clone();
        let answering: Answering = Box::pin(async move {
            sender.ready().await?;
            sender.send_request(request).await
        });
        Ok(Answers { answering: Some(answering), messages: None, budget: self.budget.clone() })
    }

    /// A call of one message that is answered by one.
    ///
    /// # Errors
    /// How it has ended.
    pub(crate) async fn unary<A: Message + Default>(&self, path: &str, question: &impl Message) -> Result<A, Status> {
        let mut answers = self.call(path, &[], Outgoing::question(framed(question)))?;
        let answer = answers.next().await?;
        answer.ok_or_else(|| Status::new(Code::Internal, format!("{path} has no answer")))
    }

    /// A call of one message that is answered by several.
    ///
    /// # Errors
    /// When the headers cannot be sent.
    pub(crate) fn asked(
        &self,
        path: &str,
        metadata: &[(String, String)],
        question: &impl Message,
    ) -> Result<Answers, Status> {
        self.call(path, metadata, Outgoing::question(framed(question)))
    }

    /// A call of several messages that is answered by several. The questions end when the sender is dropped; they go out as
    /// soon as answers are waited for.
    ///
    /// # Errors
    /// When the headers cannot be sent.
    pub(crate) fn both(&self, path: &str, metadata: &[(String, String)]) -> Result<(Sender, Answers), Status> {
        let (sender, body) = Outgoing::stream(false);
        Ok((sender, self.call(path, metadata, body)?))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::grpc::server;
    use crate::proto::Piece;

    /// Somebody who takes one message of each call and works on it for ever.
    async fn callee() -> Callee {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(server::serve(theirs, |call| {
            call.unary(|_: Piece| std::future::pending::<Result<Piece, Status>>())
        }));
        let (callee, connection) = Callee::connect(ours).await.unwrap();
        tokio::spawn(connection);
        callee
    }

    async fn first_refused(calls: Vec<Answers>) -> Status {
        let mut calls: tokio::task::JoinSet<_> =
            calls.into_iter().map(|mut call| async move { call.next::<Piece>().await.unwrap_err() }).collect();
        calls.join_next().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn messages_of_one_connection_are_bounded_together() {
        let size = 12 << 20;
        // Such as have come whole and are worked on, and such as never end.
        let whole = framed(&Piece { data: vec![0; size].into() });
        let mut half = whole[..size].to_vec();
        half[4] = half[4].wrapping_add(200);
        for message in [whole, Bytes::from(half)] {
            let callee = callee().await;
            let calls = (0..7).map(|_| callee.call("/a/b", &[], Outgoing::unended(message.clone())).unwrap());
            let refused = first_refused(calls.collect()).await;
            assert!(refused.is(Code::ResourceExhausted), "{refused:?}");
        }
    }
}
