//! A directory as what an archive is applied to: nothing outside of it is reached.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use wharf_rooted_path::{RootDir, RootError};

use crate::error::shown;
use crate::header::{Entry, Kind, may_carry};
use crate::names::normal;
use crate::reader::Reader;
use crate::record::{Content, Tap};
use crate::target::Target;
use crate::unpack::{UnpackOptions, Whiteouts};
use crate::{ArchiveError, Result};

/// Content is copied in pieces of this size: large enough that the calls do not count, small enough for the cache.
pub(crate) const PIECE: usize = 128 << 10;

pub(crate) struct Directory<'a> {
    root: &'a RootDir,
    /// The directory of the root that the archive is put into; empty: the root itself.
    prefix: PathBuf,
    /// Where the kernel says that the root is.
    place: Option<PathBuf>,
    options: &'a UnpackOptions,
    /// The last parent directory: most entries of an archive share it with their neighbour.
    parent: Option<Parent>,
    /// This archive has made a symbolic link in a directory that is not all of the root: it may lead out of it.
    has_links: bool,
    /// What this archive made, where an opaque mark must not remove it.
    made: BTreeSet<PathBuf>,
    /// Times of directories change with every entry in them, so they are set last.
    directories: Vec<(PathBuf, (i64, u32))>,
    piece: Vec<u8>,
}

struct Parent {
    /// As entries have it.
    path: PathBuf,
    dir: RootDir,
    /// Where it is below the root once all links on the way are followed; `None` when nobody asks, or when it is too
    /// deep to be told.
    place: Option<PathBuf>,
}

/// What an entry has become.
enum Made {
    File(File),
    Directory(rustix::fd::OwnedFd),
    /// Reached by its name only.
    Named,
    /// A second name has the first one's attributes already.
    Link,
}

/// What was found under an entry's name.
#[derive(PartialEq, Eq)]
enum Room {
    /// A directory, which stays for a directory.
    Kept,
    Cleared,
    /// A whiteout: what lies below is not seen through what takes its place.
    Hidden,
}

impl<'a> Directory<'a> {
    /// With `recorded` it is known of each file where it is in the end.
    pub(crate) fn new(root: &'a RootDir, options: &'a UnpackOptions, recorded: bool) -> Self {
        Self {
            root,
            prefix: PathBuf::new(),
            place: if recorded { place(root) } else { None },
            options,
            parent: None,
            has_links: false,
            made: BTreeSet::new(),
            directories: Vec::new(),
            piece: vec![0; PIECE],
        }
    }
}

impl Directory<'_> {
    /// Puts everything below a directory of the root, which stays as it is: what the archive says of it is not heeded.
    pub(crate) fn at(mut self, prefix: &Path) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Where a path of the archive is.
    fn placed<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        if self.prefix.as_os_str().is_empty() { path.into() } else { self.prefix.join(path).into() }
    }

    /// Where what a hard link leads to is.
    fn linked(&self, entry: &Entry) -> Option<PathBuf> {
        let path = normal(&entry.link).filter(|path| !path.as_os_str().is_empty())?;
        Some(self.placed(&path).into_owned())
    }
}

