//! Mounts that are put together where nobody sees it: by a child, in a mount namespace of its own.
//!
//! The kernel attaches mounts in the caller's own mount namespace only (before Linux 6.15 also not to detached ones), and
//! a daemon's is the host's. So a child does it in a copy of that, and hands out a detached copy of the result.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::mount::{Change, Propagation, set_attributes};
use crate::process::{Namespaces, clone3};
use crate::{Result, message};

/// Runs `put` in such a child, and gives what it has opened. The caller may have other threads, so `put` must not
/// allocate.
pub(crate) fn in_own_table(put: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut put = Some(put);
    let child = clone3(Namespaces { mount: true, ..Namespaces::default() }, None, || {
        let mut done = || {
            // Opened here: what the parent has open is in its own mounts.
            let host = open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
            set_attributes(host.as_fd(), true, private)?;
            let made = put.take().map_or(Err(Errno::INVAL), |put| put())?;
            message::send(&theirs, &[], &[made.as_fd()])
        };
        done().map_or_else(|errno: Errno| u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX), |()| 0)
    })?;
    drop(theirs);
    let told = message::receive(&ours);
    let ended = loop {
        match waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            ended => break ended?,
        }
    };
    match told {
        Ok(Some((_, mut fds))) => fds.pop().ok_or(Errno::IO),
        _ => Err(ended.and_then(|status| status.exit_status()).map_or(Errno::IO, Errno::from_raw_os_error)),
    }
}

/// Mounts `trees`, detached and private ones, in this order on places of the detached mount `root`, and gives a detached
/// copy of all. A place is a path in `root` as it is by then: links are followed inside of it.
///
/// # Errors
/// `ENOENT` when a place is not there, `ENOTDIR` when a directory is to be mounted on a file or the other way round,
/// `EPERM` without CAP_SYS_ADMIN.
pub fn mount_on(root: BorrowedFd<'_>, trees: &[(BorrowedFd<'_>, &CStr)]) -> Result<OwnedFd> {
    in_own_table(|| {
        move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for (tree, place) in trees {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let place = openat2(root, *place, flags, Mode::empty(), inside)?;
            let by_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(tree, c"", &place, c"", by_fd)?;
        }
        let all = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(root, c"", all | OpenTreeFlags::OPEN_TREE_CLOEXEC)
    })
}

/// A detached copy of what is at `path` in the detached mount `root`, with nothing that is mounted below. Links are followed
/// inside of it.
///
/// # Errors
/// `ENOENT` when it is not there, `EXDEV` when the path leads out of the root, `EPERM` without CAP_SYS_ADMIN.
pub fn part_of(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    in_own_table(|| {
        move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let part = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath)?;
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(&part, c"", copy)
    })
}
