//! Networks with IPv6: addresses, ways out, published ports, isolation, what is found again and what is left.

use std::net::{IpAddr, Ipv6Addr, TcpListener};
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use wharf_netlink::route::Connection;
use wharf_netlink::{namespace, nft};
use wharf_network::{
    CreateNetwork, EndpointRequest, ErrorKind, IpamRequest, NetworkOptions, NetworkRecord, Networks, PoolRequest,
    PortRequest, Protocol, PublishPolicy,
};

use crate::host::{
    Container, HOST, HOST6, Host, OTHER, OTHER6, ask, ask_from, ask_udp_here, container, create, create_request, id,
    on_a_host, request, serve, serve_udp_at, serve6, tcp, udp_socket_at,
};

const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn six(name: &str, subnets: &[&str], options: &[(&str, &str)]) -> CreateNetwork {
    let pool = |subnet: &&str| PoolRequest { subnet: (*subnet).into(), ..PoolRequest::default() };
    CreateNetwork {
        ipv6: Some(true),
        ipam: IpamRequest { config: subnets.iter().map(pool).collect(), ..IpamRequest::default() },
        ..create_request(name, "", options)
    }
}

fn create6(networks: &Networks, name: &str, subnet: &str, options: &[(&str, &str)]) -> NetworkRecord {
    let subnets: &[&str] = if subnet.is_empty() { &[] } else { &[subnet] };
    networks.create(&six(name, subnets, options)).unwrap()
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// Whether our table is there for IPv6.
fn has_table() -> bool {
    nft::Connection::open().unwrap().tables(nft::Family::Ip6).unwrap().contains(&"wharf-0123abcd".to_owned())
}

/// What is set in a container for its first interface.
fn setting(container: &Container, name: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
    namespace::within(container.netns.as_fd(), || std::fs::read_to_string(path).unwrap()).unwrap().trim().to_owned()
}

#[test]
fn containers_of_both_families_reach_each_other_and_the_world() {
    on_a_host(|host| {
        let networks = host.networks();
        assert!(!has_table(), "nobody has IPv6");
        let record = create6(&networks, "web", "", &[]);
        let pool = record.pool6.as_ref().unwrap();
        assert_eq!((pool.subnet.to_string(), pool.chosen), ("fd77:6861:7266::/64".to_owned(), false));
        assert_eq!(pool.gateway, Some(address("fd77:6861:7266::1")));
        let (a, b) = (container(&networks, "web", "a"), container(&networks, "web", "b"));
        assert_eq!((a.v6(), a.endpoint.prefix6), (address("fd77:6861:7266::2"), 64));
        assert_eq!((b.v6(), b.endpoint.gateway6), (address("fd77:6861:7266::3"), pool.gateway));
        assert!(a.endpoint.ip.is_some(), "and of IPv4");
        assert_eq!((setting(&a, "disable_ipv6"), setting(&a, "accept_ra")), ("0".into(), "0".into()));
        serve6(&b.netns, 80);
        serve6(&host.other, 80);
        // At once: there is no wait for an address to be found free.
        assert_eq!(ask_from(&a.netns, b.v6(), 80).unwrap(), a.v6());
        assert_eq!(ask(b.v6(), 80).unwrap(), pool.gateway.unwrap(), "the host reaches every port");
        assert_eq!(ask_from(&a.netns, OTHER6, 80).unwrap(), HOST6, "behind the host's address");
        let listener = TcpListener::bind((HOST6, 81)).unwrap();
        assert!(namespace::within(a.netns.as_fd(), || std::net::TcpStream::connect((HOST6, 81)).is_ok()).unwrap());
        assert_eq!(listener.accept().unwrap().1.ip(), a.v6());
        // Nobody from elsewhere reaches what is not published.
        host.route_from_other("fd77:6861:7266::/64");
        ask_from(&host.other, b.v6(), 80).unwrap_err();
        namespace::within(a.netns.as_fd(), || {
            let route = Connection::open().unwrap();
            let eth0 = route.link("eth0").unwrap().unwrap();
            let all = route.addresses().unwrap();
            let own: Vec<_> = all.iter().filter(|entry| entry.link == eth0.index && entry.address.is_ipv6()).collect();
            assert_eq!(own.len(), 2, "its own of the link, and ours: {own:?}");
        })
        .unwrap();
    });
}

#[test]
fn a_network_of_ipv6_alone() {
    on_a_host(|host| {
        let networks = host.networks();
        let only = CreateNetwork { ipv4: Some(false), ..six("only", &["fd00:5::/64"], &[]) };
        let record = networks.create(&only).unwrap();
        assert_eq!((record.subnet, record.gateway, record.ipv4), (None, None, false));
        let (a, b) = (container(&networks, "only", "a"), container(&networks, "only", "b"));
        assert_eq!((a.endpoint.ip, a.v6()), (None, address("fd00:5::2")));
        assert_ne!(a.endpoint.mac, b.endpoint.mac);
        serve6(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v6(), 80).unwrap(), a.v6());
        let published = networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!((published.len(), published[0].host_ip), (1, ANY6));
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6);
        let four = PortRequest { host_ip: Some(HOST.into()), ..tcp(80, 8081) };
        let error = networks.publish(&b.id, &b.endpoint.addresses(), &[four]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("the container has no IPv4 address"), "{error}");
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let off = EndpointRequest { no_ipv6: true, ..request("only", &a.id, "c", &netns) };
        assert!(networks.connect(&off).is_err());
        networks.disconnect("only", &a.id).unwrap();
        assert!(networks.connect(&off).unwrap_err().to_string().contains("IPv6 only"));
    });
}