impl Target for Directory<'_> {
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if !self.prefix.as_os_str().is_empty() {
            return Ok(());
        }
        self.directories.push((PathBuf::new(), entry.mtime));
        self.attributes(entry, Path::new(""), Path::new(""))
    }

    fn put<R: Read>(&mut self, entry: &Entry, path: &Path, reader: &mut Reader<Tap<'_, R>>) -> Result<()> {
        let path = &*self.placed(path);
        let name = path.file_name().unwrap_or_default().to_owned();
        let made = match self.make(entry, path, &name) {
            // Most names are new, so only one that is taken is looked at.
            Err(error) if error.errno == Errno::EXIST => match self.make_room(entry, path, &name, reader)? {
                Room::Kept => Ok(Made::Named),
                Room::Cleared => self.make(entry, path, &name),
                Room::Hidden => {
                    let made = self.make(entry, path, &name);
                    if made.is_ok() && entry.kind == Kind::Directory {
                        self.hide_below(path).map_err(failing(entry))?;
                    }
                    made
                }
            },
            made => made,
        };
        let made = made.map_err(failing(entry))?;
        if self.options.whiteouts == Whiteouts::Apply {
            self.made.insert(path.to_owned());
        }
        if entry.kind == Kind::Directory {
            self.directories.push((path.to_owned(), entry.mtime));
        }
        match made {
            Made::File(mut file) => {
                self.write(&mut file, entry, &name, reader)?;
                self.attributes_by_fd(entry, &file)
            }
            Made::Directory(dir) => self.attributes_by_fd(entry, &dir),
            Made::Named => self.attributes(entry, Path::new(&name), path),
            Made::Link => Ok(()),
        }
    }

    fn whiteout(&mut self, entry: &Entry, path: &Path) -> Result<()> {
        let path = &*self.placed(path);
        let fail = failing(entry);
        if self.options.whiteouts == Whiteouts::Apply {
            self.parent = None;
            return self.root.remove_all(path).map_err(&fail);
        }
        let parent = &self.parent_of(path).map_err(&fail)?.dir;
        match parent.mknod(path.file_name().unwrap_or_default(), FileType::CharacterDevice, 0, 0) {
            // The layer itself has put something there: that is what is seen, without what lies below it.
            Err(error) if error.errno == Errno::EXIST => self.hide_below(path).map_err(&fail),
            done => done.map_err(&fail),
        }
    }

    fn opaque(&mut self, entry: &Entry, path: &Path) -> Result<()> {
        let path = &*self.placed(path);
        let fail = failing(entry);
        if self.options.whiteouts == Whiteouts::Apply {
            return self.hide_all(path).map_err(&fail);
        }
        // The directory itself, also by way of a link.
        let dir = self.root.mkdir_all(path, 0o755).map_err(&fail)?;
        dir.set_xattr("", OsStr::new("trusted.overlay.opaque"), b"y").map_err(&fail)
    }

    fn finish(&mut self) -> Result<()> {
        for (path, mtime) in self.directories.iter().rev() {
            match self.root.set_times(path, &times(*mtime)) {
                // A later entry has replaced or removed it.
                Err(error) if error.is_not_found() || matches!(error.errno, Errno::NOTDIR | Errno::LOOP) => {}
                done => {
                    done.map_err(|source| ArchiveError::Unpack { name: shown(path.as_os_str().as_bytes()), source })?
                }
            }
        }
        Ok(())
    }
}

