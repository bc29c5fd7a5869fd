//! A daemon's connection, seen from the process: never waited for, so that a daemon that is stopped in the middle of a
//! message holds up nobody.

use std::io::{ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use wharf_sys::message::{MAX_BYTES, MAX_FDS};

use crate::poll::Interest;
use crate::protocol::Reply;

/// Length of what stands before a message.
const PREFIX: usize = 4;
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    got: Vec<u8>,
    /// They came with bytes of a message that is not whole yet, or are the next one's.
    fds: Vec<OwnedFd>,
    out: Vec<u8>,
}

/// What is in a message: bytes, and the fds that came with them.
pub(crate) type Message = (Vec<u8>, Vec<OwnedFd>);

/// That the connection is over.
#[derive(Debug)]
pub(crate) struct Closed;

impl Control {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, got: Vec::new(), fds: Vec::new(), out: Vec::new() }
    }

    pub(crate) fn interest(&self) -> Interest {
        if self.out.is_empty() { Interest::Read } else { Interest::Both }
    }

    /// The next message, if it has come whole. A daemon sends one and waits for its answer, so the fds that are here
    /// are that message's.
    ///
    /// # Errors
    /// `Closed` at the daemon's end, and for what is no message of ours.
    pub(crate) fn receive(&mut self) -> Result<Option<Message>, Closed> {
        loop {
            if let Some(prefix) = self.got.first_chunk::<PREFIX>() {
                let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(|_| Closed)?;
                if length > MAX_BYTES || self.fds.len() > MAX_FDS {
                    return Err(Closed);
                }
                if self.got.len() >= PREFIX + length {
                    let message = self.got[PREFIX..PREFIX + length].to_vec();
                    self.got.drain(..PREFIX + length);
                    return Ok(Some((message, std::mem::take(&mut self.fds))));
                }
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Whether there was something to read.
    fn read(&mut self) -> Result<bool, Closed> {
        let have = self.got.len();
        self.got.resize(have + CHUNK, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut self.got[have..])];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let read = recvmsg(&self.stream, slices, &mut ancillary, flags).map(|read| read.bytes);
        self.got.truncate(have + read.unwrap_or(0));
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        match read {
            Ok(0) => Err(Closed),
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(_) => Err(Closed),
        }
    }

    /// # Errors
    /// `Closed` at the daemon's end.
    pub(crate) fn send(&mut self, reply: &Reply) -> Result<(), Closed> {
        let bytes = serde_json::to_vec(reply).map_err(|_| Closed)?;
        self.out.extend(u32::try_from(bytes.len()).map_err(|_| Closed)?.to_be_bytes());
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
        let reply = Reply { error: Some("x".repeat(1 << 20)), ..Reply::default() };
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
        assert_eq!(reader.join().unwrap(), 4 + (1 << 20) + br#"{"error":""}"#.len());
    }
}
