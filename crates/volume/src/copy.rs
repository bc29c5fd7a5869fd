//! A copy of a tree: its files' blocks are shared where the file system can (`FICLONE`), else only what is written in them
//! is copied, and holes stay holes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    copy_file_range, ftruncate, ioctl_ficlone, lgetxattr, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat,
    seek, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use wharf_rooted_path::{RootDir, RootError};

/// At most so many words about what was left out; more would only be a longer answer.
const MAX_SKIPPED: usize = 100;
/// The longest extended attribute (XATTR_SIZE_MAX, linux/limits.h).
const MAX_ATTRIBUTE: usize = 64 << 10;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Files whose blocks are shared with the original.
    pub(crate) shared: u64,
    /// Files whose bytes were copied.
    pub(crate) copied: u64,
    /// What was left out, in words.
    pub(crate) skipped: Vec<String>,
}

/// Copies all below `from` into the empty directory `to`, which also gets the attributes of `from`: owners, modes, times,
/// extended attributes, second names, device nodes. Sockets are left out, as is what is mounted in `from`.
///
/// # Errors
/// When something cannot be read or written. What was copied until then stays.
pub(crate) fn copy(from: &RootDir, to: &RootDir) -> Result<Copied, RootError> {
    let top = from.metadata("", true)?;
    let mut copier =
        Copier { from, to, device: top.st_dev, links: HashMap::new(), can_share: true, done: Copied::default() };
    let mut directories = vec![(PathBuf::new(), top)];
    let mut next = 0;
    while let Some((path, _)) = directories.get(next) {
        next += 1;
        let path = path.clone();
        copier.directory(&path, &mut directories)?;
    }
    // Last, and from below: what is made in a directory changes its time.
    for (path, found) in directories.iter().rev() {
        let failed = |errno| RootError { action: "set the times of", path: path.clone(), errno };
        let (from, to) = (open_dir(from, path)?, open_dir(to, path)?);
        let dot = Path::new(".");
        copier.attributes(&from, &to, dot, path, found).map_err(failed)?;
    }
    Ok(copier.done)
}

/// Brings all that was written to the file system of `root` to the disk.
pub(crate) fn sync(root: &RootDir) -> io::Result<()> {
    let open = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(open)?)
}

fn open_dir(root: &RootDir, path: &Path) -> Result<OwnedFd, RootError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    root.open_at(if path.as_os_str().is_empty() { Path::new(".") } else { path }, flags, Mode::empty())
}

struct Copier<'a> {
    from: &'a RootDir,
    to: &'a RootDir,
    device: u64,
    /// Where a file with several names is, by its number.
    links: HashMap<u64, PathBuf>,
    /// Nothing has said yet that blocks cannot be shared.
    can_share: bool,
    done: Copied,
}

