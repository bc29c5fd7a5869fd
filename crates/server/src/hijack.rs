//! Connections that become streams: attach and exec.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::http::{Answer, empty, stream};
use crate::stdcopy;

/// Copied at once.
const CHUNK: usize = 32 << 10;
/// How long a client may take to close a connection whose output has ended.
const LINGER: Duration = Duration::from_secs(2);

/// The type of a stream: frames, or plain bytes of a terminal. Clients before API 1.42 know one type only.
pub(crate) fn content_type(tty: bool, version: (u32, u32)) -> &'static str {
    if !tty && version >= (1, 42) {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// Answers a request with the container's streams, `before` first: the connection is theirs from then on. A client
/// that did not ask for an upgrade gets the output as a body, and gives its input as one.
pub(crate) fn hijack(
    request: Request<Incoming>,
    streams: UnixStream,
    content_type: &'static str,
    before: mpsc::Receiver<Bytes>,
) -> Answer {
    if request.headers().get(UPGRADE).is_none() {
        return as_body(request, streams, content_type, before);
    }
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => join(TokioIo::new(upgraded), streams, before).await,
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

/// As [`hijack`] for a stream that is one message only: an exec that could not be started says so where its output
/// would be, and clients then ask for its exit code.
pub(crate) fn say(request: Request<Incoming>, tty: bool, content_type: &'static str, message: &str) -> Answer {
    let text = format!("{message}\r\n");
    let bytes = match tty {
        true => Bytes::from(text),
        false => stdcopy::frame(stdcopy::Stream::Stdout, text.as_bytes()),
    };
    let (sender, before) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(bytes);
    match UnixStream::pair() {
        Ok((streams, _)) => hijack(request, streams, content_type, before),
        Err(_) => stream(content_type, before),
    }
}

/// Both directions, each half-closed by itself; the end of the output is the end of all.
async fn join(client: impl AsyncRead + AsyncWrite + Unpin, streams: UnixStream, mut before: mpsc::Receiver<Bytes>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_container, mut to_container) = streams.into_split();
    let input = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_container).await;
        let _ = to_container.shutdown().await;
        // The output goes on without it.
        std::future::pending::<()>().await;
    };
    let output = async {
        while let Some(chunk) = before.recv().await {
            if to_client.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = copy(&mut from_container, &mut to_client).await;
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
async fn copy(from: &mut OwnedReadHalf, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await? {
            0 => return Ok(()),
            count => {
                to.write_all(&chunk[..count]).await?;
                to.flush().await?;
            }
        }
    }
}

fn as_body(
    request: Request<Incoming>,
    streams: UnixStream,
    content_type: &'static str,
    mut before: mpsc::Receiver<Bytes>,
) -> Answer {
    let (sender, chunks) = mpsc::channel(16);
    let (mut from_container, to_container) = streams.into_split();
    tokio::spawn(async move {
        // A request without a body says nothing of the input; it is not its end.
        let input = request.into_body();
        let has_input = !input.is_end_stream();
        let (input, kept) = if has_input { (Some((input, to_container)), None) } else { (None, Some(to_container)) };
        let feeding = input.map(|(body, to)| tokio::spawn(feed(body, to)));
        let gone = sender.clone();
        let output = async {
            while let Some(chunk) = before.recv().await {
                sender.send(chunk).await.ok()?;
            }
            let mut chunk = vec![0; CHUNK];
            while let Ok(count) = from_container.read(&mut chunk).await {
                if count == 0 {
                    break;
                }
                sender.send(Bytes::copy_from_slice(&chunk[..count])).await.ok()?;
            }
            Some(())
        };
        tokio::select! {
            _ = output => {}
            // A client that has gone is noticed also while the container says nothing.
            () = gone.closed() => {}
        }
        if let Some(feeding) = feeding {
            feeding.abort();
        }
        drop(kept);
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
        let task = tokio::spawn(join(server, ours, before));
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
}
