//! What the kernel knows of a socket: its queues, and who is at its other end.

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, check};

/// How much of what was written to a unix socket its other end has not read yet (`SIOCOUTQ`). The kernel counts its
/// own buffers, so only zero has a meaning of its own.
///
/// # Errors
/// As ioctl(2).
pub fn unread(socket: impl AsFd) -> Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, to where `bytes` is. For sockets SIOCOUTQ is TIOCOUTQ (linux/sockios.h).
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) }.into())?;
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// The user ID of who has connected a unix socket, or has called listen(2) on it (`SO_PEERCRED`, unix(7)). It is as the
/// caller's user namespace has it: without a mapping there it is the overflow ID (user_namespaces(7)). rustix takes the
/// process ID beside it for one that is not 0, which it is where the other one's PID namespace is not seen.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_user(socket: impl AsFd) -> Result<u32> {
    Ok(peer(socket)?.uid)
}

/// The process of the same one; 0 for one that this PID namespace does not see. It may have ended, and its number be
/// another's.
///
/// # Errors
/// As getsockopt(2).
pub fn peer_process(socket: impl AsFd) -> Result<i32> {
    Ok(peer(socket)?.pid)
}

fn peer(socket: impl AsFd) -> Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| rustix::io::Errno::OVERFLOW)?;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw mut peer).cast());
    // SAFETY: the call writes at most `length` bytes to where `peer` is, which is a structure of plain numbers.
    check(unsafe { libc::getsockopt(fd, level, name, value, &raw mut length) }.into())?;
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::{peer_process, peer_user, unread};

    #[test]
    fn who_is_at_the_other_end_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer_user(&ours).unwrap(), rustix::process::geteuid().as_raw());
        assert_eq!(peer_process(&ours).unwrap(), rustix::process::getpid().as_raw_nonzero().get());
    }

    #[test]
    fn what_was_read_is_not_counted_any_more() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        ours.write_all(b"abc").unwrap();
        assert!(unread(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
    }
}
