//! Datagrams of one sender, and the container's answers to it.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

/// How long nothing may come or go before a sender is forgotten, as in Docker's proxy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Flow {
    /// The number of the port that it came by.
    pub(crate) port: u64,
    pub(crate) sender: SocketAddrV6,
    /// The host's address that it was sent to, where the answers come from.
    pub(crate) own: Ipv6Addr,
    /// Connected to the container.
    pub(crate) socket: UdpSocket,
    pub(crate) used: Instant,
}

impl Flow {
    /// # Errors
    /// At limits, and where there is no way to the container.
    pub(crate) fn begin(
        port: u64,
        (sender, own): (SocketAddrV6, Ipv6Addr),
        target: SocketAddr,
        now: Instant,
    ) -> std::io::Result<Self> {
        let any: SocketAddr =
            if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        Ok(Self { port, sender, own, socket, used: now })
    }
}
