//! Keeping this program's own file out of a container's reach.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount::{Attributes, Change, set_attributes};
use crate::process::Words;
use crate::{Result, check};

const OWN: &str = "/proc/self/exe";

/// Starts this program once more, in this same process, from a read-only mount of its file that is in nobody's mount
/// table. A container that gets hold of `/proc/PID/exe` of a process of ours, or runs it, then cannot write to the
/// program on the host (CVE-2019-5736). Returns when that has happened before, or cannot be done.
///
/// # Errors
/// `EPERM` without the right to mount, `ENOSYS` before Linux 5.12.
pub fn protect() -> Result<()> {
    if statvfs(OWN)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let file = open_tree(CWD, OWN, flags)?;
    set_attributes(file.as_fd(), false, Change { set: Attributes::RDONLY, ..Change::default() })?;
    let words = |list: Vec<Vec<u8>>| {
        let strings: std::result::Result<Vec<_>, _> = list.into_iter().map(CString::new).collect();
        strings.map(Words::new).map_err(|_| Errno::INVAL)
    };
    let arguments = words(std::env::args_os().map(OsStringExt::into_vec).collect())?;
    let pairs = std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let environment = words(pairs.collect())?;
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
    check(returned).map(drop)
}
