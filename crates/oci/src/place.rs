//! Containers on the disk: `ROOT/ID` with `state.json` and, until the start, `start.sock`.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, chmodat, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::bundle::read_json;
use crate::failure::{Failure, Result};
use crate::state::Record;

const STATE: &str = "state.json";
const GATE: &str = "start.sock";
/// Commands that wait until the first process has time for them.
const BACKLOG: i32 = 128;
/// What is said of an ID that is nobody's.
pub(crate) const GONE: &str = "container does not exist";
/// A directory that the container sees, with the socket of [`crate::notify`] in it.
pub(crate) const NOTIFY: &str = "notify";
/// As long as runc's may be; the directory's name has to fit.
const MAX_ID: usize = 1024;

/// A container's directory, held open: it stays the same one whatever its name comes to mean.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) id: String,
    path: PathBuf,
    dir: OwnedFd,
    /// By this value.
    locked: Cell<bool>,
}

/// runc's rule; the ID becomes part of paths.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() {
        return Err(Failure::new("container id cannot be empty"));
    }
    if id == "." || id == ".." || id.len() > MAX_ID || !id.chars().all(allowed) {
        return Err(Failure::new("invalid container ID format"));
    }
    Ok(())
}

fn taken() -> Failure {
    Failure::new("container with given ID already exists")
}

impl Place {
    /// Makes the place of a new container, and locks it.
    pub(crate) fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let make =
            |path: &Path, mode: u32, recursive: bool| DirBuilder::new().mode(mode).recursive(recursive).create(path);
        make(root, 0o700, true).map_err(|error| Failure::file("mkdir", root, &error))?;
        let path = root.join(id);
        make(&path, 0o711, false).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(),
            _ => Failure::file("mkdir", &path, &error),
        })?;
        let place = Self::open(root, id).and_then(|place| place.lock().map(|()| place));
        let place = place.map_err(|failure| match failure.message == GONE {
            true => Failure::new("the container was deleted while it was made"),
            false => failure,
        })?;
        if place.read()?.is_some() {
            // What was made above was deleted, and this is somebody else's who came later and was faster.
            return Err(taken());
        }
        Ok(place)
    }

    /// Opens that of a container.
    pub(crate) fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|errno| match errno {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => Failure::new(GONE),
            other => Failure::file("open", &path, &other.into()),
        })?;
        Ok(Self { id: id.to_owned(), path, dir, locked: Cell::new(false) })
    }

    /// Waits until no other command changes this container. Held until [`Self::unlock`], or until this value goes. As
    /// long as it is held the name means this directory: only who has the lock removes it.
    ///
    /// # Errors
    /// When the container was deleted meanwhile.
    pub(crate) fn lock(&self) -> Result<()> {
        loop {
            match flock(&self.dir, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Failure::file("lock", &self.path, &errno.into())),
                Ok(()) => break,
            }
        }
        if !self.has_its_name()? {
            self.unlock();
            return Err(Failure::new(GONE));
        }
        self.locked.set(true);
        Ok(())
    }

    /// Whether the name still means this directory, and not that of a later container.
    fn has_its_name(&self) -> Result<bool> {
        let fail = |errno: rustix::io::Errno| Failure::file("look at", &self.path, &errno.into());
        let own = rustix::fs::fstat(&self.dir).map_err(fail)?;
        match rustix::fs::lstat(&self.path) {
            Err(rustix::io::Errno::NOENT) => Ok(false),
            found => found.map(|found| (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)).map_err(fail),
        }
    }

    pub(crate) fn unlock(&self) {
        // Of an fd that is open it cannot fail.
        let _ = flock(&self.dir, FlockOperation::Unlock);
        self.locked.set(false);
    }

    /// Whether another command holds the lock.
    pub(crate) fn is_busy(&self) -> bool {
        if self.locked.get() {
            return false;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(dir) = rustix::fs::openat(&self.dir, ".", flags, Mode::empty()) else { return false };
        // Another open file of the same directory; its lock goes with it.
        flock(&dir, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// What is known of the container; `None` when nothing was written, or it was deleted meanwhile.
    pub(crate) fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join(STATE);
        match rustix::fs::openat(&self.dir, STATE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(Failure::file("open", &path, &errno.into())),
            Ok(fd) => read_json(File::from(fd), &path).map(Some),
        }
    }

    /// Whole or not at all: who reads it sees what was before or what is now. Not synced: with the host all that it
    /// tells of ends, and waiting for the disk, where the root is on one, would be most of a start.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let path = self.path.join(STATE);
        let new = self.path.join("state.json.new");
        let fail = |error: std::io::Error| Failure::file("write", &path, &error);
        let bytes = serde_json::to_vec(record).map_err(|error| fail(error.into()))?;
        let mut file = File::create(&new).map_err(fail)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).map_err(|errno| fail(errno.into()))?;
        file.write_all(&bytes).map_err(fail)?;
        fs::rename(&new, &path).map_err(fail)
    }

    /// The socket at which the first process waits. A path as long as engines have it fits into no address, so it
    /// goes by the directory's fd. Whoever may write to it may start the container and gets its namespaces: others may
    /// not, whatever the umask is, before anybody can come.
    pub(crate) fn make_gate(&self) -> Result<UnixListener> {
        self.bind_gate().map_err(|errno| Failure::file("listen on", &self.path.join(GATE), &errno.into()))
    }

    fn bind_gate(&self) -> rustix::io::Result<UnixListener> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(self.gate())?)?;
        // fchmod(2) of a socket is about its inode in sockfs; the directory is this user's alone.
        chmodat(&self.dir, GATE, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&socket, BACKLOG)?;
        Ok(socket.into())
    }

    pub(crate) fn connect_to_gate(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.gate())
    }

    /// Whether nobody waits at the gate any more: who went on through it has closed it.
    pub(crate) fn is_gate_shut(&self) -> bool {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let visit = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .and_then(|socket| connect(&socket, &SocketAddrUnix::new(self.gate())?));
        visit == Err(rustix::io::Errno::CONNREFUSED)
    }

    pub(crate) fn has_gate(&self) -> bool {
        rustix::fs::statat(&self.dir, GATE, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub(crate) fn remove_gate(&self) {
        // Gone already, or it goes with the directory.
        let _ = rustix::fs::unlinkat(&self.dir, GATE, rustix::fs::AtFlags::empty());
    }

    /// The directory that the container is to see; its path.
    pub(crate) fn make_notify(&self) -> Result<PathBuf> {
        let path = self.path.join(NOTIFY);
        DirBuilder::new().mode(0o755).create(&path).map_err(|error| Failure::file("mkdir", &path, &error))?;
        Ok(path)
    }

    pub(crate) fn has_notify(&self) -> bool {
        rustix::fs::statat(&self.dir, NOTIFY, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// A path of what is in the place, short enough for an address.
    pub(crate) fn short_path(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd())
    }

    fn gate(&self) -> String {
        self.short_path(GATE)
    }

    /// Forgets the container.
    pub(crate) fn remove(self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::file("remove", &self.path, &error)),
            _ => Ok(()),
        }
    }
}

