//! Connections that become streams: attach and exec.

use std::borrow::Cow;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::connection::{Connection, has_hung_up};
use crate::http::{Answer, empty, stream};
use crate::stdcopy;

/// Copied at once.
const CHUNK: usize = 32 << 10;
/// How long a client may take to close a connection whose output has ended.
const LINGER: Duration = Duration::from_secs(2);
/// What comes in one piece with the head is lost by some clients (docker-py): the first byte waits until the client has
/// read the head, but no longer than this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// And so long where the connection does not tell.
const HEAD_START: Duration = Duration::from_millis(10);
/// How often it is looked whether a client whose input has ended is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The type of a stream: frames, or plain bytes of a terminal. Clients before API 1.42 know one type only, and so do those that
/// ask for no upgrade.
pub(crate) fn content_type(tty: bool, version: (u32, u32)) -> &'static str {
    if !tty && version >= (1, 42) {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// What a client is connected with.
pub(crate) struct Streams {
    /// `None` where there is nothing but `before`.
    pub(crate) container: Option<UnixStream>,
    /// What comes first.
    pub(crate) before: mpsc::Receiver<Bytes>,
    /// Awaited between the last byte and the end of the connection: what clients ask for when they see the end is
    /// true by then.
    pub(crate) settled: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(crate) reframe: Reframe,
}

/// What is done to a container's output where the client has asked for another form than it comes in.
#[derive(Debug)]
pub(crate) enum Reframe {
    Not,
    /// A terminal's bytes in frames.
    Frame,
    /// Frames' content alone.
    Unframe(stdcopy::Unframer),
}

impl Reframe {
    /// `terminal`: the output has no frames; `plain`: none are wanted.
    pub(crate) fn between(terminal: bool, plain: bool) -> Self {
        match (terminal, plain) {
            (true, false) => Self::Frame,
            (false, true) => Self::Unframe(stdcopy::Unframer::default()),
            _ => Self::Not,
        }
    }

    fn bytes<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Not => bytes.into(),
            Self::Frame => stdcopy::frame(stdcopy::Stream::Stdout, bytes).to_vec().into(),
            Self::Unframe(unframer) => unframer.push(bytes).into(),
        }
    }
}

impl Streams {
    pub(crate) fn new(container: Option<UnixStream>, before: mpsc::Receiver<Bytes>) -> Self {
        Self { container, before, settled: Box::pin(std::future::ready(())), reframe: Reframe::Not }
    }

    /// A stream that is one message only: an exec that could not be started says so where its output would be.
    pub(crate) fn message(tty: bool, message: &str) -> Self {
        let text = format!("{message}\r\n");
        let bytes = match tty {
            true => Bytes::from(text),
            false => stdcopy::frame(stdcopy::Stream::Stdout, text.as_bytes()),
        };
        let (sender, before) = mpsc::channel(1);
        // There is room for one.
        let _ = sender.try_send(bytes);
        Self::new(None, before)
    }
}

/// Answers a request with streams: the connection is theirs from then on. A client that did not ask for an upgrade gets
/// the output as a body, and gives its input as one.
///
/// They are opened after the answer has gone out, and the first byte waits until the client has read the answer.
pub(crate) fn hijack(
    request: Request<Incoming>,
    content_type: &'static str,
    open: impl Future<Output = Streams> + Send + 'static,
) -> Answer {
    if request.headers().get(UPGRADE).is_none() {
        return as_body(request, content_type, open);
    }
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => serve(upgraded, open).await,
            Err(error) => tracing::debug!("the client did not go on: {error}"),
        }
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    // Docker's own word, which some clients compare.
    answer.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    answer
}

/// A unix socket tells a client that has gone from one that has only ended its input. With other connections that is
/// seen when something is written to them.
async fn serve(upgraded: Upgraded, open: impl Future<Output = Streams>) {
    match upgraded.downcast::<TokioIo<Connection<UnixStream>>>() {
        Ok(parts) => {
            let client = parts.io.into_inner().into_inner();
            let (streams, ()) = tokio::join!(open, head_read(&client));
            let (from, to) = client.into_split();
            // What came in one piece with the request, first.
            let from = std::io::Cursor::new(parts.read_buf).chain(from);
            join(from, to, async |from| gone(from.get_ref().1).await, streams).await;
        }
        Err(upgraded) => {
            let (streams, ()) = tokio::join!(open, tokio::time::sleep(HEAD_START));
            let (from, to) = tokio::io::split(TokioIo::new(upgraded));
            join(from, to, async |_| std::future::pending().await, streams).await;
        }
    }
}

