//! Published ports.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;

use wharf_network::{NetworkOptions, PortRequest, Protocol, PublishPolicy};

use crate::host::{
    HOST, Host, OTHER, ask, ask_from, ask_udp_here, container, create, on_a_host, serve, serve_udp, tcp, udp_socket,
};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Whether frames between ports of a bridge go through the rules for packets.
fn filter_bridged(on: &str) {
    // Without br_netfilter there is no such setting, and they do not.
    let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", on);
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    for bridged in ["0", "1"] {
        on_a_host(|host| {
            filter_bridged(bridged);
            let networks = host.networks();
            let (web, near) = (container(&networks, "bridge", "web"), container(&networks, "bridge", "near"));
            create(&networks, "far", "10.77.0.0/24", &[]);
            let far = container(&networks, "far", "far");
            serve(&web.netns, 80);
            let published = networks.publish(&web.id, &web.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
            assert_eq!((published[0].host_port, published[0].host_ip), (8080, IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            let gateway = web.endpoint.gateway.unwrap();
            assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER, "with the sender's own address");
            assert_eq!(ask(HOST, 8080).unwrap(), HOST);
            assert_eq!(ask(LOOPBACK, 8080).unwrap(), gateway);
            assert_eq!(ask(Ipv4Addr::new(127, 1, 2, 3), 8080).unwrap(), gateway);
            assert_eq!(ask(gateway, 8080).unwrap(), gateway);
            assert_eq!(ask_from(&near.netns, HOST, 8080).unwrap(), gateway, "bridged {bridged}");
            assert_eq!(ask_from(&near.netns, gateway, 8080).unwrap(), gateway);
            assert_eq!(ask_from(&web.netns, HOST, 8080).unwrap(), gateway, "itself; bridged {bridged}");
            assert_eq!(ask_from(&far.netns, HOST, 8080).unwrap(), gateway, "as with Docker");
            networks.unpublish(&web.id).unwrap();
            for asked in [ask(HOST, 8080), ask(LOOPBACK, 8080), ask_from(&host.other, HOST, 8080)] {
                asked.unwrap_err();
            }
            assert_eq!(networks.published(&web.id), []);
        });
    }
}

#[test]
fn a_port_of_one_address_is_of_that_address_only() {
    on_a_host(|host| {
        let networks = host.networks();
        let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
        serve(&a.netns, 80);
        serve(&b.netns, 80);
        let at = |address: Ipv4Addr| PortRequest { host_ip: Some(IpAddr::V4(address)), ..tcp(80, 8080) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[at(LOOPBACK)]).unwrap();
        networks.publish(&b.id, &b.endpoint.addresses(), &[at(HOST)]).unwrap();
        assert!(ask(LOOPBACK, 8080).is_ok());
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        networks.unpublish(&b.id).unwrap();
        ask_from(&host.other, HOST, 8080).unwrap_err();
        assert!(ask(LOOPBACK, 8080).is_ok());
        let error = networks.publish(&b.id, &b.endpoint.addresses(), &[at(OTHER)]).unwrap_err().to_string();
        assert_eq!(error, "Bind for 10.9.0.2:8080 failed: the host has no such address");
    });
}

#[test]
fn a_loopback_port_is_not_reached_by_forgery() {
    on_a_host(|host| {
        let networks = host.networks();
        let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
        serve(&a.netns, 80);
        // Not 127.0.0.1, which a sender has itself.
        let local = Ipv4Addr::new(127, 0, 0, 2);
        let request = PortRequest { host_ip: Some(IpAddr::V4(local)), ..tcp(80, 8080) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[request]).unwrap();
        assert!(ask(local, 8080).is_ok());
        let listener = TcpListener::bind((local, 9090)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let forgers = [(&host.other, "lan0", HOST), (&b.netns, "eth0", b.endpoint.gateway.unwrap())];
        for (netns, link, gateway) in forgers {
            wharf_netlink::namespace::within(netns.as_fd(), || {
                let ip = |arguments: &[&str]| Command::new("ip").args(arguments).status().unwrap().success();
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").unwrap();
                assert!(ip(&["route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"]));
                assert!(ip(&["route", "add", "127.0.0.2", "via", &gateway.to_string(), "dev", link]));
            })
            .unwrap();
            ask_from(netns, local, 8080).unwrap_err();
            ask_from(netns, local, 9090).unwrap_err();
            assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{link}");
        }
    });
}

#[test]
fn a_port_is_published_on_this_host_and_no_other() {
    on_a_host(|host| {
        let networks = host.networks();
        let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
        serve(&a.netns, 80);
        serve(&host.other, 8080);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080), tcp(81, 81), tcp(82, 82)]).unwrap();
        // What goes through the host, or out of it, to somebody else's port of the same number.
        assert_eq!(ask_from(&b.netns, OTHER, 8080).unwrap(), HOST);
        assert_eq!(ask(OTHER, 8080).unwrap(), HOST, "not the container");
        assert_eq!(ask(HOST, 8080).unwrap(), HOST);
    });
}

