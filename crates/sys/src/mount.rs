//! Mount attributes by fd (mount_setattr(2)), which `rustix` lacks.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Result, check};

/// Attributes of a mount, as in mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    pub const NONE: Self = Self(0);
    pub const RDONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);
    pub const NOATIME: Self = Self(libc::MOUNT_ATTR_NOATIME);
    pub const STRICTATIME: Self = Self(libc::MOUNT_ATTR_STRICTATIME);
    pub const NODIRATIME: Self = Self(libc::MOUNT_ATTR_NODIRATIME);
    pub const NOSYMFOLLOW: Self = Self(libc::MOUNT_ATTR_NOSYMFOLLOW);
    /// The field that `NOATIME` and `STRICTATIME` are values of; 0 in it is the kernel's default, `relatime`.
    pub const ATIME_MODE: Self = Self(libc::MOUNT_ATTR__ATIME);
    /// All that is about access times.
    pub const ACCESS_TIMES: Self = Self(libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME);

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`, as `|` has it.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in `other` too.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Attributes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Attributes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How mounts below a mount point travel between namespaces (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Shared,
    Slave,
    Unbindable,
}

/// A change of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    pub set: Attributes,
    pub clear: Attributes,
    pub propagation: Option<Propagation>,
    /// Makes it an id-mapped mount with the mappings of this user namespace (`MOUNT_ATTR_IDMAP`).
    pub id_map: Option<BorrowedFd<'a>>,
}

/// Changes the mount whose root `mount` is; with `recursive`, all below it too.
///
/// # Errors
/// As mount_setattr(2): `EPERM` without CAP_SYS_ADMIN or for a locked attribute, `EINVAL` when `mount`
/// is no root of a mount, `ENOSYS` before Linux 5.12.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, change: Change<'_>) -> Result<()> {
    // An access time mode is a field of several bits: it is cleared whole before one value of it is set.
    let atime = libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_STRICTATIME;
    let clear = if change.set.0 & atime == 0 { change.clear.0 } else { change.clear.0 | libc::MOUNT_ATTR__ATIME };
    let attributes = libc::mount_attr {
        attr_set: change.set.0 | if change.id_map.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: clear,
        propagation: match change.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
        },
        userns_fd: change.id_map.map_or(0, |fd| fd.as_raw_fd().cast_unsigned().into()),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string; `attributes` is a plain struct that lives across
    // the call and has the size that is given.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    check(returned).map(drop)
}
