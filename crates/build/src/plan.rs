//! The layer that a step adds, worked out before anything is written: paths resolved in what is there already,
//! conflicts found, every attribute decided.
//!
//! Nothing is written through the mounted file system of the stage, so no link in it can lead a write astray, and
//! what comes out depends on nothing but what goes in.

mod real_times;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Timespec, Timestamps};
use rustix::io::Errno;
use wharf_rooted_path::RootDir;
use wharf_snapshot::ArchiveTimes;

use crate::cancel::Cancel;
use crate::error::{BuildError, Result};
use crate::resolve::resolve;
use crate::tar::Tar;
use crate::tree::{self, Attributes, Kind, Tree, UNDATED};

/// What an entry of the layer has in it.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A directory or FIFO.
    Nothing,
    /// The same, copied from a tree.
    Copied {
        tree: Tree,
        path: PathBuf,
    },
    /// A file of a tree, its size, and what names it when it has several names there.
    File {
        tree: Tree,
        path: PathBuf,
        size: u64,
        inode: Option<Inode>,
    },
    Bytes(Vec<u8>),
    Link(OsString),
    Device(u64),
}

/// A file among those of one source ([`Plan::begin_source`]), by its file system and its number there.
pub(crate) type Inode = (usize, u64, u64);

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) attributes: Attributes,
    pub(crate) content: Content,
}

/// A layer in the making, on top of what `below` shows.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    below: &'a RootDir,
    /// By path without links, so parents come before their children.
    entries: BTreeMap<PathBuf, Entry>,
    /// Directories that replace something else: nothing of what is below them shows in them.
    replaced: BTreeSet<PathBuf>,
    /// For directories that nothing says anything about.
    fresh: Attributes,
    /// What directories are that are not in `below` and will be there when the layer lies upon them.
    expected: BTreeMap<PathBuf, Attributes>,
    /// What archives say of `below`, if files have other times there.
    times: Option<ArchiveTimes>,
    /// Sources that have been begun.
    sources: usize,
}

impl Entry {
    /// For a command that sees it: as new as it really is.
    fn time_here(&self) -> (i64, u32) {
        let real = match &self.content {
            Content::File { tree, path, .. } | Content::Copied { tree, path } => tree.real_time(path),
            _ => None,
        };
        real.unwrap_or(self.attributes.mtime)
    }
}

impl<'a> Plan<'a> {
    /// Begins a layer; directories that must be made get this owner and time.
    pub(crate) fn new(below: &'a RootDir, owner: (u32, u32), mtime: (i64, u32)) -> Self {
        let fresh = Attributes { kind: Kind::Directory, mode: 0o755, owner, mtime, xattrs: Vec::new() };
        let expected = BTreeMap::new();
        Self { below, entries: BTreeMap::new(), replaced: BTreeSet::new(), fresh, expected, times: None, sources: 0 }
    }

    /// Directories that are there already get the times that archives say.
    pub(crate) fn with_times(self, times: Option<ArchiveTimes>) -> Self {
        Self { times, ..self }
    }

    /// Gives directories that must be made these permission bits instead of the usual ones.
    pub(crate) fn with_fresh_mode(mut self, mode: u32) -> Self {
        self.fresh.mode = mode;
        self
    }

    /// Directories on the way that are there already keep what they are: [`above`] of a layer that is linked.
    pub(crate) fn with_expected(mut self, expected: BTreeMap<PathBuf, Attributes>) -> Self {
        let mtime = self.fresh.mtime;
        self.expected = expected.into_iter().map(|(path, found)| (path, Attributes { mtime, ..found })).collect();
        self
    }

    /// Another source: what has two names of one file in it has them in the layer, and not in two sources.
    pub(crate) fn begin_source(&mut self) {
        self.sources += 1;
    }

