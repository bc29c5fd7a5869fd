//! Sockets that another process listens on, as fds of this one (pidfd_getfd(2)): nobody who comes meanwhile is refused,
//! and names and ports stay what they are whatever becomes of either process.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_peercred, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

/// What a process listens on and nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    unix: Vec<UnixListener>,
    tcp: Vec<TcpListener>,
}

impl Inherited {
    /// That of the process `pid`, which `process` keeps from being another.
    ///
    /// # Errors
    /// As pidfd_getfd(2) and readdir(3).
    pub(crate) fn of(pid: Pid, process: &OwnedFd) -> std::io::Result<Self> {
        let mut found = Self::default();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid()))? {
            let entry = entry?;
            let is_socket = std::fs::read_link(entry.path())
                .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
            if !is_socket {
                continue;
            }
            match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
                Ok(fd) => found.add(fd),
                // Closed meanwhile: a connection.
                Err(Errno::BADF) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(found)
    }

    fn add(&mut self, fd: OwnedFd) {
        if socket_type(&fd) != Ok(SocketType::STREAM) || socket_acceptconn(&fd) != Ok(true) {
            return;
        }
        match socket_domain(&fd) {
            Ok(AddressFamily::UNIX) => self.unix.push(fd.into()),
            Ok(AddressFamily::INET | AddressFamily::INET6) => self.tcp.push(fd.into()),
            _ => {}
        }
    }

    /// The one that whoever connects to `path` reaches.
    pub(crate) fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.unix.iter().position(|socket| is_at(socket, path) && answers(socket, path))?;
        Some(self.unix.swap_remove(at))
    }

    /// The one at this address.
    pub(crate) fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|socket| socket.local_addr().is_ok_and(|its| its == address))?;
        Some(self.tcp.swap_remove(at))
    }

    /// Names of the others.
    pub(crate) fn left(self) -> Vec<PathBuf> {
        let path = |socket: UnixListener| Some(socket.local_addr().ok()?.as_pathname()?.to_owned());
        self.unix.into_iter().filter_map(path).collect()
    }
}

fn is_at(socket: &UnixListener, path: &Path) -> bool {
    socket.local_addr().is_ok_and(|its| its.as_pathname() == Some(path))
}

/// Whether the name is this socket's still, and not one's that was made there since: both tell who has begun to listen
/// (`SO_PEERCRED`, unix(7)).
fn answers(socket: &UnixListener, path: &Path) -> bool {
    let own = socket_peercred(socket).map(|who| who.pid);
    UnixStream::connect(path).is_ok_and(|there| socket_peercred(&there).map(|who| who.pid) == own)
}

/// Whether a process has this very file open.
pub(crate) fn has_open(pid: Pid, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(own) = file.metadata() else { return false };
    let Ok(fds) = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())) else { return false };
    fds.flatten()
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .any(|its| (its.dev(), its.ino()) == (own.dev(), own.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    /// A process that listens and does nothing else.
    const LISTENS: &str = "import socket, sys\n\
         u = socket.socket(socket.AF_UNIX); u.bind(sys.argv[1]); u.listen()\n\
         t = socket.create_server(('127.0.0.1', 0)); other = socket.socket()\n\
         print(t.getsockname()[1], flush=True); sys.stdin.read()";

    #[test]
    fn who_has_connected_to_another_s_socket_is_let_in_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut other = Command::new("python3")
            .args(["-c", LISTENS, path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.as_mut().unwrap()), &mut line).unwrap();
        let address: SocketAddr = format!("127.0.0.1:{}", line.trim()).parse().unwrap();
        let pid = Pid::from_child(&other);
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let mut inherited = Inherited::of(pid, &process).unwrap();
        assert!(inherited.unix(&dir.path().join("another")).is_none());
        let socket = inherited.unix(&path).unwrap();
        assert!(inherited.unix(&path).is_none());
        let port = inherited.tcp(address).unwrap();
        assert!(inherited.tcp(address).is_none());
        // A name that somebody else has taken is not its name any more.
        let again = Inherited::of(pid, &process).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _mine = UnixListener::bind(&path).unwrap();
        assert!(Inherited::of(pid, &process).unwrap().unix(&path).is_none());
        assert_eq!(again.left(), std::slice::from_ref(&path));
        other.kill().unwrap();
        other.wait().unwrap();
        // It has ended, and they go on.
        client.write_all(b"x").unwrap();
        socket.accept().unwrap().0.read_exact(&mut [0]).unwrap();
        std::net::TcpStream::connect(address).unwrap();
        port.accept().unwrap();
    }
}
