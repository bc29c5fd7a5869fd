//! Quotas of projects: how much all files below a directory may take (quotactl(2), `struct fsxattr` of ioctl_xfs_fsgetxattr(2)).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// `QCMD(cmd, type)` of `linux/quota.h`.
const fn command(command: u32) -> u32 {
    const PROJECTS: u32 = 2;
    command << 8 | PROJECTS
}

const GET_QUOTA: u32 = command(0x0080_0007);
const SET_QUOTA: u32 = command(0x0080_0008);
/// `XQM_CMD(8)` of `linux/dqblk_xfs.h`; other file systems than XFS answer it, too.
const GET_STATE: u32 = command(0x5808);
/// `FS_QUOTA_PDQ_ENFD`.
const ENFORCED: u16 = 1 << 5;
/// `QIF_BLIMITS`: which of the fields count.
const BLOCK_LIMITS: u32 = 1;
/// Limits are counted in these (`QIF_DQBLKSIZE`).
const BLOCK: u64 = 1024;
/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR` (`linux/fs.h`).
const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;
/// `FS_XFLAG_PROJINHERIT`: what is made in the directory belongs to its project.
const INHERIT: u32 = 0x200;

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Dqblk {
    hard_limit: u64,
    soft_limit: u64,
    used: u64,
    inodes: [u64; 3],
    times: [u64; 2],
    valid: u32,
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Default)]
struct Statv {
    version: i8,
    pad1: u8,
    flags: u16,
    in_core: u32,
    files: [u64; 9],
    limits: [i32; 3],
    warnings: [u16; 4],
    pad4: u32,
    pad2: [u64; 7],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// What a project has, and may have; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub limit: u64,
}

fn quotactl<T>(fd: BorrowedFd<'_>, command: u32, project: u32, data: &mut T) -> Result<()> {
    // SAFETY: quotactl_fd reads or writes one struct of the command's type at `data`, which is exclusively borrowed and of the
    // size that the kernel's has: the callers below are all there are, and a test holds the sizes.
    let returned =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), command, project, std::ptr::from_mut(data)) };
    check(returned).map(drop)
}

/// Whether the file system of `fd`, which is no `O_PATH`, holds projects to their limits.
pub fn is_enforced(fd: BorrowedFd<'_>) -> bool {
    let mut state = Statv { version: 1, ..Statv::default() };
    quotactl(fd, GET_STATE, 0, &mut state).is_ok() && state.flags & ENFORCED != 0
}

/// What the project has and may have.
///
/// # Errors
/// `ENOENT` or `ESRCH` where nothing is known of it, or of any; `EPERM` without CAP_SYS_ADMIN.
pub fn usage(fd: BorrowedFd<'_>, project: u32) -> Result<Usage> {
    let mut block = Dqblk::default();
    quotactl(fd, GET_QUOTA, project, &mut block)?;
    Ok(Usage { bytes: block.used, limit: block.hard_limit.saturating_mul(BLOCK) })
}

/// Sets how many bytes the project may take, rounded up to KiB; 0 takes the limit away.
///
/// # Errors
/// `ESRCH` where the file system has no quotas of projects, `EPERM` without CAP_SYS_ADMIN.
pub fn set_limit(fd: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let mut block = Dqblk { hard_limit: bytes.div_ceil(BLOCK), valid: BLOCK_LIMITS, ..Dqblk::default() };
    quotactl(fd, SET_QUOTA, project, &mut block)
}

/// Gives an open directory, and what is made in it from now on, to a project.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system knows no projects.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: the kernel reads one such struct, which lives across the call.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes) }.into()).map(drop)
}

/// The project that an open directory belongs to; 0 is nobody's.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the file system knows no projects.
pub fn project(directory: BorrowedFd<'_>) -> Result<u32> {
    Ok(attributes(directory)?.project)
}

fn attributes(directory: BorrowedFd<'_>) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes one `struct fsxattr`, whose size (28) is in the request's number, to an exclusively borrowed
    // struct of that size.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) }.into())?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn structs_have_the_kernel_s_sizes() {
        assert_eq!((size_of::<Attributes>(), size_of::<Statv>(), size_of::<Dqblk>()), (28, 160, 72));
    }

    #[test]
    fn a_file_system_without_quotas_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        assert!(!is_enforced(proc.as_fd()));
        assert!(usage(proc.as_fd(), 7).is_err() && set_limit(proc.as_fd(), 7, 1).is_err());
        assert!(set_project(proc.as_fd(), 7).is_err());
    }
}