#[test]
fn subnets_are_chosen_or_asked_for() {
    on_a_host(|host| {
        let networks = host.networks();
        let both = networks.create(&six("both", &["10.77.0.0/24", "2001:db8:1::/64"], &[])).unwrap();
        assert_eq!(both.subnet.unwrap().to_string(), "10.77.0.0/24");
        assert_eq!(both.pool6.unwrap().subnet.to_string(), "2001:db8:1::/64");
        let overlap = networks.create(&six("again", &["2001:db8:1::/80"], &[])).unwrap_err();
        assert_eq!(
            overlap.to_string(),
            "invalid pool request: Pool overlaps with other one on this address space: network both"
        );
        assert_eq!(overlap.kind(), ErrorKind::Forbidden);
        let without = CreateNetwork { ipv6: None, ..six("without", &["2001:db8:7::/64"], &[]) };
        assert_eq!(networks.create(&without).unwrap().pool6, None, "as Docker: not asked for");
        let mut detailed = six("detailed", &["2001:db8:2::/64"], &[]);
        let pool = &mut detailed.ipam.config[0];
        pool.ip_range = "2001:db8:2::8000/113".into();
        pool.gateway = "2001:db8:2::9".into();
        pool.aux_addresses.insert("router".into(), "2001:db8:2::8000".into());
        networks.create(&detailed).unwrap();
        let a = container(&networks, "detailed", "a");
        assert_eq!((a.v6(), a.endpoint.gateway6), (address("2001:db8:2::8001"), Some(address("2001:db8:2::9"))));
        // The host's own networks are left out, and those of others.
        let subnet = |name: &str| create6(&networks, name, "", &[]).pool6.unwrap().subnet.to_string();
        assert_eq!((subnet("one"), subnet("two")), ("fd77:6861:7266::/64".into(), "fd77:6861:7266:1::/64".into()));
        drop(networks);
        let pools = vec![("2001:db8:9::/62".parse().unwrap(), 64)];
        let networks = host.networks_with(NetworkOptions { default_pools6: pools, ..Host::options() });
        assert_eq!(create6(&networks, "three", "", &[]).pool6.unwrap().subnet.to_string(), "2001:db8:9:1::/64");
        create6(&networks, "four", "", &[]);
        create6(&networks, "five", "", &[]);
        let full = networks.create(&six("six", &[], &[])).unwrap_err().to_string();
        assert_eq!(full, "all predefined address pools have been fully subnetted");
    });
}

