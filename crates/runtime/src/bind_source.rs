//! Binds whose source is no path of the host's: a part of a directory that others may change at any moment, or layers.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};
use wharf_rooted_path::RootDir;
use wharf_sys::apart::part_of;

use crate::rootfs::Rootfs;
use crate::{Result, RuntimeError};

/// What a bind of the configuration shows instead of its source there, which then is a name for messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindSource {
    /// Of the bind.
    pub destination: PathBuf,
    /// An overlay's layers count their mounts among [`crate::Launch::layers`].
    pub root: Rootfs,
    /// What of the root is shown; empty for all of it. A link on the way that leads out of the root is an error.
    pub path: PathBuf,
}

/// All of a launch, with the mounts of images that they are made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BindSources<'a> {
    pub(crate) all: &'a [BindSource],
    pub(crate) layers: &'a [BorrowedFd<'a>],
}

impl BindSources<'_> {
    pub(crate) fn of(&self, mount: &Mount) -> Option<&BindSource> {
        self.all.iter().find(|source| source.destination == *mount.destination())
    }

    /// A detached mount of it, and whether the owners of its files are mapped already: those of layers must be before
    /// they are put together, as nothing maps an overlay.
    pub(crate) fn open(
        &self,
        source: &BindSource,
        recursive: bool,
        map: Option<BorrowedFd<'_>>,
    ) -> Result<(OwnedFd, bool)> {
        match &source.root {
            Rootfs::Directory(path) => Ok((part_of_directory(path, &source.path, recursive)?, false)),
            layers @ Rootfs::Overlay { .. } => {
                let whole = layers.mount(map.map(|map| (map, (0, 0))), self.layers)?;
                Ok((part_of_mount(whole, &source.path)?, true))
            }
        }
    }
}

fn part_of_directory(root: &Path, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let whole = RootDir::open(root).map_err(|error| RuntimeError::host("open", root, error.errno))?;
    let shown = || root.join(path);
    let part = if path.as_os_str().is_empty() { Ok(whole.into_fd()) } else { whole.handle_beneath(path) };
    let part = part.map_err(|error| RuntimeError::host("open", shown(), error.errno))?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(&part, "", flags).map_err(|errno| RuntimeError::host("open", shown(), errno))
}

fn part_of_mount(whole: OwnedFd, path: &Path) -> Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return Ok(whole);
    }
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| RuntimeError::Invalid("a part of an image with a NUL in its path".into()))?;
    part_of(whole.as_fd(), &name).map_err(|errno| RuntimeError::host("open", path, errno))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::Lower;

    #[test]
    fn a_part_of_a_directory_or_of_layers_is_never_outside_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low/etc", "high/etc", "other"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::write(path("low/etc/one"), "low").unwrap();
        std::fs::write(path("high/etc/two"), "high").unwrap();
        for (link, target) in [("high/good", "etc"), ("high/top", "/"), ("high/out", "../other")] {
            std::os::unix::fs::symlink(target, path(link)).unwrap();
        }
        let lowers = ["high", "low"].map(|name| Lower::Directory(path(name))).to_vec();
        for (root, both) in
            [(Rootfs::Overlay { lowers, upper: None, work: None }, true), (Rootfs::Directory(path("high")), false)]
        {
            let open = |part: &str| {
                let source = BindSource { destination: "/x".into(), root: root.clone(), path: part.into() };
                BindSources::default().open(&source, true, None).map(|(tree, _)| RootDir::from_fd(tree))
            };
            let whole = match open("") {
                Err(RuntimeError::Host { errno: Errno::PERM, .. }) => return eprintln!("skipped: no right to mount"),
                whole => whole.unwrap(),
            };
            assert_eq!(whole.read_small("etc/two", 9).unwrap(), b"high");
            let part = open("good").unwrap();
            assert_eq!(part.read_small("two", 9).unwrap(), b"high");
            assert_eq!(part.read_small("one", 9).is_ok(), both);
            for (wrong, errno) in [("top", Errno::XDEV), ("out", Errno::XDEV), ("none", Errno::NOENT)] {
                match open(wrong) {
                    Err(RuntimeError::Host { errno: found, .. }) => assert_eq!(found, errno, "{wrong}"),
                    other => panic!("{wrong}: {other:?}"),
                }
            }
        }
    }
}
