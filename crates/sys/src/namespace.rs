//! Namespaces of the calling thread (namespaces(7)).

use crate::{Result, check};

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