#[test]
fn an_address_is_asked_for() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "web", "fd00:7::/64", &[]);
        create6(&networks, "ours", "", &[]);
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let (name, id) = ("b", id("b"));
        let link_local = [IpAddr::from([169, 254, 8, 8]), IpAddr::V6(address("fe80::8:8"))];
        let wanted = |network: &str, ip: &str| {
            let request = request(network, &id, name, &netns);
            networks.connect(&EndpointRequest { ip6: Some(address(ip)), link_local: &link_local, ..request })
        };
        assert_eq!(wanted("web", "fd00:7::100").unwrap().ip6, Some(address("fd00:7::100")));
        namespace::within(netns.as_fd(), || {
            let all = Connection::open().unwrap().addresses().unwrap();
            let has = |address: IpAddr, prefix| all.iter().any(|e| (e.address, e.prefix) == (address, prefix));
            assert!(has(link_local[0], 16) && has(link_local[1], 64), "{all:?}");
        })
        .unwrap();
        networks.disconnect("web", &id).unwrap();
        let a = container(&networks, "web", "a");
        for (network, ip, kind) in [
            ("web", a.v6().to_string(), ErrorKind::Forbidden),
            ("web", "fd00:7::1".into(), ErrorKind::Forbidden),
            ("web", "fd00:7::".into(), ErrorKind::Forbidden),
            ("web", "fd00:8::1".into(), ErrorKind::Invalid),
            ("ours", "fd77:6861:7266::9".into(), ErrorKind::Invalid),
            ("bridge", "fd00:8::1".into(), ErrorKind::Invalid),
        ] {
            let error = wanted(network, &ip).unwrap_err();
            assert_eq!(error.kind(), kind, "{network} {ip}: {error}");
        }
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "web", "", &[]);
        create6(&networks, "far", "", &[]);
        let (web, near) = (container(&networks, "web", "web"), container(&networks, "web", "near"));
        let far = container(&networks, "far", "far");
        serve(&web.netns, 80);
        let published = networks.publish(&web.id, &web.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let places: Vec<_> = published.iter().map(|port| (port.host_ip.to_string(), port.host_port)).collect();
        assert_eq!(places, [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)]);
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER, "of IPv4 as ever");
        ask_from(&host.other, HOST6, 8080).expect_err("nobody listens at the container's address of IPv6");
        networks.unpublish(&web.id).unwrap();
        serve6(&near.netns, 80);
        networks.publish(&near.id, &near.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let gateway = near.endpoint.gateway6.unwrap();
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6, "with the sender's own address");
        assert_eq!(ask(HOST6, 8080).unwrap(), HOST6);
        assert_eq!(ask(Ipv6Addr::LOCALHOST, 8080).unwrap(), address("fe80::1"), "the bridge on its link");
        assert_eq!(ask(gateway, 8080).unwrap(), gateway);
        assert_eq!(ask_from(&web.netns, HOST6, 8080).unwrap(), gateway);
        assert_eq!(ask_from(&near.netns, HOST6, 8080).unwrap(), gateway, "itself");
        assert_eq!(ask_from(&far.netns, HOST6, 8080).unwrap(), gateway, "as with Docker");
        // What goes through the host, to somebody else's port of the same number.
        serve6(&host.other, 8080);
        assert_eq!(ask_from(&far.netns, OTHER6, 8080).unwrap(), HOST6);
        networks.unpublish(&near.id).unwrap();
        for asked in [ask(HOST6, 8080), ask(Ipv6Addr::LOCALHOST, 8080), ask_from(&host.other, HOST6, 8080)] {
            asked.unwrap_err();
        }
    });
}

