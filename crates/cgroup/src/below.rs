//! A group with all below it. Whoever may write in its own group makes groups as deep as the memory goes: paths longer than
//! the kernel takes, more levels than a stack or the fds have room for. So it is gone down by name and up by `..`, with
//! one fd at a time.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Visits a group and those below it, the ones above first. What goes meanwhile is left out.
pub(crate) fn visit(top: &Path, mut visit: impl FnMut(BorrowedFd<'_>)) {
    let Ok(mut here) = openat(CWD, top, DIRECTORY, Mode::empty()) else { return };
    visit(here.as_fd());
    let mut left = vec![groups(&here).unwrap_or_default()];
    while let Some(names) = left.last_mut() {
        if let Some(name) = names.pop() {
            let Ok(below) = openat(&here, name, DIRECTORY, Mode::empty()) else { continue };
            here = below;
            visit(here.as_fd());
            left.push(groups(&here).unwrap_or_default());
        } else {
            left.pop();
            if left.is_empty() {
                return;
            }
            let Ok(above) = openat(&here, c"..", DIRECTORY, Mode::empty()) else { return };
            here = above;
        }
    }
}

/// A file of a visited group; empty where it cannot be read.
pub(crate) fn read(group: BorrowedFd<'_>, file: &CStr) -> String {
    let open = openat(group, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    open.ok().and_then(|file| io::read_to_string(File::from(file)).ok()).unwrap_or_default()
}

/// Removes a group with those below it, which must be without processes. The files go with their directories.
///
/// # Errors
/// `ResourceBusy` when there are processes in one, `NotFound` when it is not there.
pub(crate) fn remove(top: &Path) -> io::Result<()> {
    // Seldom is anything below it: then it goes at once.
    match std::fs::remove_dir(top) {
        Err(error) if error.raw_os_error().is_some_and(|raw| is_busy(Errno::from_raw_os_error(raw))) => {}
        done => return done,
    }
    let mut here = openat(CWD, top, DIRECTORY, Mode::empty())?;
    // Of each directory on the way down: its name, and what else there is beside it.
    let mut way: Vec<CString> = Vec::new();
    let mut left = vec![groups(&here)?];
    while let Some(names) = left.last_mut() {
        if let Some(name) = names.pop() {
            match unlinkat(&here, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) if is_busy(errno) => {
                    let below = openat(&here, &name, DIRECTORY, Mode::empty())?;
                    let groups = groups(&below)?;
                    if groups.is_empty() {
                        return Err(errno.into());
                    }
                    here = below;
                    left.push(groups);
                    way.push(name);
                }
                Err(errno) => return Err(errno.into()),
            }
        } else {
            left.pop();
            if let Some(name) = way.pop() {
                here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
                unlinkat(&here, name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    std::fs::remove_dir(top)
}

/// `ENOTEMPTY` is what other file systems say.
fn is_busy(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::NOTEMPTY)
}

fn groups(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    // The kernel counts the groups below as links (kernfs), which costs less to ask than a listing.
    if fstat(dir).is_ok_and(|dir| dir.st_nlink == 2) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Deeper than the call stack or a path has room for. Links are counted on a tmpfs as in a hierarchy.
    #[test]
    fn all_are_visited_and_removed() {
        let dir = tempfile::Builder::new().prefix("b").tempdir_in("/dev/shm").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir_all(top.join("a/c/e")).unwrap();
        let mut here = openat(CWD, &top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&here, c"deep", Mode::RWXU).unwrap();
            here = openat(&here, c"deep", DIRECTORY, Mode::empty()).unwrap();
        }
        assert_eq!(std::fs::metadata(&top).unwrap().nlink(), 4);
        let mut count = 0;
        visit(&top, |_| count += 1);
        assert_eq!(count, 5_005);
        remove(&top).unwrap();
        assert!(!top.exists());
        assert_eq!(remove(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
