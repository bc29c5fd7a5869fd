//! Both directions of a websocket that is a container's streams.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::frame::{self, CloseCode, Opcode};
use crate::stdcopy::Unframer;

/// Read at once.
const CHUNK: usize = 32 << 10;

/// How the container's output becomes messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// It has stdcopy's headers, which the client does not get.
    pub(crate) framed: bool,
    /// Text messages, as Docker sent before API 1.28; binary since.
    pub(crate) text: bool,
}

/// Copies until one side ends: the client by a close frame or by going, the container by ending its output.
pub(super) async fn run(
    client: impl AsyncRead + AsyncWrite + Unpin,
    streams: Option<UnixStream>,
    before: mpsc::Receiver<Bytes>,
    output: Output,
) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (from_container, to_container) = match streams.map(UnixStream::into_split) {
        Some((from, to)) => (Some(from), Some(to)),
        None => (None, None),
    };
    // Answers to pings and closes go out between messages of the output.
    let (answers, asked) = mpsc::channel(4);
    let input = async {
        let code = read(&mut from_client, to_container, &answers).await;
        let _ = answers.send(frame::close(code)).await;
        // The output's side sends it, and ends.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = input => {}
        () = write(&mut to_client, from_container, before, asked, output) => {}
    }
    let _ = to_client.shutdown().await;
}

/// What the client sends, to the container. The value is what to close with.
async fn read(
    client: &mut (impl AsyncRead + Unpin),
    mut container: Option<OwnedWriteHalf>,
    answers: &mpsc::Sender<BytesMut>,
) -> CloseCode {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        match frame::next(&mut buffer) {
            Err(code) => return code,
            Ok(None) => {
                if !client.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
                    return CloseCode::Normal;
                }
            }
            Ok(Some(frame)) => match frame.opcode {
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    if let Some(to) = &mut container
                        && to.write_all(&frame.payload).await.is_err()
                    {
                        // It takes no input any more; its output may go on.
                        container = None;
                    }
                }
                Opcode::Ping => drop(answers.send(frame::encode(Opcode::Pong, &frame.payload)).await),
                Opcode::Pong => {}
                Opcode::Close => return CloseCode::Normal,
            },
        }
    }
}

/// What the container says, and answers to the client, in turn.
async fn write(
    client: &mut (impl AsyncWrite + Unpin),
    mut container: Option<OwnedReadHalf>,
    mut before: mpsc::Receiver<Bytes>,
    mut answers: mpsc::Receiver<BytesMut>,
    output: Output,
) {
    let opcode = if output.text { Opcode::Text } else { Opcode::Binary };
    // The log and the streams are two streams: a cut in one is none in the other.
    let mut unframers = [Unframer::default(), Unframer::default()];
    let mut plain = |from_log: bool, bytes: &[u8]| match output.framed {
        true => unframers[usize::from(from_log)].push(bytes),
        false => bytes.to_vec(),
    };
    let mut log_ended = false;
    let mut chunk = vec![0; CHUNK];
    loop {
        let message = tokio::select! {
            biased;
            Some(answer) = answers.recv() => {
                let closing = answer[0] == 0x88;
                if client.write_all(&answer).await.is_err() || closing {
                    return;
                }
                continue;
            }
            logged = before.recv(), if !log_ended => match logged {
                Some(bytes) => plain(true, &bytes),
                None => {
                    log_ended = true;
                    continue;
                }
            },
            count = receive(&mut container, &mut chunk), if log_ended => match count {
                0 => {
                    let _ = client.write_all(&frame::close(CloseCode::Normal)).await;
                    return;
                }
                count => plain(false, &chunk[..count]),
            },
        };
        if !message.is_empty() && client.write_all(&frame::encode(opcode, &message)).await.is_err() {
            return;
        }
    }
}

/// Zero at the end.
async fn receive(container: &mut Option<OwnedReadHalf>, chunk: &mut [u8]) -> usize {
    match container {
        Some(from) => from.read(chunk).await.unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdcopy::{self, Stream};

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn a_conversation() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (ours, mut container) = UnixStream::pair().unwrap();
        let (log, before) = mpsc::channel(1);
        let output = Output { framed: true, text: false };
        let task = tokio::spawn(run(server, Some(ours), before, output));
        log.send(stdcopy::frame(Stream::Stdout, b"old")).await.unwrap();
        drop(log);
        let mut have = [0; 5];
        client.read_exact(&mut have).await.unwrap();
        assert_eq!(have[..], [0x82, 3, b'o', b'l', b'd']);
        client.write_all(&masked(0x1, b"in")).await.unwrap();
        let mut input = [0; 2];
        container.read_exact(&mut input).await.unwrap();
        assert_eq!(&input, b"in");
        client.write_all(&masked(0x9, b"p")).await.unwrap();
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'p']);
        container.write_all(&stdcopy::frame(Stream::Stdout, b"out")).await.unwrap();
        let mut out = [0; 5];
        client.read_exact(&mut out).await.unwrap();
        assert_eq!(out[2..], *b"out");
        client.write_all(&masked(0x8, &[])).await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_output_closes() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (ours, container) = UnixStream::pair().unwrap();
        let before = mpsc::channel(1).1;
        let task = tokio::spawn(run(server, Some(ours), before, Output { framed: false, text: true }));
        drop(container);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
        task.await.unwrap();
    }
}