/// Waits, but not for long, until the client has read what was sent to it.
async fn head_read(client: &UnixStream) {
    let mut pause = Duration::from_micros(100);
    let deadline = tokio::time::Instant::now() + HEAD_TIMEOUT;
    // A socket that cannot be asked is not waited for.
    while wharf_sys::socket::unread(client).is_ok_and(|bytes| bytes > 0) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

/// Waits until the client's socket is closed, and not only its half of it.
async fn gone(client: &OwnedReadHalf) {
    while !has_hung_up(client.as_ref()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Both directions, each half-closed by itself; the end of the output is the end of all. `gone` ends when the client,
/// whose input has ended, does not listen any more either.
async fn join<R: AsyncRead + Unpin>(
    mut from_client: R,
    mut to_client: impl AsyncWrite + Unpin,
    gone: impl AsyncFn(&mut R),
    streams: Streams,
) {
    let Streams { container, mut before, settled, mut reframe } = streams;
    let (from_container, to_container) = container.map(UnixStream::into_split).unzip();
    let input = async {
        if let Some(mut to) = to_container {
            let _ = tokio::io::copy(&mut from_client, &mut to).await;
            let _ = to.shutdown().await;
        }
        // The output goes on without it.
        gone(&mut from_client).await;
    };
    let output = async {
        while let Some(chunk) = before.recv().await {
            if to_client.write_all(&chunk).await.is_err() {
                return;
            }
        }
        if let Some(mut from) = from_container {
            let _ = copy(&mut from, &mut to_client, &mut reframe).await;
        }
        settled.await;
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    // Input that nobody reads would make the end of the output a reset of the connection.
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
}

/// As `tokio::io::copy`, but what has come goes out at once.
async fn copy(
    from: &mut OwnedReadHalf,
    to: &mut (impl AsyncWrite + Unpin),
    reframe: &mut Reframe,
) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(()),
            count => {
                to.write_all(&reframe.bytes(&chunk[..count])).await?;
                to.flush().await?;
            }
        }
    }
}

fn as_body(
    request: Request<Incoming>,
    content_type: &'static str,
    open: impl Future<Output = Streams> + Send + 'static,
) -> Answer {
    let (sender, chunks) = mpsc::channel(16);
    tokio::spawn(async move {
        let Streams { container, mut before, settled, mut reframe } = open.await;
        let (from_container, to_container) = container.map(UnixStream::into_split).unzip();
        // A request without a body says nothing of the input; that is not the input's end.
        let input = request.into_body();
        let feeding = async {
            if let Some(to) = to_container {
                match input.is_end_stream() {
                    true => std::future::pending::<()>().await,
                    false => feed(input, to).await,
                }
            }
            std::future::pending::<()>().await;
        };
        let output = async {
            while let Some(chunk) = before.recv().await {
                sender.send(chunk).await.ok()?;
            }
            let mut chunk = vec![0; CHUNK];
            if let Some(mut from) = from_container {
                while let Ok(count) = from.read(&mut chunk).await {
                    if count == 0 {
                        break;
                    }
                    sender.send(reframe.bytes(&chunk[..count]).into_owned().into()).await.ok()?;
                }
            }
            settled.await;
            Some(())
        };
        tokio::select! {
            _ = output => {}
            () = feeding => {}
            // A client that has gone is noticed also while the container says nothing.
            () = sender.closed() => {}
        }
    });
    stream(content_type, chunks)
}

async fn feed(mut body: Incoming, mut container: OwnedWriteHalf) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(bytes) = frame.into_data()
            && container.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
    let _ = container.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_version_and_terminal() {
        assert_eq!(content_type(false, (1, 51)), "application/vnd.docker.multiplexed-stream");
        assert_eq!(content_type(true, (1, 51)), "application/vnd.docker.raw-stream");
        assert_eq!(content_type(false, (1, 41)), "application/vnd.docker.raw-stream");
    }

    #[tokio::test]
    async fn each_direction_is_closed_by_itself() {
        let (client, server) = UnixStream::pair().unwrap();
        let (ours, container) = UnixStream::pair().unwrap();
        let (log, before) = mpsc::channel(1);
        log.send(Bytes::from_static(b"log ")).await.unwrap();
        drop(log);
        let (from, to) = server.into_split();
        let task = tokio::spawn(async move {
            join(from, to, async |from| gone(from).await, Streams::new(Some(ours), before)).await;
        });
        let (mut from_server, mut to_server) = client.into_split();
        to_server.write_all(b"question").await.unwrap();
        to_server.shutdown().await.unwrap();
        let (mut from_client, mut to_client) = container.into_split();
        let mut question = String::new();
        // Ends, as the client's half has been closed.
        from_client.read_to_string(&mut question).await.unwrap();
        to_client.write_all(b"answer").await.unwrap();
        to_client.shutdown().await.unwrap();
        let mut answer = String::new();
        from_server.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "log answer"));
        drop((from_server, to_server));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn the_first_byte_waits_for_the_head_to_be_read() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.writable().await.unwrap();
        assert_eq!(server.try_write(b"head").unwrap(), 4);
        let waits = tokio::spawn(async move { head_read(&server).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waits.is_finished());
        client.read_exact(&mut [0; 4]).await.unwrap();
        tokio::time::timeout(Duration::from_millis(50), waits).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_noticed_while_the_container_is_silent() {
        let (client, server) = UnixStream::pair().unwrap();
        let (ours, _container) = UnixStream::pair().unwrap();
        let (from, to) = server.into_split();
        let streams = Streams::new(Some(ours), mpsc::channel(1).1);
        let task = tokio::spawn(async move { join(from, to, async |from| gone(from).await, streams).await });
        let (from_server, mut to_server) = client.into_split();
        to_server.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!task.is_finished());
        drop((from_server, to_server));
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    }
}
