//! Networks of macvlan and ipvlan: containers in the network that the host shares with another one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection};
use wharf_network::{CreateNetwork, EndpointRequest, ErrorKind, NetworkRecord, Networks, PoolRequest};

use crate::host::{HOST, OTHER, ask, ask_from, container, create_request, id, on_a_host, request, serve, tcp};

fn wanted(name: &str, subnet: &str, options: &[(&str, &str)]) -> CreateNetwork {
    CreateNetwork { driver: "macvlan".into(), ..create_request(name, subnet, options) }
}

/// A network on the link that the other host is behind, with that one as its gateway.
fn lan(networks: &Networks) -> NetworkRecord {
    let mut request = wanted("lan", "10.9.0.0/24", &[("parent", "lan0")]);
    request.ipam.config[0].gateway = OTHER.to_string();
    request.ipam.config[0].aux_addresses.insert("host".into(), HOST.to_string());
    networks.create(&request).unwrap()
}

fn links() -> Vec<String> {
    Connection::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect()
}

#[test]
fn containers_are_in_the_host_s_own_network() {
    on_a_host(|host| {
        let networks = host.networks();
        let record = lan(&networks);
        assert_eq!((record.driver.as_str(), &record.bridge, record.internal), ("macvlan", &None, false));
        let (a, b) = (container(&networks, "lan", "a"), container(&networks, "lan", "b"));
        assert_eq!((a.v4(), b.v4()), (Ipv4Addr::new(10, 9, 0, 3), Ipv4Addr::new(10, 9, 0, 4)));
        assert_eq!((a.endpoint.gateway, a.endpoint.host_interface.as_str()), (Some(OTHER), ""));
        serve(&a.netns, 80);
        serve(&b.netns, 80);
        serve(&host.other, 80);
        assert_eq!(ask_from(&host.other, a.v4(), 80).unwrap(), OTHER, "nobody is between them");
        assert_eq!(ask_from(&a.netns, OTHER, 80).unwrap(), a.v4());
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
        ask(a.v4(), 80).unwrap_err();
        let routes = namespace::within(a.netns.as_fd(), || Connection::open().unwrap().routes().unwrap()).unwrap();
        assert!(routes.iter().any(|entry| entry.gateway == Some(IpAddr::V4(OTHER))));
        // There is nothing to publish by.
        assert!(networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap().is_empty());

        // Left and joined while it runs.
        networks.disconnect_from("lan", &b.id, b.netns.as_fd()).unwrap();
        ask_from(&host.other, b.v4(), 80).unwrap_err();
        let again = networks.connect(&request("lan", &b.id, "b", &b.netns)).unwrap();
        assert_eq!(again.ip, Some(b.v4()));
        ask_from(&host.other, b.v4(), 80).unwrap();

        // A new daemon knows who has what.
        drop(networks);
        let networks = host.networks();
        networks.recover(&[a.id.clone(), b.id.clone()]).unwrap();
        let c = container(&networks, "lan", "c");
        assert_eq!(c.v4(), Ipv4Addr::new(10, 9, 0, 5));
        ask_from(&host.other, a.v4(), 80).unwrap();
        // A container that starts again has its address at once, however long its old link takes to go.
        let old = namespace::within(c.netns.as_fd(), || Connection::open().unwrap().link("eth0").unwrap()).unwrap();
        assert_eq!(old.unwrap().kind, "macvlan");
        networks.release(&c.id).unwrap();
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let thread = std::thread::spawn(move || drop(c.netns));
        let next = networks.connect(&request("lan", &id("c"), "c", &netns)).unwrap();
        thread.join().unwrap();
        assert_eq!(next.ip, Some(Ipv4Addr::new(10, 9, 0, 5)));
        serve(&netns, 80);
        ask_from(&host.other, next.ip.unwrap(), 80).unwrap();
        let parent = networks.list().into_iter().find(|record| record.name == "lan").unwrap().parent.unwrap();
        assert_eq!((parent.name.as_str(), parent.mode.as_str()), ("lan0", "bridge"));
        for gone in [&a.id, &b.id, &id("c")] {
            networks.release(gone).unwrap();
        }
        networks.remove("lan").unwrap();
        assert!(links().contains(&"lan0".to_owned()), "it was not ours");
    });
}