    /// What names a file of the source that was begun last.
    pub(crate) fn inode(&self, (device, number): (u64, u64)) -> Inode {
        (self.sources, device, number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is at a path that has no links in it, in this layer or below.
    pub(crate) fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        Ok(self.look(path)?.map(|(kind, _)| kind))
    }

    fn look(&self, path: &Path) -> Result<Option<(Kind, Option<OsString>)>> {
        if path.as_os_str().is_empty() {
            return Ok(Some((Kind::Directory, None)));
        }
        if let Some(entry) = self.entries.get(path) {
            let target = match &entry.content {
                Content::Link(target) => Some(target.clone()),
                _ => None,
            };
            return Ok(Some((entry.attributes.kind, target)));
        }
        if self.is_hidden(path) {
            return Ok(None);
        }
        let stat = match self.below.metadata(path, false) {
            Err(error) if error.is_not_found() || error.errno == rustix::io::Errno::NOTDIR => return Ok(None),
            stat => stat?,
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (Kind::Directory, None),
            FileType::Symlink => (Kind::Symlink, Some(self.below.read_link(path)?)),
            _ => (Kind::File, None),
        }))
    }

    /// Whether there is something at `path` below the layer; links on the way are not followed.
    pub(crate) fn is_below(&self, path: &Path) -> Result<bool> {
        Ok(self.stat_below(path)?.is_some())
    }

    /// Names in a directory below the layer; none in anything else.
    pub(crate) fn names_below(&self, path: &Path) -> Result<Vec<OsString>> {
        match self.stat_below(path)?.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Some(FileType::Directory) => Ok(self.below.read_dir(path)?),
            _ => Ok(Vec::new()),
        }
    }

    fn stat_below(&self, path: &Path) -> Result<Option<rustix::fs::Stat>> {
        let mut above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        let mut last = None;
        for path in above {
            if last.is_some_and(|stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory) {
                return Ok(None);
            }
            last = match self.below.metadata(path, false) {
                Err(error) if error.is_not_found() => return Ok(None),
                stat => Some(stat?),
            };
        }
        Ok(last)
    }

    /// Whether what is below shows nothing at `path`.
    fn is_hidden(&self, path: &Path) -> bool {
        !self.replaced.is_empty() && path.ancestors().skip(1).any(|dir| self.replaced.contains(dir))
    }

    /// The path without links that `path` means, all of it followed inside the root. It need not exist.
    ///
    /// # Errors
    /// When links go round in circles.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        resolve(path, &|path| Ok(self.look(path)?.and_then(|(_, link)| link)))
    }

    /// Has `path`, which has no links in it, and all above it as directories. What is there keeps its attributes.
    ///
    /// # Errors
    /// When something on the way is no directory.
    pub(crate) fn directory(&mut self, path: &Path) -> Result<()> {
        // From below: most often the directory itself is here, and with it all above.
        let mut missing = Vec::new();
        for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            match self.entries.get(dir) {
                Some(entry) if entry.attributes.kind != Kind::Directory => return Err(not_a_directory(dir)),
                Some(_) => break,
                None => missing.push(dir),
            }
        }
        for dir in missing.into_iter().rev() {
            let attributes = match self.below.metadata(dir, false) {
                _ if self.is_hidden(dir) => Some(self.fresh.clone()),
                Err(error) if error.is_not_found() => Some(self.expected.get(dir).unwrap_or(&self.fresh).clone()),
                Err(error) if error.errno == rustix::io::Errno::NOTDIR => return Err(not_a_directory(dir)),
                stat => {
                    let mut attributes = tree::attributes(self.below, dir, &stat?)?;
                    if let (Some(attributes), Some(times)) = (&mut attributes, &self.times) {
                        attributes.mtime = times.of(dir, attributes.mtime);
                    }
                    attributes
                }
            };
            match attributes.filter(|attributes| attributes.kind == Kind::Directory) {
                Some(attributes) => {
                    self.entries.insert(dir.to_owned(), Entry { attributes, content: Content::Nothing });
                }
                None => return Err(not_a_directory(dir)),
            }
        }
        Ok(())
    }

    /// Puts an entry at a path without links. A directory gives its attributes to one that is there.
    ///
    /// # Errors
    /// When a directory would replace something else, or be replaced.
    pub(crate) fn put(&mut self, path: &Path, entry: Entry) -> Result<()> {
        let directory = entry.attributes.kind == Kind::Directory;
        match self.kind(path)? {
            Some(Kind::Directory) if !directory => {
                let message = format!("cannot replace to directory /{} with file", path.display());
                return Err(BuildError::invalid(message));
            }
            Some(kind) if directory && kind != Kind::Directory => return Err(not_a_directory(path)),
            _ => {}
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entries.insert(path.to_owned(), self.dated(entry));
        Ok(())
    }

    /// With a time.
    fn dated(&self, mut entry: Entry) -> Entry {
        if entry.attributes.mtime == UNDATED {
            entry.attributes.mtime = self.fresh.mtime;
        }
        entry
    }

    /// As [`Self::put`], but what is in the way goes, as when an archive is unpacked.
    ///
    /// # Errors
    /// When something above it is no directory.
    pub(crate) fn replace(&mut self, path: &Path, entry: Entry) -> Result<()> {
        let directory = entry.attributes.kind == Kind::Directory;
        let there = self.kind(path)?;
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        if there == Some(Kind::Directory) && !directory {
            self.entries.retain(|own, _| own == path || !own.starts_with(path));
            self.replaced.retain(|own| !own.starts_with(path));
        }
        if directory && there.is_some_and(|kind| kind != Kind::Directory) {
            self.replaced.insert(path.to_owned());
        }
        self.entries.insert(path.to_owned(), self.dated(entry));
        Ok(())
    }

    /// Writes the layer as a tar archive. No entry gets a later time than `clamp`, in seconds since the epoch.
    ///
    /// # Errors
    /// When something cannot be read, or the output fails.
    pub(crate) fn pack(&self, output: &mut dyn Write, clamp: Option<i64>, cancel: &Cancel) -> Result<()> {
        let mut tar = Tar::new(output);
        let mut names: HashMap<Inode, &Path> = HashMap::new();
        for (path, entry) in &self.entries {
            cancel.check()?;
            let mut attributes = entry.attributes.clone();
            attributes.mtime = clamped(attributes.mtime, clamp);
            if let Content::File { inode: Some(inode), .. } = &entry.content {
                match names.get(inode) {
                    Some(first) => {
                        tar.hard_link(path, first, &attributes)?;
                        continue;
                    }
                    None => drop(names.insert(*inode, path)),
                }
            }
            match &entry.content {
                Content::Nothing | Content::Copied { .. } => tar.entry(path, &attributes)?,
                Content::Link(target) => tar.symlink(path, target, &attributes)?,
                Content::Device(device) => tar.device(path, *device, &attributes)?,
                Content::Bytes(bytes) => tar.file(path, bytes.len() as u64, &mut bytes.as_slice(), &attributes)?,
                Content::File { tree, path: from, size, .. } => {
                    tar.file(path, *size, &mut tree.open(from)?, &attributes)?;
                }
            }
        }
        tar.finish()
    }

    /// Writes the layer into an empty directory, in the form that overlayfs has in an upper directory.
    ///
    /// # Errors
    /// When something cannot be read or the disk refuses.
    pub(crate) fn write(self, upper: &RootDir, cancel: &Cancel) -> Result<()> {
        let mut names: HashMap<Inode, PathBuf> = HashMap::new();
        let mut parent: Option<(PathBuf, RootDir)> = None;
        for (path, entry) in &self.entries {
            cancel.check()?;
            let (above, name) =
                (path.parent().unwrap_or(Path::new("")), Path::new(path.file_name().unwrap_or_default()));
            // Neighbours share their directory.
            let dir = match parent.take().filter(|(held, _)| held == above) {
                Some((_, dir)) => dir,
                None => upper.open_dir(above)?,
            };
            let dir = &parent.insert((above.to_owned(), dir)).1;
            if let Content::File { inode: Some(inode), .. } = &entry.content {
                if let Some(first) = names.get(inode) {
                    upper.hard_link(first, path)?;
                    continue;
                }
                names.insert(*inode, path.clone());
            }
            make(dir, name, entry)?;
        }
        // Every entry in a directory changes its time, so these come last.
        for (path, entry) in self.entries.iter().rev().filter(|(_, entry)| entry.attributes.kind == Kind::Directory) {
            upper.set_times(path, &times(entry.time_here()))?;
        }
        Ok(())
    }
}

