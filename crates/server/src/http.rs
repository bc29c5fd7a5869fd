//! Bodies, answers and errors.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use wharf_distribution::Document;
use wharf_engine::{EngineError, ErrorKind};

use crate::go_json::{as_go_reads, syntax_error};
use crate::lenient::lenient;
use crate::objects::{Objects, in_go_s_words};
use crate::patient;
use crate::room::{Held, PATIENCE, room};

/// A body that fails has its connection closed in the middle: the one way to say so after the head has gone out.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Pieces of an archive that wait for who writes or reads it; each has up to some 400 KiB.
const PIECES: usize = 2;

/// A JSON body is no larger than this.
const MAX_JSON: usize = 4 << 20;
/// What comes beyond that is read and dropped up to here, because a client that is still writing when the connection
/// closes sees a broken pipe and not the answer.
const MAX_DROPPED: usize = 16 * MAX_JSON;
/// And takes no longer.
const JSON_TIMEOUT: Duration = Duration::from_secs(60);

/// A failed request: a status and Docker's `{"message": …}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: wharf_report::words(message.into()) }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The message as a line of text.
    pub(crate) fn into_text(self, content_type: &'static str) -> Answer {
        let mut answer = whole(Bytes::from(format!("{}\r\n", self.message)));
        *answer.status_mut() = self.status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer
    }

    pub(crate) fn answer(self) -> Answer {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        let mut answer = json_answer(self.status, &json!({ "message": self.message }));
        answer.headers_mut().insert("Cache-Control", HeaderValue::from_static("no-store"));
        answer
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match error.kind {
            ErrorKind::InvalidParameter => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::System => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

impl From<wharf_image::ImageError> for ApiError {
    fn from(error: wharf_image::ImageError) -> Self {
        EngineError::from(error).into()
    }
}

fn whole(bytes: Bytes) -> Answer {
    Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = whole(Bytes::new());
    *answer.status_mut() = status;
    answer
}

pub(crate) fn no_content() -> Answer {
    empty(StatusCode::NO_CONTENT)
}

/// The same is at another path.
pub(crate) fn moved(path: &str, query: Option<&str>) -> Answer {
    let place = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut answer = empty(StatusCode::MOVED_PERMANENTLY);
    if let Ok(value) = HeaderValue::from_str(&place) {
        answer.headers_mut().insert(LOCATION, value);
    }
    answer
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = whole(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

pub(crate) fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    bytes.push(b'\n');
    let mut answer = whole(Bytes::from(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(crate) fn ok(value: &impl Serialize) -> Answer {
    json_answer(StatusCode::OK, value)
}

/// The body of a request, as a JSON object; an empty one is `T`'s default. `go` is what Go calls its type.
pub(crate) async fn read_json<T: DeserializeOwned + Default>(
    request: &mut Request<Incoming>,
    go: &str,
) -> Result<T, ApiError> {
    match read_value(request).await? {
        Value::Null => Ok(T::default()),
        value => typed(value, go),
    }
}

/// The body of a request as JSON that nobody has looked at yet; `null` when nothing was said.
pub(crate) async fn read_value(request: &mut Request<Incoming>) -> Result<Value, ApiError> {
    read_exactly(request).await.map(lenient)
}

/// The same, word for word: nothing stands for anything else.
pub(crate) async fn read_exactly(request: &mut Request<Incoming>) -> Result<Value, ApiError> {
    check_type(request.headers(), request.body().size_hint().exact() == Some(0))?;
    let collected = tokio::time::timeout(JSON_TIMEOUT, read_limited(request.body_mut())).await;
    let held = collected.map_err(|_| did_not_come())??;
    let bytes = held.bytes();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).or_else(|error| as_go_reads(bytes).ok_or(error)).map_err(|error| {
        let is_longer =
            serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next().is_some_and(|v| v.is_ok());
        ApiError::bad(match (is_longer, error.classify()) {
            (true, _) => "unexpected content after JSON".into(),
            (_, Category::Syntax | Category::Eof) if !error.to_string().contains("recursion limit") => {
                format!("invalid JSON: {}", syntax_error(bytes))
            }
            _ => format!("invalid JSON: {error}"),
        })
    })
}

/// A body is said to be JSON; only where there is none nothing need be said.
fn check_type(headers: &HeaderMap, empty: bool) -> Result<(), ApiError> {
    let said = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    if said.is_empty() {
        return match empty {
            true => Ok(()),
            false => Err(ApiError::bad("malformed Content-Type header (): mime: no media type")),
        };
    }
    let kind = said.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::bad(format!("unsupported Content-Type header ({said}): must be 'application/json'")))
}

async fn read_limited(body: impl Body<Data = Bytes, Error = hyper::Error>) -> Result<Held<'static>, ApiError> {
    let too_large = || ApiError::bad(format!("the request's body is too large: JSON may have {} MiB", MAX_JSON >> 20));
    let said = body.size_hint().exact().map_or(MAX_JSON, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut body = pin!(body);
    let mut held = room().hold(said.min(MAX_JSON));
    let mut seen = 0;
    loop {
        let frame = match held.is_large() {
            true => tokio::time::timeout(PATIENCE, body.frame()).await.map_err(|_| did_not_come())?,
            false => body.frame().await,
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| ApiError::bad(format!("the request's body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if said.max(seen) <= MAX_JSON {
            held.extend(&data).await?;
        } else {
            held = room().hold(0);
            if seen > MAX_DROPPED {
                break;
            }
        }
    }
    if seen > MAX_JSON { Err(too_large()) } else { Ok(held) }
}

fn did_not_come() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come")
}

/// What a request's JSON means: an object, that is `go` to Go.
pub(crate) fn typed<T: DeserializeOwned>(value: Value, go: &str) -> Result<T, ApiError> {
    let kind = match &value {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    };
    if let Some(kind) = kind {
        return Err(ApiError::bad(format!("invalid JSON: json: cannot unmarshal {kind} into Go value of type {go}")));
    }
    within(value, go.rsplit('.').next().unwrap_or(go))
}

/// The same for a part of a request, of which `at` is where it is; what is no object is said to be none by the field.
pub(crate) fn within<T: DeserializeOwned>(value: Value, at: &str) -> Result<T, ApiError> {
    let all = value.clone();
    T::deserialize(Objects::new(value, at)).map_err(|error| {
        // In a type that is a part of another one nobody knows where a field is: each is tried by itself.
        let wrong = all.as_object().into_iter().flatten().find_map(|(key, value)| {
            let alone = Value::Object([(key.clone(), value.clone())].into_iter().collect());
            let error = T::deserialize(Objects::new(alone, at)).err()?;
            in_go_s_words(&error, value, &format!("{at}.{key}"))
        });
        ApiError::bad(format!("invalid JSON: {}", wrong.unwrap_or_else(|| error.to_string())))
    })
}

/// A body that is written while it is read.
struct Channel<T> {
    /// What has come already.
    first: Option<T>,
    chunks: mpsc::Receiver<T>,
}

impl Body for Channel<Bytes> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Body for Channel<io::Result<Bytes>> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.chunks.poll_recv(context).map(|chunk| chunk.map(|done| done.map(Frame::data)))
    }
}

/// An answer of these chunks, as they come.
pub(crate) fn stream(content_type: &'static str, chunks: mpsc::Receiver<Bytes>) -> Answer {
    with_type(Response::new(Channel { first: None, chunks }.boxed_unsync()), content_type)
}

/// The same, but not before there is something to say: many take the answer's beginning for the end of what they asked for.
pub(crate) async fn stream_of_news(content_type: &'static str, mut chunks: mpsc::Receiver<Bytes>) -> Answer {
    let first = chunks.recv().await;
    with_type(Response::new(Channel { first, chunks }.boxed_unsync()), content_type)
}

pub(crate) fn with_type(mut answer: Answer, content_type: &'static str) -> Answer {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A line of a progress stream.
pub(crate) fn line(value: &Value) -> Bytes {
    let mut bytes = value.to_string().into_bytes();
    bytes.extend_from_slice(b"\r\n");
    Bytes::from(bytes)
}

/// An error after the first byte has gone out.
pub(crate) fn error_line(message: &str) -> Bytes {
    let message = wharf_report::words(message.into());
    line(&json!({ "errorDetail": { "message": message }, "error": message }))
}

/// A request's body for code that waits for it.
pub(crate) fn blocking_reader(body: Incoming) -> impl io::Read + Send + 'static {
    blocking_reader_while(body, |_| Ok(()))
}

/// The same of a client that ends its body no sooner than it has its answer: until then, what comes last says that it has
/// gone. Nothing else may say so, as nothing else is read from its connection meanwhile.
pub(crate) fn blocking_reader_and_gone(body: Incoming) -> (impl io::Read + Send + 'static, oneshot::Receiver<()>) {
    let (sender, gone) = oneshot::channel();
    (read_while(body, |_| Ok(()), Some(sender)), gone)
}

/// How often is looked whether what is uploaded is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// The same, as long as `wanted` says so. It is asked every second, with the time since the client has sent something.
pub(crate) fn blocking_reader_while(
    body: Incoming,
    wanted: impl Fn(Duration) -> io::Result<()> + Send + 'static,
) -> impl io::Read + Send + 'static {
    read_while(body, wanted, None)
}

fn read_while(
    mut body: Incoming,
    wanted: impl Fn(Duration) -> io::Result<()> + Send + 'static,
    mut broken: Option<oneshot::Sender<()>>,
) -> impl io::Read + Send + 'static {
    let (sender, chunks) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::spawn(async move {
        let mut looks = tokio::time::interval(LOOK);
        let mut heard = Instant::now();
        loop {
            let chunk = tokio::select! {
                _ = looks.tick() => match wanted(heard.elapsed()) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                },
                frame = body.frame() => {
                    heard = Instant::now();
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        None => return,
                        Some(Ok(Ok(bytes))) => Ok(bytes),
                        Some(Ok(Err(_))) => continue,
                        Some(Err(error)) => {
                            broken.take().map(|broken| broken.send(()));
                            Err(io::Error::other(error))
                        }
                    }
                }
            };
            let failed = chunk.is_err();
            let sent = sender.send(chunk).await;
            // The time that the reader took is not the client's.
            heard = Instant::now();
            if sent.is_err() || failed {
                // Nobody reads any more: the rest is let through, or the client would not see the answer.
                while let Some(Ok(_)) = body.frame().await {}
                return;
            }
        }
    });
    BlockingReader { chunks, current: Bytes::new() }
}

