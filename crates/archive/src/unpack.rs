//! Applies an archive to a directory, and nothing outside of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Timespec, Timestamps};
use wharf_rooted_path::{RootDir, RootError};

use crate::error::shown;
use crate::header::{Entry, Kind, may_carry};
use crate::reader::Reader;
use crate::{ArchiveError, Result};

/// What marks a removal in an image layer (OCI image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// What marks a directory whose content below is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of aufs's own that old layers carry.
const AUFS: &[u8] = b".wh..wh.";

/// What a whiteout becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// What overlayfs understands: a character device 0:0, or `trusted.overlay.opaque` on the directory.
    Overlay,
    /// The removal itself: the layer is applied over what is there.
    Apply,
    /// A file of that name: the archive is no layer.
    Literal,
}

/// How to unpack, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    pub whiteouts: Whiteouts,
    /// Gives files the archive's owners; otherwise they belong to this process's user.
    pub same_owner: bool,
    /// Refuses to replace a directory by something else and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Bounds on what an archive may make; a bomb ends here.
    pub max_entries: u64,
    pub max_bytes: u64,
}

impl Default for UnpackOptions {
    /// As a layer that is applied: owners kept, ten million entries, no bound on bytes but the disk's.
    fn default() -> Self {
        Self {
            whiteouts: Whiteouts::Apply,
            same_owner: true,
            no_overwrite_dir_non_dir: false,
            max_entries: 10_000_000,
            max_bytes: u64::MAX,
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Applies the archive `input` to `root`.
///
/// # Errors
/// For an entry that would leave the root or is not understood, for bounds, and for what the disk refuses.
/// What was unpacked until then stays: the caller unpacks into a directory that it throws away.
pub fn unpack(input: impl Read, root: &RootDir, options: &UnpackOptions) -> Result<Unpacked> {
    let mut target = Target { root, options, parent: None, made: BTreeSet::new(), directories: Vec::new() };
    let mut reader = Reader::new(input);
    let mut done = Unpacked::default();
    while let Some(entry) = reader.next_entry()? {
        done.entries += 1;
        done.bytes = done.bytes.saturating_add(entry.size);
        if done.entries > options.max_entries {
            return Err(ArchiveError::TooMany(options.max_entries));
        }
        // Before a byte of it is written: the size may be a lie, but not a cheap one.
        if done.bytes > options.max_bytes {
            return Err(ArchiveError::TooLarge(options.max_bytes));
        }
        target.apply(&entry, &mut reader)?;
    }
    target.finish()?;
    Ok(done)
}

struct Target<'a> {
    root: &'a RootDir,
    options: &'a UnpackOptions,
    /// The last parent directory: most entries of an archive share it with their neighbour.
    parent: Option<(PathBuf, RootDir)>,
    /// What this archive made, where an opaque mark must not remove it.
    made: BTreeSet<PathBuf>,
    /// Times of directories change with every entry in them, so they are set last.
    directories: Vec<(PathBuf, (i64, u32))>,
}

impl Target<'_> {
    fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<()> {
        let path = inside(entry)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: an archive may say who owns it.
            return self.attributes(entry, Path::new(""), &path);
        };
        if self.options.whiteouts != Whiteouts::Literal && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(entry, &path, name.as_bytes());
        }
        let fail = failing(entry);
        self.make_room(entry, &path).map_err(&fail)?;
        let parent = self.parent_of(&path).map_err(&fail)?;
        match entry.kind {
            Kind::File => {
                let file = parent.create_file(&name, 0o600).map_err(&fail)?;
                write(file, entry, content)?;
            }
            Kind::Directory => match parent.mkdir_all(&name, 0o700) {
                Err(error) => return Err(fail(error)),
                Ok(_) => self.directories.push((path.clone(), entry.mtime)),
            },
            Kind::Symlink => parent.symlink(OsStr::from_bytes(&entry.link), &name).map_err(&fail)?,
            Kind::HardLink => {
                let existing = link_target(entry)?;
                self.root.hard_link(existing, &path).map_err(&fail)?;
            }
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharacterDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                parent.mknod(&name, kind, 0o600, device).map_err(&fail)?;
            }
        }
        if self.options.whiteouts == Whiteouts::Apply {
            self.made.insert(path.clone());
        }
        // A second name has the first one's attributes already.
        if entry.kind == Kind::HardLink { Ok(()) } else { self.attributes(entry, Path::new(&name), &path) }
    }

    /// Takes away what is in the way. A directory stays for a directory.
    fn make_room(&mut self, entry: &Entry, path: &Path) -> std::result::Result<(), RootError> {
        let found = match self.root.metadata(path, false) {
            Err(error) if error.is_not_found() => return Ok(()),
            found => found?,
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        if is_directory && entry.kind == Kind::Directory {
            return Ok(());
        }
        if self.options.no_overwrite_dir_non_dir && is_directory != (entry.kind == Kind::Directory) {
            let errno = if is_directory { rustix::io::Errno::ISDIR } else { rustix::io::Errno::NOTDIR };
            return Err(RootError { action: "replace", path: path.to_owned(), errno });
        }
        // The parent that is held may be below what goes.
        self.parent = None;
        self.root.remove_all(path)
    }

    fn parent_of(&mut self, path: &Path) -> std::result::Result<&RootDir, RootError> {
        let above = path.parent().unwrap_or(Path::new(""));
        let held = self.parent.take().filter(|(held, _)| held == above);
        let parent = match held {
            Some((_, dir)) => dir,
            None => self.root.mkdir_all(above, 0o755)?,
        };
        Ok(&self.parent.insert((above.to_owned(), parent)).1)
    }

    /// Owner before mode, as a change of owner takes set-ID bits away; attributes before times.
    fn attributes(&mut self, entry: &Entry, name: &Path, path: &Path) -> Result<()> {
        let fail = failing(entry);
        let same_owner = self.options.same_owner;
        let dir = if name.as_os_str().is_empty() { self.root } else { self.parent_of(path).map_err(&fail)? };
        if same_owner {
            dir.set_owner(name, entry.uid, entry.gid).map_err(&fail)?;
        }
        dir.set_mode(name, entry.mode).map_err(&fail)?;
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| may_carry(key)) {
            match dir.set_xattr(name, OsStr::from_bytes(key), value) {
                // A file system or a kind of file without them: what they add is lost, as with every tar.
                Err(error) if matches!(error.errno, rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => {}
                done => done.map_err(&fail)?,
            }
        }
        dir.set_times(name, &times(entry.mtime)).map_err(&fail)
    }

    fn whiteout(&mut self, entry: &Entry, path: &Path, name: &[u8]) -> Result<()> {
        let fail = failing(entry);
        let above = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            if self.options.whiteouts == Whiteouts::Overlay {
                self.root.mkdir_all(above, 0o755).map_err(&fail)?;
                return self.root.set_xattr(above, OsStr::new("trusted.overlay.opaque"), b"y").map_err(&fail);
            }
            return self.hide_all(above).map_err(&fail);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
        // One literal name, or it would remove what the archive chooses (`.wh...` is `..`).
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(ArchiveError::Entry { name: shown(&entry.path), why: "a whiteout must name one file" });
        }
        let target = above.join(hidden);
        if self.options.whiteouts == Whiteouts::Apply {
            self.parent = None;
            return self.root.remove_all(&target).map_err(&fail);
        }
        let parent = self.parent_of(&target).map_err(&fail)?;
        match parent.mknod(hidden, FileType::CharacterDevice, 0, 0) {
            // The layer itself has put something there: that is what is seen.
            Err(error) if error.errno == rustix::io::Errno::EXIST => Ok(()),
            done => done.map_err(&fail),
        }
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

    fn finish(self) -> Result<()> {
        for (path, mtime) in self.directories.iter().rev() {
            match self.root.set_times(path, &times(*mtime)) {
                // A later entry has replaced or removed it.
                Err(error) if error.is_not_found() || error.errno == rustix::io::Errno::NOTDIR => {}
                done => {
                    done.map_err(|source| ArchiveError::Unpack { name: shown(path.as_os_str().as_bytes()), source })?
                }
            }
        }
        Ok(())
    }
}

