//! A host for a test, another one beside it, and containers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use wharf_netlink::route::{Batch, Connection, Peer, Route, Veth};
use wharf_netlink::{MacAddress, namespace};
use wharf_network::{
    Bandwidth, CreateNetwork, Endpoint, EndpointRequest, IpamRequest, NetworkOptions, NetworkRecord, Networks,
    PoolRequest, PortRequest, Protocol,
};
use wharf_store::Store;

/// The host's address in the network that it shares with the other host, and that one's.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The same, of IPv6.
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
pub(crate) const OTHER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 2);
/// Long enough for a packet that arrives, short enough to wait for one that does not.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a test runs in.
pub(crate) struct Host {
    /// Another host in the same network.
    pub(crate) other: OwnedFd,
    root: tempfile::TempDir,
}

/// Does `test` in a host of its own.
pub(crate) fn on_a_host(test: impl FnOnce(&Host) + Send) {
    let made = namespace::create(|| {
        let (other, ()) = namespace::create(|| up(1)).unwrap();
        let route = Connection::open()?;
        let mac = MacAddress([2, 0, 0, 0, 9, 2]);
        let peer = Peer { name: "lan0", mac, netns: other.as_fd() };
        let mut batch = Batch::new();
        batch
            .set_up(1)
            .create_veth(&Veth { name: "lan0", mtu: 1500, master: None, peer })
            .mark_and_set_up("lan0", "", true);
        route.apply(batch)?;
        address("lan0", HOST, HOST6);
        namespace::within(other.as_fd(), || address("lan0", OTHER, OTHER6))?;
        test(&Host { other, root: tempfile::tempdir().unwrap() });
        Ok(())
    });
    match made {
        Err(error) if error.errno == rustix::io::Errno::PERM => eprintln!("skipped: no right to a network namespace"),
        made => drop(made.expect("a namespace")),
    }
}

fn up(index: u32) -> wharf_netlink::Result<()> {
    let mut batch = Batch::new();
    batch.set_up(index);
    Connection::open()?.apply(batch)
}

fn address(link: &str, address: Ipv4Addr, six: Ipv6Addr) {
    let route = Connection::open().unwrap();
    let index = route.link(link).unwrap().unwrap().index;
    let mut batch = Batch::new();
    // Who sends on what others have sent asks for neighbours from the link's own address.
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 9, six.segments()[7]);
    batch.add_address(index, address, 24).add_address(index, own, 64).add_address(index, six, 64).set_up(index);
    route.apply(batch).unwrap();
    // Looked at, it is ready: see `make_link`.
    route.link(link).unwrap();
}

impl Host {
    pub(crate) fn root(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn options() -> NetworkOptions {
        NetworkOptions { instance: "0123abcd".into(), ..NetworkOptions::default() }
    }

    pub(crate) fn networks(&self) -> Networks {
        self.networks_with(Self::options())
    }

    pub(crate) fn networks_with(&self, options: NetworkOptions) -> Networks {
        Networks::open(Store::open(&self.root()).unwrap(), options).unwrap()
    }

    /// What is said where networks cannot be opened with `options`.
    pub(crate) fn networks_failing(&self, options: NetworkOptions) -> String {
        Networks::open(Store::open(&self.root()).unwrap(), options).map(drop).unwrap_err().to_string()
    }

    /// Makes the other host send to `subnet` through this one.
    pub(crate) fn route_from_other(&self, subnet: &str) {
        let (destination, prefix) = subnet.split_once('/').unwrap();
        let destination: (IpAddr, u8) = (destination.parse().unwrap(), prefix.parse().unwrap());
        let gateway: IpAddr = if destination.0.is_ipv4() { HOST.into() } else { HOST6.into() };
        namespace::within(self.other.as_fd(), || {
            let route = Connection::open().unwrap();
            let link = route.link("lan0").unwrap().unwrap().index;
            let mut batch = Batch::new();
            batch.add_route(&Route { destination, gateway: Some(gateway), link, metric: 0 });
            route.apply(batch).unwrap();
        })
        .unwrap();
    }
}

/// A container: a namespace and its place in a network.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) netns: OwnedFd,
    pub(crate) endpoint: Endpoint,
}

impl Container {
    pub(crate) fn v4(&self) -> Ipv4Addr {
        self.endpoint.ip.unwrap()
    }

