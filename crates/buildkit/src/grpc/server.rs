//! Calls that are answered.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Budget, Messages, Outgoing, Sender, Status, framed};

/// Calls of one connection at once. A client has a handful.
const MAX_CALLS: u32 = 256;
/// Bytes that may be under way to us: of a call, and of a connection.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

pub(crate) type Answer = Response<Outgoing>;

/// A call that has come.
#[derive(Debug)]
pub(crate) struct Call {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Messages,
}

impl Call {
    /// What the headers say under a name; the first, if there are several.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Answers a call of one message by one. The work is dropped when the client calls it off.
    pub(crate) async fn unary<Q, A, F>(mut self, work: impl FnOnce(Q) -> F) -> Answer
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Status>>,
    {
        let question = match self.messages.next().await {
            Ok(question) => question.unwrap_or_default(),
            Err(status) => return failed(status),
        };
        answer(Outgoing::one(work(question).await.map(|answer| framed(&answer))))
    }

    /// Answers a call of one message by several, which `work` sends beside this.
    pub(crate) async fn streamed<Q, F>(mut self, work: impl FnOnce(Q, Sender) -> F) -> Answer
    where
        Q: Message + Default,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        match self.messages.next().await {
            Ok(question) => {
                let (sender, body) = Outgoing::stream(true);
                let working = work(question.unwrap_or_default(), sender.clone());
                // The question counts as long as it is worked on.
                let messages = self.messages;
                tokio::spawn(async move {
                    finishing(sender, working).await;
                    drop(messages);
                });
                answer(body)
            }
            Err(status) => failed(status),
        }
    }

    /// Answers a call of several messages by several.
    pub(crate) fn both<F>(self, work: impl FnOnce(HeaderMap, Messages, Sender) -> F) -> Answer
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (sender, body) = Outgoing::stream(true);
        let working = work(self.headers, self.messages, sender.clone());
        tokio::spawn(finishing(sender, working));
        answer(body)
    }
}

/// Works until that has ended or nobody hears of it any more.
async fn finishing(sender: Sender, working: impl Future<Output = Result<(), Status>>) {
    let done = tokio::select! {
        done = working => done,
        () = sender.closed() => return,
    };
    if let Err(status) = done {
        sender.fail(status).await;
    }
}

pub(crate) fn failed(status: Status) -> Answer {
    answer(Outgoing::one(Err(status)))
}

fn answer(body: Outgoing) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// Serves the calls of a connection until it is closed.
pub(crate) async fn serve<F>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    route: impl Fn(Call) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let budget = Budget::default();
    let service = service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let answering = route(Call { path, headers: parts.headers, messages: Messages::new(body, &budget) });
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        // A client that went away: its own business.
        tracing::debug!("connection of calls: {error}");
    }
}
