//! Reading a container's log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use wharf_logs::{Entry, ReadOptions, Reader, Stream};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::log_options;
use crate::log_watch::Follower;
use crate::slot::Life;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub timestamps: bool,
    /// The last so many entries; `None` is all.
    pub tail: Option<u64>,
    pub follow: bool,
    /// The attributes that the log driver was told to keep, before each line.
    pub details: bool,
    /// Not before a container that has just been started had the time to say something: clients that ask at once are
    /// used to an engine that takes longer to start one.
    pub first_words: bool,
}

/// A log as it goes to the client: frames, or plain bytes where the container has a terminal.
#[derive(Debug)]
pub struct Log {
    pub tty: bool,
    pub chunks: mpsc::Receiver<Bytes>,
    /// Comes, or fails, when there is in `chunks` what the log has had to begin with. Who answers after that sends head and
    /// lines at once, as Docker does: there are clients that end when nothing follows the head.
    pub begun: oneshot::Receiver<()>,
}

/// So long after its start a container has had time to say something.
const FIRST_WORDS: Duration = Duration::from_millis(150);
/// Chunks that may wait for a slow client before the reading waits too.
const WAITING: usize = 2;
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
        let (begin, begun) = oneshot::channel();
        let path = PathBuf::from(&record.log_path);
        let follows = options.follow && record.state.status.is_active();
        // First the watch, then the files: nothing falls in between.
        let following = match follows.then(|| self.inner.log_watch.follow(&path)).transpose() {
            Ok(watched) => watched.map(|watched| {
                let life = slot.life();
                let exits = life.borrow().exits;
                Following { watched, life, exits, until: options.until }
            }),
            Err(error) => return Err(EngineError::from_source("cannot follow the log", &error)),
        };
        let fresh = options.first_words && !follows && record.state.status.is_active();
        let early = fresh.then(|| time_left(&record.state.started_at)).flatten();
        let mut life = slot.life();
        tokio::spawn(async move {
            if let Some(left) = early {
                let _ = tokio::time::timeout(left, life.wait_for(|life| !life.active)).await;
            }
            if let Err(error) = send_all(&path, options, tty, following, (sender, begin)).await {
                tracing::warn!("cannot read the log {}: {error}", path.display());
            }
        });
        Ok(Log { tty, chunks, begun })
    }
}

/// How long a container's first words are waited for.
fn time_left(started_at: &str) -> Option<Duration> {
    let started: Timestamp = started_at.parse().ok()?;
    // A clock that was put back says nothing.
    let since = Duration::try_from(Timestamp::now().duration_since(started)).ok()?;
    FIRST_WORDS.checked_sub(since)
}

/// What is waited for between two readings.
struct Following {
    watched: Follower,
    life: watch::Receiver<Life>,
    /// How often it had ended before.
    exits: u64,
    until: Option<Timestamp>,
}

impl Following {
    /// Whether nothing more is written that is wanted. Looked at before a reading: what was written before that is read.
    fn ends(&self) -> bool {
        self.is_over(&self.life.borrow()) || self.until.is_some_and(|until| Timestamp::now() > until)
    }

    /// With its end a container's log is over, as Docker has it, also where its restart policy starts it again: who follows
    /// on asks again then, as Compose does.
    fn is_over(&self, life: &Life) -> bool {
        !life.active || life.exits != self.exits
    }

    async fn wait(&mut self) {
        let exits = self.exits;
        let until = self.until.map(|until| until.duration_since(Timestamp::now()).try_into().unwrap_or_default());
        let late = async {
            match until {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.watched.changed() => {}
            _ = self.life.wait_for(|life| !life.active || life.exits != exits) => {}
            () = late => {}
        }
    }
}

/// A follower that waits, for its log or for its client, has no thread.
async fn send_all(
    path: &Path,
    options: LogOptions,
    tty: bool,
    mut following: Option<Following>,
    (sender, begin): (mpsc::Sender<Bytes>, oneshot::Sender<()>),
) -> Result<()> {
    let mut begin = Some(begin);
    let own = path.to_owned();
    let mut reading = blocking(move || Reading::open(&own, options, tty)).await?;
    loop {
        let ends = following.as_ref().is_none_or(Following::ends);
        // As long as the client takes what is read, and then it is waited for here.
        loop {
            let (own, mut next) = (sender.clone(), reading);
            let held_up;
            (reading, held_up) = blocking(move || {
                let held_up = next.send(&own)?;
                Ok((next, held_up))
            })
            .await?;
            // Nobody may wait for it.
            let _ = begin.take().map(|begin| begin.send(()));
            match held_up {
                Some(chunk) => {
                    if sender.send(chunk).await.is_err() {
                        // The client has gone.
                        return Ok(());
                    }
                }
                None => break,
            }
        }
        match &mut following {
            Some(following) if !ends && !reading.reader.is_over() => tokio::select! {
                () = following.wait() => {}
                () = sender.closed() => return Ok(()),
            },
            _ => return Ok(()),
        }
    }
}

struct Reading {
    reader: Reader,
    options: LogOptions,
    tty: bool,
}

impl Reading {
    fn open(path: &Path, options: LogOptions, tty: bool) -> Result<Self> {
        let read = ReadOptions {
            since: options.since,
            until: options.until,
            tail: options.tail,
            follow: options.follow,
            stdout: options.stdout,
            stderr: options.stderr,
        };
        let reader = Reader::open(path, read).map_err(|error| failed(&error))?;
        Ok(Self { reader, options, tty })
    }

    /// Sends what there is now. The answer is a chunk that finds no room: the client is slower.
    fn send(&mut self, sender: &mpsc::Sender<Bytes>) -> Result<Option<Bytes>> {
        let mut chunk = BytesMut::new();
        loop {
            let entry = self.reader.next_entry().map_err(|error| failed(&error))?;
            let ended = entry.is_none();
            if let Some(entry) = entry {
                put(&mut chunk, &entry, &self.options, self.tty);
            }
            let full = chunk.len() >= CHUNK || ended || !self.reader.has_more();
            if full
                && !chunk.is_empty()
                && let Err(unsent) = sender.try_send(chunk.split().freeze())
            {
                return Ok(Some(unsent.into_inner()));
            }
            if ended {
                return Ok(None);
            }
        }
    }
}

fn failed(error: &wharf_logs::LogError) -> EngineError {
    EngineError::from_source("cannot read the log", error)
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
    use jiff::ToSpan;

    use super::*;

    #[test]
    fn first_words_are_waited_for_once() {
        let ago = |time: jiff::Span| time_left(&(Timestamp::now() - time).to_string());
        assert!(ago(10.milliseconds()).is_some_and(|left| left < FIRST_WORDS));
        assert!(ago(1.second()).is_none() && ago(-1.second()).is_none() && time_left("").is_none());
    }

    #[test]
    fn details_are_escaped_as_go_does() {
        assert_eq!(escaped("a b/c=1,x-y_z.~"), "a+b%2Fc%3D1%2Cx-y_z.~");
    }
}