/// The IDs of all containers of a root, sorted.
pub(crate) fn all(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| Failure::file("open", root, &error))?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|id| check_id(id).is_ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_id_is_a_name_and_no_path() {
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\n"] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        assert!(check_id("Az_0+-.").is_ok());
    }

    #[test]
    fn a_place_is_made_once_and_its_path_may_be_long() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("r".repeat(120));
        let place = Place::create(&root, "a").unwrap();
        assert!(Place::create(&root, "a").unwrap_err().message.contains("already exists"));
        assert!(Place::open(&root, "b").unwrap_err().message.contains("does not exist"));
        assert!(Place::open(&root, "a").unwrap().is_busy());
        let _gate = place.make_gate().unwrap();
        let mode = fs::metadata(root.join("a").join(GATE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others may come to the gate");
        assert!(place.has_gate() && place.connect_to_gate().is_ok());
        assert_eq!(all(&root).unwrap(), ["a"]);
        assert!(place.read().unwrap().is_none());
        place.remove().unwrap();
        assert!(all(&root).unwrap().is_empty());
    }
    #[test]
    fn the_place_of_a_later_container_of_that_name_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let old = Place::create(dir.path(), "a").unwrap();
        old.unlock();
        let waiting = Place::open(dir.path(), "a").unwrap();
        old.lock().unwrap();
        old.remove().unwrap();
        assert_eq!(waiting.lock().unwrap_err().message, GONE);
        let new = Place::create(dir.path(), "a").unwrap();
        assert_eq!(waiting.lock().unwrap_err().message, GONE);
        new.unlock();
        new.lock().unwrap();
    }

    #[test]
    fn a_gate_at_which_nobody_waits_is_shut() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::create(dir.path(), "a").unwrap();
        let gate = place.make_gate().unwrap();
        assert!(!place.is_gate_shut());
        drop(gate);
        assert!(place.is_gate_shut());
    }
}
