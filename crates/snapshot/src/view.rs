//! Layers on top of each other, as a directory that only we can reach.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen,
};
use wharf_rooted_path::RootDir;

use crate::{Result, SnapshotError};

/// A mount in no mount table: gone when this is dropped, also by a `kill -9`.
#[derive(Debug)]
pub struct View {
    root: RootDir,
}

impl Deref for View {
    type Target = RootDir;
    fn deref(&self) -> &RootDir {
        &self.root
    }
}

impl View {
    /// Mounts `lowers` (the topmost first); with `writable`, what is written goes to that upper directory.
    pub(crate) fn mount(lowers: &[PathBuf], writable: Option<(&Path, &Path)>) -> Result<Self> {
        match Self::mount_as(Naming::Fd, lowers, writable) {
            // Linux 6.5 to 6.12 know layers one by one, and only by their paths.
            Err(SnapshotError::Mount { errno: Errno::INVAL, .. }) => Self::mount_as(Naming::Path, lowers, writable),
            mounted => mounted,
        }
    }

    fn mount_as(naming: Naming, lowers: &[PathBuf], writable: Option<(&Path, &Path)>) -> Result<Self> {
        let fail = |step: &'static str| move |errno: Errno| SnapshotError::Mount { step, errno };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("overlayfs"))?;
        let mut held: Vec<OwnedFd> = Vec::new();
        let upper = writable.into_iter().flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)]);
        for (key, path) in lowers.iter().map(|path| ("lowerdir+", path.as_path())).chain(upper) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
                .map_err(|errno| SnapshotError::file("open", path)(errno.into()))?;
            naming.set(fs.as_fd(), key, dir.as_fd()).map_err(fail("a layer"))?;
            held.push(dir);
        }
        // As a container's own root has it: a layer's attributes may not redirect us elsewhere.
        for (key, value) in [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off"), ("xino", "off")] {
            fsconfig_set_string(&fs, key, value).map_err(fail("options"))?;
        }
        fsconfig_create(&fs).map_err(fail("the overlay"))?;
        // Files are read and written through it; nothing of it is run.
        let mut attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, writable.is_none());
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail("the mount"))?;
        Ok(Self { root: RootDir::from_fd(mount) })
    }

    /// A view of one directory, which overlayfs does not take without a second.
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        Ok(Self { root: RootDir::open(path)? })
    }
}

/// How overlayfs is told of a directory.
#[derive(Clone, Copy)]
enum Naming {
    /// No length limit, no character that would be taken as a separator. Linux 6.13 on.
    Fd,
    /// The path of the fd: short, and without such characters too.
    Path,
}

impl Naming {
    fn set(self, fs: BorrowedFd<'_>, key: &str, dir: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        use std::os::fd::AsRawFd;
        match self {
            Self::Fd => fsconfig_set_fd(fs, key, dir),
            Self::Path => fsconfig_set_string(fs, key, format!("/proc/self/fd/{}", dir.as_raw_fd())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_name_a_layer_mount_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low", "high", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("low/a"), "low").unwrap();
        std::fs::write(path("high/a"), "high").unwrap();
        for naming in [Naming::Fd, Naming::Path] {
            let lowers = [path("high"), path("low")];
            let view = View::mount_as(naming, &lowers, None).unwrap();
            assert_eq!(view.read_small("a", 9).unwrap(), b"high");
            assert!(view.create_file("new", 0o644).is_err(), "read-only");
            let (upper, work) = (path("upper"), path("work"));
            let view = View::mount_as(naming, &lowers, Some((&upper, &work))).unwrap();
            drop(view.create_file("new", 0o644).unwrap());
            assert!(path("upper/new").exists());
            std::fs::remove_file(path("upper/new")).unwrap();
        }
    }
}
