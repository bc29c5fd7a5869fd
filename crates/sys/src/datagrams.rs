//! Datagrams of IPv4, many at a time (recvmmsg(2), sendmmsg(2)).

use std::fmt;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::{Result, check};

/// Room for datagrams that have come.
pub struct Inbox {
    bytes: Box<[u8]>,
    /// For each datagram.
    room: usize,
    peers: Box<[libc::sockaddr_in]>,
    lengths: Box<[u32]>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("room", &self.room).finish_non_exhaustive()
    }
}

impl Inbox {
    /// For `count` datagrams of `room` bytes; what does not fit of one is lost.
    pub fn new(count: usize, room: usize) -> Self {
        // SAFETY: zeros are an address of no family.
        let nobody: libc::sockaddr_in = unsafe { zeroed() };
        Self {
            bytes: vec![0; count * room].into(),
            room,
            peers: vec![nobody; count].into(),
            lengths: vec![0; count].into(),
        }
    }

    /// Takes what has come, without waiting; how many that were. Those of before are forgotten.
    ///
    /// # Errors
    /// `EAGAIN` when nothing has come; what befell one that was sent before.
    pub fn receive(&mut self, socket: impl AsFd) -> Result<usize> {
        let mut parts: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(self.room)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: chunk.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().zip(&mut *self.peers).map(header).collect();
        let (fd, count) = (socket.as_fd().as_raw_fd(), u32::try_from(headers.len()).map_err(|_| Errno::OVERFLOW)?);
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: there are `count` headers; what they point to is in `parts`, `self.bytes` and `self.peers`, which nobody
        // else uses until the call has ended.
        let got =
            check(unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), count, flags as _, std::ptr::null_mut()) }.into())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = header.msg_len;
        }
        usize::try_from(got).map_err(|_| Errno::OVERFLOW)
    }

    /// The bytes of a datagram that has come, and who has sent it.
    pub fn get(&self, index: usize) -> Option<(&[u8], SocketAddrV4)> {
        let length = usize::try_from(*self.lengths.get(index)?).ok()?;
        let start = index * self.room;
        let bytes = self.bytes.get(start..start + length)?;
        let peer = self.peers.get(index)?;
        Some((
            bytes,
            SocketAddrV4::new(Ipv4Addr::from(peer.sin_addr.s_addr.to_ne_bytes()), u16::from_be(peer.sin_port)),
        ))
    }
}

/// Datagrams that are to be sent.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    peers: Vec<libc::sockaddr_in>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Outbox {
    pub fn push(&mut self, bytes: &[u8], to: SocketAddrV4) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        // SAFETY: zeros are an address of no family.
        let mut peer: libc::sockaddr_in = unsafe { zeroed() };
        // It is 2.
        peer.sin_family = libc::AF_INET as _;
        peer.sin_port = to.port().to_be();
        peer.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
        self.peers.push(peer);
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Sends all, and waits for no room: one that cannot be sent is lost, as any datagram may be.
    pub fn send(&mut self, socket: impl AsFd) {
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.ends.len());
        for end in &self.ends {
            // The kernel does not write there.
            let part = &self.bytes[start..*end];
            parts.push(libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
            start = *end;
        }
        let mut headers: Vec<libc::mmsghdr> = parts.iter_mut().zip(&mut self.peers).map(header).collect();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let mut rest = headers.as_mut_slice();
        while let Ok(count @ 1..) = u32::try_from(rest.len()) {
            let fd = socket.as_fd().as_raw_fd();
            // SAFETY: there are `count` headers; what they point to is in `parts`, `self.bytes` and `self.peers`, and stays
            // there until the call has ended. It writes to nothing but the headers.
            let sent = check(unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), count, flags as _) }.into());
            // An error is that of the first.
            let done = sent.ok().and_then(|sent| usize::try_from(sent).ok()).unwrap_or(1).clamp(1, rest.len());
            rest = &mut rest[done..];
        }
        self.bytes.clear();
        self.ends.clear();
        self.peers.clear();
    }
}

/// A header for one datagram; it points to both.
fn header((part, peer): (&mut libc::iovec, &mut libc::sockaddr_in)) -> libc::mmsghdr {
    // SAFETY: headers of zeros say that there is nothing.
    let mut header: libc::mmsghdr = unsafe { zeroed() };
    header.msg_hdr.msg_name = (&raw mut *peer).cast();
    // It is 16.
    header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as _;
    header.msg_hdr.msg_iov = part;
    header.msg_hdr.msg_iovlen = 1;
    header
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;

    fn socket() -> (UdpSocket, SocketAddrV4) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else { unreachable!() };
        (socket, address)
    }

    #[test]
    fn many_come_and_many_go() {
        let ((server, to), (one, first), (other, second)) = (socket(), socket(), socket());
        let mut inbox = Inbox::new(2, 8);
        assert_eq!(inbox.receive(&server), Err(Errno::AGAIN));
        one.send_to(b"one", to).unwrap();
        other.send_to(b"longer than the room", to).unwrap();
        one.send_to(b"", to).unwrap();
        assert_eq!(inbox.receive(&server), Ok(2));
        assert_eq!(inbox.get(0), Some((&b"one"[..], first)));
        assert_eq!(inbox.get(1), Some((&b"longer t"[..], second)));
        assert_eq!(inbox.get(2), None);
        assert_eq!(inbox.receive(&server), Ok(1));
        assert_eq!(inbox.get(0), Some((&b""[..], first)));
        let mut outbox = Outbox::default();
        outbox.send(&server);
        assert!(outbox.is_empty());
        outbox.push(b"to one", first);
        // One that cannot be sent keeps no other back.
        outbox.push(&[0; 70_000], first);
        outbox.push(b"to another", second);
        outbox.send(&server);
        assert!(outbox.is_empty());
        let mut buffer = [0; 16];
        assert_eq!(one.recv_from(&mut buffer).unwrap(), (6, to.into()));
        assert_eq!(other.recv_from(&mut buffer).unwrap(), (10, to.into()));
        assert_eq!(&buffer[..10], b"to another");
    }
}