#[test]
fn a_port_of_one_address_is_of_that_address_only() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "web", "", &[]);
        let (a, b) = (container(&networks, "web", "a"), container(&networks, "web", "b"));
        serve6(&a.netns, 80);
        serve6(&b.netns, 80);
        let at = |address: Ipv6Addr| PortRequest { host_ip: Some(address.into()), ..tcp(80, 8080) };
        let publish = |c: &Container, ports: &[PortRequest]| networks.publish(&c.id, &c.endpoint.addresses(), ports);
        publish(&a, &[at(Ipv6Addr::LOCALHOST)]).unwrap();
        let published = publish(&b, &[at(HOST6)]).unwrap();
        assert_eq!((published.len(), published[0].host_ip), (1, IpAddr::V6(HOST6)));
        assert!(ask(Ipv6Addr::LOCALHOST, 8080).is_ok());
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6);
        let error = publish(&b, &[at(OTHER6)]).unwrap_err().to_string();
        assert_eq!(error, "Bind for [2001:db8:9::2]:8080 failed: the host has no such address");
        let error = publish(&b, &[at(Ipv6Addr::UNSPECIFIED)]).unwrap_err().to_string();
        assert!(error.starts_with("Bind for [::]:8080 failed: port is already allocated (by container "), "{error}");
        // IPv4's port of the same number is another's to take.
        create(&networks, "four", "10.78.0.0/24", &[]);
        let c = container(&networks, "four", "c");
        publish(&c, &[tcp(80, 8080)]).unwrap();
        assert!(publish(&c, &[at(Ipv6Addr::LOCALHOST)]).unwrap_err().to_string().contains("no IPv6 address"));
        // And a program of the host's keeps its own.
        let listener = TcpListener::bind("[::]:9090").unwrap();
        let error = publish(&a, &[tcp(80, 9090)]).unwrap_err().to_string();
        assert!(error.contains(&format!("by process {}", std::process::id())), "{error}");
        drop(listener);
        publish(&a, &[tcp(80, 9090)]).unwrap();
    });
}

#[test]
fn ranges_and_free_ports_are_the_same_for_both_families() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "web", "", &[]);
        let a = container(&networks, "web", "a");
        serve6(&a.netns, 7005);
        let mut all: Vec<_> = (7000..8000).map(|port| tcp(port, port)).collect();
        all.extend((0..3).map(|_| PortRequest { host_port: None, ..tcp(80, 1) }));
        let got = networks.publish(&a.id, &a.endpoint.addresses(), &all).unwrap();
        assert_eq!(got.len(), 2 * 1003);
        let numbers = |ipv6: bool| -> Vec<u16> {
            got.iter().filter(|port| port.host_ip.is_ipv6() == ipv6).map(|port| port.host_port).collect()
        };
        assert_eq!(numbers(true), numbers(false));
        assert_eq!(ask_from(&host.other, HOST6, 7005).unwrap(), OTHER6);
        let mark = nft::Table { family: nft::Family::Ip6, name: "wharf-0123abcd" };
        let elements = nft::Connection::open().unwrap().elements(mark, "published-ranges").unwrap();
        assert_eq!(elements.len(), 1, "a thousand ports are one element");
        networks.unpublish(&a.id).unwrap();
        assert!(nft::Connection::open().unwrap().elements(mark, "published-ranges").unwrap().is_empty());
    });
}

#[test]
fn datagrams_are_published_too() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "web", "", &[]);
        let a = container(&networks, "web", "a");
        let socket = udp_socket_at(&host.other, ANY6);
        // Sent before anybody was there; what was tracked of it is forgotten.
        ask_udp_here(&socket, HOST6, 5353).unwrap_err();
        serve_udp_at(&a.netns, ANY6, 53);
        let request = PortRequest { protocol: Protocol::Udp, ..tcp(53, 5353) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[request]).unwrap();
        assert_eq!(ask_udp_here(&socket, HOST6, 5353).unwrap(), OTHER6);
        networks.release(&a.id).unwrap();
        let b = container(&networks, "web", "b");
        serve_udp_at(&b.netns, ANY6, 53);
        networks.publish(&b.id, &b.endpoint.addresses(), &[request]).unwrap();
        assert_eq!(ask_udp_here(&socket, HOST6, 5353).unwrap(), OTHER6, "the same exchange, another container");
    });
}

