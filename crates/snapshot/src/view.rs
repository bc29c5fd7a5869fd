//! Layers on top of each other, as a directory that only we can reach.

use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
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
        let fail = |step: &'static str| move |errno: Errno| SnapshotError::Mount { step, errno };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("overlayfs"))?;
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty())
                .map_err(|errno| SnapshotError::file("open", path)(errno.into()))
        };
        let mut held: Vec<OwnedFd> = Vec::new();
        for path in lowers {
            // By fd: no length limit, no character of a path that would be taken as a separator. Linux 6.13 on.
            let dir = open(path)?;
            fsconfig_set_fd(&fs, "lowerdir+", dir.as_fd()).map_err(fail("a layer"))?;
            held.push(dir);
        }
        if let Some((upper, work)) = writable {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let dir = open(path)?;
                fsconfig_set_fd(&fs, key, dir.as_fd()).map_err(fail("what is written"))?;
                held.push(dir);
            }
        }
        // As a container's own root has it: a layer's attributes may not redirect us elsewhere.
        for (key, value) in [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off"), ("xino", "off")] {
            fsconfig_set_string(&fs, key, value).map_err(fail("options"))?;
        }
        fsconfig_create(&fs).map_err(fail("the overlay"))?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(fail("the mount"))?;
        Ok(Self { root: RootDir::from_fd(mount) })
    }

    /// A view of one directory, which overlayfs does not take without a second.
    pub(crate) fn of_directory(path: &Path) -> Result<Self> {
        Ok(Self { root: RootDir::open(path)? })
    }
}
