//! Keeping this program's own file out of a container's reach.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, Stat, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstat,
    memfd_create, open, readlink, stat, statvfs,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Uid, WaitId, WaitIdOptions, geteuid, waitid};

use crate::message;
use crate::mount::{Attributes, Change, set_attributes};
use crate::process::{Namespaces, Words, clone3};
use crate::{Result, check};

const OWN: &str = "/proc/self/exe";

/// Starts this program once more, in this same process, from a read-only mount of its file that is in nobody's mount
/// table. A container that gets hold of `/proc/PID/exe` of a process of ours, or runs it, then cannot write to the
/// program on the host (CVE-2019-5736). Returns when that has happened before, or cannot be done.
///
/// An ordinary user may not mount, and a container of that user's is that user on the host: what the user may write to,
/// it may. So a helper makes the mount, in a user namespace of its own: 2 ms and no memory. Where that cannot be, the
/// program is copied into sealed memory, all of it. A program that is root's alone needs neither.
///
/// # Errors
/// When nothing of that can be done: as open_tree(2), memfd_create(2) and execveat(2).
pub fn protect() -> Result<()> {
    if statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    match read_only(Path::new(OWN)) {
        Err(Errno::PERM) => protect_without_rights(),
        mounted => start_from(mounted?.as_fd()),
    }
}

/// Apart from what runs at each start: it is not to be read in with that.
#[cold]
#[inline(never)]
fn protect_without_rights() -> Result<()> {
    let own = stat(OWN)?;
    if is_root_s_alone(&own, geteuid()) || is_sealed() {
        return Ok(());
    }
    if let Ok(mounted) = read_only_by_helper(&own) {
        // Returns when it has failed.
        let _ = start_from(mounted.as_fd());
    }
    start_from(sealed_copy()?.as_fd())
}

/// Whether no container of this user's can be somebody who may write to the file, or make it writable. (A mapping by
/// newuidmap(1) has the host's root in it only if the host says so.)
fn is_root_s_alone(file: &Stat, user: Uid) -> bool {
    // With an access control list the bits of the group are the most that the list gives (acl(5)).
    let by_others = Mode::WGRP | Mode::WOTH;
    !user.is_root() && file.st_uid == 0 && !Mode::from_raw_mode(file.st_mode).intersects(by_others)
}

/// A read-only mount of the file, in nobody's mount table.
fn read_only(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let file = open_tree(CWD, path, flags)?;
    set_attributes(file.as_fd(), false, Change { set: Attributes::RDONLY, ..Change::default() })?;
    Ok(file)
}

/// As [`read_only`], made by a process that has a user namespace and so the right to it. It has copies of the mounts that
/// this process sees, to which `/proc/self/exe` does not lead: `own` says whether the path leads to the same file.
fn read_only_by_helper(own: &Stat) -> Result<OwnedFd> {
    let path = readlink(OWN, Vec::new())?;
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let namespaces = Namespaces { user: true, mount: true, ..Namespaces::default() };
    let helper = clone3(namespaces, None, || {
        let sent = read_only(path).and_then(|file| {
            let found = fstat(&file)?;
            if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
                return Err(Errno::STALE);
            }
            message::send(&theirs, b"", &[file.as_fd()])
        });
        u8::from(sent.is_err())
    })?;
    drop(theirs);
    let received = message::receive(&ours);
    waitid(WaitId::PidFd(helper.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    received?.and_then(|(_, mut fds)| fds.pop()).ok_or(Errno::PERM)
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Whether this process was started from [`sealed_copy`].
fn is_sealed() -> bool {
    let file = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    file.and_then(fcntl_get_seals).is_ok_and(|seals| seals.contains(SEALS))
}

/// The program in memory that nobody can write to.
fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create(c"wharf", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one can be executed.
        Err(Errno::INVAL) => memfd_create(c"wharf", flags),
        made => made,
    };
    let mut copy = File::from(copy?);
    let mut own = File::from(open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    std::io::copy(&mut own, &mut copy).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}

/// Starts what is open as `file`, as this process was started.
fn start_from(file: BorrowedFd<'_>) -> Result<()> {
    let words = |list: Vec<Vec<u8>>| {
        let strings: std::result::Result<Vec<_>, _> = list.into_iter().map(CString::new).collect();
        strings.map(Words::new).map_err(|_| Errno::INVAL)
    };
    let arguments = words(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let pairs = std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let environment = words(pairs.collect())?;
    Err(start(file, &arguments, &environment))
}

/// Becomes the program that is open as `file` (execveat(2)). Returns only when that failed.
pub fn start(file: BorrowedFd<'_>, arguments: &Words, environment: &Words) -> Errno {
    // SAFETY: the path and both arrays are NUL-terminated and live across the call, which changes nothing when it
    // fails and does not return when it succeeds.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(returned).err().unwrap_or(Errno::IO)
}

/// This program's file, if containers may run it and hold it: it is open as something that cannot be written to
/// ([`protect`]).
pub fn read_only_handle() -> Option<OwnedFd> {
    let read_only = statvfs(OWN).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) || is_sealed();
    open(OWN, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok().filter(|_| read_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_root_s_alone_when_nobody_else_may_write_to_it() {
        let mut file = stat("/proc/self/exe").expect("is there");
        let (root, user) = (Uid::ROOT, Uid::from_raw(1000));
        file.st_uid = 0;
        for (mode, alone) in [(0o755, true), (0o775, false), (0o757, false), (0o555, true)] {
            file.st_mode = 0o100_000 | mode;
            assert_eq!(is_root_s_alone(&file, user), alone, "{mode:o}");
            assert!(!is_root_s_alone(&file, root), "{mode:o}");
        }
        file.st_uid = 1000;
        assert!(!is_root_s_alone(&file, user), "its owner may make it writable");
    }

    #[test]
    fn a_copy_can_be_run_and_not_be_written_to() {
        let copy = sealed_copy().expect("is made");
        let link = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let written =
            File::options().write(true).open(&link).and_then(|mut file| std::io::Write::write(&mut file, b"x"));
        assert!(written.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::PERM)));
        assert_eq!(std::fs::read(&link).expect("is read"), std::fs::read(OWN).expect("is read"));
        let ran = std::process::Command::new(&link).arg("--list").output().expect("runs");
        assert!(String::from_utf8_lossy(&ran.stdout).contains("a_copy_can_be_run"));
    }
}
