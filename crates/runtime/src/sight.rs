//! What a process that waits at its gate shows of itself to who may not look.
//!
//! It is undumpable, so that an ordinary user has no right to its namespaces and its root in procfs, nor to join them by a
//! pidfd (`PR_SET_DUMPABLE(2const)`, setns(2)): the process is asked for them where it waits. Whoever comes to the gate
//! may start it, too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use rustix::io::Errno;
use rustix::thread::ThreadNameSpaceType;
use wharf_sys::message;

use crate::exec::NAMESPACES;
use crate::report::LOOK;
use crate::{Result, RuntimeError};

/// The PID namespace's name, which an exec joins last.
const PID: &str = "pid";

/// A waiting process's namespaces and its root.
#[derive(Debug)]
pub struct Sight {
    /// Those that are not the caller's, in the order in which they are joined.
    pub(crate) namespaces: Vec<OwnedFd>,
    pub(crate) kinds: ThreadNameSpaceType,
    pub(crate) root: OwnedFd,
}

/// Asks the process that waits at a gate, over a connection to it.
///
/// # Errors
/// `Vanished` when nobody waits there, or it has no procfs to look at itself.
pub fn look_at(connection: &OwnedFd) -> Result<Sight> {
    let asked = message::send(connection, &[LOOK], &[]).and_then(|()| message::receive(connection));
    let Ok(Some((named, mut fds))) = asked else { return Err(RuntimeError::Vanished) };
    let (Some(root), true) = (fds.pop(), fds.len() == named.len()) else { return Err(RuntimeError::Vanished) };
    let mut sight = Sight { namespaces: Vec::new(), kinds: ThreadNameSpaceType::empty(), root };
    for (number, fd) in named.into_iter().zip(fds) {
        let (name, kind) = *all().nth(number.into()).as_ref().ok_or(RuntimeError::Vanished)?;
        let path = format!("/proc/self/ns/{name}");
        let own = stat(path.as_str()).map_err(|errno| RuntimeError::host("look at", path, errno))?;
        let theirs = fstat(&fd).map_err(|errno| RuntimeError::host("look at", "a namespace", errno))?;
        let is = wharf_sys::namespace::kind(fd.as_fd()).map_err(|e| RuntimeError::host("use", "a namespace", e))?;
        if is != kind.bits() {
            return Err(RuntimeError::Invalid(format!("what the container has at /proc/self/ns/{name} is no such")));
        }
        if (own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino) {
            sight.namespaces.push(fd);
            sight.kinds |= kind;
        }
    }
    Ok(sight)
}

fn all() -> impl Iterator<Item = (&'static str, ThreadNameSpaceType)> {
    NAMESPACES.iter().copied().chain([(PID, ThreadNameSpaceType::PROCESS_ID)])
}

/// In the process itself: answers. Who asks hears nothing when it cannot.
pub(crate) fn show(visitor: BorrowedFd<'_>) {
    let (mut named, mut fds) = (Vec::new(), Vec::new());
    for (number, (name, _)) in (0u8..).zip(all()) {
        match openat(CWD, format!("/proc/self/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                named.push(number);
                fds.push(fd);
            }
            // A kernel without that kind; its first one is everybody's.
            Err(Errno::NOENT) if number > 0 => {}
            Err(_) => return,
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, "/", flags, Mode::empty()) else { return };
    fds.push(root);
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    // It may have gone.
    let _ = message::send(visitor, &named, &fds);
}