impl Copier<'_> {
    fn directory(&mut self, path: &Path, directories: &mut Vec<(PathBuf, Stat)>) -> Result<(), RootError> {
        let (from, to) = (open_dir(self.from, path)?, open_dir(self.to, path)?);
        for name in self.from.read_dir(path)? {
            let own = path.join(&name);
            let failed = |errno| RootError { action: "copy", path: own.clone(), errno };
            let found = match statat(&from, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
                // It has just gone.
                Err(Errno::NOENT) => continue,
                found => found.map_err(failed)?,
            };
            if found.st_dev != self.device {
                self.skip(format!("{}: something else is mounted there", own.display()));
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    mkdirat(&to, name.as_os_str(), Mode::from_raw_mode(0o755)).map_err(failed)?;
                }
                continue;
            }
            if self.entry(&from, &to, &name, &own, &found).map_err(failed)? {
                directories.push((own, found));
            }
        }
        Ok(())
    }

    /// True for a directory, whose attributes come last.
    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &OsString,
        path: &Path,
        found: &Stat,
    ) -> Result<bool, Errno> {
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind != FileType::Directory && found.st_nlink > 1 {
            if let Some(first) = self.links.get(&found.st_ino) {
                return self.to.hard_link(first, path).map_err(|error| error.errno).map(|()| false);
            }
            self.links.insert(found.st_ino, path.to_owned());
        }
        let at = name.as_os_str();
        match kind {
            FileType::Directory => {
                mkdirat(to, at, Mode::from_raw_mode(0o700))?;
                return Ok(true);
            }
            FileType::RegularFile => self.file(from, to, name, found)?,
            FileType::Symlink => symlinkat(readlinkat(from, at, Vec::new())?, to, at)?,
            FileType::Socket => {
                self.links.remove(&found.st_ino);
                self.skip(format!("{}: sockets are not copied", path.display()));
                return Ok(false);
            }
            kind => mknodat(to, at, kind, Mode::from_raw_mode(0o600), found.st_rdev)?,
        }
        self.attributes(from, to, Path::new(name), path, found)?;
        Ok(false)
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &OsString, found: &Stat) -> Result<(), Errno> {
        let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = openat(from, name.as_os_str(), reading, Mode::empty())?;
        let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let target = openat(to, name.as_os_str(), writing, Mode::from_raw_mode(0o600))?;
        if self.can_share && found.st_size > 0 {
            match ioctl_ficlone(&target, &source) {
                Ok(()) => {
                    self.done.shared += 1;
                    return Ok(());
                }
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => self.can_share = false,
                // This one cannot be, as a file of swap.
                Err(Errno::INVAL | Errno::TXTBSY | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.done.copied += 1;
        copy_data(&source, &target, u64::try_from(found.st_size).unwrap_or(0))
    }

    /// Owner, mode, extended attributes and times, in this order: a new owner takes away what a mode or a capability gives.
    fn attributes(&mut self, from: &OwnedFd, to: &OwnedFd, at: &Path, path: &Path, found: &Stat) -> Result<(), Errno> {
        let is_dir = at == Path::new(".");
        let owner = (Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)));
        chownat(to, at, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            // Nobody else has the copy, in which this name is no link.
            chmodat(to, at, Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
        }
        let place = |dir: &OwnedFd| {
            let base = RootDir::proc_path_of(dir.as_fd());
            // The last link is the one from the number of the fd to this directory: `.` follows it.
            base.join(if is_dir { Path::new(".") } else { at })
        };
        let (source, target) = (place(from), place(to));
        for key in attribute_names(&source)? {
            let mut value = vec![0; MAX_ATTRIBUTE];
            let length = match lgetxattr(&source, key.as_os_str(), &mut value) {
                Err(Errno::NODATA) => continue,
                length => length?,
            };
            match lsetxattr(&target, key.as_os_str(), &value[..length], XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => {
                    let key = key.display();
                    self.skip(format!("{}: the file system has no place for its attribute {key}", path.display()));
                }
                Err(errno) => return Err(errno),
            }
        }
        let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.cast_signed() };
        let times = Timestamps {
            last_access: time(found.st_atime, found.st_atime_nsec),
            last_modification: time(found.st_mtime, found.st_mtime_nsec),
        };
        utimensat(to, at, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn skip(&mut self, word: String) {
        if self.done.skipped.len() < MAX_SKIPPED {
            self.done.skipped.push(word);
        }
    }
}

fn attribute_names(path: &Path) -> Result<Vec<OsString>, Errno> {
    let mut names = vec![0u8; MAX_ATTRIBUTE];
    match llistxattr(path, &mut names) {
        Ok(length) => {
            let parts = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(parts.map(|name| std::ffi::OsStr::from_bytes(name).to_owned()).collect())
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// Copies the parts of a file that hold data.
fn copy_data(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < size {
        let data = match seek(from, SeekFrom::Data(at)) {
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => at,
            data => data?,
        };
        let end = seek(from, SeekFrom::Hole(data)).unwrap_or(size).min(size);
        copy_range(from, to, data, end)?;
        at = end.max(data + 1);
    }
    ftruncate(to, size)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<(), Errno> {
    let (mut input, mut output) = (start, start);
    while input < end {
        let length = usize::try_from(end - input).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(from, Some(&mut input), to, Some(&mut output), length) {
            // It has become shorter.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            // Not between these two file systems.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => return by_hand(from, to, input, end),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn by_hand(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> Result<(), Errno> {
    let mut piece = vec![0u8; 128 << 10];
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
        let count = match rustix::io::pread(from, &mut piece[..want], at) {
            Err(Errno::INTR) => continue,
            count => count?,
        };
        if count == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < count {
            match rustix::io::pwrite(to, &piece[written..count], at + written as u64) {
                Err(Errno::INTR) => {}
                more => written += more?,
            }
        }
        at += count as u64;
    }
    Ok(())
}
