//! Where the API listens.

use std::io;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::activation;
use crate::bound::{self, Bound, SocketFile};
use crate::early::Early;
use crate::tcp::Client;
use crate::tls::Tls;

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
    /// `host:port`, for everybody, who may read how the engine fares.
    Metrics(String, u16),
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
    Unix(UnixListener),
    Tcp(TcpListener, Option<Tls>),
    Metrics(TcpListener),
}

/// Connections at once by TCP, where anybody may come who has no certificate yet: they must not take all files.
const MOST_BY_TCP: usize = 512;
/// Prometheus comes every few seconds.
const MOST_FOR_METRICS: usize = 16;

/// Somebody who has come.
pub(crate) enum Accepted {
    Local(UnixStream),
    Remote(Client),
}

impl Listener {
    /// Where clients find it.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Unix(socket) => {
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
            Self::Unix(_) => Semaphore::MAX_PERMITS,
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
            Self::Unix(socket) => Ok(Accepted::Local(socket.accept().await?.0)),
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
    // As dockerd has it: without a word in front it is an address.
    let is_bare = !host.contains("://") && !host.is_empty() && !host.contains('/');
    match host.split_once("://").or_else(|| is_bare.then_some(("tcp", host))) {
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

/// Where metrics are served.
///
/// # Errors
/// The message for the user.
pub(crate) fn for_metrics(address: &str) -> Result<Place, String> {
    let bad = || format!("invalid metrics-addr '{address}': give ADDRESS:PORT");
    host_and_port(address, METRICS_PORT).map(|(host, port)| Place::Metrics(host, port)).ok_or_else(bad)
}

/// Listens at a place, with what was had `early` of it. A unix socket belongs to the group `owner`, if there is one. The
/// files are gone when they are dropped.
///
/// # Errors
/// The message for the user.
pub(crate) fn listen(
    place: &Place,
    owner: &str,
    tcp: &TcpPolicy,
    early: &mut Early,
) -> Result<Vec<(Listener, Option<SocketFile>)>, String> {
    let sockets = match (early.take(place), place) {
        (Some(sockets), _) => sockets,
        (None, Place::Unix(path)) => vec![bound::unix(path, owner)?],
        (None, Place::Tcp(host, port) | Place::Metrics(host, port)) => {
            vec![bound::tcp(bound::address(host, *port)?)?]
        }
        (None, Place::Passed(which)) => activation::sockets(which.as_deref(), tcp)?,
    };
    let tls = match (place, tcp) {
        (Place::Metrics(..), _) | (_, TcpPolicy::Nobody | TcpPolicy::Everybody) => None,
        (_, TcpPolicy::Tls(tls)) => Some(tls.clone()),
    };
    let is_for_metrics = matches!(place, Place::Metrics(..));
    let listener = |socket| {
        Ok(match socket {
            Bound::Unix(socket, file) => {
                socket.set_nonblocking(true)?;
                (Listener::Unix(UnixListener::from_std(socket)?), file)
            }
            Bound::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let socket = TcpListener::from_std(socket)?;
                (if is_for_metrics { Listener::Metrics(socket) } else { Listener::Tcp(socket, tls.clone()) }, None)
            }
        })
    };
    sockets.into_iter().map(listener).collect::<io::Result<_>>().map_err(|e| format!("cannot listen: {e}"))
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
            (":7", tcp("127.0.0.1", 7)),
            ("0.0.0.0:9", tcp("0.0.0.0", 9)),
            ("[::1]", tcp("::1", 2375)),
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
