//! Where the API listens.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::tcp::Client;
use crate::tls::Tls;
use crate::{activation, group};

/// Ports of Docker's, with TLS and without.
const TLS_PORT: u16 = 2376;
const PORT: u16 = 2375;
/// dockerd's example, and what everybody uses.
const METRICS_PORT: u16 = 9323;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String, u16),
    /// Sockets that the service manager has opened: all of them, or the one of this name or number.
    Passed(Option<String>),
}

/// Who may come by TCP.
#[derive(Clone, Debug)]
pub(crate) enum TcpPolicy {
    /// Nobody: neither certificates nor the will to do without were given.
    Nobody,
    /// Whoever has a certificate of the authority's; without one to check against, everybody, encrypted.
    Tls(Tls),
    /// Everybody.
    Everybody,
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Unix {
        socket: UnixListener,
        /// Where it is ours, and goes with the listener.
        _file: Option<SocketFile>,
    },
    Tcp(TcpListener, Option<Tls>),
    /// For everybody, who may read how the engine fares.
    Metrics(TcpListener),
}

/// Connections at once by TCP, where anybody may come who has no certificate yet: they must not take all files.
const MOST_BY_TCP: usize = 512;
/// Prometheus comes every few seconds.
const MOST_FOR_METRICS: usize = 16;

/// A socket's file, which goes with it, unless the name is another's by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: Self::inode(path) }
    }

    fn inode(path: &Path) -> Option<(u64, u64)> {
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((std::os::unix::fs::MetadataExt::dev(&found), std::os::unix::fs::MetadataExt::ino(&found)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Unix sockets that have another daemon's names already; see [`crate::take_over`].
pub(crate) type Early = Vec<(std::os::unix::net::UnixListener, SocketFile)>;

/// Takes the names of the unix sockets: who comes from now on waits until this daemon is ready.
///
/// # Errors
/// The message for the user; the names are then still the other's, up to the one that was the matter.
pub(crate) fn early(places: &[Place], owner: &str) -> Result<Early, String> {
    let mut made = Vec::new();
    for place in places {
        let Place::Unix(path) = place else { continue };
        let there = std::fs::symlink_metadata(path);
        if there.is_ok_and(|found| !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())) {
            return Err(format!("{} is there and no socket", path.display()));
        }
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        if beside.symlink_metadata().is_ok() {
            clear(&beside)?;
        }
        let socket = bind(&beside, owner)?;
        made.push((socket, SocketFile::new(&beside), path));
    }
    // Only now: until all of them are there, none of the other's names is taken away.
    let mut sockets = Vec::new();
    for (socket, beside, path) in made {
        std::fs::rename(&beside.path, path).map_err(|e| format!("cannot take over {}: {e}", path.display()))?;
        sockets.push((socket, SocketFile::new(path)));
    }
    Ok(sockets)
}

/// Somebody who has come.
pub(crate) enum Accepted {
    Local(UnixStream),
    Remote(Client),
}

impl Listener {
    /// Where clients find it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix { _file: Some(file), .. } => format!("unix://{}", file.path.display()),
            Self::Unix { socket, .. } => {
                let path =
                    socket.local_addr().ok().and_then(|at| at.as_pathname().map(|path| path.display().to_string()));
                format!("unix://{}", path.unwrap_or_default())
            }
            Self::Tcp(socket, _) | Self::Metrics(socket) => {
                socket.local_addr().map_or_else(|_| "tcp://".into(), |at| format!("tcp://{at}"))
            }
        }
    }

    /// How many clients it may have at once.
    pub(crate) fn most(&self) -> usize {
        match self {
            Self::Unix { .. } => Semaphore::MAX_PERMITS,
            Self::Tcp(..) => MOST_BY_TCP,
            Self::Metrics(_) => MOST_FOR_METRICS,
        }
    }

    /// Waits for the next client.
    ///
    /// # Errors
    /// As accept(2); the listener is of use afterwards.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix { socket, .. } => Ok(Accepted::Local(socket.accept().await?.0)),
            Self::Metrics(socket) => Ok(Accepted::Remote(Client::new(socket.accept().await?.0, None))),
            Self::Tcp(socket, tls) => Ok(Accepted::Remote(Client::new(socket.accept().await?.0, tls.clone()))),
        }
    }
}

