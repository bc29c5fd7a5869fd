//! What the kernel knows of a socket's queues.

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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::unread;

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
