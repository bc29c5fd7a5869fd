//! Namespaces (namespaces(7)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// Whether a namespace belongs to this process's user namespace or to one below it (ioctl_ns(2), `NS_GET_USERNS`): privileges
/// that this process has reach into such a namespace and no other.
///
/// # Errors
/// `ENOTTY` for what is no namespace.
pub fn is_within_own_user(namespace: BorrowedFd<'_>) -> Result<bool> {
    // linux/nsfs.h
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this request has no argument; what it returns is a new fd.
    match check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _) }.into()) {
        Ok(fd) => {
            let fd = i32::try_from(fd).map_err(|_| rustix::io::Errno::INVAL)?;
            // SAFETY: just made by the kernel, and nobody else has its number.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok(true)
        }
        Err(rustix::io::Errno::PERM) => Ok(false),
        Err(errno) => Err(errno),
    }
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
