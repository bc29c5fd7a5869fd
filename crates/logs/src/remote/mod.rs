//! Logs that are sent to somebody else, line by line: syslog, GELF, Fluentd, the journal.
//!
//! What waits for a receiver that is slow or not there is bounded. Without a connection the oldest lines go first, and
//! are counted; a receiver that is there and slow holds the container up, unless that was not wanted.

mod connection;
mod fluentd;
mod gelf;
mod journald;
mod msgpack;
mod syslog;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};

use crate::entry::Stream;
use crate::error::Result;
use crate::lines::{Lines, Piece};
pub use connection::Target;
use connection::{Connection, Sent, Times};
pub use fluentd::Fluentd;
pub use gelf::{Compression, Gelf};
pub use journald::Journald;
pub use syslog::{Syslog, SyslogFormat};

/// Beyond the buffer, of a container that is held up: what 32 KiB of the shortest lines become.
const OVERFLOW: usize = 32 << 20;

/// How long one that is there may take to take what waits, when all is written.
const SLOW: Duration = Duration::from_secs(15);

/// What a message looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    Syslog(Syslog),
    Gelf(Gelf),
    Fluentd(Fluentd),
    Journald(Journald),
}

/// Where a log is sent, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteConfig {
    pub target: Target,
    pub form: Form,
    /// A receiver that does not keep up holds the container up. Else the oldest lines go.
    pub blocking: bool,
    /// Bytes of messages that may wait.
    pub buffer: usize,
    /// Without a connection the container does not start.
    pub needed: bool,
    /// Between two attempts to connect, in milliseconds.
    pub retry_ms: u64,
    /// After so many attempts in a row that failed, what waits is lost; `None`: it waits for as long as there is room.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// A connection is made anew after so many milliseconds: so a receiver that has moved is found.
    #[serde(default)]
    pub renew_ms: Option<u64>,
    /// A receiver that takes nothing for so many milliseconds is not there any more.
    #[serde(default)]
    pub write_ms: Option<u64>,
}

/// A log that is sent.
#[derive(Debug)]
pub struct Remote {
    config: RemoteConfig,
    lines: Lines,
    /// Of divided lines, by stream, what names all parts of one.
    parts: [u64; 2],
    divided: u64,
    /// Of the next entry: another one for each, here and elsewhere.
    name: u64,
    /// The first one's.
    epoch: u64,
    /// Of entries.
    count: u64,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of what waits.
    bytes: usize,
    connection: Connection,
    lost: u64,
}

/// A line, or a part of one, as forms see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) stream: Stream,
    pub(crate) time: Timestamp,
    pub(crate) part: Option<Part>,
}

/// Of a line that was too long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The same for all parts of a line, and no other's.
    pub(crate) id: u64,
    /// From 1 on.
    pub(crate) number: u32,
    pub(crate) last: bool,
}

impl Remote {
    /// Connects, and waits for that where a connection is needed.
    ///
    /// # Errors
    /// `Remote` when there is no connection.
    pub fn open(config: RemoteConfig) -> Result<Self> {
        let times = Times {
            retry: Duration::from_millis(config.retry_ms.max(1)),
            renew: config.renew_ms.map(Duration::from_millis),
            write: config.write_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
        };
        let files = matches!(config.form, Form::Journald(_));
        let connection = Connection::open(&config.target, files, config.needed, times)?;
        let name = (Timestamp::now().as_nanosecond() as u64) ^ u64::from(std::process::id()) << 40;
        Ok(Self {
            config,
            lines: Lines::default(),
            parts: [0; 2],
            divided: 0,
            name,
            epoch: name,
            count: 0,
            waiting: VecDeque::new(),
            bytes: 0,
            connection,
            lost: 0,
        })
    }