    pub(crate) fn v6(&self) -> Ipv6Addr {
        self.endpoint.ip6.unwrap()
    }
}

/// The ID of the container `name`.
pub(crate) fn id(name: &str) -> String {
    let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0<64}")
}

pub(crate) fn request<'a>(network: &'a str, id: &'a str, name: &'a str, netns: &'a OwnedFd) -> EndpointRequest<'a> {
    EndpointRequest {
        network,
        container: id,
        name,
        netns: netns.as_fd(),
        unused: None,
        index: 0,
        interface: None,
        sysctls: &[],
        rank: None,
        ip: None,
        ip6: None,
        link_local: &[],
        no_ipv6: false,
        mac: None,
        bandwidth: Bandwidth::default(),
        aliases: &[],
    }
}

pub(crate) fn container(networks: &Networks, network: &str, name: &str) -> Container {
    let (id, netns) = (id(name), networks.namespace().unwrap().into());
    let endpoint = networks.connect(&request(network, &id, name, &netns)).unwrap();
    Container { id, netns, endpoint }
}

pub(crate) fn create(networks: &Networks, name: &str, subnet: &str, options: &[(&str, &str)]) -> NetworkRecord {
    networks.create(&create_request(name, subnet, options)).unwrap()
}

pub(crate) fn create_request(name: &str, subnet: &str, options: &[(&str, &str)]) -> CreateNetwork {
    let pool = PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
    let config = if subnet.is_empty() { Vec::new() } else { vec![pool] };
    CreateNetwork {
        name: name.into(),
        options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ipam: IpamRequest { config, ..IpamRequest::default() },
        ..CreateNetwork::default()
    }
}

pub(crate) fn tcp(container_port: u16, host_port: u16) -> PortRequest {
    PortRequest { container_port, protocol: Protocol::Tcp, host_ip: None, host_port: Some((host_port, host_port)) }
}

/// Listens in a namespace and tells everybody who comes what address they come from.
pub(crate) fn serve(netns: &OwnedFd, port: u16) {
    serve_at(netns, Ipv4Addr::UNSPECIFIED.into(), port);
}

/// As [`serve`], over IPv6.
pub(crate) fn serve6(netns: &OwnedFd, port: u16) {
    serve_at(netns, Ipv6Addr::UNSPECIFIED.into(), port);
}

fn serve_at(netns: &OwnedFd, address: IpAddr, port: u16) {
    let listener = namespace::within(netns.as_fd(), || TcpListener::bind((address, port))).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let from = stream.peer_addr().unwrap().ip().to_string();
            // Who has gone does not want to know.
            let _ = stream.write_all(from.as_bytes());
        }
    });
}

/// As [`serve`], over datagrams.
pub(crate) fn serve_udp(netns: &OwnedFd, port: u16) {
    serve_udp_at(netns, Ipv4Addr::UNSPECIFIED.into(), port);
}

pub(crate) fn serve_udp_at(netns: &OwnedFd, address: IpAddr, port: u16) {
    let socket = namespace::within(netns.as_fd(), || UdpSocket::bind((address, port))).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        }
    });
}

fn ask_here(address: IpAddr, port: u16) -> io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.parse().map_err(io::Error::other)
}

/// Asks a server of [`serve`] from the host; answers with the address that it saw.
pub(crate) fn ask(address: impl Into<IpAddr>, port: u16) -> io::Result<IpAddr> {
    ask_here(address.into(), port)
}

/// As [`ask`], from a namespace.
pub(crate) fn ask_from(netns: &OwnedFd, address: impl Into<IpAddr>, port: u16) -> io::Result<IpAddr> {
    let address = address.into();
    namespace::within(netns.as_fd(), || ask_here(address, port)).unwrap()
}

pub(crate) fn ask_udp_here(socket: &UdpSocket, address: impl Into<IpAddr>, port: u16) -> io::Result<IpAddr> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"who am I", (address.into(), port))?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer)?;
    std::str::from_utf8(&buffer[..length]).unwrap().parse().map_err(io::Error::other)
}

pub(crate) fn udp_socket(netns: &OwnedFd) -> UdpSocket {
    udp_socket_at(netns, Ipv4Addr::UNSPECIFIED.into())
}

pub(crate) fn udp_socket_at(netns: &OwnedFd, address: IpAddr) -> UdpSocket {
    namespace::within(netns.as_fd(), || UdpSocket::bind((address, 0))).unwrap().unwrap()
}