fn failing(entry: &Entry) -> impl Fn(RootError) -> ArchiveError + use<> {
    let name = shown(&entry.path);
    move |source| ArchiveError::Unpack { name: name.clone(), source }
}

/// The entry's path below the root. `..` is refused rather than resolved: no honest archive has it.
fn inside(entry: &Entry) -> Result<PathBuf> {
    normal(&entry.path)
        .ok_or_else(|| ArchiveError::Entry { name: shown(&entry.path), why: "its name leads out of the archive" })
}

fn link_target(entry: &Entry) -> Result<PathBuf> {
    normal(&entry.link).filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| ArchiveError::Entry {
        name: shown(&entry.path),
        why: "it is a link to something outside of the archive",
    })
}

fn normal(bytes: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(bytes)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(path)
}

fn write(mut file: File, entry: &Entry, content: &mut impl Read) -> Result<()> {
    let mut bytes = vec![0; 64 << 10];
    let mut left = entry.size;
    while left > 0 {
        let wanted = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = content.read(&mut bytes[..wanted]).map_err(ArchiveError::Read)?;
        if count == 0 {
            return Err(ArchiveError::Truncated(shown(&entry.path)));
        }
        file.write_all(&bytes[..count]).map_err(ArchiveError::Write)?;
        left -= count as u64;
    }
    Ok(())
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}
