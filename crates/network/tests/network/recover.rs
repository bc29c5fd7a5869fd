//! The daemon dies and comes back.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use wharf_netlink::nft::{self, Family};
use wharf_netlink::route::{Batch, Connection};
use wharf_network::{Endpoint, EndpointRequest};

use crate::host::{HOST, OTHER, ask, ask_from, container, create, on_a_host, request, serve, tcp};

#[test]
fn what_lives_goes_on_and_what_is_dead_is_freed() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let (alive, dead) = (container(&networks, "web", "alive"), container(&networks, "web", "dead"));
        serve(&alive.netns, 80);
        networks.publish(&alive.id, &alive.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        networks.publish(&dead.id, &dead.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
        drop(networks);
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER, "without a daemon");

        let networks = host.networks();
        networks.recover(std::slice::from_ref(&alive.id)).unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        assert_eq!(ask(Ipv4Addr::LOCALHOST, 8080).unwrap(), alive.endpoint.gateway.unwrap());
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "the port is held again");
        assert!(TcpListener::bind("0.0.0.0:8081").is_ok());
        let web = networks.resolve("web").unwrap();
        assert_eq!(networks.endpoints(&web.id), std::slice::from_ref(&alive.endpoint));
        assert_eq!(networks.published(&alive.id)[0].host_port, 8080);
        assert_eq!(networks.published(&dead.id), []);
        assert_eq!(Connection::open().unwrap().link(&dead.endpoint.host_interface).unwrap(), None);
        let next = container(&networks, "web", "next");
        assert_eq!(next.v4(), dead.v4());
        networks.publish(&next.id, &next.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
    });
}

#[test]
fn a_connection_outlives_the_daemon_and_its_return() {
    on_a_host(|host| {
        use std::io::{Read, Write};
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        let inside = wharf_netlink::namespace::within(std::os::fd::AsFd::as_fd(&a.netns), || {
            TcpListener::bind("0.0.0.0:80").unwrap()
        });
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let mut client = wharf_netlink::namespace::within(std::os::fd::AsFd::as_fd(&host.other), || {
            std::net::TcpStream::connect((HOST, 8080)).unwrap()
        })
        .unwrap();
        let (mut server, _) = inside.unwrap().accept().unwrap();
        let mut exchange = || {
            client.write_all(b"ping").unwrap();
            let mut got = [0; 4];
            server.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"ping");
        };
        exchange();
        drop(networks);
        exchange();
        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        exchange();
    });
}

#[test]
fn everything_is_made_anew_after_a_boot() {
    on_a_host(|host| {
        let networks = host.networks();
        let bridge = networks.resolve("bridge").unwrap();
        let web = create(&networks, "web", "10.77.0.0/24", &[]);
        let a = container(&networks, "web", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        drop(networks);
        let mut batch = nft::Batch::new();
        batch.delete_table(nft::Table { family: Family::Ip, name: "wharf-0123abcd" });
        nft::Connection::open().unwrap().apply(batch).unwrap();
        let mut batch = Batch::new();
        batch.delete_link("wharf0").delete_link(web.bridge.as_deref().unwrap()).delete_link(&a.endpoint.host_interface);
        Connection::open().unwrap().apply(batch).unwrap();

        let networks = host.networks();
        networks.recover(&[]).unwrap();
        assert_eq!(networks.resolve("bridge").unwrap(), bridge);
        assert_eq!(networks.resolve("web").unwrap(), web);
        let again = container(&networks, "web", "again");
        serve(&again.netns, 80);
        networks.publish(&again.id, &again.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
    });
}

#[test]
fn rows_that_a_crash_took_are_read_off_the_kernel() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let database = host.root().join("wharf.redb");
        let saved = std::fs::read(&database).unwrap();
        let a = container(&networks, "web", "a");
        serve(&a.netns, 80);
        let ports: Vec<_> = (8080..8090).map(|port| tcp(port, port)).chain([tcp(80, 80)]).collect();
        let published = networks.publish(&a.id, &a.endpoint.addresses(), &ports).unwrap();
        drop(networks);
        std::fs::write(&database, saved).unwrap();

        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        networks.rename(&a.id, "a").unwrap();
        assert_eq!(networks.endpoints_of(&a.id), std::slice::from_ref(&a.endpoint));
        let (mut before, mut after) = (published, networks.published(&a.id));
        before.sort();
        after.sort();
        assert_eq!(before, after);
        assert_eq!(ask_from(&host.other, HOST, 80).unwrap(), OTHER);
        let b = container(&networks, "web", "b");
        assert_ne!(b.v4(), a.v4());
        networks.unpublish(&a.id).unwrap();
        ask_from(&host.other, HOST, 80).unwrap_err();
    });
}

#[test]
fn a_bridge_without_a_network_goes() {
    on_a_host(|host| {
        let networks = host.networks();
        let database = host.root().join("wharf.redb");
        let saved = std::fs::read(&database).unwrap();
        let web = create(&networks, "web", "10.77.0.0/24", &[]);
        drop(networks);
        std::fs::write(&database, saved).unwrap();
        let networks = host.networks();
        assert_eq!(Connection::open().unwrap().link(web.bridge.as_deref().unwrap()).unwrap(), None);
        assert_eq!(networks.list().len(), 3);
    });
}

#[test]
fn a_port_that_was_taken_meanwhile_stays_the_container_s() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        drop(networks);
        let _thief = TcpListener::bind("0.0.0.0:8080").unwrap();
        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
    });
}