#[test]
fn networks_are_kept_apart() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "one", "", &[]);
        create6(&networks, "two", "", &[]);
        create6(&networks, "quiet", "", &[("com.docker.network.bridge.enable_icc", "false")]);
        let inner = CreateNetwork { internal: true, ..six("inner", &[], &[]) };
        networks.create(&inner).unwrap();
        let (a, b) = (container(&networks, "one", "a"), container(&networks, "two", "b"));
        serve6(&b.netns, 80);
        ask_from(&a.netns, b.v6(), 80).unwrap_err();
        let (c, d) = (container(&networks, "quiet", "c"), container(&networks, "quiet", "d"));
        serve6(&d.netns, 80);
        ask_from(&c.netns, d.v6(), 80).unwrap_err();
        let (e, f) = (container(&networks, "inner", "e"), container(&networks, "inner", "f"));
        assert_eq!((e.endpoint.gateway6, e.endpoint.prefix6), (None, 64));
        serve6(&f.netns, 80);
        serve6(&host.other, 80);
        assert_eq!(ask_from(&e.netns, f.v6(), 80).unwrap(), e.v6());
        ask_from(&e.netns, OTHER6, 80).unwrap_err();
        ask_from(&a.netns, f.v6(), 80).unwrap_err();
        assert_eq!(networks.publish(&f.id, &f.endpoint.addresses(), &[tcp(80, 8080)]).unwrap(), []);
    });
}

#[test]
fn what_leaves_keeps_its_address_where_that_is_wanted() {
    on_a_host(|host| {
        let networks = host.networks();
        create6(&networks, "plain", "2001:db8:5::/64", &[("com.docker.network.bridge.enable_ip_masquerade", "false")]);
        let a = container(&networks, "plain", "a");
        host.route_from_other("2001:db8:5::/64");
        serve6(&host.other, 80);
        assert_eq!(ask_from(&a.netns, OTHER6, 80).unwrap(), a.v6());
    });
}

#[test]
fn the_host_s_policy_holds_for_ipv6() {
    on_a_host(|host| {
        let options = NetworkOptions { publish_policy: PublishPolicy::Host, ..Host::options() };
        let networks = host.networks_with(options);
        create6(&networks, "web", "", &[]);
        let a = container(&networks, "web", "a");
        serve6(&a.netns, 80);
        let published = networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(published[1].host_ip, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert!(ask(Ipv6Addr::LOCALHOST, 8080).is_ok());
        ask_from(&host.other, HOST6, 8080).unwrap_err();
        // The address of a network that publishes on one of IPv4 alone.
        create6(&networks, "four", "", &[("com.docker.network.bridge.host_binding_ipv4", "10.9.0.1")]);
        let b = container(&networks, "four", "b");
        let published = networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
        assert_eq!(published.iter().map(|port| port.host_ip).collect::<Vec<_>>(), [IpAddr::V4(HOST)]);
    });
}

#[test]
fn the_next_daemon_finds_it_all_again() {
    on_a_host(|host| {
        let networks = host.networks();
        let record = create6(&networks, "web", "", &[]);
        let (a, b) = (container(&networks, "web", "a"), container(&networks, "web", "b"));
        serve6(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080), tcp(81, 81), tcp(82, 82)]).unwrap();
        networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
        let (published, endpoint) = (networks.published(&a.id), a.endpoint.clone());
        drop(networks);
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6, "without a daemon");
        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        assert_eq!(networks.resolve("web").unwrap(), record);
        assert_eq!(networks.endpoints_of(&a.id), [endpoint]);
        assert_eq!(networks.published(&a.id), published);
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6);
        assert!(TcpListener::bind("[::]:8080").is_err(), "it is held again");
        let c = container(&networks, "web", "c");
        assert_eq!(c.v6(), b.v6(), "what has ended has given its address back");
        // Rules that somebody has flushed.
        let mut batch = nft::Batch::new();
        batch.delete_table(nft::Table { family: nft::Family::Ip6, name: "wharf-0123abcd" });
        nft::Connection::open().unwrap().apply(batch).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while ask_from(&host.other, HOST6, 8080).is_err() {
            assert!(std::time::Instant::now() < deadline, "they are not made again");
        }
    });
}

