//! Removing a tree by fds.

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

/// Names in an open directory without `.` and `..`, sorted by bytes.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A directory whose entries are being removed, and its own name in the one above.
struct Level {
    fd: OwnedFd,
    name: OsString,
    left: Vec<OsString>,
}

/// Removes `name` in `parent` with all below. A stack of fds instead of recursion: a tree as deep as the
/// kernel allows costs memory, not the call stack. Other file systems mounted inside are not entered.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let device = fstat(parent)?.st_dev;
    let mut stack: Vec<Level> = Vec::new();
    let mut pending = Some(name.to_owned());
    loop {
        let here = stack.last().map_or(parent, |level| std::os::fd::AsFd::as_fd(&level.fd));
        if let Some(name) = pending.take() {
            match unlinkat(here, name.as_os_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = openat(here, name.as_os_str(), flags, Mode::empty())?;
                    if fstat(&fd)?.st_dev != device {
                        return Err(Errno::XDEV);
                    }
                    let left = names(std::os::fd::AsFd::as_fd(&fd))?;
                    stack.push(Level { fd, name, left });
                }
                Err(errno) => return Err(errno),
            }
        } else {
            let Some(level) = stack.pop() else { return Ok(()) };
            let above = stack.last().map_or(parent, |level| std::os::fd::AsFd::as_fd(&level.fd));
            match unlinkat(above, level.name.as_os_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        pending = stack.last_mut().and_then(|level| level.left.pop());
        if pending.is_none() && stack.is_empty() {
            return Ok(());
        }
    }
}
