//! A daemon's connection, seen from the process: never waited for, so that a daemon that is stopped in the middle of a
//! message holds up nobody.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use serde::Serialize;
use wharf_sys::message::Incoming;

use crate::poll::Interest;

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

    pub(crate) fn interest(&self) -> Interest {
        if self.out.is_empty() { Interest::Read } else { Interest::Both }
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
    pub(crate) fn send(&mut self, reply: &impl Serialize) -> Result<(), Closed> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use wharf_sys::message;

    fn pair() -> (UnixStream, Control) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ours, Control::new(theirs))
    }

    #[test]
    fn messages_come_whole_with_their_fds() {
        let (mut daemon, mut control) = pair();
        assert!(control.receive().unwrap().is_none());
        message::send(&daemon, b"first", &[daemon.as_fd(), daemon.as_fd()]).unwrap();
        let (bytes, fds) = control.receive().unwrap().unwrap();
        assert_eq!((&bytes[..], fds.len()), (&b"first"[..], 2));
        // They are the daemon's end too.
        drop(fds);
        // In pieces.
        for piece in [&[0, 0][..], &[0, 2], b"h"] {
            daemon.write_all(piece).unwrap();
            assert!(control.receive().unwrap().is_none());
        }
        daemon.write_all(b"i").unwrap();
        assert_eq!(control.receive().unwrap().unwrap().0, b"hi");
        // A large one, and what was sent before the end.
        let large = vec![7; 200_000];
        let sender = std::thread::spawn(move || message::send(&daemon, &large, &[]).unwrap());
        let bytes = loop {
            if let Some((bytes, _)) = control.receive().unwrap() {
                break bytes;
            }
            std::thread::yield_now();
        };
        assert_eq!(bytes.len(), 200_000);
        sender.join().unwrap();
        assert!(control.receive().is_err());
    }

    #[test]
    fn a_length_that_lies_ends_it() {
        let (mut daemon, mut control) = pair();
        daemon.write_all(&[0xff; 4]).unwrap();
        assert!(control.receive().is_err());
    }

    #[test]
    fn replies_that_are_not_read_wait() {
        let (mut daemon, mut control) = pair();
        let reply = "x".repeat(1 << 20);
        control.send(&reply).unwrap();
        assert_eq!(control.interest(), Interest::Both);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            daemon.read_to_end(&mut all).unwrap();
            all.len()
        });
        while control.interest() == Interest::Both {
            control.flush().unwrap();
        }
        drop(control);
        assert_eq!(reader.join().unwrap(), 4 + (1 << 20) + br#""""#.len());
    }
}