#[test]
fn two_daemons_are_beside_one_another() {
    on_a_host(|host| {
        let one = host.networks();
        let root = tempfile::tempdir().unwrap();
        let options = wharf_network::NetworkOptions { instance: "ffff0000".into(), ..crate::host::Host::options() };
        let two = wharf_network::Networks::open(wharf_store::Store::open(root.path()).unwrap(), options).unwrap();
        assert_eq!(two.resolve("bridge").unwrap().bridge.as_deref(), Some("wharf1"));
        assert_eq!(two.resolve("bridge").unwrap().subnet.unwrap().to_string(), "172.18.0.0/16");
        let (a, b) = (container(&one, "bridge", "a"), container(&two, "bridge", "b"));
        serve(&a.netns, 80);
        serve(&b.netns, 80);
        one.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let netns = OwnedFd::from(two.namespace().unwrap());
        two.connect(&request("bridge", &a.id, "a", &netns)).unwrap();
        assert!(
            two.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8080)]).is_err(),
            "the one holds it against the other"
        );
        two.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        assert_eq!(ask_from(&host.other, HOST, 8081).unwrap(), OTHER);
        ask_from(&a.netns, b.v4(), 80).unwrap_err();
        two.destroy().unwrap();
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        // The other one takes the name and the addresses while the one is away.
        one.destroy().unwrap();
        drop(one);
        std::fs::remove_file(root.path().join("wharf.redb")).unwrap();
        drop(two);
        let options = wharf_network::NetworkOptions { instance: "ffff0000".into(), ..crate::host::Host::options() };
        let two = wharf_network::Networks::open(wharf_store::Store::open(root.path()).unwrap(), options).unwrap();
        assert_eq!(two.resolve("bridge").unwrap().bridge.as_deref(), Some("wharf0"));
        let one = host.networks();
        let bridge = one.resolve("bridge").unwrap();
        assert_eq!(bridge.bridge.as_deref(), Some("wharf1"));
        assert_eq!(bridge.subnet.unwrap().to_string(), "172.18.0.0/16");
    });
}

#[test]
fn rules_that_somebody_removes_come_back() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let mut batch = nft::Batch::new();
        batch.delete_table(nft::Table { family: Family::Ip, name: "wharf-0123abcd" });
        nft::Connection::open().unwrap().apply(batch).unwrap();
        ask_from(&host.other, HOST, 8080).unwrap_err();
        let begun = std::time::Instant::now();
        while ask_from(&host.other, HOST, 8080).is_err() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        }
        networks.unpublish(&a.id).unwrap();
    });
}

#[test]
fn the_default_bridge_is_known_by_its_mark() {
    on_a_host(|host| {
        let networks = host.networks();
        let bridge = networks.resolve("bridge").unwrap();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        drop(networks);
        std::fs::remove_file(host.root().join("wharf.redb")).unwrap();
        let networks = host.networks();
        networks.recover(std::slice::from_ref(&a.id)).unwrap();
        let again = networks.resolve("bridge").unwrap();
        assert_eq!((again.id, again.subnet, again.bridge), (bridge.id, bridge.subnet, bridge.bridge));
        assert_eq!(networks.endpoints_of(&a.id)[0].ip, a.endpoint.ip);
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
    });
}

#[test]
fn rows_of_a_moment_before_do_not_count() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let a = container(&networks, "web", "a");
        serve(&a.netns, 80);
        let aliases = ["store".to_owned()];
        networks.disconnect("web", &a.id).unwrap();
        let first = networks.connect(&EndpointRequest { aliases: &aliases, ..request("web", &a.id, "a", &a.netns) });
        let first = first.unwrap();
        networks.publish(&a.id, &first.addresses(), &[tcp(80, 8080), tcp(81, 8081)]).unwrap();
        networks.sync_published(&a.id).unwrap();
        let database = host.root().join("wharf.redb");
        let saved = std::fs::read(&database).unwrap();
        // As a restart does it: another link, another address, other ports.
        networks.disconnect("web", &a.id).unwrap();
        let b = container(&networks, "web", "b");
        assert_eq!(b.endpoint.addresses(), first.addresses());
        let own = Some(Ipv4Addr::new(10, 77, 0, 9));
        let second = networks.connect(&EndpointRequest { ip: own, ..request("web", &a.id, "a", &a.netns) }).unwrap();
        networks.publish(&a.id, &second.addresses(), &[tcp(80, 8090)]).unwrap();
        let published =
            networks.publish(&a.id, &second.addresses(), &[tcp(80, 8091), tcp(82, 82), tcp(83, 83)]).unwrap();
        networks.unpublish_ports(&a.id, &published[2..]).unwrap();
        drop(networks);
        std::fs::write(&database, saved).unwrap();

        let networks = host.networks();
        networks.recover(&[a.id.clone(), b.id.clone()]).unwrap();
        let found = networks.endpoints_of(&a.id);
        // What is not on the link is the row's.
        assert_eq!(found, [Endpoint { aliases: aliases.to_vec(), mac: found[0].mac, ..second.clone() }]);
        assert_eq!(networks.endpoints_of(&b.id)[0].addresses(), b.endpoint.addresses());
        let mut ports: Vec<u16> = networks.published(&a.id).iter().map(|port| port.host_port).collect();
        ports.sort_unstable();
        assert_eq!(ports, [82, 8090, 8091]);
        for (port, answers) in [(8090, true), (8091, true), (8080, false), (8081, false)] {
            assert_eq!(ask_from(&host.other, HOST, port).is_ok(), answers, "{port}");
        }
        networks.unpublish(&a.id).unwrap();
        ask_from(&host.other, HOST, 8091).unwrap_err();
        networks.disconnect("web", &a.id).unwrap();
        assert_eq!(Connection::open().unwrap().link(&second.host_interface).unwrap(), None);
    });
}
