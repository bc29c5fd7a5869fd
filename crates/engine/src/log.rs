//! Reading a container's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use wharf_logs::{Entry, ReadOptions, Reader, Stream};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::log_options;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub since: Option<jiff::Timestamp>,
    pub until: Option<jiff::Timestamp>,
    pub timestamps: bool,
    /// The last so many entries; `None` is all.
    pub tail: Option<u64>,
    pub follow: bool,
    /// The attributes that the log driver was told to keep, before each line.
    pub details: bool,
}

/// A log as it goes to the client: frames, or plain bytes where the container has a terminal.
#[derive(Debug)]
pub struct Log {
    pub tty: bool,
    pub chunks: mpsc::Receiver<Bytes>,
}

/// Chunks that may wait for a slow client before the reading waits too.
const WAITING: usize = 16;
/// Entries are sent together until a chunk has this many bytes.
const CHUNK: usize = 32 << 10;

impl Engine {
    /// Reads a log; with `follow` until the container has ended.
    ///
    /// # Errors
    /// `InvalidParameter` when no stream is chosen, `NotImplemented` when the driver keeps nothing.
    pub fn logs(&self, name: &str, options: LogOptions) -> Result<Log> {
        let slot = self.inner.slots.find(name)?;
        let record = slot.record();
        if !options.stdout && !options.stderr {
            return Err(EngineError::invalid("Bad parameters: you must choose at least one stream"));
        }
        if log_options::kept(&record.host.log_config) == "none" {
            return Err(EngineError::not_implemented("configured logging driver does not support reading"));
        }
        let tty = record.config.tty;
        let (sender, chunks) = mpsc::channel(WAITING);
        let path = std::path::PathBuf::from(&record.log_path);
        let stop = Arc::new(AtomicBool::new(!record.state.status.is_active()));
        if options.follow {
            let (mut life, stop) = (slot.life(), Arc::clone(&stop));
            let sender = sender.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = life.wait_for(|life| !life.active) => {}
                    () = sender.closed() => {}
                }
                stop.store(true, Ordering::Release);
            });
        }
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send_all(&path, &options, tty, &stop, &sender) {
                tracing::warn!("cannot read the log {}: {error}", path.display());
            }
        });
        Ok(Log { tty, chunks })
    }
}

fn send_all(
    path: &std::path::Path,
    options: &LogOptions,
    tty: bool,
    stop: &Arc<AtomicBool>,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), wharf_logs::LogError> {
    let read = ReadOptions {
        since: options.since,
        until: options.until,
        tail: options.tail,
        follow: options.follow.then(|| Arc::clone(stop)),
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let mut reader = Reader::open(path, read)?;
    let mut chunk = BytesMut::new();
    while let Some(entry) = reader.next_entry()? {
        put(&mut chunk, &entry, options, tty);
        let full = chunk.len() >= CHUNK || !reader.has_more();
        if full && sender.blocking_send(chunk.split().freeze()).is_err() {
            // The client has gone.
            return Ok(());
        }
    }
    if !chunk.is_empty() {
        let _ = sender.blocking_send(chunk.freeze());
    }
    Ok(())
}

/// One entry as the client gets it (Engine API, "Stream format").
fn put(chunk: &mut BytesMut, entry: &Entry, options: &LogOptions, tty: bool) {
    let time = options.timestamps.then(|| format!("{} ", entry.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ")));
    let prefix = time.unwrap_or_default();
    let details = if options.details { format!("{} ", details(entry)) } else { String::new() };
    let length = prefix.len() + details.len() + entry.line.len();
    if !tty {
        chunk.put_u8(if entry.stream == Stream::Stdout { 1 } else { 2 });
        chunk.put_bytes(0, 3);
        chunk.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    chunk.put_slice(prefix.as_bytes());
    chunk.put_slice(details.as_bytes());
    chunk.put_slice(&entry.line);
}

/// `key=value,key=value`, as an address has them (Go's `url.QueryEscape`).
fn details(entry: &Entry) -> String {
    let pairs = entry.attributes.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value)));
    pairs.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        b' ' => "+".to_owned(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn details_are_escaped_as_go_does() {
        assert_eq!(escaped("a b/c=1,x-y_z.~"), "a+b%2Fc%3D1%2Cx-y_z.~");
    }
}
