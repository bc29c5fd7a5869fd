//! Starting the process.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{RelayError, Result};
use crate::protocol::SOCKET;

/// The name by which the program knows that it is to be this process.
pub const PROGRAM_NAME: &str = "wharf-relay";
/// This very program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Daemons that wait to be served.
const BACKLOG: i32 = 16;

/// A connection to the process in `exec_root`.
///
/// # Errors
/// `ENOENT` and `ECONNREFUSED` when there is none.
pub(crate) fn connect(exec_root: &Path) -> rustix::io::Result<UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    with_address(exec_root, |address| rustix::net::connect(&socket, address))?;
    Ok(UnixStream::from(socket))
}

/// Starts the process in `exec_root`. Its socket takes connections when this returns.
///
/// # Errors
/// When the directory or the program is not there, and at limits.
pub(crate) fn start(exec_root: &Path) -> Result<()> {
    let listener = listen(exec_root)?;
    // By exec and not as a copy: the daemon has threads by now. The one fd that it gets is its standard input.
    let status = Command::new(OWN_PROGRAM)
        .arg0(PROGRAM_NAME)
        .arg(exec_root)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // It ends at once: what serves is its child, whose parent is nobody of ours.
        .status();
    match status.map_err(RelayError::io("start the process that relays ports"))? {
        status if status.success() => Ok(()),
        status => Err(RelayError::Refused(format!("the process that relays ports has not come up: {status}"))),
    }
}

fn listen(exec_root: &Path) -> Result<UnixListener> {
    let fail = RelayError::system("make the socket of the relay");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(&fail)?;
    let path = exec_root.join(SOCKET);
    // Of a process that was killed, or is just about to end; nobody else makes one here.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(RelayError::io("remove an old socket of the relay")(error));
        }
        _ => {}
    }
    with_address(exec_root, |address| rustix::net::bind(&socket, address)).map_err(&fail)?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o600)).map_err(&fail)?;
    rustix::net::listen(&socket, BACKLOG).map_err(&fail)?;
    Ok(UnixListener::from(socket))
}

/// The socket's address in `dir`, however long the path of `dir` is.
fn with_address<T>(dir: &Path, call: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    use std::os::fd::AsRawFd;
    match SocketAddrUnix::new(dir.join(SOCKET)) {
        Ok(address) => call(&address),
        Err(_) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(dir, flags, Mode::empty())?;
            let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
            call(&SocketAddrUnix::new(short).map_err(|_| Errno::NAMETOOLONG)?)
        }
    }
}
