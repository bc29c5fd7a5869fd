//! What is typed goes to the container, what it shows comes to us.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wharf_client::{Demultiplexer, Hijacked, Source};

use crate::detach_keys::Watch;
use crate::failure::{Failure, Outcome};
use crate::sink;
use crate::terminal::Raw;

/// What is connected, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// The container has a terminal: one stream, raw, with keys to detach.
    pub(crate) tty: bool,
    pub(crate) detach_keys: String,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The container closed its side, or there is nothing more to do.
    Closed,
    /// The keys to detach were pressed.
    Detached,
}

const CHUNK: usize = 32 * 1024;

/// Connects our streams with the container's until one side has ended.
///
/// # Errors
///
/// The connection broke, or our output cannot be written.
pub(crate) async fn relay(io: Hijacked, streams: &Streams) -> Outcome<Ended> {
    let mut raw = if streams.stdin && streams.tty {
        Raw::enter().map_err(|error| Failure::new(format!("unable to set IO streams as raw terminal: {error}")))?
    } else {
        Raw::none()
    };
    let (reader, writer) = tokio::io::split(io);
    let watch = (streams.stdin && streams.tty).then(|| Watch::new(&streams.detach_keys));
    let input = send_input(writer, streams.stdin, watch);
    tokio::pin!(input);
    let output = async {
        if streams.stdout || streams.stderr {
            return show(reader, streams).await;
        }
        // Nothing comes but the end.
        let mut reader = reader;
        let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
        Ok(())
    };
    tokio::pin!(output);
    let ended = tokio::select! {
        shown = &mut output => {
            shown?;
            Ended::Closed
        }
        ended = &mut input => {
            raw.leave();
            if ended == Ended::Closed {
                output.await?;
            }
            ended
        }
    };
    Ok(ended)
}

/// Standard input to the container, then the end of it.
async fn send_input(mut writer: impl AsyncWriteExt + Unpin, stdin: bool, mut watch: Option<Watch>) -> Ended {
    if stdin {
        let mut typed = stdin_chunks();
        while let Some(chunk) = typed.recv().await {
            let (bytes, detach) = match &mut watch {
                Some(watch) => watch.pass(&chunk),
                None => (chunk, false),
            };
            if !bytes.is_empty() && (writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err()) {
                // The container reads no more: what it still has to say comes on the other way.
                return Ended::Closed;
            }
            if detach {
                return Ended::Detached;
            }
        }
    }
    let _ = writer.shutdown().await;
    Ended::Closed
}

/// Standard input, read in a thread of its own: it may be a terminal, a file or a pipe that others share, so it must not
/// be made non-blocking. Nobody waits for the thread at the end.
pub(crate) fn stdin_chunks() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn show(mut reader: impl AsyncReadExt + Unpin, streams: &Streams) -> Outcome {
    let mut output = Output::new(streams);
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(count) => output.write(Bytes::copy_from_slice(&buffer[..count])).await?,
            // The container's end looks like this when the daemon was not gentle.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the container's output goes.
#[derive(Debug)]
pub(crate) struct Output {
    demultiplexer: Option<Demultiplexer>,
    stdout: bool,
    stderr: bool,
}

impl Output {
    pub(crate) fn new(streams: &Streams) -> Self {
        let demultiplexer = (!streams.tty).then(Demultiplexer::default);
        Self { demultiplexer, stdout: streams.stdout, stderr: streams.stderr }
    }

    /// Writes a chunk of the stream. What goes to the same place is written at once: a log's frames are as short as its
    /// lines.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Outcome {
        let Some(demultiplexer) = &mut self.demultiplexer else { return write(false, chunk).await };
        let mut gathered = BytesMut::new();
        let mut to_stderr = false;
        for frame in demultiplexer.push(chunk)? {
            let wanted = match frame.source {
                Source::Stdin | Source::Stdout => self.stdout.then_some(false),
                Source::Stderr => self.stderr.then_some(true),
                Source::System => {
                    let text = String::from_utf8_lossy(&frame.bytes).into_owned();
                    return Err(Failure::new(format!("error from daemon in stream: {text}")));
                }
            };
            let Some(wanted) = wanted else { continue };
            if wanted != to_stderr && !gathered.is_empty() {
                write(to_stderr, gathered.split().freeze()).await?;
            }
            to_stderr = wanted;
            gathered.extend_from_slice(&frame.bytes);
        }
        if gathered.is_empty() { Ok(()) } else { write(to_stderr, gathered.freeze()).await }
    }
}

/// Writes to standard output or error. A slow reader holds up nobody but the writer: signals and input go on.
pub(crate) async fn write(to_stderr: bool, bytes: Bytes) -> Outcome {
    let written = if sink::takes(to_stderr, bytes.len()) {
        put(to_stderr, &bytes)
    } else {
        let work = move || put(to_stderr, &bytes);
        tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::code(1),
        _ => Failure::new(format!("write /dev/stdout: {}", wharf_report::os(&error))),
    })
}

fn put(to_stderr: bool, bytes: &[u8]) -> io::Result<()> {
    if to_stderr {
        return io::stderr().write_all(bytes);
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}
