//! Messages with file descriptors over unix stream sockets (`SCM_RIGHTS`, unix(7)).
//!
//! A message is a length (32 bits, big endian) and that many bytes; its fds travel with the length.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::Result;

/// More fds than this go with no message of ours; the kernel's own bound is 253.
pub const MAX_FDS: usize = 64;
/// More bytes than this are no message of ours.
pub const MAX_BYTES: usize = 16 << 20;

/// Sends `bytes` and duplicates of `fds`.
///
/// # Errors
/// `EPIPE` when nobody reads any more, `EMSGSIZE` past the bounds.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if fds.len() > MAX_FDS || bytes.len() > MAX_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let length = u32::try_from(bytes.len()).map_err(|_| Errno::MSGSIZE)?.to_be_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    let sent = retry(|| sendmsg(&socket, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL))?;
    if sent != length.len() {
        return Err(Errno::IO);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = retry(|| rustix::net::send(&socket, rest, SendFlags::NOSIGNAL))?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Receives one message, or `None` when the other side has closed. Received fds are close-on-exec.
///
/// # Errors
/// `EMSGSIZE` for a message past the bounds, `EIO` when the other side ended in the middle of one.
pub fn receive(socket: impl AsFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    Incoming::default().receive(socket, RecvFlags::empty())
}

/// A message on its way in, for who does not wait for the rest of it.
#[derive(Debug, Default)]
pub struct Incoming {
    /// What has come of the length, and of the bytes after it.
    head: Vec<u8>,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Incoming {
    /// As [`receive`], without waiting: what has come so far is kept for the next call.
    ///
    /// # Errors
    /// `EAGAIN` when it has not come whole; else as [`receive`].
    pub fn receive_now(&mut self, socket: impl AsFd) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        self.receive(socket, RecvFlags::DONTWAIT)
    }

    fn receive(&mut self, socket: impl AsFd, flags: RecvFlags) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        const LENGTH: usize = 4;
        while self.head.len() < LENGTH {
            let mut part = [0u8; LENGTH];
            let room = LENGTH - self.head.len();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let slices = &mut [IoSliceMut::new(&mut part[..room])];
            let got = match recvmsg(&socket, slices, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => continue,
                other => other?.bytes,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    self.fds.extend(received);
                }
            }
            match got {
                0 if self.head.is_empty() => return Ok(None),
                0 => return Err(Errno::IO),
                got => self.head.extend_from_slice(&part[..got]),
            }
        }
        let length = self.head.first_chunk().map_or(0, |head| u32::from_be_bytes(*head) as usize);
        if length > MAX_BYTES {
            return Err(Errno::MSGSIZE);
        }
        while self.bytes.len() < length {
            // What the length promises takes room only as it comes.
            let mut part = [0u8; 4 << 10];
            let room = part.len().min(length - self.bytes.len());
            match retry(|| rustix::net::recv(&socket, &mut part[..room], flags))?.0 {
                0 => return Err(Errno::IO),
                got => self.bytes.extend_from_slice(&part[..got]),
            }
        }
        self.head.clear();
        Ok(Some((std::mem::take(&mut self.bytes), std::mem::take(&mut self.fds))))
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_and_fds_arrive_together() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through the socket").unwrap();
        file.rewind().unwrap();
        send(&left, b"hello", &[file.as_fd()]).unwrap();
        send(&left, b"", &[]).unwrap();
        drop(left);
        let (bytes, mut fds) = receive(&right).unwrap().unwrap();
        assert_eq!(bytes, b"hello");
        let mut text = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through the socket");
        assert_eq!(receive(&right).unwrap().unwrap().0, b"");
        assert!(receive(&right).unwrap().is_none());
    }

    #[test]
    fn who_does_not_wait_gets_a_message_when_it_is_whole() {
        let (mut left, right) = UnixStream::pair().unwrap();
        let mut incoming = Incoming::default();
        for byte in [0, 0, 0, 2, b'a'] {
            assert_eq!(incoming.receive_now(&right).unwrap_err(), Errno::AGAIN);
            left.write_all(&[byte]).unwrap();
        }
        assert_eq!(incoming.receive_now(&right).unwrap_err(), Errno::AGAIN);
        left.write_all(b"b").unwrap();
        send(&left, b"next", &[right.as_fd()]).unwrap();
        assert_eq!(incoming.receive_now(&right).unwrap().unwrap().0, b"ab");
        let (bytes, fds) = incoming.receive_now(&right).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (b"next".as_slice(), 1));
        // Not by a close: a process that another test forks just now has this end as well, until its exec.
        left.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(incoming.receive_now(&right).unwrap().is_none());
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(receive(&right).unwrap_err(), Errno::MSGSIZE);
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&[0, 0, 0, 9, 1]).unwrap();
        drop(left);
        assert_eq!(receive(&right).unwrap_err(), Errno::IO);
    }
}