impl Directory<'_> {
    /// Makes what the entry is, under a name that is free.
    fn make(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> std::result::Result<Made, RootError> {
        if entry.kind == Kind::HardLink {
            let existing = self.linked(entry).unwrap_or_default();
            self.stays(existing.parent().unwrap_or(Path::new("")))?;
            self.parent_of(path)?;
            return self.root.hard_link(existing, path).map(|()| Made::Link);
        }
        let parent = &self.parent_of(path)?.dir;
        let fail = |action: &'static str| move |errno: Errno| RootError { action, path: path.to_owned(), errno };
        match entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
                file.map(|fd| Made::File(fd.into())).map_err(fail("create"))
            }
            Kind::Directory => {
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(fail("make directory"))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = rustix::fs::openat(parent, name, flags, Mode::empty());
                dir.map(Made::Directory).map_err(fail("open directory"))
            }
            Kind::Symlink => {
                let target = OsStr::from_bytes(&entry.link);
                let made = rustix::fs::symlinkat(target, parent, name).map(|()| Made::Named).map_err(fail("make link"));
                self.has_links = !self.prefix.as_os_str().is_empty();
                made
            }
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo | Kind::HardLink => {
                let kind = match entry.kind {
                    Kind::CharacterDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                let made = rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device);
                made.map(|()| Made::Named).map_err(fail("make node"))
            }
        }
    }

    /// Takes away what is in the way. A directory stays for a directory.
    fn make_room<R: Read>(
        &mut self,
        entry: &Entry,
        path: &Path,
        name: &OsStr,
        reader: &mut Reader<Tap<'_, R>>,
    ) -> Result<Room> {
        let fail = failing(entry);
        let found = match self.root.metadata(path, false) {
            Err(error) if error.is_not_found() => return Ok(Room::Cleared),
            found => found.map_err(&fail)?,
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_directory = kind == FileType::Directory;
        if is_directory && entry.kind == Kind::Directory {
            return Ok(Room::Kept);
        }
        if self.options.no_overwrite_dir_non_dir && is_directory != (entry.kind == Kind::Directory) {
            let errno = if is_directory { Errno::ISDIR } else { Errno::NOTDIR };
            return Err(fail(RootError { action: "replace", path: path.to_owned(), errno }));
        }
        if self.options.keep_mounts && self.root.is_mount(path).map_err(&fail)? {
            return Err(fail(RootError { action: "replace", path: path.to_owned(), errno: Errno::BUSY }));
        }
        if entry.kind == Kind::HardLink && self.linked(entry).as_deref() == Some(path) {
            return Err(fail(RootError { action: "link to itself", path: path.to_owned(), errno: Errno::LOOP }));
        }
        let parent = self.parent_of(path).map_err(&fail)?;
        let place = parent.place.as_ref().map(|place| place.join(name));
        let kept = match (reader.input_mut().recorder(), place) {
            (Some(recorder), Some(place)) if is_directory || kind == FileType::RegularFile => {
                recorder.replaced(&parent.dir, name, &place).map_err(ArchiveError::Write)?
            }
            _ => false,
        };
        // The parent that is held may be below what goes.
        self.parent = None;
        if !kept {
            self.root.remove_all(path).map_err(&fail)?;
        }
        let whiteout = kind == FileType::CharacterDevice && found.st_rdev == 0;
        let hidden = whiteout && self.options.whiteouts == Whiteouts::Overlay;
        Ok(if hidden { Room::Hidden } else { Room::Cleared })
    }

    /// Whether what comes into a directory comes into the one that the archive is for: links that were there before may lead out
    /// of it, the archive's own may not.
    fn stays(&self, dir: &Path) -> std::result::Result<(), RootError> {
        if !self.has_links {
            return Ok(());
        }
        let there = dir.ancestors().find_map(|above| self.root.open_dir(above).ok());
        let (own, there) = (place(&self.root.open_dir(&self.prefix)?), there.as_ref().and_then(place));
        match there.zip(own) {
            Some((there, own)) if there.starts_with(&own) => Ok(()),
            _ => Err(RootError {
                action: "write by a link out of the directory to",
                path: dir.to_owned(),
                errno: Errno::XDEV,
            }),
        }
    }

    fn parent_of(&mut self, path: &Path) -> std::result::Result<&Parent, RootError> {
        let above = path.parent().unwrap_or(Path::new(""));
        let held = self.parent.take().filter(|held| held.path == above);
        let parent = match held {
            Some(parent) => parent,
            None => {
                self.stays(above)?;
                let dir = self.root.mkdir_all(above, 0o755)?;
                let below = |root: &PathBuf| place(&dir)?.strip_prefix(root).ok().map(Path::to_owned);
                Parent { path: above.to_owned(), place: self.place.as_ref().and_then(below), dir }
            }
        };
        Ok(self.parent.insert(parent))
    }

    /// Copies the entry's content, and no more, whatever follows.
    fn write<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        name: &OsStr,
        reader: &mut Reader<Tap<'_, R>>,
    ) -> Result<()> {
        if reader.stored().is_some() {
            // What is stored of it is not what the file has: it is part of what was beside the contents.
            return reader.copy_to(file);
        }
        if let Some(place) = self.parent.as_ref().and_then(|parent| parent.place.as_ref()).filter(|_| entry.size > 0) {
            reader.input_mut().begin_content();
            reader.input_mut().content(Content::File { path: &place.join(name), size: entry.size });
        }
        let mut left = entry.size;
        while left > 0 {
            let wanted = self.piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = reader.read(&mut self.piece[..wanted]).map_err(ArchiveError::Read)?;
            if count == 0 {
                return Err(ArchiveError::Truncated(shown(&entry.path)));
            }
            file.write_all(&self.piece[..count]).map_err(ArchiveError::Write)?;
            left -= count as u64;
        }
        reader.input_mut().end_of_content();
        Ok(())
    }

    /// Owner before mode, as a change of owner takes set-ID bits and capabilities away; attributes before times.
    fn attributes_by_fd(&self, entry: &Entry, fd: &impl rustix::fd::AsFd) -> Result<()> {
        let fail = |action: &'static str| {
            let fail = failing(entry);
            let path = PathBuf::from(OsStr::from_bytes(&entry.path));
            move |errno: Errno| fail(RootError { action, path, errno })
        };
        if self.options.same_owner {
            let (uid, gid) = self.options.owner(entry);
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(fail("set the owner of"))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(fail("set the mode of"))?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| may_carry(key)) {
            match rustix::fs::fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty()) {
                // A file system or a kind of file without them: what they add is lost, as with every tar.
                Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                done => done.map_err(fail("set an attribute of"))?,
            }
        }
        rustix::fs::futimens(fd, &times(entry.mtime)).map_err(fail("set the times of"))
    }

    /// As [`Self::attributes_by_fd`], of what only its name reaches.
    fn attributes(&mut self, entry: &Entry, name: &Path, path: &Path) -> Result<()> {
        let fail = failing(entry);
        let (same_owner, (uid, gid)) = (self.options.same_owner, self.options.owner(entry));
        let dir = if name.as_os_str().is_empty() { self.root } else { &self.parent_of(path).map_err(&fail)?.dir };
        if entry.kind == Kind::Symlink {
            // It has neither mode nor attributes of its own, and is the most frequent of those.
            let failed = |action: &'static str| move |errno| RootError { action, path: path.to_owned(), errno };
            if same_owner {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed("set the owner of"))
                    .map_err(&fail)?;
            }
            return rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set the times of"))
                .map_err(&fail);
        }
        if same_owner {
            dir.set_owner(name, uid, gid).map_err(&fail)?;
        }
        dir.set_mode(name, entry.mode).map_err(&fail)?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| may_carry(key)) {
            match dir.set_xattr(name, OsStr::from_bytes(key), value) {
                Err(error) if matches!(error.errno, Errno::OPNOTSUPP | Errno::PERM) => {}
                done => done.map_err(&fail)?,
            }
        }
        dir.set_times(name, &times(entry.mtime)).map_err(&fail)
    }

    /// Marks a directory so that overlayfs does not join it with what lies below; nothing else needs that.
    fn hide_below(&self, path: &Path) -> std::result::Result<(), RootError> {
        let found = self.root.metadata(path, false)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
            return Ok(());
        }
        self.root.set_xattr(path, OsStr::new("trusted.overlay.opaque"), b"y")
    }

    /// Removes what was below a directory before this archive.
    fn hide_all(&mut self, dir: &Path) -> std::result::Result<(), RootError> {
        let names = match self.root.read_dir(dir) {
            Err(error) if error.is_not_found() => return Ok(()),
            names => names?,
        };
        self.parent = None;
        for name in names {
            let path = dir.join(name);
            if !self.made.contains(&path) {
                self.root.remove_all(&path)?;
            }
        }
        Ok(())
    }
}

fn failing(entry: &Entry) -> impl Fn(RootError) -> ArchiveError + use<> {
    let name = shown(&entry.path);
    move |source| ArchiveError::Unpack { name: name.clone(), source }
}

/// Where the kernel says that a directory is.
fn place(dir: &RootDir) -> Option<PathBuf> {
    rustix::fs::readlinkat(rustix::fs::CWD, dir.proc_path(), Vec::new())
        .ok()
        .map(|path| PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
