//! Networks of macvlan: containers in the network that the host shares with another one.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use wharf_netlink::namespace;
use wharf_netlink::route::Connection;
use wharf_network::{CreateNetwork, ErrorKind, NetworkRecord, Networks};

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
        refused(&[("parent", "lan0")], ErrorKind::Forbidden, "network lan is already using parent interface lan0");
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
