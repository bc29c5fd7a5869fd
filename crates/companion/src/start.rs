//! Starting the process, and reaching it.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::role::Role;

/// This very program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Daemons that wait to be served.
const BACKLOG: i32 = 16;

impl Role {
    /// A connection to the process in `exec_root`, on which nothing waits longer than `patience`.
    ///
    /// # Errors
    /// `ENOENT` and `ECONNREFUSED` when there is none; `EAGAIN` when it does not take connections.
    pub(crate) fn connect(&self, exec_root: &Path, patience: Duration) -> rustix::io::Result<UnixStream> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, timeout, Some(patience))?;
        }
        self.with_address(exec_root, |address| rustix::net::connect(&socket, address))?;
        Ok(UnixStream::from(socket))
    }

    /// Starts the process in `exec_root`. Its socket takes connections when this returns.
    ///
    /// # Errors
    /// When the directory or the program is not there, and at limits.
    pub(crate) fn start(&self, exec_root: &Path) -> Result<()> {
        let listener = self.listen(exec_root)?;
        // By exec and not as a copy: the daemon has threads by now. The one fd that it gets is its standard input.
        let status = Command::new(OWN_PROGRAM)
            .arg0(OsStr::from_bytes(self.name.to_bytes()))
            // For people who look at `ps`.
            .arg(exec_root)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It ends at once: what serves is its child, whose parent is nobody of ours.
            .status();
        match status.map_err(Error::io(format!("start the process that {}", self.does)))? {
            status if status.success() => Ok(()),
            status => Err(Error::Refused(format!("the process that {} has not come up: {status}", self.does))),
        }
    }

    fn listen(&self, exec_root: &Path) -> Result<UnixListener> {
        let fail = Error::system(format!("make the socket of the process that {}", self.does));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(&fail)?;
        let path = exec_root.join(self.socket);
        // Of a process that was killed, or is just about to end; nobody else makes one here.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", path.display()))(error));
            }
            _ => {}
        }
        self.with_address(exec_root, |address| rustix::net::bind(&socket, address)).map_err(&fail)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o600)).map_err(&fail)?;
        rustix::net::listen(&socket, BACKLOG).map_err(&fail)?;
        Ok(UnixListener::from(socket))
    }

    /// The socket's address in `dir`, however long the path of `dir` is.
    fn with_address<T>(
        &self,
        dir: &Path,
        call: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match SocketAddrUnix::new(dir.join(self.socket)) {
            Ok(address) => call(&address),
            Err(_) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(dir, flags, Mode::empty())?;
                let short = PathBuf::from(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), self.socket));
                call(&SocketAddrUnix::new(short).map_err(|_| Errno::NAMETOOLONG)?)
            }
        }
    }
}
