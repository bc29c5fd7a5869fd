//! Removing a tree by fds.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, fstat, openat, renameat_with, unlinkat};
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

/// As many directories are open at once. What is deeper is moved up first: a tree may be deeper than a process may have
/// fds, and hostile ones are.
const MAX_DEPTH: usize = 64;

/// Names of what was moved up.
static MOVED: AtomicU64 = AtomicU64::new(0);

/// Removes `name` in `parent` with all below. A stack of fds instead of recursion, and a bounded one: a tree as deep as
/// the kernel allows costs neither the call stack nor the fds. Other file systems mounted inside are not entered.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let device = fstat(parent)?.st_dev;
    let mut stack: Vec<Level> = Vec::new();
    let mut pending = Some(name.to_owned());
    loop {
        let here = stack.last().map_or(parent, |level| level.fd.as_fd());
        if let Some(name) = pending.take() {
            match unlinkat(here, name.as_os_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) if stack.len() >= MAX_DEPTH => {
                    let top = &stack[0];
                    let moved = move_up(here, &name, top.fd.as_fd())?;
                    stack[0].left.push(moved);
                }
                Err(Errno::ISDIR | Errno::PERM) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let fd = openat(here, name.as_os_str(), flags, Mode::empty())?;
                    if fstat(&fd)?.st_dev != device {
                        return Err(Errno::XDEV);
                    }
                    let left = names(fd.as_fd())?;
                    stack.push(Level { fd, name, left });
                }
                Err(errno) => return Err(errno),
            }
        } else {
            let Some(level) = stack.pop() else { return Ok(()) };
            let above = stack.last().map_or(parent, |level| level.fd.as_fd());
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

/// Moves a directory under a name that nothing has.
fn move_up(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>) -> Result<OsString, Errno> {
    loop {
        let moved = OsString::from(format!(".removed-{}", MOVED.fetch_add(1, Ordering::Relaxed)));
        match renameat_with(from, name, to, moved.as_os_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done.map(|()| moved),
        }
    }
}

/// Removes the directory at `path` with all below, however deep it is; what is not there is removed already. Unlike
/// [`std::fs::remove_dir_all`], which recurses, it can take what a container has made.
///
/// # Errors
/// As unlinkat(2); `EXDEV` for a file system that is mounted inside.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, above, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        opened => Ok(remove_tree(opened?.as_fd(), name)?),
    }
}
