//! The root file system as a detached mount: in nobody's mount table until the child attaches it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use serde::{Deserialize, Serialize};
use wharf_sys::mount::{Change, set_attributes};

use crate::{Result, RuntimeError};

/// Where a container's root comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory that is there already, as a bundle has it. Its files belong to whom they belong to: who wants a
    /// user namespace has given them to its IDs.
    Directory(PathBuf),
    /// Layers, the topmost first, and what the container writes.
    Overlay { lowers: Vec<PathBuf>, upper: Option<PathBuf>, work: Option<PathBuf> },
}

impl Rootfs {
    /// Whether its files come to belong to a user namespace's IDs.
    pub(crate) const fn is_mapped(&self) -> bool {
        matches!(self, Self::Overlay { .. })
    }

    /// Mounts it, detached. With a user namespace the layers' files belong to the namespace's own IDs through
    /// id-mapped mounts; nothing of them is changed on the disk.
    ///
    /// The upper directory is not mapped: overlayfs works in it with the mounter's identity, which must have a
    /// mapping there. So what such a container writes has the host's IDs on the disk, and `root`, the
    /// namespace's first IDs, comes to own the (empty) upper directory itself.
    pub(crate) fn mount(&self, userns: Option<(BorrowedFd<'_>, (u32, u32))>) -> Result<OwnedFd> {
        let fd = userns.map(|(fd, _)| fd);
        match self {
            Self::Directory(path) => layer(path, None, true),
            Self::Overlay { lowers, upper, work } => {
                if let (Some(upper), Some((_, (uid, gid)))) = (upper, userns) {
                    std::os::unix::fs::chown(upper, Some(uid), Some(gid)).map_err(|e| {
                        RuntimeError::host("give away", upper, Errno::from_io_error(&e).unwrap_or(Errno::IO))
                    })?;
                }
                overlay(lowers, upper.as_deref(), work.as_deref(), fd)
            }
        }
    }
}

/// A detached copy of the mount at `path`, id-mapped if asked.
pub(crate) fn layer(path: &Path, userns: Option<BorrowedFd<'_>>, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, path, flags).map_err(|e| RuntimeError::host("open", path, e))?;
    if let Some(userns) = userns {
        let change = Change { id_map: Some(userns), ..Change::default() };
        set_attributes(tree.as_fd(), recursive, change)
            .map_err(|e| RuntimeError::host("map the owners of", path, e))?;
    }
    Ok(tree)
}

fn overlay(
    lowers: &[PathBuf],
    upper: Option<&Path>,
    work: Option<&Path>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let name = || PathBuf::from("overlay");
    let fail = |action: &'static str| move |errno: Errno| RuntimeError::host(action, name(), errno);
    if lowers.is_empty() {
        return Err(RuntimeError::Invalid("an overlay needs at least one layer".into()));
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("open file system"))?;
    fsconfig_set_string(&fs, "source", "overlay").map_err(fail("configure"))?;
    // By fd: no length limit, no character of a path that would be taken as a separator. Linux 6.13 on.
    let mut held = Vec::new();
    for path in lowers {
        let tree = layer(path, userns, false)?;
        fsconfig_set_fd(&fs, "lowerdir+", &tree).map_err(|e| RuntimeError::host("use as a layer", path, e))?;
        held.push(tree);
    }
    if let (Some(upper), Some(work)) = (upper, work) {
        // Both must be on one mount for the overlay: the directory above them, copied once.
        let parent = upper.parent().filter(|parent| work.parent() == Some(parent));
        let parent = parent.ok_or_else(|| RuntimeError::Invalid("upper and work directory are not siblings".into()))?;
        let tree = layer(parent, None, false)?;
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            let name = path.file_name().unwrap_or_default();
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&tree, name, flags, rustix::fs::Mode::empty())
                .map_err(|e| RuntimeError::host("open", path, e))?;
            fsconfig_set_fd(&fs, key, &dir).map_err(|e| RuntimeError::host("use for writing", path, e))?;
            held.push(dir);
        }
        held.push(tree);
    }
    // A layer's own attributes may not redirect us elsewhere (CVE class "overlay xattrs in a layer").
    for (key, value) in [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off"), ("xino", "off")] {
        fsconfig_set_string(&fs, key, value).map_err(fail("configure"))?;
    }
    fsconfig_create(&fs).map_err(fail("mount"))?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(fail("mount"))
}
