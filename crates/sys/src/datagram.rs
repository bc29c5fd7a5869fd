//! Datagrams of IPv6 with the host's own address that they came to, so that the answer leaves from there
//! (`IPV6_PKTINFO`, RFC 3542, ipv6(7)).

use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::{Result, check};

/// Room for one `in6_pktinfo` with its header, aligned as headers have to be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Has the kernel tell of each datagram that is received what address it came to.
///
/// # Errors
/// As setsockopt(2).
pub fn tell_destinations(socket: impl AsFd) -> Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(|_| Errno::OVERFLOW)?;
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw const on).cast());
    // SAFETY: the call reads `length` bytes from where `on` is.
    check(unsafe { libc::setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, value, length) }.into())?;
    Ok(())
}

/// A datagram's length, who has sent it, and what address of the host's it came to.
pub type Received = (usize, SocketAddrV6, Ipv6Addr);

/// Takes a datagram of a socket of IPv6 without waiting for one. What does not fit is lost.
///
/// # Errors
/// `EAGAIN` when there is none; `EPROTO` without [`tell_destinations`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    let mut from = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` of zeros says that there is nothing.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = from.as_mut_ptr().cast();
    header.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).map_err(|_| Errno::OVERFLOW)?;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: all that `header` points to is there until the call has ended, and as long as it says.
    let length = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) } as _)?;
    // SAFETY: zeros are a `sockaddr_in6`, and so is what the kernel has written over them.
    let from = unsafe { from.assume_init() };
    // SAFETY: `header` and its control buffer are as the kernel has left them.
    let mut place = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !place.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give places of whole headers in the control buffer.
        let one = unsafe { place.read_unaligned() };
        if (one.cmsg_level, one.cmsg_type) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
            // SAFETY: a message of this type has an `in6_pktinfo` behind its header, in the control buffer.
            let info = unsafe { libc::CMSG_DATA(place).cast::<libc::in6_pktinfo>().read_unaligned() };
            let address = Ipv6Addr::from(from.sin6_addr.s6_addr);
            let port = u16::from_be(from.sin6_port);
            let peer = SocketAddrV6::new(address, port, from.sin6_flowinfo, from.sin6_scope_id);
            let length = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
            return Ok((length, peer, Ipv6Addr::from(info.ipi6_addr.s6_addr)));
        }
        // SAFETY: as for the first.
        place = unsafe { libc::CMSG_NXTHDR(&raw const header, place) };
    }
    Err(Errno::PROTO)
}

/// Sends a datagram from the host's address `from` without waiting for room.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddrV6, from: Ipv6Addr) -> Result<()> {
    // SAFETY: zeros are an address of no family.
    let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
    name.sin6_family = libc::sa_family_t::try_from(libc::AF_INET6).map_err(|_| Errno::OVERFLOW)?;
    name.sin6_port = to.port().to_be();
    name.sin6_addr.s6_addr = to.ip().octets();
    name.sin6_scope_id = to.scope_id();
    let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let size = u32::try_from(size_of::<libc::in6_pktinfo>()).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: as in `receive`.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).map_err(|_| Errno::OVERFLOW)?;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: it computes a number.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: the control buffer has room for one header with an `in6_pktinfo` (40 bytes of 64) and is aligned.
    unsafe {
        let place = libc::CMSG_FIRSTHDR(&raw const header);
        (*place).cmsg_level = libc::IPPROTO_IPV6;
        (*place).cmsg_type = libc::IPV6_PKTINFO;
        (*place).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(place).cast::<libc::in6_pktinfo>().write_unaligned(info);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: all that `header` points to is there until the call has ended; the call does not write to the bytes.
    check(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags) } as _)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn an_answer_leaves_from_where_the_question_came_to() {
        let (Ok(server), Ok(client)) = (UdpSocket::bind("[::]:0"), UdpSocket::bind("[::1]:0")) else {
            eprintln!("skipped: no IPv6");
            return;
        };
        let mut buffer = [0; 16];
        assert_eq!(receive(&server, &mut buffer), Err(Errno::AGAIN));
        tell_destinations(&server).unwrap();
        let port = server.local_addr().unwrap().port();
        client.send_to(b"who", (Ipv6Addr::LOCALHOST, port)).unwrap();
        let (length, peer, to) = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], to), (&b"who"[..], Ipv6Addr::LOCALHOST));
        assert_eq!(std::net::SocketAddr::from(peer), client.local_addr().unwrap());
        send(&server, b"me", peer, to).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"me"[..], (Ipv6Addr::LOCALHOST, port).into()));
    }
}
