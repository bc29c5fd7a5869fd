//! The root and its operations.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fstat, linkat, mkdirat, mknodat, openat2, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::Result;

/// A failed operation: what was tried, on which path, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct RootError {
    pub action: &'static str,
    /// Inside the root.
    pub path: PathBuf,
    #[source]
    pub errno: Errno,
}

impl RootError {
    pub(crate) fn new(action: &'static str, path: &Path, errno: Errno) -> Self {
        Self { action, path: path.to_owned(), errno }
    }

    /// Whether what the path means is not there.
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT
    }
}

impl From<RootError> for std::io::Error {
    fn from(error: RootError) -> Self {
        Self::new(std::io::Error::from(error.errno).kind(), error)
    }
}

/// A directory that paths are resolved in. Links in a path are followed as the container would follow them:
/// an absolute one from this root, `..` not above it.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel answers `EAGAIN` when something was renamed while it resolved `..`; it asks to try again.
const TRIES: usize = 128;

impl RootDir {
    /// Opens a trusted path of the host as a root.
    ///
    /// # Errors
    /// When it is not there or no directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| RootError::new("open directory", path, errno))?;
        Ok(Self { fd })
    }

    /// Takes an open directory (`O_PATH` is enough) as a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Resolves `path` and opens what it means.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open_at(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        // An empty path means the root, as `/` does; openat2 would refuse it.
        let inside = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&self.fd, inside, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done.map_err(|errno| RootError::new("open", path, errno)),
            }
        }
        Err(RootError::new("open", path, Errno::AGAIN))
    }

    /// A handle on whatever `path` means, links followed, that is neither readable nor writable (`O_PATH`).
    ///
    /// # Errors
    /// When it is not there.
    pub fn handle(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_at(path, OFlags::PATH, Mode::empty())
    }

    /// As [`Self::handle`], but a path or a link that leads out of the root is an error, and not one that begins there.
    ///
    /// # Errors
    /// `EXDEV` for such a path, and when it is not there.
    pub fn handle_beneath(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        let path = path.as_ref();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&self.fd, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done.map_err(|errno| RootError::new("open", path, errno)),
            }
        }
        Err(RootError::new("open", path, Errno::AGAIN))
    }

    /// Opens a regular file to read; anything else is refused, and a FIFO does not block.
    ///
    /// # Errors
    /// `EINVAL` when it is no regular file.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File> {
        let path = path.as_ref();
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = fstat(&fd).map_err(|errno| RootError::new("read", path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RootError::new("read as a regular file", path, Errno::INVAL));
        }
        Ok(File::from(fd))
    }

    /// Reads a regular file of at most `max` bytes.
    ///
    /// # Errors
    /// `EFBIG` when it is larger, besides those of [`Self::open_file`].
    pub fn read_small(&self, path: impl AsRef<Path>, max: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = self.open_file(path)?.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|e| RootError::new("read", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        if bytes.len() as u64 > max {
            return Err(RootError::new("read", path, Errno::FBIG));
        }
        Ok(bytes)
    }

    /// Makes a new file; what is there already is not opened and not followed.
    ///
    /// # Errors
    /// `EEXIST` when the name is taken.
    pub fn create_file(&self, path: impl AsRef<Path>, mode: u32) -> Result<File> {
        let path = path.as_ref();
        let (parent, name) = self.open_parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name.as_os_str(), flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|errno| RootError::new("create", path, errno))
    }

    /// Opens a directory below as a root of its own.
    ///
    /// # Errors
    /// `ENOTDIR` when it is none.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map(Self::from_fd)
    }

    /// Resolves all of `path` but its last name, which is given back literally.
    ///
    /// # Errors
    /// `EINVAL` when the path has no last name (`/`, or one that ends in `..`).
    pub fn open_parent(&self, path: impl AsRef<Path>) -> Result<(Self, OsString)> {
        let path = path.as_ref();
        let Some(Component::Normal(name)) = path.components().next_back() else {
            return Err(RootError::new("use as a name", path, Errno::INVAL));
        };
        let parent = self.open_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.to_owned()))
    }

    /// Makes `path` and what is missing above it. Links on the way are followed inside the root; what is no
    /// directory is not replaced.
    ///
    /// # Errors
    /// `ENOTDIR` when something on the way is no directory.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<Self> {
        let path = path.as_ref();
        let mut here = self.open_dir("")?;
        let mut walked = PathBuf::new();
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                // With links between, only the kernel knows what `..` means: resolve what has been walked.
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            walked.push(name);
            here = match self.open_dir(&walked) {
                Err(error) if error.is_not_found() => {
                    match mkdirat(&here, name, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(RootError::new("make directory", path, errno)),
                    }
                    // A dangling link is not followed to make its target: it is not ours to say where.
                    self.open_dir(&walked)?
                }
                opened => opened?,
            };
        }
        Ok(here)
    }

    /// A handle on `path` to mount something on. What is missing is made, a directory or an empty file; dangling links
    /// lead to where it is made, inside the root, as a mount on them does for Docker's users.
    ///
    /// # Errors
    /// `ELOOP` for links in a circle, `ENOTDIR` when something on the way is no directory.
    pub fn mount_point(&self, path: impl AsRef<Path>, directory: bool) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.handle(path) {
            Err(error) if error.is_not_found() => {}
            found => return found,
        }
        let target = self.through_links(path)?;
        if directory {
            self.mkdir_all(&target, 0o755)?;
        } else {
            self.mkdir_all(target.parent().unwrap_or(Path::new("")), 0o755)?;
            match self.create_file(&target, 0o644) {
                // Somebody else has made it meanwhile.
                Err(error) if error.errno == Errno::EXIST => {}
                made => drop(made?),
            }
        }
        self.handle(&target)
    }

    /// `path` with every link in it replaced by its target, whether that is there or not.
    fn through_links(&self, path: &Path) -> Result<PathBuf> {
        let mut left: Vec<OsString> = path.iter().map(OsStr::to_owned).collect();
        left.reverse();
        let mut walked = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match Path::new(&part).components().next() {
                Some(Component::ParentDir) => drop(walked.pop()),
                Some(Component::Normal(name)) => {
                    let next = walked.join(name);
                    match self.read_link(&next) {
                        Ok(target) => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(RootError::new("follow the links of", path, Errno::LOOP));
                            }
                            let target = Path::new(&target);
                            if target.is_absolute() {
                                walked = PathBuf::new();
                            }
                            left.extend(target.iter().rev().map(OsStr::to_owned));
                        }
                        Err(error) if matches!(error.errno, Errno::INVAL | Errno::NOENT) => walked = next,
                        Err(error) => return Err(error),
                    }
                }
                _ => {}
            }
        }
        Ok(walked)
    }

    /// What `path` is; with `follow`, what it points to.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metadata(&self, path: impl AsRef<Path>, follow: bool) -> Result<Stat> {
        let path = path.as_ref();
        let (dir, name, flags) = if follow {
            (Self::from_fd(self.handle(path)?), OsString::new(), AtFlags::EMPTY_PATH)
        } else {
            match self.open_parent(path) {
                Ok((dir, name)) => (dir, name, AtFlags::SYMLINK_NOFOLLOW),
                Err(error) if error.errno == Errno::INVAL => {
                    (Self::from_fd(self.handle(path)?), OsString::new(), AtFlags::EMPTY_PATH)
                }
                Err(error) => return Err(error),
            }
        };
        statat(&dir, name.as_os_str(), flags).map_err(|errno| RootError::new("look at", path, errno))
    }

    pub fn symlink(&self, target: &OsStr, path: impl AsRef<Path>) -> Result<()> {
        self.in_parent("make link", path.as_ref(), |dir, name| symlinkat(target, dir, name))
    }

    /// Makes a second name for a file; a link is linked itself, not what it points to.
    pub fn hard_link(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let (from, old) = self.open_parent(existing)?;
        self.in_parent("link", path.as_ref(), |dir, name| linkat(&from, old.as_os_str(), dir, name, AtFlags::empty()))
    }

    /// Makes a device node, FIFO or socket.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileType, mode: u32, device: u64) -> Result<()> {
        self.in_parent("make node", path.as_ref(), |dir, name| {
            mknodat(dir, name, kind, Mode::from_raw_mode(mode), device)
        })
    }

    /// Where the link `path` points, literally.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<OsString> {
        self.in_parent("read link", path.as_ref(), |dir, name| readlinkat(dir, name, Vec::new()))
            .map(|target| OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// Removes one name that is no directory; a link goes itself.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        self.in_parent("remove", path.as_ref(), |dir, name| unlinkat(dir, name, AtFlags::empty()))
    }

    /// Removes `path` with all below it, whatever it is, without following a link or leaving its mount.
    /// Nothing there is no error.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (dir, name) = match self.open_parent(path) {
            Err(error) if error.is_not_found() => return Ok(()),
            opened => opened?,
        };
        crate::remove::remove_tree(dir.as_fd(), &name).map_err(|errno| RootError::new("remove", path, errno))
    }

    /// Whether something is mounted on the very entry `path`; a link is not followed.
    pub fn is_mount(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let entry = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let found = rustix::fs::statx(&entry, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::empty())
            .map_err(|errno| RootError::new("look at", path, errno))?;
        Ok(found.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
    }

    /// Names in a directory, sorted by bytes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<OsString>> {
        let path = path.as_ref();
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        crate::remove::names(fd.as_fd()).map_err(|errno| RootError::new("list", path, errno))
    }

    /// Sets the owner of the very entry `path`; a link is not followed.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        self.entry("set the owner of", path.as_ref(), |dir, name, flags| {
            chownat(dir, name, Some(uid), Some(gid), flags | AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Sets the permission bits of a file or directory; a link has none and is left alone.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        self.entry("set the mode of", path.as_ref(), |dir, name, flags| {
            if flags.contains(AtFlags::EMPTY_PATH) {
                let open = rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                return fchmod(open, mode);
            }
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Ok(());
            }
            // fchmodat follows links; between the look and the call the name could become one. The call by
            // fd through /proc cannot be turned aside.
            let fd = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
                return Ok(());
            }
            chmodat(CWD, proc_path(fd.as_fd()), mode, AtFlags::empty())
        })
    }

    /// Sets access and modification time of the very entry `path`.
    pub fn set_times(&self, path: impl AsRef<Path>, times: &Timestamps) -> Result<()> {
        self.entry("set the times of", path.as_ref(), |dir, name, flags| {
            if flags.contains(AtFlags::EMPTY_PATH) {
                return utimensat(dir, ".", times, AtFlags::empty());
            }
            utimensat(dir, name, times, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Sets an extended attribute of the very entry `path`; a link is not followed.
    pub fn set_xattr(&self, path: impl AsRef<Path>, key: &OsStr, value: &[u8]) -> Result<()> {
        self.entry("set an attribute of", path.as_ref(), |dir, name, flags| {
            let base = proc_path(dir);
            if flags.contains(AtFlags::EMPTY_PATH) {
                // The last link is the one from the number of the fd to this directory.
                return rustix::fs::setxattr(base, key, value, XattrFlags::empty());
            }
            rustix::fs::lsetxattr(base.join(name), key, value, XattrFlags::empty())
        })
    }

    /// All extended attributes of what `path` means, sorted by key; links on the way are followed inside the root.
    /// A file system without them has none.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> Result<Vec<(OsString, Vec<u8>)>> {
        let path = path.as_ref();
        let handle = self.handle(path)?;
        read_xattrs(&proc_path(handle.as_fd())).map_err(|errno| RootError::new("read the attributes of", path, errno))
    }

    /// The path by which a system call without an `at` form reaches this very directory.
    pub fn proc_path(&self) -> PathBuf {
        proc_path(self.fd.as_fd())
    }

    /// As [`Self::proc_path`], for anything that is held: a handle ([`Self::handle`]) is enough for most calls.
    pub fn proc_path_of(fd: impl AsFd) -> PathBuf {
        proc_path(fd.as_fd())
    }

    fn in_parent<T>(
        &self,
        action: &'static str,
        path: &Path,
        f: impl FnOnce(&Self, &OsStr) -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        let (dir, name) = self.open_parent(path)?;
        f(&dir, &name).map_err(|errno| RootError::new(action, path, errno))
    }

    /// Works on the entry itself: its name in its parent, or the root by its own fd.
    fn entry(
        &self,
        action: &'static str,
        path: &Path,
        f: impl FnOnce(BorrowedFd<'_>, &OsStr, AtFlags) -> std::result::Result<(), Errno>,
    ) -> Result<()> {
        let done = if path.components().all(|c| matches!(c, Component::RootDir | Component::CurDir)) {
            f(self.as_fd(), OsStr::new(""), AtFlags::EMPTY_PATH)
        } else {
            let (dir, name) = self.open_parent(path)?;
            f(dir.as_fd(), &name, AtFlags::empty())
        };
        done.map_err(|errno| RootError::new(action, path, errno))
    }
}

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Largest attribute (XATTR_SIZE_MAX) and largest list of names (XATTR_LIST_MAX), linux/limits.h.
const MAX_XATTR: usize = 64 << 10;

fn read_xattrs(path: &Path) -> std::result::Result<Vec<(OsString, Vec<u8>)>, Errno> {
    let mut names = vec![0u8; MAX_XATTR];
    let length = match rustix::fs::listxattr(path, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        length => length?,
    };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let key = OsStr::from_bytes(name);
        let mut value = vec![0u8; MAX_XATTR];
        match rustix::fs::getxattr(path, key, &mut value) {
            // Gone since it was listed, or shown to nobody.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            length => value.truncate(length?),
        }
        all.push((key.to_owned(), value));
    }
    all.sort_unstable();
    Ok(all)
}
