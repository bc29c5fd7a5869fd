//! Namespaces (namespaces(7)).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// What kind of namespace an fd is of: its `CLONE_NEW…` flag (ioctl_ns(2), `NS_GET_NSTYPE`).
///
/// # Errors
/// `ENOTTY` for what is no namespace.
pub fn kind(namespace: BorrowedFd<'_>) -> Result<u32> {
    // linux/nsfs.h; libc has it not for every target.
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request has no argument and changes nothing.
    let kind = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) }.into())?;
    u32::try_from(kind).map_err(|_| rustix::io::Errno::INVAL)
}

/// Gives the calling thread, and it alone, a new network namespace: nothing in it but a loopback that is down.
///
/// For a thread that was made for this and ends afterwards: any other would find the host's network gone.
///
/// # Errors
/// As unshare(2): `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at a limit.
pub fn unshare_network() -> Result<()> {
    // SAFETY: a network namespace is a thread's own; memory and descriptors stay as they are.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()).map(drop)
}
