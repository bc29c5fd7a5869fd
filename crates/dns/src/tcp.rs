//! A client that asks over TCP: messages behind their lengths, several under way at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use wharf_companion::Interest;

use crate::wire::{self, MAX};

/// Queries of one client that wait at a time; more stay in its socket.
const MAX_WAITING: usize = 16;
/// Bytes that a client may leave unread before it is read from again.
const MAX_UNREAD: usize = MAX;
/// A query is no longer than this, whatever it carries.
const MAX_QUERY: usize = 4096;
/// How long a client may do nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) container: u64,
    /// When it was last of use.
    pub(crate) used: Instant,
    stream: TcpStream,
    got: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    waiting: usize,
    ended: bool,
}

/// That the client is to be closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl Client {
    pub(crate) fn new(container: u64, stream: TcpStream, now: Instant) -> Self {
        Self { container, used: now, stream, got: Vec::new(), out: Vec::new(), sent: 0, waiting: 0, ended: false }
    }

    fn takes_more(&self) -> bool {
        self.waiting < MAX_WAITING && self.out.len() - self.sent < MAX_UNREAD
    }

    /// What it waits for.
    pub(crate) fn interest(&self) -> Interest {
        let reads = !self.ended && self.takes_more();
        match (reads, self.sent < self.out.len()) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        }
    }

    /// Writes and reads what can be.
    ///
    /// # Errors
    /// `Closed` when nothing is to come of it any more.
    pub(crate) fn go_on(&mut self, buffer: &mut [u8], now: Instant) -> Result<(), Closed> {
        // Then it is heard of only when it has broken off; and, in the same round, when it has had an answer since.
        if self.interest() == Interest::Nothing && matches!(self.stream.take_error(), Ok(Some(_)) | Err(_)) {
            return Err(Closed);
        }
        self.write(now)?;
        if !self.ended && self.takes_more() && self.got.len() < MAX_QUERY + 2 {
            match self.stream.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.got.extend_from_slice(buffer.get(..length).unwrap_or_default());
                    self.used = now;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }

    /// Whether all is said, after [`Self::query`] had nothing more.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.waiting == 0 && self.sent == self.out.len()
    }

    /// The next query that has come whole. Each must be answered, or be let go of by [`Self::skip`].
    ///
    /// # Errors
    /// `Closed` for one that is too long.
    pub(crate) fn query(&mut self) -> Result<Option<Vec<u8>>, Closed> {
        if !self.takes_more() {
            return Ok(None);
        }
        let Some(length) = wire::word(&self.got, 0).map(usize::from) else { return Ok(None) };
        if length > MAX_QUERY {
            return Err(Closed);
        }
        let Some(message) = self.got.get(2..2 + length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.got.drain(..2 + length);
        self.waiting += 1;
        Ok(Some(message))
    }

    /// A query gets no answer.
    pub(crate) fn skip(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// # Errors
    /// `Closed` when the client is no more.
    pub(crate) fn answer(&mut self, message: &[u8], now: Instant) -> Result<(), Closed> {
        self.skip();
        let length = u16::try_from(message.len()).map_err(|_| Closed)?;
        self.out.extend(length.to_be_bytes());
        self.out.extend(message);
        self.used = now;
        self.write(now)
    }

    fn write(&mut self, now: Instant) -> Result<(), Closed> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(Closed),
                Ok(length) => {
                    self.sent += length;
                    self.used = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
        // What was sent is let go of, at the latest when it is most of what is here.
        if self.sent * 2 >= self.out.len() {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
