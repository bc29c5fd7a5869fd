//! A daemon's connection, seen from the process: never waited for, so that a daemon that is stopped in the middle of a
//! message holds up nobody.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use wharf_sys::message::Incoming;

use crate::protocol::Reply;

#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    incoming: Incoming,
    out: Vec<u8>,
}

/// What is in a message: bytes, and the fds that came with them.
pub(crate) type Message = (Vec<u8>, Vec<OwnedFd>);

/// That the connection is over.
#[derive(Debug)]
pub(crate) struct Closed;

impl Control {
    /// For a stream that does not block.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: Incoming::default(), out: Vec::new() }
    }

    /// The next message, if it has come whole.
    ///
    /// # Errors
    /// `Closed` at the daemon's end, and for what is no message of ours.
    pub(crate) fn receive(&mut self) -> Result<Option<Message>, Closed> {
        match self.incoming.receive_now(&self.stream) {
            Ok(Some(message)) => Ok(Some(message)),
            Err(Errno::AGAIN) => Ok(None),
            Ok(None) | Err(_) => Err(Closed),
        }
    }

    /// Says something, as far as there is room; the rest waits.
    ///
    /// # Errors
    /// `Closed` when nobody reads any more.
    pub(crate) fn send(&mut self, reply: &Reply) -> Result<(), Closed> {
        let bytes = serde_json::to_vec(reply).map_err(|_| Closed)?;
        let length = u32::try_from(bytes.len()).map_err(|_| Closed)?;
        self.out.extend(length.to_be_bytes());
        self.out.extend(bytes);
        self.flush()
    }

    /// Writes what can be.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) fn flush(&mut self) -> Result<(), Closed> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(Closed),
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
