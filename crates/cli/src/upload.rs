//! Bodies that are read while they are sent.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use wharf_client::Body;

use crate::stream;

const CHUNK: usize = 256 * 1024;

/// What has been read of standard input already, then the rest of it.
pub(crate) fn stdin(first: Vec<u8>) -> Body {
    let (sender, body) = Body::channel();
    tokio::spawn(async move {
        if !first.is_empty() && sender.send(Bytes::from(first)).await.is_err() {
            return;
        }
        let mut chunks = stream::stdin_chunks();
        while let Some(chunk) = chunks.recv().await {
            if sender.send(Bytes::from(chunk)).await.is_err() {
                return;
            }
        }
    });
    body
}

/// A file, or anything else that can be read.
pub(crate) fn reader(mut reader: impl AsyncRead + Send + Unpin + 'static) -> Body {
    let (sender, body) = Body::channel();
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) => return,
                Ok(count) => {
                    if sender.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                        return;
                    }
                }
                Err(error) => return sender.fail(error).await,
            }
        }
    });
    body
}