/// What the directories are that lead to `path` in `root`, as far as it is directories that lead there; links are not followed,
/// and times do not count.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn above(root: &RootDir, path: &Path) -> Result<BTreeMap<PathBuf, Attributes>> {
    let mut found = BTreeMap::new();
    let path = tree::rooted(path);
    let mut dirs: Vec<&Path> = path.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
    dirs.reverse();
    for dir in dirs {
        let stat = match root.metadata(dir, false) {
            Err(error) if error.is_not_found() => break,
            stat => stat?,
        };
        match tree::attributes(root, dir, &stat)?.filter(|attributes| attributes.kind == Kind::Directory) {
            Some(attributes) => drop(found.insert(dir.to_owned(), Attributes { mtime: (0, 0), ..attributes })),
            None => break,
        }
    }
    Ok(found)
}

/// No later than `clamp`, in seconds since the epoch.
fn clamped(mtime: (i64, u32), clamp: Option<i64>) -> (i64, u32) {
    match clamp {
        Some(latest) if mtime.0 >= latest => (latest, 0),
        _ => mtime,
    }
}

fn not_a_directory(path: &Path) -> BuildError {
    BuildError::invalid(format!("cannot copy to non-directory: /{}", path.display()))
}

/// Owner before mode, as a change of owner takes set-ID bits away; attributes before times.
fn make(dir: &RootDir, name: &Path, entry: &Entry) -> Result<()> {
    let attributes = &entry.attributes;
    let failing = |e: std::io::Error| BuildError::system(format_args!("cannot write {}", name.display()), &e);
    match &entry.content {
        Content::Nothing | Content::Copied { .. } if attributes.kind == Kind::Directory => {
            drop(dir.mkdir_all(name, 0o700)?);
        }
        Content::Nothing | Content::Copied { .. } => dir.mknod(name, FileType::Fifo, 0o600, 0)?,
        Content::File { tree, path, .. } => {
            let mut from = tree.open(path)?;
            let mut to = dir.create_file(name, 0o600)?;
            std::io::copy(&mut from, &mut to).map_err(failing)?;
        }
        Content::Bytes(bytes) => dir.create_file(name, 0o600)?.write_all(bytes).map_err(failing)?,
        Content::Link(target) => dir.symlink(target, name)?,
        Content::Device(device) => {
            let kind = match attributes.kind {
                Kind::BlockDevice => FileType::BlockDevice,
                _ => FileType::CharacterDevice,
            };
            dir.mknod(name, kind, 0o600, *device)?;
        }
    }
    let (uid, gid) = attributes.owner;
    if attributes.owner != (0, 0) {
        dir.set_owner(name, uid, gid)?;
    }
    if attributes.kind != Kind::Symlink {
        dir.set_mode(name, attributes.mode)?;
    }
    for (key, value) in &attributes.xattrs {
        match dir.set_xattr(name, key, value) {
            // A file system without them: what they add is lost, as with every tar.
            Err(error) if matches!(error.errno, Errno::OPNOTSUPP | Errno::PERM) => {}
            done => done?,
        }
    }
    dir.set_times(name, &times(entry.time_here()))?;
    Ok(())
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
