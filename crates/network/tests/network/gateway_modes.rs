//! Networks that do not hide their containers' addresses, or have none of the host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection};
use wharf_network::{CreateNetwork, Networks, PoolRequest, Published};

use crate::host::{
    HOST, HOST6, Host, OTHER, OTHER6, ask, ask_from, container, create, create_request, on_a_host, serve, serve6, tcp,
};

const MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";

/// The addresses of a link.
fn addresses(link: &str) -> Vec<IpAddr> {
    let route = Connection::open().unwrap();
    let index = route.link(link).unwrap().unwrap().index;
    route.addresses().unwrap().into_iter().filter(|entry| entry.link == index).map(|entry| entry.address).collect()
}

/// A network of both families that the other host knows the way to.
fn dual(host: &Host, networks: &Networks, options: &[(&str, &str)]) {
    let mut request = CreateNetwork { ipv6: Some(true), ..create_request("net", "10.50.0.0/24", options) };
    request.ipam.config.push(PoolRequest { subnet: "fd00:50::/64".into(), ..PoolRequest::default() });
    networks.create(&request).unwrap();
    host.route_from_other("10.50.0.0/24");
    host.route_from_other("fd00:50::/64");
}

#[test]
fn routed_ports_are_open_at_the_container_s_own_address() {
    on_a_host(|host| {
        let networks = host.networks();
        dual(host, &networks, &[(MODE4, "routed"), (MODE6, "routed")]);
        let web = container(&networks, "net", "web");
        for port in [80, 81] {
            serve(&web.netns, port);
        }
        for port in [80, 81].map(|port| port + 1000) {
            serve6(&web.netns, port);
        }
        serve(&host.other, 90);
        serve6(&host.other, 91);
        assert_eq!(ask_from(&web.netns, OTHER, 90).unwrap(), web.v4(), "nothing is hidden");
        assert_eq!(ask_from(&web.netns, OTHER6, 91).unwrap(), web.v6());
        ask_from(&host.other, web.v4(), 80).unwrap_err();
        let published = networks.publish(&web.id, &web.endpoint.addresses(), &[tcp(80, 8080), tcp(1080, 0)]).unwrap();
        let place = |published: &Published| (published.host_ip, published.host_port);
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        assert!(published.iter().all(|one| one.host_port == 0) && published.len() == 4, "{published:?}");
        assert!(any.iter().all(|any| published.iter().any(|one| place(one) == (*any, 0))));
        assert_eq!(ask_from(&host.other, web.v4(), 80).unwrap(), OTHER, "and who comes is known");
        assert_eq!(ask_from(&host.other, web.v6(), 1080).unwrap(), OTHER6);
        ask_from(&host.other, web.v4(), 81).unwrap_err();
        ask_from(&host.other, web.v6(), 1081).unwrap_err();
        ask_from(&host.other, HOST, 8080).unwrap_err();
        // From a container of another network as from everywhere else.
        create(&networks, "elsewhere", "10.51.0.0/24", &[]);
        let else_ = container(&networks, "elsewhere", "else");
        ask_from(&else_.netns, web.v4(), 80).unwrap();
        ask_from(&else_.netns, web.v4(), 81).unwrap_err();
        // The same after a new daemon.
        drop(networks);
        let networks = host.networks();
        networks.recover(&[web.id.clone(), else_.id.clone()]).unwrap();
        assert_eq!(networks.published(&web.id).len(), 4);
        assert_eq!(ask_from(&host.other, web.v4(), 80).unwrap(), OTHER);
        networks.unpublish(&web.id).unwrap();
        ask_from(&host.other, web.v4(), 80).unwrap_err();
        ask_from(&host.other, web.v6(), 1080).unwrap_err();
    });
}

