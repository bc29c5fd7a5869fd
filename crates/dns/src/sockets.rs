//! What a container's queries come in through.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use wharf_netlink::conntrack::{self, Exchanges};
use wharf_netlink::namespace;
use wharf_netlink::nft::{
    Batch, Carrier, Chain, Comparison, Connection, Expression, Family, Hook, Meta, Payload, Register, Table,
};

use wharf_companion::Error;

use crate::error::{DnsError, Result};

/// Where a container's `resolv.conf` points.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Where its programs send their queries.
const PORT: u16 = 53;
const TABLE: Table<'static> = Table { family: Family::Ip, name: "wharf-dns" };
/// What goes to us, and what we answer.
const ASKED: &str = "asked";
const ANSWERED: &str = "answered";
/// Before and behind connection tracking (`NF_IP_PRI_CONNTRACK` is -200), which a container may have for rules of its own:
/// it sees both ways under the port that we have.
const BEFORE_TRACKING: i32 = -300;
const AFTER_TRACKING: i32 = 300;
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

    fn ports(&self) -> Result<[(Carrier, u16); 2]> {
        let udp = UdpSocket::from(self.udp.try_clone().map_err(Error::io("look at a socket"))?);
        let tcp = TcpListener::from(self.tcp.try_clone().map_err(Error::io("look at a socket"))?);
        let udp = udp.local_addr().map_err(Error::io("look at a socket"))?.port();
        let tcp = tcp.local_addr().map_err(Error::io("look at a socket"))?.port();
        Ok([(Carrier::Udp, udp), (Carrier::Tcp, tcp)])
    }

    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.udp.as_fd(), self.tcp.as_fd()]
    }
}

/// Makes our table in the namespace of the calling thread.
fn redirect(connection: &Connection, ports: [(Carrier, u16); 2]) -> Result<()> {
    let mut batch = Batch::new();
    fill(&mut batch, ports);
    match connection.apply(batch) {
        // Of the container's life before, as after a restart of what asks us.
        Err(error) if error.errno == Errno::EXIST => {
            let mut batch = Batch::new();
            batch.add_table(TABLE, "").delete_table(TABLE);
            fill(&mut batch, ports);
            connection.apply(batch)?;
            // A table of an earlier version tracked connections: a program that keeps its socket would go on asking the
            // port of before.
            Ok(conntrack::forget(connection, &[Exchanges::SentTo { port: PORT, ipv6: false }])?)
        }
        done => Ok(done?),
    }
}

/// A packet's port is written over, in each direction by a rule of its own, for to have the kernel translate addresses is
/// to have it track every connection of the container's: that would be paid by each of its packets, and by each query
/// with an entry of the host's table.
fn fill(batch: &mut Batch, ports: [(Carrier, u16); 2]) {
    const REGISTER: Register = Register(0);
    batch.add_table(TABLE, "names of containers");
    for (chain, priority) in [(ASKED, BEFORE_TRACKING), (ANSWERED, AFTER_TRACKING)] {
        batch.add_chain(TABLE, Chain { name: chain, base: Some(("filter", Hook::Output, priority)) });
    }
    for (carrier, port) in ports {
        let (known, own) = (PORT.to_be_bytes(), port.to_be_bytes());
        let ways = [
            (ASKED, Payload::Destination, Payload::DestinationPort, &known, &own),
            (ANSWERED, Payload::Source, Payload::SourcePort, &own, &known),
        ];
        for (chain, address, place, from, to) in ways {
            let rule = [
                Expression::LoadPayload(address, REGISTER),
                Expression::Compare(Comparison::Equal, REGISTER, &ADDRESS.octets()),
                Expression::LoadMeta(Meta::Protocol, REGISTER),
                Expression::Compare(Comparison::Equal, REGISTER, &[carrier.number()]),
                Expression::LoadPayload(place, REGISTER),
                Expression::Compare(Comparison::Equal, REGISTER, from),
                Expression::Immediate(REGISTER, to),
                Expression::WritePort(carrier, place, REGISTER),
            ];
            batch.add_rule(TABLE, chain, "", &rule);
        }
    }
}
