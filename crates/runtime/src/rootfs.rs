//! The root file system as a detached mount: in nobody's mount table until the child attaches it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use serde::{Deserialize, Serialize};
use wharf_sys::erofs::own_mount;
use wharf_sys::mount::{Change, set_attributes};
use wharf_sys::overlay::{Writable, mount_apart, options};

use crate::{Result, RuntimeError};

/// Where a container's root comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A directory that is there already, as a bundle has it. Its files belong to whom they belong to: who wants a
    /// user namespace has given them to its IDs.
    Directory(PathBuf),
    /// Layers, the topmost first, and what the container writes.
    Overlay { lowers: Vec<Lower>, upper: Option<PathBuf>, work: Option<PathBuf> },
}

/// One of the layers that an overlay is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lower {
    Directory(PathBuf),
    /// An EROFS image: its file, and which of [`crate::Launch::layers`] is a mount of it. That one's pages in memory are
    /// shared with all who have it; where it is not given, or the kernel makes no copy of it (before Linux 6.15), the
    /// file is mounted anew.
    Image {
        path: PathBuf,
        mount: Option<usize>,
    },
}

impl Lower {
    /// Layers of which some have a mount, which are images, and those mounts in the order in which the layers count them.
    pub fn list<M>(all: impl IntoIterator<Item = (PathBuf, Option<M>)>) -> (Vec<Self>, Vec<M>) {
        let mut mounts = Vec::new();
        let mut lower = |(path, mount)| match mount {
            None => Self::Directory(path),
            Some(mount) => {
                mounts.push(mount);
                Self::Image { path, mount: Some(mounts.len() - 1) }
            }
        };
        let lowers = all.into_iter().map(&mut lower).collect();
        (lowers, mounts)
    }
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
    pub(crate) fn mount(
        &self,
        userns: Option<(BorrowedFd<'_>, (u32, u32))>,
        layers: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd> {
        let fd = userns.map(|(fd, _)| fd);
        match self {
            Self::Directory(path) => layer(path, None, true),
            Self::Overlay { lowers: all, upper, work } => {
                if let (Some(upper), Some((_, (uid, gid)))) = (upper, userns) {
                    std::os::unix::fs::chown(upper, Some(uid), Some(gid)).map_err(|e| {
                        RuntimeError::host("give away", upper, Errno::from_io_error(&e).unwrap_or(Errno::IO))
                    })?;
                }
                let lowers = all.iter().map(|lower| own(lower, layers, fd)).collect::<Result<_>>()?;
                overlay(lowers, has_images(all), upper.as_deref(), work.as_deref())
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
    map_owners(&tree, path, userns, recursive)?;
    Ok(tree)
}

fn map_owners(tree: &OwnedFd, path: &Path, userns: Option<BorrowedFd<'_>>, recursive: bool) -> Result<()> {
    let Some(userns) = userns else { return Ok(()) };
    let change = Change { id_map: Some(userns), ..Change::default() };
    set_attributes(tree.as_fd(), recursive, change).map_err(|e| RuntimeError::host("map the owners of", path, e))
}

/// A mount of a layer that is this container's alone.
fn own(lower: &Lower, layers: &[BorrowedFd<'_>], userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    match lower {
        Lower::Directory(path) => layer(path, userns, false),
        Lower::Image { path, mount } => {
            let mount = mount.and_then(|number| layers.get(number)).copied();
            let tree = own_mount(path, mount).map_err(|e| RuntimeError::host("mount", path, e))?;
            map_owners(&tree, path, userns, false)?;
            Ok(tree)
        }
    }
}

fn has_images(lowers: &[Lower]) -> bool {
    lowers.iter().any(|lower| matches!(lower, Lower::Image { .. }))
}

/// What makes an overlay's layers, each a detached mount.
struct Stack {
    lowers: Vec<OwnedFd>,
    /// The directory above upper and work, which must be on one mount, with their names in it.
    writable: Option<(OwnedFd, CString, CString)>,
    /// There are images among the layers.
    images: bool,
}

fn overlay(lowers: Vec<OwnedFd>, images: bool, upper: Option<&Path>, work: Option<&Path>) -> Result<OwnedFd> {
    if lowers.is_empty() {
        return Err(RuntimeError::Invalid("an overlay needs at least one layer".into()));
    }
    let writable = match (upper, work) {
        (Some(upper), Some(work)) => {
            let parent = upper.parent().filter(|parent| work.parent() == Some(parent));
            let parent =
                parent.ok_or_else(|| RuntimeError::Invalid("upper and work directory are not siblings".into()))?;
            let name = |path: &Path| {
                CString::new(path.file_name().unwrap_or_default().as_bytes())
                    .map_err(|_| RuntimeError::Invalid("a directory with a NUL in its name".into()))
            };
            Some((layer(parent, None, false)?, name(upper)?, name(work)?))
        }
        _ => None,
    };
    let stack = Stack { lowers, writable, images };
    let made = match stack.by_fd() {
        // Linux 6.13 does not take detached mounts yet, and those before do not take fds.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => stack.by_path(),
        made => made,
    };
    made.map_err(|errno| RuntimeError::host("mount", PathBuf::from("overlay"), errno))
}

impl Stack {
    /// No length limit, no character of a path that would be taken as a separator. Linux 6.14 on.
    fn by_fd(&self) -> std::result::Result<OwnedFd, Errno> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "source", "overlay")?;
        for tree in &self.lowers {
            fsconfig_set_fd(&fs, "lowerdir+", tree)?;
        }
        if let Some((tree, upper, work)) = &self.writable {
            for (key, name) in [("upperdir", upper), ("workdir", work)] {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = openat(tree, name.as_c_str(), flags, Mode::empty())?;
                fsconfig_set_fd(&fs, key, &dir)?;
            }
        }
        for (key, value) in options(self.images) {
            fsconfig_set_string(&fs, key, value)?;
        }
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    fn by_path(&self) -> std::result::Result<OwnedFd, Errno> {
        let layers: Vec<BorrowedFd<'_>> = self.lowers.iter().map(AsFd::as_fd).collect();
        let writable = self.writable.as_ref();
        let writable = writable.map(|(tree, upper, work)| Writable { tree: tree.as_fd(), upper, work });
        mount_apart(&layers, writable, &options(self.images).map(|(key, value)| format!("{key}={value}")).join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_s_way_makes_the_same_overlay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low", "high", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let layer = |name: &str| layer(&path(name), None, false);
        let (low, high, parent) = match (layer("low"), layer("high"), layer("")) {
            (Ok(low), Ok(high), Ok(parent)) => (low, high, parent),
            _ => return eprintln!("skipped: no right to mount"),
        };
        std::fs::write(path("low/a"), "low").unwrap();
        std::fs::write(path("high/a"), "high").unwrap();
        let stack =
            Stack { lowers: vec![high, low], writable: Some((parent, c"upper".into(), c"work".into())), images: false };
        for made in [stack.by_path(), stack.by_fd()] {
            let Ok(made) = made else {
                // The first of both works anywhere.
                assert!(path("upper/new").exists());
                continue;
            };
            let a = openat(&made, "a", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            assert_eq!(std::io::read_to_string(std::fs::File::from(a)).unwrap(), "high");
            openat(&made, "new", OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR).unwrap();
            assert!(path("upper/new").exists());
        }
    }
}
