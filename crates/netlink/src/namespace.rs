//! Network namespaces, each entered by a thread of its own.
//!
//! A thread that cannot find back would do the host's work in a container's network; so no thread that does anything
//! else ever leaves its own.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use crate::{NetlinkError, Result};

/// Does `f` in a thread in the network namespace `netns`, and waits for it.
///
/// # Errors
/// When there is no thread to be had, or `netns` is no network namespace.
pub fn within<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> Result<T> {
    in_a_thread("enter a network namespace", || {
        rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(|errno| NetlinkError::new("enter a network namespace", errno))?;
        Ok(f())
    })
}

/// Makes a network namespace, does `f` in it, and gives back a handle on it and what `f` gives. When the last handle, process and socket
/// of it is gone, so is it, with all that is in it.
///
/// # Errors
/// As unshare(2), and those of `f`.
pub fn create<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<(OwnedFd, T)> {
    const ACTION: &str = "make a network namespace";
    in_a_thread(ACTION, || {
        let fail = |errno| NetlinkError::new(ACTION, errno);
        wharf_sys::namespace::unshare_network().map_err(fail)?;
        let done = f()?;
        Ok((current().map_err(fail)?, done))
    })
}

/// A handle on the network namespace of the calling thread.
///
/// # Errors
/// As openat(2).
pub fn current() -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, "/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn in_a_thread<T: Send>(action: &'static str, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).stack_size(256 << 10).spawn_scoped(scope, f);
        let thread =
            thread.map_err(|error| NetlinkError::new(action, Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