/// Where `host` asks for a socket, e.g. `unix:///run/wharf/wharf.sock`.
///
/// # Errors
/// The message for the user, for what cannot be listened on.
pub(crate) fn place(host: &str, tcp: &TcpPolicy) -> Result<Place, String> {
    match host.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => Ok(Place::Unix(PathBuf::from(path))),
        Some(("tcp", address)) => {
            if matches!(tcp, TcpPolicy::Nobody) {
                return Err(format!(
                    "cannot listen on {host}: whoever reaches that port would be root on this host. Give --tlsverify with \
                     --tlscacert, --tlscert and --tlskey, so that only those with a certificate can; use a unix socket, \
                     and ssh to reach it from elsewhere; or say with --insecure-tcp that everybody may"
                ));
            }
            let default = if matches!(tcp, TcpPolicy::Tls(_)) { TLS_PORT } else { PORT };
            let (name, port) = host_and_port(address, default)
                .ok_or_else(|| format!("invalid bind address ({host}): give tcp://ADDRESS:PORT"))?;
            Ok(Place::Tcp(name, port))
        }
        Some(("fd", "" | "*")) => Ok(Place::Passed(None)),
        Some(("fd", name)) => Ok(Place::Passed(Some(name.to_owned()))),
        _ => Err(format!("invalid bind address ({host}): give unix://PATH, tcp://ADDRESS:PORT or fd://")),
    }
}

/// `0.0.0.0:2376`, `[::1]`, `:2376`; the loopback where none is given, as in Docker.
fn host_and_port(address: &str, default: u16) -> Option<(String, u16)> {
    let address = address.trim_end_matches('/');
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some(""))?)
        }
        None => address.split_once(':').unwrap_or((address, "")),
    };
    let port = if port.is_empty() { default } else { port.parse().ok()? };
    let bad = |c: char| c.is_whitespace() || c == '/' || c == '@';
    if host.contains(bad) {
        return None;
    }
    Some((if host.is_empty() { "127.0.0.1".into() } else { host.to_owned() }, port))
}

/// Names by which clients may call this host: its own, those it was told to listen at, and those that were `given`.
pub(crate) fn names(places: &[Place], given: &[String]) -> Vec<String> {
    let uname = rustix::system::uname();
    let (own, domain) = (uname.nodename().to_string_lossy(), uname.domainname().to_string_lossy());
    let mut names = given.to_vec();
    // The kernel's word for none.
    if !domain.is_empty() && domain != "(none)" {
        names.push(format!("{own}.{domain}"));
    }
    names.push(own.into_owned());
    names.extend(places.iter().filter_map(|place| match place {
        Place::Tcp(host, _) => Some(host.clone()),
        _ => None,
    }));
    names
}

/// Where metrics are served, to everybody.
///
/// # Errors
/// The message for the user.
pub(crate) fn for_metrics(address: &str) -> Result<Listener, String> {
    let bad = || format!("invalid metrics-addr '{address}': give ADDRESS:PORT");
    let (host, port) = host_and_port(address, METRICS_PORT).ok_or_else(bad)?;
    match by_tcp(&host, port, &TcpPolicy::Everybody)? {
        Listener::Tcp(socket, _) => Ok(Listener::Metrics(socket)),
        other => Ok(other),
    }
}

/// Listens at a place. A unix socket belongs to the group `owner`, if there is one; it may be one of `early`.
///
/// # Errors
/// The message for the user.
pub(crate) fn listen(place: &Place, owner: &str, tcp: &TcpPolicy, early: &mut Early) -> Result<Vec<Listener>, String> {
    match place {
        Place::Unix(path) => Ok(vec![unix(path, owner, early)?]),
        Place::Tcp(host, port) => Ok(vec![by_tcp(host, *port, tcp)?]),
        Place::Passed(which) => activation::listeners(which.as_deref(), tcp),
    }
}

