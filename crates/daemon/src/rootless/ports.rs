//! Ports of the host's for the daemon, whose own network namespace nobody outside of it reaches: the launcher binds them, and
//! the sockets come over a socket.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use wharf_network::{HostPorts, NetworkError, Protocol};
use wharf_sys::message::{self, Incoming};

use super::inside;

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    protocol: String,
    address: IpAddr,
    port: u16,
}

/// With the socket when all is well.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Reply {
    /// Who has the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Where the daemon has its published ports from; `None` where they are its own namespace's.
pub(crate) fn host_ports() -> Option<HostPorts> {
    let socket = inside::socket()?;
    // One question at a time: answers are told apart by their order alone.
    let turn = Mutex::new(());
    Some(HostPorts::new(move |protocol, address, port| {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        ask(socket.as_fd(), protocol, address, port)
    }))
}

fn ask(socket: BorrowedFd<'_>, protocol: Protocol, address: IpAddr, port: u16) -> Result<OwnedFd, NetworkError> {
    let failed = |why: String| NetworkError::Bind { address, port, why };
    let request = Request { protocol: protocol.to_string(), address, port };
    let request = serde_json::to_vec(&request).map_err(|e| failed(e.to_string()))?;
    let gone = || failed("the process that has the host's ports has ended".into());
    message::send(socket, &request, &[]).map_err(|_| gone())?;
    let (bytes, mut fds) = message::receive(socket).ok().flatten().ok_or_else(gone)?;
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
    match (reply, fds.pop()) {
        (Reply { taken: Some(owner), .. }, _) => Err(NetworkError::PortTaken { address, port, owner }),
        (Reply { error: Some(why), .. }, _) => Err(failed(why)),
        (_, Some(socket)) => Ok(socket),
        _ => Err(failed("no socket has come".into())),
    }
}

/// The launcher's side.
#[derive(Debug)]
pub(super) struct Broker {
    socket: OwnedFd,
    incoming: Incoming,
}

impl Broker {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Incoming::default() }
    }

    /// Answers what has come; `false` when nobody asks any more.
    pub(super) fn serve(&mut self) -> bool {
        loop {
            let bytes = match self.incoming.receive_now(&self.socket) {
                Ok(Some((bytes, _))) => bytes,
                Err(Errno::AGAIN) => return true,
                Ok(None) | Err(_) => return false,
            };
            let (reply, socket) = answer(&bytes);
            let fds: Vec<BorrowedFd<'_>> = socket.iter().map(AsFd::as_fd).collect();
            let Ok(reply) = serde_json::to_vec(&reply) else { return false };
            if message::send(&self.socket, &reply, &fds).is_err() {
                return false;
            }
        }
    }
}

impl AsFd for Broker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn answer(bytes: &[u8]) -> (Reply, Option<OwnedFd>) {
    let refused = |why: String| (Reply { error: Some(why), ..Reply::default() }, None);
    let request: Request = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => return refused(format!("the request is not understood: {error}")),
    };
    let Some(protocol) = PROTOCOLS.into_iter().find(|protocol| protocol.to_string() == request.protocol) else {
        return refused(format!("`{}` is no protocol", request.protocol));
    };
    match wharf_network::bind_for_relay(protocol, request.address, request.port) {
        Ok(socket) => (Reply::default(), Some(socket)),
        Err(NetworkError::PortTaken { owner, .. }) => (Reply { taken: Some(owner), ..Reply::default() }, None),
        Err(NetworkError::Bind { why, .. }) => refused(why),
        Err(other) => refused(wharf_report::chain(&other)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_port_comes_over_the_socket_or_why_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut broker = Broker::new(theirs.into());
        let launcher = std::thread::spawn(move || {
            use rustix::event::{PollFd, PollFlags, poll};
            while poll(&mut [PollFd::new(&broker, PollFlags::IN)], None).is_ok() && broker.serve() {}
        });
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let taken = std::net::TcpListener::bind((local, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = ask(ours.as_fd(), Protocol::Tcp, local, port).unwrap_err().to_string();
        assert!(error.contains(&format!("by process {}", std::process::id())), "{error}");
        drop(taken);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let socket = ask(ours.as_fd(), protocol, local, port).unwrap();
            let address = rustix::net::getsockname(&socket).unwrap();
            let address = std::net::SocketAddr::try_from(address).unwrap();
            assert_eq!((address.ip().to_canonical(), address.port()), (local, port));
        }
        let error = ask(ours.as_fd(), Protocol::Sctp, local, port).unwrap_err().to_string();
        assert!(error.contains("SCTP"), "{error}");
        drop(ours);
        launcher.join().unwrap();
    }
}