#[test]
fn without_a_parent_nobody_else_is_there() {
    on_a_host(|host| {
        let networks = host.networks();
        let before = links();
        let record = networks.create(&wanted("own", "", &[])).unwrap();
        assert!(record.internal);
        let (a, b) = (container(&networks, "own", "a"), container(&networks, "own", "b"));
        serve(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
        assert_eq!(a.endpoint.gateway, None);
        ask(b.v4(), 80).unwrap_err();
        // It is found again, or made again.
        drop(networks);
        let networks = host.networks();
        networks.recover(&[a.id.clone(), b.id.clone()]).unwrap();
        ask_from(&a.netns, b.v4(), 80).unwrap();
        networks.disconnect_from("own", &a.id, a.netns.as_fd()).unwrap();
        networks.disconnect_from("own", &b.id, b.netns.as_fd()).unwrap();
        networks.remove("own").unwrap();
        assert_eq!(links(), before);
        networks.create(&wanted("other", "", &[("macvlan_mode", "private")])).unwrap();
        assert_ne!(links(), before);
        networks.destroy().unwrap();
        assert!(!links().iter().any(|name| name.starts_with("dm-") || name.starts_with("dp-")));
    });
}

#[test]
fn an_own_parent_that_a_kill_has_left_unmarked_is_ours() {
    on_a_host(|host| {
        let before = links();
        let networks = host.networks();
        let alias = |name: &str| Connection::open().unwrap().link(name).unwrap().unwrap().alias;
        let record = networks.create(&wanted("own", "", &[])).unwrap();
        let name = record.parent.unwrap().name;
        let mark = alias(&name);
        assert!(mark.ends_with(&format!(" parent {}", record.id)), "{mark}");
        drop(networks);
        // As it is between the request that makes it and the one that marks it.
        let mut batch = Batch::new();
        batch.set_alias(&name, "");
        Connection::open().unwrap().apply(batch).unwrap();
        assert_eq!(alias(&name), "");
        let networks = host.networks();
        assert_eq!(alias(&name), mark);
        let (a, b) = (container(&networks, "own", "a"), container(&networks, "own", "b"));
        serve(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
        for one in [&a, &b] {
            networks.disconnect_from("own", &one.id, one.netns.as_fd()).unwrap();
        }
        networks.remove("own").unwrap();
        let bridge = networks.resolve("bridge").unwrap().bridge.unwrap();
        let left: Vec<_> = links().into_iter().filter(|name| *name != bridge).collect();
        assert_eq!(left, before);
    });
}

#[test]
fn what_is_no_parent_is_refused() {
    on_a_host(|host| {
        let networks = host.networks();
        let refused = |options: &[(&str, &str)], kind, text: &str| {
            let before = links();
            let error = networks.create(&wanted("x", "10.60.0.0/24", options)).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(text), "{options:?}: {error}");
            assert_eq!(links(), before);
        };
        refused(&[("parent", "lo")], ErrorKind::Invalid, "loopback interface is not a valid macvlan parent link");
        refused(&[("parent", "lan9")], ErrorKind::Invalid, "lan9 was not found");
        refused(&[("parent", "lan9.5")], ErrorKind::Invalid, "not found on the host: lan9");
        refused(&[("parent", "lan0.4095")], ErrorKind::Invalid, "vlan id must be between 1-4094");
        refused(&[("macvlan_mode", "else")], ErrorKind::Invalid, "requested macvlan mode 'else' is not valid");
        lan(&networks);
        let passthru = [("parent", "lan0"), ("macvlan_mode", "passthru")];
        refused(&passthru, ErrorKind::Forbidden, "cannot use mode passthru, macvlan network lan is already using");
        // A VLAN is made, where the kernel has them.
        match networks.create(&wanted("tagged", "10.60.0.0/24", &[("parent", "lan0.7")])) {
            Ok(_) => {
                assert!(links().contains(&"lan0.7".to_owned()));
                networks.remove("tagged").unwrap();
            }
            Err(error) => assert!(error.to_string().contains("kernel has no VLANs"), "{error}"),
        }
        assert!(!links().contains(&"lan0.7".to_owned()));
    });
}

#[test]
fn several_subnets_and_networks_are_on_one_link() {
    on_a_host(|host| {
        let networks = host.networks();
        let mut request = wanted("two", "10.9.0.0/29", &[("parent", "lan0"), ("macvlan_mode", "bridge")]);
        request.ipam.config[0].gateway = OTHER.to_string();
        request.ipam.config[0].aux_addresses.insert("host".into(), HOST.to_string());
        let pool = |subnet: &str| PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
        request.ipam.config.extend([pool("10.9.1.0/30"), pool("fd00:9::/64"), pool("fd00:9:1::/64")]);
        request.ipv6 = Some(true);
        let mut overlapping = request.clone();
        overlapping.ipam.config.push(pool("10.9.1.0/24"));
        let error = networks.create(&overlapping).unwrap_err().to_string();
        assert_eq!(error, "invalid pool request: Pool overlaps with other one on this address space");
        let record = networks.create(&request).unwrap();
        let gateways: Vec<_> = record.pools4().into_iter().map(|pool| pool.gateway.unwrap()).collect();
        assert_eq!(gateways, [OTHER, Ipv4Addr::new(10, 9, 1, 1)]);
        // The first has 3 to 6; who comes then gets an address of the second, with its gateway.
        let all: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| container(&networks, "two", name)).collect();
        let fifth = container(&networks, "two", "e");
        assert!(all.iter().all(|one| one.endpoint.prefix == 29 && one.endpoint.gateway == Some(OTHER)));
        assert_eq!((fifth.v4(), fifth.endpoint.prefix), (Ipv4Addr::new(10, 9, 1, 2), 30));
        assert_eq!(fifth.endpoint.gateway, Some(Ipv4Addr::new(10, 9, 1, 1)));
        assert_eq!(fifth.v6().to_string(), "fd00:9::6");
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let (full, sixth) = (id("f"), id("g"));
        let error = networks.connect(&request_of(&full, &netns, None)).unwrap_err().to_string();
        assert!(error.contains("no available IPv4 addresses"), "{error}");
        networks.disconnect_from("two", &fifth.id, fifth.netns.as_fd()).unwrap();
        let other6 = Some("fd00:9:1::99".parse().unwrap());
        let asked = networks.connect(&request_of(&sixth, &netns, other6)).unwrap();
        assert_eq!((asked.ip6, asked.prefix6), (other6, 64));
        assert_eq!(asked.gateway6, Some("fd00:9:1::1".parse().unwrap()));
        serve(&all[0].netns, 80);
        assert_eq!(ask_from(&all[1].netns, all[0].v4(), 80).unwrap(), all[1].v4());

        // Another network on the same link, whose containers those of the first one reach within the host.
        networks.create(&wanted("beside", "10.9.2.0/24", &[("parent", "lan0")])).unwrap();
        let beside = container(&networks, "beside", "h");
        drop(networks);
        let networks = host.networks();
        let mut ids: Vec<String> = all.iter().map(|one| one.id.clone()).collect();
        ids.extend([beside.id.clone(), sixth]);
        networks.recover(&ids).unwrap();
        assert_eq!(networks.endpoints(&record.id).len(), 5);
        networks.disconnect_from("beside", &beside.id, beside.netns.as_fd()).unwrap();
        networks.remove("beside").unwrap();
        ask_from(&all[1].netns, all[0].v4(), 80).unwrap();
    });
}