/// What a server has, for code that waits for it.
pub(crate) fn document_reader(mut document: Document) -> impl io::Read + Send + 'static {
    let (sender, chunks) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::spawn(async move {
        while let Some(chunk) = document.chunk().await.transpose() {
            let chunk = chunk.map_err(io::Error::other);
            let failed = chunk.is_err();
            if sender.send(chunk).await.is_err() || failed {
                return;
            }
        }
    });
    BlockingReader { chunks, current: Bytes::new() }
}

struct BlockingReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl io::Read for BlockingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// A writer whose bytes become the chunks of a body. Fails when nobody reads any more.
struct BodyWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

/// Sent at once.
const CHUNK: usize = 64 << 10;

impl io::Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.chunks.blocking_send(Ok(Bytes::from(full))).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A tar that is made while it is sent. One that cannot be finished ends in a broken connection, so that nobody takes
/// it for whole.
pub(crate) fn tar(write: impl FnOnce(&mut dyn io::Write) -> wharf_engine::Result<()> + Send + 'static) -> Answer {
    let (chunks, body) = mpsc::channel(PIECES);
    patient::spawn(move || {
        let mut writer = BodyWriter { chunks, buffer: Vec::with_capacity(CHUNK) };
        let done = write(&mut writer);
        if let Err(error) = done {
            if !writer.chunks.is_closed() {
                tracing::warn!("an archive was broken off: {error}");
                let _ = writer.chunks.blocking_send(Err(io::Error::other(error.message)));
            }
            return;
        }
        let _ = io::Write::flush(&mut writer);
    });
    with_type(Response::new(Channel { first: None, chunks: body }.boxed_unsync()), "application/x-tar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_said_to_be_json() {
        let check = |said: Option<&'static str>, empty| {
            let headers = said.map(|text| (CONTENT_TYPE, HeaderValue::from_static(text))).into_iter().collect();
            check_type(&headers, empty).map_err(|error| error.message)
        };
        assert_eq!(check(None, true), Ok(()));
        assert_eq!(check(Some("application/json; charset=utf-8"), false), Ok(()));
        assert_eq!(check(None, false).unwrap_err(), "malformed Content-Type header (): mime: no media type");
        let text = "unsupported Content-Type header (text/plain): must be 'application/json'";
        assert_eq!(check(Some("text/plain"), true).unwrap_err(), text);
    }
}
