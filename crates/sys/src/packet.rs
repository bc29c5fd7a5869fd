//! Frames as links have them (packet(7)).

use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Result, check};

/// All protocols (`ETH_P_ALL`), in the network's order.
const ALL: u16 = 3u16.to_be();

/// Room for a `timespec` with its header, aligned as headers have to be.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A frame that a link has sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of the buffer, what is the frame's.
    pub kept: usize,
    /// The frame's length, also of one that did not fit.
    pub length: usize,
    /// When it was seen: nanoseconds since 1970; 0 when the kernel does not say.
    pub time: u64,
    /// The kind of the link (`ARPHRD_…`): 1 is Ethernet.
    pub kind: u16,
}

fn size<T>() -> Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::OVERFLOW)
}

/// A socket for all frames of a link of this network namespace, or of all of its links.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW`, `ENODEV` when there is no such link.
pub fn open(link: Option<u32>) -> Result<OwnedFd> {
    // Of no protocol until it is bound: nothing of other links gets in.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let on: libc::c_int = 1;
    let fd = socket.as_raw_fd();
    // SAFETY: the value is an int that lives across the call, and its size is what is given.
    check(unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, (&raw const on).cast(), size::<libc::c_int>()?)
    } as _)?;
    // SAFETY: a `sockaddr_ll` of zeros is one.
    let mut place: libc::sockaddr_ll = unsafe { zeroed() };
    place.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(|_| Errno::OVERFLOW)?;
    place.sll_protocol = ALL;
    place.sll_ifindex = link.unwrap_or(0).cast_signed();
    // SAFETY: `place` is a whole `sockaddr_ll` of the size that is given.
    check(unsafe { libc::bind(fd, (&raw const place).cast(), size::<libc::sockaddr_ll>()?) } as _)?;
    Ok(socket)
}

/// Has a link give all frames that it sees, those for others, too; as long as the socket is there.
///
/// # Errors
/// `ENODEV` when there is no such link.
pub fn see_all(socket: impl AsFd, link: u32) -> Result<()> {
    // SAFETY: a `packet_mreq` of zeros is one.
    let mut wanted: libc::packet_mreq = unsafe { zeroed() };
    wanted.mr_ifindex = link.cast_signed();
    wanted.mr_type = u16::try_from(libc::PACKET_MR_PROMISC).map_err(|_| Errno::OVERFLOW)?;
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw const wanted).cast());
    // SAFETY: the value is a whole `packet_mreq` of the size that is given.
    check(unsafe {
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, value, size::<libc::packet_mreq>()?)
    } as _)?;
    Ok(())
}

/// How many frames were lost for want of room since this was asked last.
///
/// # Errors
/// `ENOTSOCK`, `ENOPROTOOPT` for what is no such socket.
pub fn lost(socket: impl AsFd) -> Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size::<libc::tpacket_stats>()?;
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw mut stats).cast());
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `stats`.
    check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut length) } as _)?;
    Ok(stats.tp_drops)
}

/// Takes the next frame without waiting for one.
///
/// # Errors
/// `EAGAIN` when there is none; `ENETDOWN` when the link has gone down.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Frame> {
    // SAFETY: a `sockaddr_ll` of zeros is one.
    let mut from: libc::sockaddr_ll = unsafe { zeroed() };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a `msghdr` of zeros says that there is nothing.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = size::<libc::sockaddr_ll>()?;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // With MSG_TRUNC the length is the frame's, whatever fits.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: all that `header` points to is there until the call has ended, and as long as it says.
    let length = check(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) } as _)?;
    let length = usize::try_from(length).map_err(|_| Errno::OVERFLOW)?;
    let mut frame = Frame { kept: length.min(buffer.len()), length, time: 0, kind: from.sll_hatype };
    // SAFETY: `header` and its control buffer are as the kernel has left them.
    let mut place = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !place.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give places of whole headers in the control buffer.
        let one = unsafe { place.read_unaligned() };
        if (one.cmsg_level, one.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            // SAFETY: a message of this type has a `timespec` behind its header, in the control buffer.
            let time = unsafe { libc::CMSG_DATA(place).cast::<libc::timespec>().read_unaligned() };
            let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
            frame.time = seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0));
        }
        // SAFETY: as for the first.
        place = unsafe { libc::CMSG_NXTHDR(&raw const header, place) };
    }
    Ok(frame)
}
