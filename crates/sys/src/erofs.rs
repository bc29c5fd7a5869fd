//! EROFS images, mounted from their files.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};

use crate::Result;

/// What fsconfig(2) takes of a string, in bytes.
const LONGEST: usize = 255;

/// Mounts the image in the file `image`, read-only and in nobody's mount table: gone when the answer is closed and
/// nothing else, an overlay or a copy of it, has it any more. The file may be deleted meanwhile.
///
/// Each call makes a file system of its own with pages of its own in memory; [`copy`] shares one.
///
/// # Errors
/// `ENODEV` without EROFS, `ENOTBLK` before Linux 6.12, `ENOTBLK` or `EINVAL` on a file system whose files it does not
/// take (tmpfs) and for what is no image, `EPERM` without CAP_SYS_ADMIN in the first user namespace.
pub fn mount(image: &Path) -> Result<OwnedFd> {
    let fs = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Opened until the file system is there, which opens it by the name that it has here.
    let open = (image.as_os_str().len() > LONGEST)
        .then(|| rustix::fs::open(image, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()?;
    match &open {
        Some(file) => fsconfig_set_string(&fs, "source", format!("/proc/self/fd/{}", file.as_raw_fd()))?,
        None => fsconfig_set_string(&fs, "source", image)?,
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Another mount of the same file system, itself in nobody's table: it can be attached, or id-mapped.
///
/// # Errors
/// `EINVAL` before Linux 6.15, which copies no mount that is in nobody's table.
pub fn copy(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount.as_fd(), "", flags)
}

/// A mount of the image that is the caller's alone: a copy of `mount` where there is one and the kernel copies it,
/// else one of the file.
///
/// # Errors
/// As [`mount()`].
pub fn own_mount(image: &Path, mount: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    match mount.map(copy) {
        Some(Ok(own)) => Ok(own),
        _ => self::mount(image),
    }
}
