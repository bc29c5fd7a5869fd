//! Sockets that listen and let nobody in yet.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use wharf_client::LONGEST_SOCKET_PATH;

use crate::group;

/// A socket that listens: who connects waits.
#[derive(Debug)]
pub(crate) enum Bound {
    /// With its file, where that is ours and goes with us.
    Unix(UnixListener, Option<SocketFile>),
    Tcp(TcpListener),
}

/// A socket's file, which goes with it, unless the name is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: Self::inode(path) }
    }

    fn inode(path: &Path) -> Option<(u64, u64)> {
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Leaves the name to whoever has the socket now.
    pub(crate) fn leave(mut self) {
        self.inode = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && Self::inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a unix socket with a name that nobody listens at. It belongs to the group `owner`, if there is one.
///
/// # Errors
/// The message for the user.
pub(crate) fn unix(path: &Path, owner: &str) -> Result<Bound, String> {
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        return Err(format!(
            "cannot listen on {}: the path of a socket may have {LONGEST_SOCKET_PATH} bytes, and this one has {length}; give \
             a shorter one with --host",
            path.display()
        ));
    }
    clear(path)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| format!("cannot make {}: {e}", parent.display()))?;
    }
    // Made unreachable, and opened to the group only when it belongs to it.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound.map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
    let file = SocketFile::new(path);
    open_to_group(path, owner)?;
    Ok(Bound::Unix(socket, Some(file)))
}

/// Lets the group `owner` use a socket, if there is one.
///
/// # Errors
/// The message for the user.
pub(crate) fn open_to_group(path: &Path, owner: &str) -> Result<(), String> {
    if let Some(id) = group::id(owner) {
        std::os::unix::fs::chown(path, None, Some(id))
            .map_err(|e| format!("cannot give {} to group {owner}: {e}", path.display()))?;
    }
    // Without a group it is its owner's: the owner's own group may have others in it.
    let mode = if owner.is_empty() { 0o600 } else { 0o660 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| format!("cannot open {} to who may use it: {e}", path.display()))
}

/// Where `host` and `port` are, the first of a name's addresses of IPv4 before others, as Go does it.
///
/// # Errors
/// The message for the user.
pub(crate) fn address(host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = (host, port).to_socket_addrs().map_err(|e| format!("cannot listen on tcp://{host}:{port}: {e}"))?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| format!("cannot listen on tcp://{host}:{port}: it has no address"))
}

/// Makes a socket of TCP.
///
/// # Errors
/// The message for the user.
pub(crate) fn tcp(address: SocketAddr) -> Result<Bound, String> {
    TcpListener::bind(address).map(Bound::Tcp).map_err(|e| format!("cannot listen on tcp://{address}: {e}"))
}

/// Removes what a daemon that was killed has left; a socket that answers is another's.
fn clear(path: &Path) -> Result<(), String> {
    match UnixStream::connect(path) {
        Ok(_) => Err(format!("{} is in use: another daemon listens there", path.display())),
        Err(_) => match std::fs::symlink_metadata(path) {
            // And where nothing can be made, that is said when it is tried.
            Err(_) => Ok(()),
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(|e| format!("cannot remove the old socket {}: {e}", path.display()))
            }
            Ok(_) => Err(format!("{} is there and no socket", path.display())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_with_its_socket_and_not_with_another_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = unix(&path, "").unwrap();
        assert!(unix(&path, "").unwrap_err().contains("another daemon listens there"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
        let Bound::Unix(socket, Some(file)) = unix(&path, "").unwrap() else { panic!() };
        file.leave();
        assert!(path.exists());
        // Its file stays after it, and is no hindrance.
        drop(socket);
        let Bound::Unix(_socket, Some(file)) = unix(&path, "").unwrap() else { panic!() };
        std::fs::rename(&path, dir.path().join("kept")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(unix(&dir.path().join("file"), "").unwrap_err().contains("no socket"));
    }
}
