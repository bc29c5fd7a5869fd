//! Layers on top of each other, as a directory that only we can reach.

use std::ffi::CString;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use wharf_rooted_path::RootDir;
use wharf_sys::erofs::own_mount;
use wharf_sys::mount::{Attributes, Change, set_attributes};
use wharf_sys::overlay::{Writable, mount_apart};

use crate::lower::Lower;
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
    pub(crate) fn mount(lowers: &[Lower], writable: Option<(&Path, &Path)>) -> Result<Self> {
        match Self::by_fd(lowers, writable) {
            // Before Linux 6.14 overlayfs takes no fds, or not those of mounts in nobody's table.
            Err(SnapshotError::Mount { errno: Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP, .. }) => {
                Self::by_path(lowers, writable)
            }
            mounted => mounted,
        }
    }

    /// No length limit, no character of a path that would be taken as a separator.
    fn by_fd(lowers: &[Lower], writable: Option<(&Path, &Path)>) -> Result<Self> {
        let fail = |step: &'static str| move |errno: Errno| SnapshotError::Mount { step, errno };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("overlayfs"))?;
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
                .map_err(|errno| SnapshotError::file("open", path)(errno.into()))
        };
        for lower in lowers {
            match lower {
                Lower::Directory(path) => fsconfig_set_fd(&fs, "lowerdir+", open(path)?),
                Lower::Image(image) => fsconfig_set_fd(&fs, "lowerdir+", &*image.mount),
            }
            .map_err(fail("a layer"))?;
        }
        for (key, path) in writable.into_iter().flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)]) {
            fsconfig_set_fd(&fs, key, open(path)?).map_err(fail("a directory to write to"))?;
        }
        for (key, value) in options(lowers) {
            fsconfig_set_string(&fs, key, value).map_err(fail("options"))?;
        }
        fsconfig_create(&fs).map_err(fail("the overlay"))?;
        let mut attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, writable.is_none());
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(fail("the mount"))?;
        Ok(Self { root: RootDir::from_fd(mount) })
    }

    fn by_path(lowers: &[Lower], writable: Option<(&Path, &Path)>) -> Result<Self> {
        let fail = |step: &'static str| move |errno: Errno| SnapshotError::Mount { step, errno };
        let copy = |path: &Path| {
            open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
                .map_err(|errno| SnapshotError::file("open", path)(errno.into()))
        };
        let layer = |lower: &Lower| match lower {
            Lower::Directory(path) => copy(path),
            Lower::Image(image) => own_mount(&image.path, Some(image.mount.as_fd())).map_err(fail("an image")),
        };
        let layers = lowers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        let layers: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
        // Both in one directory: overlayfs wants them on one mount.
        let name = |path: &Path| CString::new(path.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
        let above = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let written = match writable {
            Some((upper, work)) if above(upper) == above(work) => Some((copy(&above(upper))?, name(upper), name(work))),
            Some(_) => return Err(fail("directories that are not siblings")(Errno::XDEV)),
            None => None,
        };
        let written = written.as_ref().map(|(tree, upper, work)| Writable { tree: tree.as_fd(), upper, work });
        let options = options(lowers).map(|(key, value)| format!("{key}={value}")).join(",");
        let mount = mount_apart(&layers, written, &options).map_err(fail("the overlay"))?;
        let readonly = if writable.is_none() { Attributes::RDONLY } else { Attributes::default() };
        let set = Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC | readonly;
        set_attributes(mount.as_fd(), false, Change { set, ..Change::default() }).map_err(fail("the mount"))?;
        Ok(Self { root: RootDir::from_fd(mount) })
    }

    /// A view of one directory, which overlayfs does not take without a second.
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        Ok(Self { root: RootDir::open(path)? })
    }
}

/// As a container's own root has them.
fn options(lowers: &[Lower]) -> [(&'static str, &'static str); 4] {
    wharf_sys::overlay::options(lowers.iter().any(|lower| matches!(lower, Lower::Image(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_s_way_makes_the_same_view() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low", "high", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("low/a"), "low").unwrap();
        std::fs::write(path("high/a"), "high").unwrap();
        // The one that this kernel prefers, and the one that all have.
        for mount in [View::mount, View::by_path] {
            let lowers = [path("high"), path("low")].map(Lower::Directory);
            let view = mount(&lowers, None).unwrap();
            assert_eq!(view.read_small("a", 9).unwrap(), b"high");
            assert!(view.create_file("new", 0o644).is_err(), "read-only");
            let (upper, work) = (path("upper"), path("work"));
            let view = mount(&lowers, Some((&upper, &work))).unwrap();
            drop(view.create_file("new", 0o644).unwrap());
            assert!(path("upper/new").exists());
            std::fs::remove_file(path("upper/new")).unwrap();
        }
    }
}
