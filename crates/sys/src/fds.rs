//! What a new program must not inherit.

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