#[test]
fn one_family_is_routed_and_the_other_is_not() {
    on_a_host(|host| {
        let networks = host.networks();
        dual(host, &networks, &[(MODE6, "routed")]);
        let web = container(&networks, "net", "web");
        serve6(&web.netns, 80);
        let published = networks.publish(&web.id, &web.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(published.iter().map(|one| one.host_port).collect::<Vec<_>>(), [8080, 0]);
        assert_eq!(ask_from(&host.other, web.v6(), 80).unwrap(), OTHER6);
        ask_from(&host.other, HOST, 8080).unwrap();
        ask_from(&host.other, HOST6, 8080).unwrap_err();
        ask_from(&host.other, web.v4(), 80).unwrap_err();
    });
}

#[test]
fn unprotected_networks_are_open_beside_what_they_publish() {
    on_a_host(|host| {
        let networks = host.networks();
        dual(host, &networks, &[(MODE4, "nat-unprotected"), (MODE6, "nat-unprotected")]);
        let web = container(&networks, "net", "web");
        serve6(&web.netns, 80);
        serve(&host.other, 90);
        assert_eq!(ask_from(&web.netns, OTHER, 90).unwrap(), HOST, "what leaves has the host's address");
        ask_from(&host.other, web.v4(), 80).unwrap();
        assert_eq!(ask_from(&host.other, web.v6(), 80).unwrap(), OTHER6);
        networks.publish(&web.id, &web.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        ask_from(&host.other, HOST, 8080).unwrap();
        assert_eq!(ask_from(&host.other, HOST6, 8080).unwrap(), OTHER6);
    });
}

#[test]
fn isolated_networks_have_no_address_of_the_host() {
    on_a_host(|host| {
        let networks = host.networks();
        let options = [(MODE4, "isolated"), (MODE6, "isolated")];
        let mut request = CreateNetwork { ipv6: Some(true), ..create_request("net", "", &options) };
        let refused = networks.create(&request).unwrap_err();
        assert_eq!(refused.to_string(), "gateway mode 'isolated' can only be used for an internal network");
        request.internal = true;
        let record = networks.create(&request).unwrap();
        assert_eq!((record.gateway, record.pool6.as_ref().unwrap().gateway), (None, None));
        assert!(addresses(record.bridge.as_deref().unwrap()).is_empty());
        let (a, b) = (container(&networks, "net", "a"), container(&networks, "net", "b"));
        serve6(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v6(), 80).unwrap(), a.v6());
        ask_from(&a.netns, b.v4(), 80).unwrap();
        ask(b.v4(), 80).unwrap_err();
        assert_eq!(a.endpoint.gateway, None);
        // The same for the next daemon.
        drop(networks);
        drop(host.networks());
        assert!(addresses(record.bridge.as_deref().unwrap()).is_empty());
    });
}

#[test]
fn a_bridge_is_without_an_ipv4_address_when_told_so() {
    on_a_host(|host| {
        let networks = host.networks();
        let options = [("com.docker.network.bridge.inhibit_ipv4", "true")];
        let record = create(&networks, "net", "10.50.0.0/24", &options);
        assert!(addresses(record.bridge.as_deref().unwrap()).is_empty());
        let a = container(&networks, "net", "a");
        // Somebody else is the gateway, in the network as a container is.
        assert_eq!(a.endpoint.gateway, Some(Ipv4Addr::new(10, 50, 0, 1)));
        let routes = namespace::within(a.netns.as_fd(), || Connection::open().unwrap().routes().unwrap()).unwrap();
        assert!(routes.iter().any(|entry| entry.gateway == a.endpoint.gateway.map(IpAddr::V4)));
    });
}

#[test]
fn trusted_links_reach_all_ports() {
    on_a_host(|host| {
        let networks = host.networks();
        let options = [("com.docker.network.bridge.trusted_host_interfaces", "lan0:lan7")];
        create(&networks, "net", "10.50.0.0/24", &options);
        create(&networks, "shut", "10.51.0.0/24", &[]);
        host.route_from_other("10.50.0.0/24");
        host.route_from_other("10.51.0.0/24");
        let (open, shut) = (container(&networks, "net", "open"), container(&networks, "shut", "shut"));
        serve(&open.netns, 80);
        serve(&shut.netns, 80);
        assert_eq!(ask_from(&host.other, open.v4(), 80).unwrap(), OTHER);
        ask_from(&host.other, shut.v4(), 80).unwrap_err();
        ask_from(&shut.netns, open.v4(), 80).unwrap_err();
        networks.disconnect("net", &open.id).unwrap();
        networks.remove("net").unwrap();
    });
}

#[test]
fn containers_have_the_address_outside_that_is_asked_for() {
    on_a_host(|host| {
        let (four, six): (Ipv4Addr, Ipv6Addr) = ("10.9.0.77".parse().unwrap(), "2001:db8:9::77".parse().unwrap());
        let route = Connection::open().unwrap();
        let link = route.link("lan0").unwrap().unwrap().index;
        let mut batch = Batch::new();
        batch.add_address(link, IpAddr::V4(four), 24).add_address(link, IpAddr::V6(six), 64);
        route.apply(batch).unwrap();
        let networks = host.networks();
        let (own4, own6) = (four.to_string(), six.to_string());
        let options = [("com.docker.network.host_ipv4", &*own4), ("com.docker.network.host_ipv6", &*own6)];
        dual(host, &networks, &options);
        create(&networks, "plain", "10.51.0.0/24", &[]);
        let (web, plain) = (container(&networks, "net", "web"), container(&networks, "plain", "plain"));
        serve(&host.other, 90);
        serve6(&host.other, 91);
        let check = || {
            assert_eq!(ask_from(&web.netns, OTHER, 90).unwrap(), four);
            assert_eq!(ask_from(&web.netns, OTHER6, 91).unwrap(), six);
            assert_eq!(ask_from(&plain.netns, OTHER, 90).unwrap(), HOST, "that of the link, as ever");
        };
        check();
        // The same after a new daemon; and what goes takes its rule along.
        drop(networks);
        let networks = host.networks();
        networks.recover(&[web.id.clone(), plain.id.clone()]).unwrap();
        check();
        networks.disconnect("net", &web.id).unwrap();
        networks.remove("net").unwrap();
        create(&networks, "again", "10.50.0.0/24", &[]);
        assert_eq!(ask_from(&container(&networks, "again", "web").netns, OTHER, 90).unwrap(), HOST);
        let bad = create_request("bad", "", &[("com.docker.network.host_ipv4", "x")]);
        let words = networks.create(&bad).unwrap_err().to_string();
        assert_eq!(words, "failed to parse com.docker.network.host_ipv4 value: x (nil ip)");
    });
}

#[test]
fn a_network_may_have_two_addresses_or_one() {
    on_a_host(|host| {
        let networks = host.networks();
        const INHIBIT: (&str, &str) = ("com.docker.network.bridge.inhibit_ipv4", "true");
        const ISOLATED: (&str, &str) = ("com.docker.network.bridge.gateway_mode_ipv4", "isolated");
        let last = |endpoint: &wharf_network::Endpoint| endpoint.ip.unwrap().octets()[3];
        // The host has the first, and one is left.
        let pair = networks.create(&create_request("pair", "10.61.0.0/31", &[])).unwrap();
        assert_eq!(pair.gateway.unwrap().octets()[3], 0);
        let a = container(&networks, "pair", "a");
        assert_eq!((last(&a.endpoint), a.endpoint.prefix), (1, 31));
        serve(&a.netns, 80);
        assert_eq!(ask(a.v4(), 80).unwrap(), pair.gateway.unwrap());
        for (name, option) in [("inhibited", INHIBIT), ("isolated", ISOLATED)] {
            let request = CreateNetwork { internal: true, ..create_request(name, "10.62.0.0/31", &[option]) };
            assert_eq!(networks.create(&request).unwrap().gateway, None);
            let (a, b) = (container(&networks, name, "b"), container(&networks, name, "c"));
            assert_eq!((last(&a.endpoint), last(&b.endpoint)), (0, 1), "{name}");
            serve(&b.netns, 80);
            assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
            networks.disconnect(name, &a.id).unwrap();
            networks.disconnect(name, &b.id).unwrap();
            networks.remove(name).unwrap();
        }
        let one = networks.create(&create_request("one", "10.63.0.7/32", &[])).unwrap();
        assert_eq!(one.gateway.unwrap().octets()[3], 7);
        let mut six = create_request("six", "fd00:63::/127", &[]);
        six.ipv6 = Some(true);
        networks.create(&six).unwrap();
        let b = container(&networks, "six", "d");
        assert_eq!(b.endpoint.gateway6.map(|gateway| gateway.to_string()), Some("fd00:63::".into()));
        assert_eq!(b.v6().to_string(), "fd00:63::1");
        serve6(&b.netns, 80);
        ask(b.v6(), 80).unwrap();
        six.name = "seven".into();
        six.ipam.config[0].subnet = "fd00:64::/128".into();
        let error = networks.create(&six).unwrap_err().to_string();
        assert_eq!(error, "failed to allocate gateway (): no available addresses on this pool");
    });
}