#[test]
fn datagrams_are_published_too() {
    on_a_host(|host| {
        let networks = host.networks();
        let socket = udp_socket(&host.other);
        // An exchange that was there before: its packets went to the host, and must not go on to.
        ask_udp_here(&socket, HOST, 5353).unwrap_err();
        let a = container(&networks, "bridge", "a");
        serve_udp(&a.netns, 53);
        let request = PortRequest { protocol: Protocol::Udp, ..tcp(53, 5353) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[request]).unwrap();
        assert_eq!(ask_udp_here(&socket, HOST, 5353).unwrap(), OTHER);
        let local = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ask_udp_here(&local, LOOPBACK, 5353).unwrap(), a.endpoint.gateway.unwrap());
        // The same port of TCP is somebody else's.
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(53, 5353)]).unwrap();
        // Another container gets the port, and what the same client goes on sending.
        networks.release(&a.id).unwrap();
        let b = container(&networks, "bridge", "b");
        serve_udp(&b.netns, 53);
        networks.publish(&b.id, &b.endpoint.addresses(), &[request]).unwrap();
        assert_eq!(ask_udp_here(&socket, HOST, 5353).unwrap(), OTHER);
    });
}

#[test]
fn a_port_that_is_taken_is_refused_and_says_by_whom() {
    on_a_host(|host| {
        let networks = host.networks();
        let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let refused =
            |ports: &[PortRequest]| networks.publish(&b.id, &b.endpoint.addresses(), ports).unwrap_err().to_string();
        let message = format!("Bind for 0.0.0.0:8080 failed: port is already allocated (by container {})", &a.id[..12]);
        assert_eq!(refused(&[tcp(80, 8080)]), message);
        // All or nothing.
        assert_eq!(refused(&[tcp(81, 8081), tcp(80, 8080)]), message);
        assert!(TcpListener::bind("0.0.0.0:8081").is_ok());
        let at = PortRequest { host_ip: Some(IpAddr::V4(LOOPBACK)), ..tcp(80, 8080) };
        assert!(refused(&[at]).starts_with("Bind for 127.0.0.1:8080 failed: port is already allocated"));
        assert!(refused(&[tcp(1, 8090), tcp(2, 8090)]).contains("Bind for 0.0.0.0:8090 failed"));
        // A program of the host that listens, also on one address only; and none can where a container is.
        let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        let error = refused(&[tcp(80, 9000)]);
        assert!(error.starts_with("Bind for 0.0.0.0:9000 failed: port is already allocated (by process "), "{error}");
        drop(listener);
        networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 9000)]).unwrap();
        assert!(TcpListener::bind("127.0.0.1:9000").is_err());
        networks.release(&b.id).unwrap();
        assert!(TcpListener::bind("127.0.0.1:9000").is_ok());
    });
}

#[test]
fn ports_are_chosen_from_a_range_or_from_all() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        let range = PortRequest { host_port: Some((8000, 8002)), ..tcp(80, 0) };
        let _listener = TcpListener::bind("0.0.0.0:8001").unwrap();
        let got = networks.publish(&a.id, &a.endpoint.addresses(), &[range, range]).unwrap();
        assert_eq!(got.iter().map(|port| port.host_port).collect::<Vec<_>>(), [8000, 8002]);
        assert!(ask(HOST, 8000).is_ok() && ask(HOST, 8002).is_ok());
        assert!(networks.publish(&a.id, &a.endpoint.addresses(), &[range]).unwrap_err().to_string().contains("8002"));
        let any = PortRequest { host_port: None, ..tcp(80, 0) };
        let got = networks.publish(&a.id, &a.endpoint.addresses(), &[any, any, any]).unwrap();
        for port in &got {
            assert!((32768..=60999).contains(&port.host_port), "{port:?}");
            assert!(ask_from(&host.other, HOST, port.host_port).is_ok());
        }
        assert_eq!(networks.published(&a.id).len(), 5);
    });
}

#[test]
fn a_wide_range_is_published_at_once() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        for port in [20_000, 20_499] {
            serve(&a.netns, port);
        }
        let all: Vec<_> = (20_000..20_500).map(|port| tcp(port, port)).collect();
        let begun = std::time::Instant::now();
        networks.publish(&a.id, &a.endpoint.addresses(), &all).unwrap();
        let shifted: Vec<_> = (0..400).map(|port| tcp(20_000 + port, 21_000 + port)).collect();
        networks.publish(&a.id, &a.endpoint.addresses(), &shifted).unwrap();
        eprintln!("500 ports and 400 shifted ones: {:?}", begun.elapsed());
        assert_eq!(ask_from(&host.other, HOST, 20_000).unwrap(), OTHER);
        assert_eq!(ask_from(&host.other, HOST, 20_499).unwrap(), OTHER);
        assert_eq!(ask_from(&host.other, HOST, 21_000).unwrap(), OTHER);
        assert!(ask(LOOPBACK, 20_499).is_ok());
        networks.unpublish(&a.id).unwrap();
        ask_from(&host.other, HOST, 20_499).unwrap_err();
    });
}

#[test]
fn the_host_s_policy_publishes_to_the_loopback() {
    on_a_host(|host| {
        let options = NetworkOptions { publish_policy: PublishPolicy::Host, ..Host::options() };
        let networks = host.networks_with(options);
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        let published = networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(published[0].host_ip, LOOPBACK);
        assert!(ask(LOOPBACK, 8080).is_ok());
        ask_from(&host.other, HOST, 8080).unwrap_err();
        let open = PortRequest { host_ip: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ..tcp(80, 8081) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[open]).unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8081).unwrap(), OTHER);
    });
}
