//! Where the API listens.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::group;

/// A socket that listens; its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where `host` asks for a socket.
///
/// # Errors
/// The message for the user, for what cannot be listened on.
pub(crate) fn path_of(host: &str) -> Result<PathBuf, String> {
    match host.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => Ok(PathBuf::from(path)),
        Some(("tcp", _)) => Err(format!(
            "cannot listen on {host}: TCP is not supported yet, as it needs TLS client certificates to be safe; use a \
             unix socket, and ssh to reach it from elsewhere"
        )),
        Some(("fd", _)) => Err(format!("cannot listen on {host}: socket activation is not supported yet")),
        _ => Err(format!("invalid bind address ({host}): give unix://PATH")),
    }
}

/// Listens at `host`, e.g. `unix:///run/wharf/wharf.sock`.
///
/// # Errors
/// The message for the user.
pub(crate) fn listen(host: &str, owner: &str) -> Result<Listener, String> {
    let path = path_of(host)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| format!("cannot make {}: {e}", parent.display()))?;
    }
    clear(&path)?;
    // Made unreachable, and opened to the group only when it belongs to it.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&path);
    rustix::process::umask(before);
    let socket = bound.map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
    if let Some(id) = group::id(owner) {
        std::os::unix::fs::chown(&path, None, Some(id))
            .map_err(|e| format!("cannot give {} to group {owner}: {e}", path.display()))?;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))
        .map_err(|e| format!("cannot open {} to its group: {e}", path.display()))?;
    Ok(Listener { socket, path })
}

/// Removes what a daemon that was killed has left; a socket that answers is another's.
fn clear(path: &Path) -> Result<(), String> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(format!("{} is in use: another daemon listens there", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            let is_socket = std::fs::symlink_metadata(path)
                .is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
            if !is_socket {
                return Err(format!("{} is there and no socket", path.display()));
            }
            std::fs::remove_file(path).map_err(|e| format!("cannot remove the old socket {}: {e}", path.display()))
        }
    }
}