    /// Takes what was read from a stream.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], time: Timestamp) {
        let mut lines = std::mem::take(&mut self.lines);
        let Ok(()) = lines.feed(stream, chunk, time, |piece| {
            self.put(piece);
            Ok::<_, std::convert::Infallible>(())
        });
        self.lines = lines;
        self.send();
    }

    /// The stream has ended: what it wrote without a line feed is sent as a line.
    pub fn end(&mut self, stream: Stream, time: Timestamp) {
        let mut lines = std::mem::take(&mut self.lines);
        let Ok(()) = lines.end(stream, time, |piece| {
            self.put(Piece { ended: true, ..piece });
            Ok::<_, std::convert::Infallible>(())
        });
        self.lines = lines;
        self.send();
    }

    fn put(&mut self, piece: Piece<'_>) {
        if piece.part == 1 {
            self.divided += 1;
            self.parts[piece.stream as usize] = self.divided;
        }
        let part = (piece.part > 0).then(|| Part {
            id: self.parts[piece.stream as usize],
            number: piece.part,
            last: piece.ended,
        });
        let line = Line { text: piece.text, stream: piece.stream, time: piece.time, part };
        self.count += 1;
        let mut messages = Vec::new();
        let stream = self.config.target.is_stream();
        match &self.config.form {
            // As Docker: a record without a text says nothing.
            Form::Syslog(_) if line.text.is_empty() => {}
            Form::Syslog(form) => messages.push(form.encode(&line)),
            Form::Gelf(form) => form.encode(&line, self.name, stream, &mut messages),
            Form::Fluentd(form) => messages.push(form.encode(&line)),
            Form::Journald(form) => messages.push(form.encode(&line, self.epoch, self.count)),
        }
        self.name = self.name.wrapping_add(1);
        for message in messages {
            self.bytes += message.len();
            self.waiting.push_back(message);
        }
        // Who is there and slow holds the container up, which then writes no more; what it had written by then is some
        // pipe full, or several at its end, and has a bound too.
        let held = self.config.blocking && self.connection.is_up();
        let most = if held { self.config.buffer.saturating_add(OVERFLOW) } else { self.config.buffer };
        while self.bytes > most && self.waiting.len() > 1 {
            // What has been sent in part is sent to its end, or the receiver would not understand the next one.
            let oldest = usize::from(self.connection.is_amid());
            let Some(gone) = self.waiting.remove(oldest) else { return };
            self.bytes -= gone.len();
            self.lost += 1;
        }
    }

    /// Whether the container should write no more for now.
    pub fn is_full(&self) -> bool {
        self.config.blocking && self.connection.is_up() && self.bytes >= self.config.buffer
    }

    /// Messages that did not go out, and never will.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What is waited for, and until when.
    pub fn interest(&self) -> (Option<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        self.connection.interest(!self.waiting.is_empty())
    }

    /// Something has happened at the connection, or its time has come.
    pub fn ready(&mut self) {
        self.connection.advance(Instant::now());
        self.give_up();
        self.send();
    }

    /// What waits is lost when it was tried as often as it may.
    fn give_up(&mut self) {
        if self.config.attempts.is_some_and(|most| self.connection.failures() > most) {
            self.lost += self.waiting.len() as u64;
            self.waiting.clear();
            self.bytes = 0;
            self.connection.forget_failures();
        }
    }

    fn send(&mut self) {
        while let Some(message) = self.waiting.front() {
            match self.connection.send(message) {
                Sent::Whole => {}
                // It is too large for a datagram.
                Sent::Refused => self.lost += 1,
                Sent::Later => return,
            }
            self.bytes -= message.len();
            self.waiting.pop_front();
        }
    }

    /// Waits for what is on its way, and no longer than `patience`; longer where a receiver is there that is slow, and worth waiting
    /// for. What is left is lost.
    pub fn finish(mut self, patience: Duration) {
        let began = Instant::now();
        loop {
            let held = self.config.blocking && self.connection.is_up();
            let deadline = began + if held { patience.max(SLOW) } else { patience };
            if self.waiting.is_empty() || Instant::now() >= deadline {
                return;
            }
            connection::wait(self.interest(), deadline);
            self.ready();
        }
    }
}
