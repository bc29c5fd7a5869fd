//! Trees of files that are copied from: the context, a stage, an image, or something made for one step.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};
use wharf_reference::{Digest, Hasher};
use wharf_rooted_path::RootDir;

use crate::error::{BuildError, Result};

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Fifo,
}

/// An entry's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) kind: Kind,
    /// Permission bits with set-ID and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// One entry as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) attributes: Attributes,
    pub(crate) device: u64,
    /// Device and inode, when the file has several names.
    pub(crate) inode: Option<(u64, u64)>,
    /// Target of a symlink.
    pub(crate) link: OsString,
}

/// A tree that is copied from.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<dyn Root>,
    /// Owners count: those of a stage do, those of whoever sent the context do not.
    keeps_owners: bool,
}

/// Something that has a root directory and keeps it in being.
pub(crate) trait Root: std::fmt::Debug + Send + Sync {
    fn root(&self) -> &RootDir;
}

impl Root for RootDir {
    fn root(&self) -> &RootDir {
        self
    }
}

impl Root for wharf_snapshot::View {
    fn root(&self) -> &RootDir {
        self
    }
}

impl Tree {
    pub(crate) fn new(root: impl Root + 'static, keeps_owners: bool) -> Self {
        Self { root: Arc::new(root), keeps_owners }
    }

    pub(crate) fn root(&self) -> &RootDir {
        self.root.root()
    }

    /// What the entry `path` itself is; `None` for what no image can carry (a socket).
    pub(crate) fn look(&self, path: &Path) -> Result<Option<Found>> {
        self.found(path, self.root().metadata(path, false)?)
    }

    /// What `path` means, links followed.
    pub(crate) fn follow(&self, path: &Path) -> Result<Option<Found>> {
        self.found(path, self.root().metadata(path, true)?)
    }

    fn found(&self, path: &Path, stat: Stat) -> Result<Option<Found>> {
        let Some(mut attributes) = attributes(self.root(), path, &stat)? else { return Ok(None) };
        if !self.keeps_owners {
            attributes.owner = (0, 0);
        }
        let link = match attributes.kind {
            Kind::Symlink => self.root().read_link(path)?,
            _ => OsString::new(),
        };
        let several = attributes.kind == Kind::File && stat.st_nlink > 1;
        Ok(Some(Found {
            device: stat.st_rdev,
            inode: several.then_some((stat.st_dev, stat.st_ino)),
            link,
            attributes,
        }))
    }

    /// Digest of a file's content.
    pub(crate) fn digest(&self, path: &Path) -> Result<Digest> {
        let mut file = self.root().open_file(path)?;
        let mut hasher = Hasher::new();
        std::io::copy(&mut file, &mut hasher)
            .map_err(|e| BuildError::system(format_args!("cannot read {}", path.display()), &e))?;
        Ok(hasher.finish())
    }
}

/// Attributes of an entry below `root`.
pub(crate) fn attributes(root: &RootDir, path: &Path, stat: &Stat) -> Result<Option<Attributes>> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return Ok(None),
    };
    let xattrs = match kind {
        Kind::File | Kind::Directory => {
            root.xattrs(path)?.into_iter().filter(|(key, _)| may_carry(key.as_bytes())).collect()
        }
        _ => Vec::new(),
    };
    Ok(Some(Attributes {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        xattrs,
    }))
}

/// Whether an image may carry the extended attribute. `trusted.*` and `user.overlay.*` would steer overlayfs itself.
fn may_carry(key: &[u8]) -> bool {
    key == b"security.capability" || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
}

/// The path without `.`, `..` and a slash at its beginning, as text; `None` when it leads out at the top.
pub(crate) fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            _ => {}
        }
    }
    Some(clean)
}
