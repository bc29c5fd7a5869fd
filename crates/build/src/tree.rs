//! Trees of files that are copied from: the context, a stage, an image, or something made for one step.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use wharf_archive::may_carry;
use wharf_reference::Hasher;
use wharf_rooted_path::RootDir;
use wharf_snapshot::{ArchiveTimes, DatedView, Time};

use crate::error::{BuildError, Result};
use crate::index::{Index, Sum, sum};

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

/// The time of what has none of its own: it gets that of the step that makes it.
pub(crate) const UNDATED: (i64, u32) = (i64::MIN, 0);

/// A moment as file systems tell it.
pub(crate) fn moment(moment: jiff::Timestamp) -> Time {
    (moment.as_second(), moment.subsec_nanosecond().unsigned_abs())
}

/// An entry's attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) kind: Kind,
    /// Permission bits with set-ID and sticky.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds since the epoch, and nanoseconds; or [`UNDATED`].
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// One entry as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) attributes: Attributes,
    /// Bytes of a file's content.
    pub(crate) size: u64,
    pub(crate) device: u64,
    /// Names a file that has several names.
    pub(crate) inode: Option<(u64, u64)>,
    /// Target of a symlink.
    pub(crate) link: OsString,
    /// Which content of an index a file has.
    pub(crate) body: Option<usize>,
}

/// A tree that is copied from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    /// A directory of the host; owners count only if those who own the files are the image's.
    Directory { root: Arc<dyn Root>, keeps_owners: bool },
    /// A context.
    Index(Arc<Index>),
}

/// Something that has a root directory and keeps it in being.
pub(crate) trait Root: std::fmt::Debug + Send + Sync {
    fn root(&self) -> &RootDir;

    /// What the archives of layers say, where files have other times here. Those are what is copied.
    fn times(&self) -> Option<&ArchiveTimes> {
        None
    }

    /// When all files were really written, if that is not what they say.
    fn written(&self) -> Option<Time> {
        None
    }
}

/// A repository that was checked out now; its files have the time of their commit.
#[derive(Debug)]
pub(crate) struct CheckedOut {
    pub(crate) root: RootDir,
    pub(crate) now: Time,
}

impl Root for CheckedOut {
    fn root(&self) -> &RootDir {
        &self.root
    }

    fn written(&self) -> Option<Time> {
        Some(self.now)
    }
}

impl Root for RootDir {
    fn root(&self) -> &RootDir {
        self
    }
}

impl Root for DatedView {
    fn root(&self) -> &RootDir {
        self
    }

    fn times(&self) -> Option<&ArchiveTimes> {
        self.times.as_ref()
    }
}

impl Tree {
    pub(crate) fn new(root: impl Root + 'static, keeps_owners: bool) -> Self {
        Self::Directory { root: Arc::new(root), keeps_owners }
    }

    /// When the file at `path` was really changed last, where the archive of its layer may say otherwise.
    pub(crate) fn real_time(&self, path: &Path) -> Option<(i64, u32)> {
        let root = match self {
            Self::Directory { root, .. } => root,
            Self::Index(index) => return index.real_time(path),
        };
        if let Some(time) = root.written() {
            return Some(time);
        }
        root.times()?;
        let stat = root.root().metadata(path, false).ok()?;
        Some((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)))
    }

    /// The directory that it is, if it is one.
    pub(crate) fn directory(&self) -> Option<&RootDir> {
        match self {
            Self::Directory { root, .. } => Some(root.root()),
            Self::Index(_) => None,
        }
    }

    /// What is at `path`; with `follow`, what it leads to. `None` when there is nothing, or what no image can carry
    /// (a socket).
    pub(crate) fn look(&self, path: &Path, follow: bool) -> Result<Option<Found>> {
        let (root, keeps_owners, times) = match self {
            Self::Index(index) => return index.look(path, follow),
            Self::Directory { root, keeps_owners } => (root.root(), *keeps_owners, root.times()),
        };
        let stat = match root.metadata(path, follow) {
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            stat => stat?,
        };
        let Some(mut attributes) = attributes(root, path, &stat)? else { return Ok(None) };
        if !keeps_owners {
            attributes.owner = (0, 0);
        }
        if let Some(times) = times {
            attributes.mtime = times.of_its_own(path, attributes.mtime).unwrap_or(UNDATED);
        }
        let link = match attributes.kind {
            Kind::Symlink => root.read_link(path)?,
            _ => OsString::new(),
        };
        let several = attributes.kind == Kind::File && stat.st_nlink > 1;
        Ok(Some(Found {
            size: if attributes.kind == Kind::File { stat.st_size.cast_unsigned() } else { 0 },
            device: stat.st_rdev,
            inode: several.then_some((stat.st_dev, stat.st_ino)),
            link,
            attributes,
            body: None,
        }))
    }

    /// What is in a directory, by name, sorted; nothing in anything else, and nothing that no image can carry.
    pub(crate) fn children(&self, path: &Path) -> Result<Vec<(OsString, Found)>> {
        if let Self::Index(index) = self {
            return index.children(path);
        }
        let mut children = Vec::new();
        for name in self.names(path)? {
            if let Some(found) = self.look(&path.join(&name), false)? {
                children.push((name, found));
            }
        }
        Ok(children)
    }

    /// Names in a directory, sorted; none in anything else.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<OsString>> {
        match self {
            Self::Index(index) => index.names(path),
            Self::Directory { root, .. } => match root.root().read_dir(path) {
                Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Vec::new()),
                names => Ok(names?),
            },
        }
    }

    /// Gets the contents of all these files that are still with who has sent the tree, and what comes with them.
    pub(crate) fn bring<'a>(&self, files: impl Iterator<Item = &'a mut Found>) -> Result<()> {
        let Self::Index(index) = self else { return Ok(()) };
        let mut files: Vec<&mut Found> =
            files.filter(|found| found.body.is_some_and(|body| index.lacks(body))).collect();
        index.bring(files.iter().filter_map(|found| found.body))?;
        for found in &mut files {
            let xattrs = found.body.map_or(&[][..], |body| index.xattrs(body));
            if !xattrs.is_empty() {
                found.attributes.xattrs = xattrs.to_vec();
            }
        }
        Ok(())
    }

    /// The content of the regular file that `path` leads to.
    pub(crate) fn open(&self, path: &Path) -> Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::Index(index) => Box::new(index.open(path)?),
            Self::Directory { root, .. } => Box::new(root.root().open_file(path)?),
        })
    }

    /// Digest of the content of a file that was found there.
    pub(crate) fn digest(&self, path: &Path, found: &Found) -> Result<Sum> {
        if let (Self::Index(index), Some(body)) = (self, found.body) {
            return index.digest(body);
        }
        let mut hasher = Hasher::new();
        std::io::copy(&mut self.open(path)?, &mut hasher)
            .map_err(|e| BuildError::system(format_args!("cannot read {}", path.display()), &e))?;
        Ok(sum(&hasher.finish()))
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

/// The path without `.`, `..` and a slash at its beginning, as text, where nothing is above the root.
pub(crate) fn rooted(path: &Path) -> PathBuf {
    let mut rooted = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => rooted.push(name),
            std::path::Component::ParentDir => drop(rooted.pop()),
            _ => {}
        }
    }
    rooted
}

/// The path without `.`, `..` and a slash at its beginning, as text; `None` when it leads out at the top.
pub(crate) fn clean(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir if clean.pop() => {}
            std::path::Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(clean)
}
