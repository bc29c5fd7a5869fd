//! Connections that become streams: attach and exec.

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::http::{Answer, empty, stream};

/// Copied at once.
const CHUNK: usize = 32 << 10;

/// The type of a stream: frames, or plain bytes of a terminal.
pub(crate) fn content_type(tty: bool, version: (u32, u32)) -> &'static str {
    if !tty && version >= (1, 42) {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// Answers a request with the container's streams: the connection is theirs from then on. A client that did not ask
/// for that gets the output as a body, and gives its input as one.
pub(crate) fn hijack(request: Request<Incoming>, streams: UnixStream, content_type: &'static str, before: mpsc::Receiver<bytes::Bytes>) -> Answer {
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
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    answer
}

/// Both directions, each half-closed by itself; the end of the output is the end of all.
async fn join(
    client: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    streams: UnixStream,
    mut before: mpsc::Receiver<bytes::Bytes>,
) {
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
        let mut chunk = vec![0; CHUNK];
        loop {
            match from_container.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if to_client.write_all(&chunk[..count]).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
}

fn as_body(request: Request<Incoming>, streams: UnixStream, content_type: &'static str, mut before: mpsc::Receiver<bytes::Bytes>) -> Answer {
    let (sender, chunks) = mpsc::channel(16);
    let (mut from_container, mut to_container) = streams.into_split();
    tokio::spawn(async move {
        use http_body_util::BodyExt;
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(bytes) = frame.into_data()
                && to_container.write_all(&bytes).await.is_err()
            {
                break;
            }
        }
        let _ = to_container.shutdown().await;
    });
    tokio::spawn(async move {
        while let Some(chunk) = before.recv().await {
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
        let mut chunk = vec![0; CHUNK];
        while let Ok(count) = from_container.read(&mut chunk).await {
            if count == 0 || sender.send(bytes::Bytes::copy_from_slice(&chunk[..count])).await.is_err() {
                break;
            }
        }
    });
    stream(content_type, chunks)
}
