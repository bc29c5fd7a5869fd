//! What a container's queries come in through.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use wharf_netlink::conntrack::{self, Exchanges};
use wharf_netlink::namespace;
use wharf_netlink::nft::{
    Batch, Chain, Comparison, Connection, Expression, Family, Hook, Meta, Payload, Register, Table,
};

use wharf_companion::Error;

use crate::error::{DnsError, Result};

/// Where a container's `resolv.conf` points.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where its programs send their queries.
const PORT: u16 = 53;
const TABLE: Table<'static> = Table { family: Family::Ip, name: "wharf-dns" };
const CHAIN: &str = "output";
/// Of rules that change a destination (`NF_IP_PRI_NAT_DST`).
const PRIORITY: i32 = -100;
/// Bytes that may wait to be read, with the kernel's overhead.
const BURST: usize = 512 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A UDP and a TCP socket at [`ADDRESS`] in a container's network namespace, which they keep alive.
#[derive(Debug)]
pub struct Sockets {
    udp: OwnedFd,
    tcp: OwnedFd,
}

impl Sockets {
    /// Makes the sockets in the namespace `netns`, whose loopback is up, and sends to them what goes to port 53 of
    /// [`ADDRESS`] there. They have ports of their own: 53 stays free for name servers in the container. Done again, it
    /// takes the place of what was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(netns: BorrowedFd<'_>) -> Result<Self> {
        let (sockets, connection) = namespace::within(netns, || {
            let sockets = Self::bind()?;
            let connection = Connection::open()?;
            redirect(&connection, sockets.ports()?)?;
            Ok::<_, DnsError>((sockets, connection))
        })??;
        // Closing it may take long, as the connection's documentation says, and nobody needs to wait for that.
        let closing = std::thread::Builder::new().name("close-nft".into()).stack_size(64 << 10);
        // Without a thread to be had it is closed here.
        let _ = closing.spawn(move || drop(connection));
        Ok(sockets)
    }

    fn bind() -> Result<Self> {
        let fail = Error::system("make a socket for a container's queries");
        let any = SocketAddrV4::new(ADDRESS, 0);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = |kind| -> rustix::io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
            rustix::net::bind(&socket, &any)?;
            Ok(socket)
        };
        let udp = make(SocketType::DGRAM).map_err(&fail)?;
        // A thousand queries at once are not lost; a kernel that gives less is no failure.
        let _ = set_socket_recv_buffer_size_force(&udp, BURST);
        let tcp = make(SocketType::STREAM).map_err(&fail)?;
        rustix::net::listen(&tcp, BACKLOG).map_err(&fail)?;
        Ok(Self { udp, tcp })
    }

    fn ports(&self) -> Result<[(u8, u16); 2]> {
        let udp = UdpSocket::from(self.udp.try_clone().map_err(Error::io("look at a socket"))?);
        let tcp = TcpListener::from(self.tcp.try_clone().map_err(Error::io("look at a socket"))?);
        let udp = udp.local_addr().map_err(Error::io("look at a socket"))?.port();
        let tcp = tcp.local_addr().map_err(Error::io("look at a socket"))?.port();
        let number = |protocol: rustix::net::Protocol| u8::try_from(protocol.as_raw().get()).unwrap_or(0);
        Ok([(number(ipproto::UDP), udp), (number(ipproto::TCP), tcp)])
    }

    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.tcp.as_fd()]
    }
}

/// Makes our table in the namespace of the calling thread.
fn redirect(connection: &Connection, ports: [(u8, u16); 2]) -> Result<()> {
    let mut batch = Batch::new();
    fill(&mut batch, ports);
    match connection.apply(batch) {
        // Of the container's life before, as after a restart of what asks us.
        Err(error) if error.errno == Errno::EXIST => {
            let mut batch = Batch::new();
            batch.add_table(TABLE, "").delete_table(TABLE);
            fill(&mut batch, ports);
            connection.apply(batch)?;
            // A program that keeps its socket would go on asking the port of before.
            Ok(conntrack::forget(connection, &[Exchanges::SentTo { port: PORT, ipv6: false }])?)
        }
        done => Ok(done?),
    }
}

fn fill(batch: &mut Batch, ports: [(u8, u16); 2]) {
    const FIRST: Register = Register(0);
    const SECOND: Register = Register(1);
    batch.add_table(TABLE, "names of containers");
    batch.add_chain(TABLE, Chain { name: CHAIN, base: Some(("nat", Hook::Output, PRIORITY)) });
    for (protocol, port) in ports {
        let rule = [
            Expression::LoadPayload(Payload::Destination, FIRST),
            Expression::Compare(Comparison::Equal, FIRST, &ADDRESS.octets()),
            Expression::LoadMeta(Meta::Protocol, FIRST),
            Expression::Compare(Comparison::Equal, FIRST, &[protocol]),
            Expression::LoadPayload(Payload::DestinationPort, FIRST),
            Expression::Compare(Comparison::Equal, FIRST, &PORT.to_be_bytes()),
            Expression::Immediate(FIRST, &ADDRESS.octets()),
            Expression::Immediate(SECOND, &port.to_be_bytes()),
            Expression::DestinationNat { family: Family::Ip, address: FIRST, port: Some(SECOND) },
        ];
        batch.add_rule(TABLE, CHAIN, "", &rule);
    }
}