fn request_of<'a>(id: &'a str, netns: &'a OwnedFd, ip6: Option<Ipv6Addr>) -> EndpointRequest<'a> {
    EndpointRequest { ip6, ..request("two", id, "x", netns) }
}

#[test]
fn two_containers_alone_need_two_addresses() {
    on_a_host(|host| {
        let networks = host.networks();
        // Nobody is a gateway where nobody gets out.
        networks.create(&wanted("pair", "192.168.135.0/31", &[])).unwrap();
        let (a, b) = (container(&networks, "pair", "a"), container(&networks, "pair", "b"));
        assert_eq!((a.v4().octets()[3], b.v4().octets()[3]), (0, 1));
        serve(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
    });
}

#[test]
fn ipvlan_is_there_where_the_kernel_has_it() {
    on_a_host(|host| {
        let networks = host.networks();
        let ipvlan = |name: &str, options: &[(&str, &str)]| CreateNetwork {
            driver: "ipvlan".into(),
            ..create_request(name, "10.60.0.0/31", options)
        };
        for (option, value) in [("ipvlan_mode", "l4"), ("ipvlan_flag", "else"), ("parent", "lo")] {
            let error = networks.create(&ipvlan("x", &[(option, value)])).unwrap_err();
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("valid"), "{error}");
        }
        let before = links();
        for mode in ["l2", "l3", "l3s"] {
            let options = [("parent", "lan0"), ("ipvlan_mode", mode)];
            let options = if mode == "l2" { &options[1..] } else { &options[..] };
            match networks.create(&ipvlan("ip", options)) {
                Err(error) => {
                    assert!(
                        error.kind() == ErrorKind::NotImplemented && error.to_string().contains("ipvlan"),
                        "{error}"
                    );
                }
                Ok(_) => {
                    let (a, b) = (container(&networks, "ip", "a"), container(&networks, "ip", "b"));
                    serve(&b.netns, 80);
                    assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
                    let routes = || Connection::open().unwrap().routes().unwrap();
                    let routes = namespace::within(a.netns.as_fd(), routes).unwrap();
                    let default = routes.iter().find(|route| route.destination == (Ipv4Addr::UNSPECIFIED.into(), 0));
                    assert_eq!(default.map(|route| route.gateway), (mode != "l2").then_some(None));
                    let again = networks.create(&ipvlan("again", options)).map_err(|error| error.kind());
                    assert_eq!(again.err(), Some(ErrorKind::Forbidden));
                    for one in [&a, &b] {
                        networks.disconnect_from("ip", &one.id, one.netns.as_fd()).unwrap();
                    }
                    networks.remove("ip").unwrap();
                }
            }
            assert_eq!(links(), before, "nothing of it is left");
        }
    });
}