fn by_tcp(host: &str, port: u16, tcp: &TcpPolicy) -> Result<Listener, String> {
    let fail = |e: io::Error| format!("cannot listen on tcp://{host}:{port}: {e}");
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(fail)?.collect();
    // As Go does it: of a name's addresses the first one, and one of IPv4 before others.
    let address = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    let address = address.ok_or_else(|| format!("cannot listen on tcp://{host}:{port}: it has no address"))?;
    let socket = std::net::TcpListener::bind(address).map_err(fail)?;
    tcp_listener(socket, tcp).map_err(fail)
}

/// What listens already, for those that may come by TCP.
///
/// # Errors
/// `PermissionDenied` when that is nobody.
pub(crate) fn tcp_listener(socket: std::net::TcpListener, tcp: &TcpPolicy) -> io::Result<Listener> {
    let tls = match tcp {
        TcpPolicy::Tls(tls) => Some(tls.clone()),
        TcpPolicy::Everybody => None,
        TcpPolicy::Nobody => {
            let text = "it is TCP, and neither --tlsverify nor --insecure-tcp is given";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    };
    socket.set_nonblocking(true)?;
    Ok(Listener::Tcp(TcpListener::from_std(socket)?, tls))
}

fn unix(path: &Path, owner: &str, early: &mut Early) -> Result<Listener, String> {
    let (socket, file) = match early.iter().position(|(_, file)| file.path == path) {
        Some(at) => early.swap_remove(at),
        None => {
            clear(path)?;
            let socket = bind(path, owner)?;
            (socket, SocketFile::new(path))
        }
    };
    let made = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
    let socket = made.map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
    Ok(Listener::Unix { socket, _file: Some(file) })
}

fn bind(path: &Path, owner: &str) -> Result<std::os::unix::net::UnixListener, String> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| format!("cannot make {}: {e}", parent.display()))?;
    }
    // Made unreachable, and opened to the group only when it belongs to it.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = std::os::unix::net::UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound.map_err(|e| format!("cannot listen on {}: {e}", path.display()))?;
    if let Some(id) = group::id(owner) {
        std::os::unix::fs::chown(path, None, Some(id))
            .map_err(|e| format!("cannot give {} to group {owner}: {e}", path.display()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(|e| format!("cannot open {} to its group: {e}", path.display()))?;
    Ok(socket)
}

/// Removes what a daemon that was killed has left; a socket that answers is another's.
fn clear(path: &Path) -> Result<(), String> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(format!("{} is in use: another daemon listens there", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dockerd_s() {
        let tcp = |host: &str, port| Place::Tcp(host.into(), port);
        for (host, expected) in [
            ("unix:///a/b", Place::Unix("/a/b".into())),
            ("tcp://", tcp("127.0.0.1", 2375)),
            ("tcp://:7", tcp("127.0.0.1", 7)),
            ("tcp://0.0.0.0", tcp("0.0.0.0", 2375)),
            ("tcp://0.0.0.0:9/", tcp("0.0.0.0", 9)),
            ("tcp://[::1]:9", tcp("::1", 9)),
            ("tcp://[::]", tcp("::", 2375)),
            ("fd://", Place::Passed(None)),
            ("fd://*", Place::Passed(None)),
            ("fd://api", Place::Passed(Some("api".into()))),
        ] {
            assert_eq!(place(host, &TcpPolicy::Everybody), Ok(expected), "{host}");
        }
        for host in
            ["", "unix://", "npipe:////./x", "tcp://::1:3:4", "tcp://a:99999", "tcp://a b", "tcp://[::1", "/run/x"]
        {
            assert!(place(host, &TcpPolicy::Everybody).unwrap_err().contains("invalid bind address"), "{host}");
        }
        let refused = place("tcp://0.0.0.0:2375", &TcpPolicy::Nobody).unwrap_err();
        assert!(refused.contains("--tlsverify") && refused.contains("--insecure-tcp"), "{refused}");
    }
}
