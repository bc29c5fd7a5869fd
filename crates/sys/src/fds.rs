//! What a new program must not inherit.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::{Result, check};

/// Marks every fd from `first` on close-on-exec (close_range(2)), in one call however many there are.
///
/// # Errors
/// `ENOSYS` before Linux 5.9, `EINVAL` before 5.11.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: only a flag of descriptors changes; none is closed here, so no owner is surprised.
    let returned = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(returned).map(drop)
}

/// Moves `fd` to `place` and closes every other fd from `place` on: what a process that was copied from a large one
/// keeps of it. Values that own the closed fds must never be dropped afterwards.
///
/// # Errors
/// `EBADF` when `fd` is none, `ENOSYS` before Linux 5.9.
pub fn keep_only(fd: i32, place: i32) -> Result<()> {
    // SAFETY: the caller is a fresh copy of another process that ends by `exit_now`, so that no owner of what is closed
    // here runs its destructor; dup2 onto `place` closes what was there in the same sense.
    unsafe {
        check(libc::dup2(fd, place).into())?;
        let first = u32::try_from(place + 1).map_err(|_| rustix::io::Errno::BADF)?;
        check(libc::syscall(libc::SYS_close_range, first, u32::MAX, 0)).map(drop)
    }
}

/// Closes every fd from `first` on but those of `kept`. Values that own a closed fd must never be dropped afterwards.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(first: u32, kept: &[i32]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for last in kept.into_iter().map(|fd| (fd, fd.checked_sub(1))).chain([(u32::MAX, Some(u32::MAX))]) {
        if let (next, Some(to)) = last {
            if to >= from {
                // SAFETY: the caller is a fresh copy of another process that ends by `exit_now` or an exec, so that no
                // owner of what is closed here runs its destructor.
                check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) })?;
            }
            from = next.saturating_add(1);
        }
    }
    Ok(())
}

/// Gives a program that is executed later a copy of `fd` as `place`, which nobody owns.
///
/// # Errors
/// As dup2(2).
pub fn pass_on(fd: BorrowedFd<'_>, place: i32) -> Result<()> {
    // SAFETY: by this function's contract nobody owns what is closed at `place`; the copy is not closed on exec.
    check(unsafe { libc::dup2(fd.as_raw_fd(), place) }.into()).map(drop)
}

/// Takes over the fd of this number, which nobody owns: it came by [`keep_only`] or from the parent.
///
/// # Errors
/// `EBADF` when there is none.
pub fn adopt(number: i32) -> Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of the descriptor table and nothing else.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: the descriptor is open, as fcntl has just shown, and by this function's contract has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
