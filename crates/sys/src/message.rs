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
    let mut length = [0u8; 4];
    let mut fds = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut have = 0;
    while have < length.len() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut length[have..])];
        let got = recvmsg(&socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC);
        let got = match got {
            Err(Errno::INTR) => continue,
            other => other?.bytes,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        match got {
            0 if have == 0 => return Ok(None),
            0 => return Err(Errno::IO),
            n => have += n,
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let mut bytes = vec![0; length];
    let mut have = 0;
    while have < length {
        match retry(|| rustix::io::read(&socket, &mut bytes[have..]))? {
            0 => return Err(Errno::IO),
            n => have += n,
        }
    }
    Ok(Some((bytes, fds)))
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