#[test]
fn rows_that_a_crash_has_taken_are_read_from_the_kernel() {
    on_a_host(|host| {
        let networks = host.networks();
        let record = create6(&networks, "web", "", &[]);
        let before = host.root().with_extension("before");
        drop(networks);
        // The store as it was before the containers, which is what a loss of the last writes leaves.
        assert!(std::process::Command::new("cp").arg("-a").arg(host.root()).arg(&before).status().unwrap().success());
        let networks = host.networks();
        let a = container(&networks, "web", "a");
        serve6(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080), tcp(90, 90), tcp(91, 91)]).unwrap();
        let mut published = networks.published(&a.id);
        drop(networks);
        std::fs::remove_dir_all(host.root()).unwrap();
        std::fs::rename(&before, host.root()).unwrap();
        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        let found = networks.endpoints_of(&a.id);
        assert_eq!((found[0].ip, found[0].ip6), (a.endpoint.ip, a.endpoint.ip6));
        assert_eq!((found[0].prefix6, found[0].gateway6), (64, record.pool6.unwrap().gateway));
        let mut again = networks.published(&a.id);
        again.sort_unstable();
        published.sort_unstable();
        assert_eq!(again, published);
        assert_ne!(container(&networks, "web", "b").v6(), a.v6());
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6);
    });
}

#[test]
fn the_default_bridge_has_ipv6_when_the_daemon_says_so() {
    on_a_host(|host| {
        let with = |ipv6, fixed: Option<&str>| NetworkOptions {
            ipv6,
            fixed_cidr_v6: fixed.map(|text| text.parse().unwrap()),
            ..Host::options()
        };
        let networks = host.networks_with(with(true, None));
        let subnet = |networks: &Networks| {
            networks.resolve("bridge").unwrap().pool6.map(|pool| pool.subnet.to_string()).unwrap_or_default()
        };
        assert_eq!(subnet(&networks), "fd77:6861:7266::/64");
        serve6(&host.other, 80);
        let a = container(&networks, "bridge", "a");
        assert_eq!(ask_from(&a.netns, OTHER6, 80).unwrap(), HOST6);
        drop(networks);
        assert_eq!(subnet(&host.networks_with(with(true, None))), "fd77:6861:7266::/64", "it stays");
        let networks = host.networks_with(with(true, Some("fd00:1:2::/80")));
        assert_eq!(subnet(&networks), "fd77:6861:7266::/64", "as long as a container is there");
        networks.disconnect("bridge", &a.id).unwrap();
        drop(networks);
        let networks = host.networks_with(with(true, Some("fd00:1:2::/80")));
        assert_eq!(subnet(&networks), "fd00:1:2::/80");
        let b = container(&networks, "bridge", "b");
        assert_eq!(b.v6(), address("fd00:1:2::2"));
        networks.disconnect("bridge", &b.id).unwrap();
        drop(networks);
        let networks = host.networks_with(with(false, Some("fd00:1:2::/80")));
        assert_eq!((subnet(&networks), has_table()), (String::new(), false));
        let held = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        assert!(!held.contains("fd000001000200000000"), "the bridge keeps addresses that nothing guards: {held}");
        assert_eq!(container(&networks, "bridge", "c").endpoint.ip6, None);
    });
}

#[test]
fn nothing_is_left() {
    on_a_host(|host| {
        let networks = host.networks();
        let before: Vec<_> = Connection::open().unwrap().addresses().unwrap().iter().map(|a| a.address).collect();
        create6(&networks, "web", "", &[]);
        create6(&networks, "other", "", &[]);
        assert!(has_table());
        let a = container(&networks, "web", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        networks.unpublish(&a.id).unwrap();
        networks.disconnect("web", &a.id).unwrap();
        networks.remove("web").unwrap();
        assert!(has_table(), "another network has it");
        networks.remove("other").unwrap();
        assert!(!has_table());
        let after: Vec<_> = Connection::open().unwrap().addresses().unwrap().iter().map(|a| a.address).collect();
        assert_eq!(before, after);
        create6(&networks, "web", "", &[]);
        networks.destroy().unwrap();
        assert!(!has_table());
    });
}
