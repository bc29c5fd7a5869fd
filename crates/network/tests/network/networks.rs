//! Networks and endpoints.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use wharf_netlink::namespace;
use wharf_netlink::route::Connection;
use wharf_network::{CreateNetwork, EndpointRequest, ErrorKind, NetworkOptions, PoolRequest};

use crate::host::{HOST, Host, OTHER, ask, ask_from, container, create, create_request, id, on_a_host, request, serve};

#[test]
fn containers_reach_one_another_the_gateway_and_other_hosts() {
    on_a_host(|host| {
        let networks = host.networks();
        let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
        assert_eq!(a.v4(), Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(b.v4(), Ipv4Addr::new(172, 17, 0, 3));
        assert_eq!(a.endpoint.mac.to_string(), "02:42:ac:11:00:02");
        assert_eq!((a.endpoint.prefix, a.endpoint.interface.as_str()), (16, "eth0"));
        let gateway = a.endpoint.gateway.unwrap();
        serve(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
        assert_eq!(ask(b.v4(), 80).unwrap(), gateway, "the host reaches every port");
        let listener = std::net::TcpListener::bind((gateway, 81)).unwrap();
        namespace::within(a.netns.as_fd(), || std::net::TcpStream::connect((gateway, 81)).unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), a.v4());
        serve(&host.other, 82);
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST, "what leaves has the host's address");
    });
}

#[test]
fn a_namespace_has_a_loopback_and_no_ipv6_on_its_interface() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        namespace::within(a.netns.as_fd(), || {
            assert!(std::net::UdpSocket::bind("[::1]:0").is_ok(), "the loopback has its own");
            let eth0 = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").unwrap();
            assert_eq!(eth0.trim(), "1");
            let names: Vec<_> = Connection::open().unwrap().links().unwrap().into_iter().map(|l| l.name).collect();
            assert!(names.contains(&"lo".to_owned()) && names.contains(&"eth0".to_owned()), "{names:?}");
        })
        .unwrap();
    });
}

#[test]
fn networks_are_made_found_and_removed() {
    on_a_host(|host| {
        let networks = host.networks();
        let names =
            |networks: &wharf_network::Networks| networks.list().into_iter().map(|n| n.name).collect::<Vec<_>>();
        assert_eq!(names(&networks), ["bridge", "host", "none"]);
        let web = create(&networks, "web", "", &[]);
        assert_eq!(web.subnet.unwrap().to_string(), "172.18.0.0/16");
        assert_eq!(web.gateway, Some(Ipv4Addr::new(172, 18, 0, 1)));
        assert_eq!(web.bridge.as_deref(), Some(&*format!("br-{}", &web.id[..12])));
        for text in ["web", &web.id, &web.id[..12]] {
            assert_eq!(networks.resolve(text).unwrap(), web);
        }
        assert_eq!(networks.resolve("nothing").unwrap_err().to_string(), "network nothing not found");
        let error = networks.create(&create_request("web", "", &[])).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Conflict, "network with name web already exists".into())
        );
        let error = networks.create(&create_request("db", "172.18.5.0/24", &[])).unwrap_err();
        assert!(
            error.to_string().starts_with("invalid pool request: Pool overlaps with other one on this address space")
        );
        assert_eq!(networks.remove("bridge").unwrap_err().kind(), ErrorKind::Forbidden);

        let a = container(&networks, "web", "a");
        assert_eq!(networks.endpoints(&web.id), std::slice::from_ref(&a.endpoint));
        let error = networks.remove("web").unwrap_err().to_string();
        assert_eq!(error, "error while removing network: network web has active endpoints (name:\"a\")");
        networks.rename(&a.id, "z").unwrap();
        assert_eq!(networks.endpoints_of(&a.id)[0].name, "z");
        networks.disconnect(&web.id, &a.id).unwrap();
        networks.remove("web").unwrap();
        assert_eq!(names(&networks), ["bridge", "host", "none"]);
        let links = Connection::open().unwrap().links().unwrap();
        assert!(!links.iter().any(|link| link.name.starts_with("br-") || link.name.starts_with("veth")), "{links:?}");
        // The subnet is free again.
        assert_eq!(create(&networks, "again", "", &[]).subnet, web.subnet);
        assert_eq!(networks.prune(&|_| true).unwrap()[0].name, "again");
    });
}

#[test]
fn pools_leave_out_what_the_host_has() {
    on_a_host(|host| {
        host.route_from_other("172.17.0.0/16");
        let here = Connection::open().unwrap();
        let lan = here.link("lan0").unwrap().unwrap().index;
        let mut batch = wharf_netlink::route::Batch::new();
        batch.add_route(&wharf_netlink::route::Route {
            destination: (Ipv4Addr::new(172, 16, 0, 0).into(), 15),
            gateway: Some(OTHER.into()),
            link: lan,
            metric: 0,
        });
        here.apply(batch).unwrap();
        let networks = host.networks();
        assert_eq!(networks.resolve("bridge").unwrap().subnet.unwrap().to_string(), "172.18.0.0/16");
        drop(networks);
        let again = host.networks();
        assert_eq!(again.resolve("bridge").unwrap().subnet.unwrap().to_string(), "172.18.0.0/16", "it stays");
    });
}

#[test]
fn options_say_what_the_default_bridge_is() {
    on_a_host(|host| {
        let asked = |name: &str| NetworkOptions { bridge: Some(name.into()), ..Host::options() };
        let missing = host.networks_failing(asked("dock0"));
        assert!(missing.contains("bridge device with non default name dock0 must be created manually"), "{missing}");
        let options = NetworkOptions {
            bip: Some("10.55.0.1/24".into()),
            bridge: Some("docker0".into()),
            mtu: 1400,
            default_pools: vec![("10.56.0.0/16".parse().unwrap(), 24)],
            ..Host::options()
        };
        let networks = host.networks_with(options);
        let a = container(&networks, "bridge", "a");
        assert_eq!(a.v4(), Ipv4Addr::new(10, 55, 0, 2));
        let link = Connection::open().unwrap().link("docker0").unwrap().unwrap();
        assert_eq!((link.mtu, link.kind.as_str()), (1400, "bridge"));
        assert_eq!(create(&networks, "one", "", &[]).subnet.unwrap().to_string(), "10.56.0.0/24");
        assert_eq!(create(&networks, "two", "", &[]).subnet.unwrap().to_string(), "10.56.1.0/24");
    });
}

#[test]
fn there_is_no_default_bridge_where_none_is_wanted() {
    on_a_host(|host| {
        let link = || Connection::open().unwrap().link("wharf0").unwrap();
        let none = || NetworkOptions { bridge: Some("none".into()), ..Host::options() };
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        drop(networks);
        // Who is on it keeps it.
        let networks = host.networks_with(none());
        assert!(networks.resolve("bridge").is_ok() && link().is_some());
        networks.disconnect("bridge", &a.id).unwrap();
        drop(networks);
        for _ in 0..2 {
            let networks = host.networks_with(none());
            assert_eq!(networks.list().iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["host", "none"]);
            assert!(link().is_none(), "its link goes with it");
        }
        let networks = host.networks();
        container(&networks, "bridge", "b");
        assert!(link().is_some());
    });
}

#[test]
fn the_default_bridge_takes_no_further_subnet_of_another_network() {
    on_a_host(|host| {
        let options = |four: &str, six: &str, ipv6: bool| NetworkOptions {
            default_pools: vec![(four.parse().unwrap(), 24)],
            default_pools6: vec![(six.parse().unwrap(), 64)],
            ipv6,
            ..Host::options()
        };
        let networks = host.networks_with(options("10.57.0.0/16", "fd00:57::/48", false));
        let bridge = networks.resolve("bridge").unwrap();
        assert_eq!(bridge.subnet.unwrap().to_string(), "10.57.0.0/24");
        let lan = [("parent", "lan0")];
        let mut request = CreateNetwork { driver: "macvlan".into(), ..create_request("lan", "10.58.0.0/24", &lan) };
        let pool = |subnet: &str| PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
        request.ipam.config.extend([pool("10.56.0.0/24"), pool("fd00:58::/64"), pool("fd00:56::/64")]);
        request.ipv6 = Some(true);
        networks.create(&request).unwrap();
        drop(networks);
        // The host has got the bridge's subnet while no daemon ran.
        let route = Connection::open().unwrap();
        let lan0 = route.link("lan0").unwrap().unwrap().index;
        let mut batch = wharf_netlink::route::Batch::new();
        batch.delete_link(&bridge.bridge.unwrap()).add_address(lan0, Ipv4Addr::new(10, 57, 0, 9), 24);
        route.apply(batch).unwrap();
        let networks = host.networks_with(options("10.56.0.0/16", "fd00:56::/48", true));
        let bridge = networks.resolve("bridge").unwrap();
        assert_eq!(bridge.subnet.unwrap().to_string(), "10.56.1.0/24");
        assert_eq!(bridge.pool6.unwrap().subnet.to_string(), "fd00:56:0:1::/64");
    });
}

#[test]
fn a_bridge_of_the_user_s_keeps_its_address() {
    on_a_host(|host| {
        let route = Connection::open().unwrap();
        let mut batch = wharf_netlink::route::Batch::new();
        let mac = "02:00:00:00:00:01".parse().unwrap();
        batch.create_bridge(&wharf_netlink::route::Bridge { name: "own0", mac, mtu: 1500 });
        route.apply(batch).unwrap();
        let mut batch = wharf_netlink::route::Batch::new();
        batch.add_address(route.link("own0").unwrap().unwrap().index, Ipv4Addr::new(10, 44, 0, 9), 24);
        route.apply(batch).unwrap();
        for _ in 0..2 {
            let options = NetworkOptions { bridge: Some("own0".into()), ..Host::options() };
            let networks = host.networks_with(options);
            let a = container(&networks, "bridge", "a");
            assert_eq!((a.v4(), a.endpoint.gateway), ([10, 44, 0, 1].into(), Some([10, 44, 0, 9].into())));
            networks.disconnect("bridge", &a.id).unwrap();
            networks.destroy().unwrap();
            assert_eq!(route.link("own0").unwrap().unwrap().alias, "", "it stays, and is not marked as ours");
        }
    });
}

#[test]
fn an_address_is_asked_for() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let wanted = |ip: [u8; 4]| {
            let (name, id) = ("b", id("b"));
            networks.connect(&EndpointRequest { ip: Some(ip.into()), ..request("web", &id, name, &netns) })
        };
        let got = wanted([10, 77, 0, 100]).unwrap();
        assert_eq!(got.ip.unwrap(), Ipv4Addr::new(10, 77, 0, 100));
        assert_eq!(
            wanted([10, 77, 0, 101]).unwrap_err().to_string(),
            "endpoint with name b already exists in network web"
        );
        networks.disconnect("web", &id("b")).unwrap();
        let a = container(&networks, "web", "a");
        for (ip, kind) in [
            (a.v4().octets(), ErrorKind::Forbidden),
            ([10, 77, 0, 1], ErrorKind::Forbidden),
            ([10, 77, 0, 255], ErrorKind::Forbidden),
            ([10, 78, 0, 1], ErrorKind::Invalid),
        ] {
            assert_eq!(wanted(ip).unwrap_err().kind(), kind, "{ip:?}");
        }
        let (id, mac) = (id("c"), "02:00:00:00:00:07".parse().unwrap());
        let refused = EndpointRequest { ip: Some([172, 17, 0, 9].into()), ..request("bridge", &id, "c", &netns) };
        assert_eq!(networks.connect(&refused).unwrap_err().kind(), ErrorKind::Invalid);
        let own = EndpointRequest { mac: Some(mac), ..request("bridge", &id, "c", &netns) };
        assert_eq!(networks.connect(&own).unwrap().mac, mac);
    });
}

#[test]
fn a_full_network_says_so() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "small", "10.77.0.0/29", &[]);
        let all: Vec<_> = (0..5).map(|n| container(&networks, "small", &format!("c{n}"))).collect();
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let error = networks.connect(&request("small", &id("last"), "last", &netns)).unwrap_err().to_string();
        assert!(error.starts_with("no available IPv4 addresses on this network's address pools: small"), "{error}");
        networks.disconnect("small", &all[2].id).unwrap();
        assert_eq!(container(&networks, "small", "last").v4(), all[2].v4());
        // Also while something may still answer for it.
        for _ in 0..20 {
            networks.release(&all[3].id).unwrap();
            let next = OwnedFd::from(networks.namespace().unwrap());
            networks.connect(&request("small", &all[3].id, "next", &next)).unwrap();
            networks.release(&all[3].id).unwrap();
            let other = networks.connect(&request("small", &id("other"), "other", &next)).unwrap();
            assert_eq!(other.ip, Some(all[3].v4()));
            networks.disconnect("small", &id("other")).unwrap();
            networks.connect(&request("small", &all[3].id, "next", &next)).unwrap();
        }
    });
}

#[test]
fn a_container_in_two_networks_keeps_a_default_route() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let a = container(&networks, "bridge", "a");
        networks.connect(&EndpointRequest { index: 1, ..request("web", &a.id, "a", &a.netns) }).unwrap();
        let b = container(&networks, "web", "b");
        serve(&b.netns, 80);
        serve(&host.other, 82);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST);
        networks.disconnect("bridge", &a.id).unwrap();
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST, "through the other network");
        let again = networks.connect(&EndpointRequest { index: 1, ..request("bridge", &a.id, "a", &a.netns) }).unwrap();
        assert_eq!(again.interface, "eth2", "eth1 is there already");
    });
}

#[test]
fn addresses_are_given_once_to_many_at_a_time() {
    on_a_host(|host| {
        let networks = host.networks();
        // Namespaces belong to the thread's host, so the threads are in it too.
        let given: Vec<Ipv4Addr> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|worker| {
                    let networks = &networks;
                    scope.spawn(move || {
                        let one = |n| container(networks, "bridge", &format!("w{worker}-{n}"));
                        (0..10).map(one).collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).map(|c| c.v4()).collect()
        });
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 40);
        assert_eq!(given.iter().max(), Some(&Ipv4Addr::new(172, 17, 0, 41)));
    });
}

#[test]
fn two_hundred_come_and_go_and_nothing_is_left() {
    on_a_host(|host| {
        let networks = host.networks();
        let begun = Instant::now();
        let mut connecting = Duration::ZERO;
        for number in 0..200 {
            let before = Instant::now();
            let one = container(&networks, "bridge", &format!("c{number}"));
            connecting += before.elapsed();
            if number % 20 == 0 {
                networks.disconnect("bridge", &one.id).unwrap();
            } else {
                networks.release(&one.id).unwrap();
            }
        }
        eprintln!("200 namespaces and connections: {connecting:?}; with their ends: {:?}", begun.elapsed());
        let route = Connection::open().unwrap();
        let left = || route.links().unwrap().into_iter().filter(|link| link.name.starts_with("veth")).count();
        let patience = Instant::now();
        while left() > 0 && patience.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(left(), 0);
        assert_eq!(networks.endpoints(&networks.resolve("bridge").unwrap().id), []);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(container(&networks, "bridge", "after").v4(), Ipv4Addr::new(172, 17, 0, 2));
    });
}

#[test]
fn an_address_is_not_given_again_before_its_link_has_gone() {
    on_a_host(|host| {
        let networks = host.networks();
        // Somebody holds the namespace, so that the link does not go by itself.
        let a = container(&networks, "bridge", "a");
        networks.release(&a.id).unwrap();
        let b = container(&networks, "bridge", "b");
        assert_ne!(a.v4(), b.v4());
        // The container itself gets it at once.
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let again = networks.connect(&request("bridge", &a.id, "a", &netns)).unwrap();
        assert_eq!(again.ip.unwrap(), a.v4());
        let route = Connection::open().unwrap();
        assert_eq!(route.link(&a.endpoint.host_interface).unwrap(), None);
        // And a link that stays is removed after a while.
        networks.release(&b.id).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(route.link(&b.endpoint.host_interface).unwrap(), None);
    });
}

#[test]
fn a_failed_connection_leaves_nothing() {
    on_a_host(|host| {
        let networks = host.networks();
        let netns = OwnedFd::from(networks.namespace().unwrap());
        let (first, second) = (id("a"), id("b"));
        networks.connect(&request("bridge", &first, "a", &netns)).unwrap();
        // eth0 is there already.
        let error = networks.connect(&request("bridge", &second, "b", &netns)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::System);
        assert_eq!(networks.endpoints_of(&second), []);
        assert_eq!(container(&networks, "bridge", "c").v4(), Ipv4Addr::new(172, 17, 0, 3));
        let request = CreateNetwork { driver: "overlay".into(), ..create_request("six", "", &[]) };
        assert_eq!(networks.create(&request).unwrap_err().kind(), ErrorKind::Forbidden);
        // A bridge that somebody removes is made again.
        let bridge = networks.resolve("bridge").unwrap().bridge.unwrap();
        let mut batch = wharf_netlink::route::Batch::new();
        batch.delete_link(&bridge);
        Connection::open().unwrap().apply(batch).unwrap();
        let d = container(&networks, "bridge", "d");
        serve(&d.netns, 80);
        assert!(ask(d.v4(), 80).is_ok());
    });
}

/// What `inspect` shows of the default bridge, by family: subnet, range, gateway where it is known; and the bridge's addresses.
fn default_bridge(host: &Host, options: NetworkOptions) -> (String, Vec<String>) {
    let networks = host.networks_with(options);
    let record = networks.resolve("bridge").unwrap();
    let text = |part: Option<String>| part.unwrap_or_else(|| "-".into());
    let mut shown: Vec<String> = record
        .pools4()
        .iter()
        .map(|pool| {
            let gateway = pool.gateway.filter(|_| pool.gateway_chosen).map(|gateway| gateway.to_string());
            format!("{} {} {}", pool.subnet, text(pool.ip_range.map(|range| range.to_string())), text(gateway))
        })
        .collect();
    shown.extend(record.pools6().map(|pool| {
        let gateway = pool.gateway.filter(|_| pool.gateway_chosen).map(|gateway| gateway.to_string());
        format!("{} {} {}", pool.subnet, text(pool.ip_range.map(|range| range.to_string())), text(gateway))
    }));
    let route = Connection::open().unwrap();
    let link = route.link(record.bridge.as_deref().unwrap()).unwrap().unwrap().index;
    let own = route.addresses().unwrap().into_iter().filter(|entry| entry.link == link);
    let held =
        own.map(|entry| format!("{}/{}", entry.address, entry.prefix)).filter(|net| net != "fe80::1/64").collect();
    (shown.join(", "), held)
}

#[test]
fn the_default_bridge_goes_by_what_it_is_told_and_has() {
    on_a_host(|host| {
        let with = |fixed: Option<&str>, fixed6: Option<&str>| NetworkOptions {
            ipv6: fixed6.is_some(),
            fixed_cidr_v6: fixed6.map(|text| text.parse().unwrap()),
            bridge_rules: wharf_network::BridgeRules { fixed_cidr: fixed.map(str::to_owned), ..Default::default() },
            ..Host::options()
        };
        assert_eq!(default_bridge(host, with(None, None)).0, "172.17.0.0/16 - 172.17.0.1");
        // Outside: it is another network now, and nothing of the old one is left.
        assert_eq!(default_bridge(host, with(Some("10.50.0.0/24"), None)).0, "10.50.0.0/24 10.50.0.0/24 -");
        assert_eq!(default_bridge(host, with(Some("10.50.0.0/24"), None)).1, ["10.50.0.1/24"]);
        // Around it: the bridge keeps its address and gets the larger subnet.
        let around = default_bridge(host, with(Some("10.50.0.0/20"), None));
        assert_eq!(around, ("10.50.0.0/20 10.50.0.0/20 10.50.0.1".into(), vec!["10.50.0.1/20".into()]));
        let within = default_bridge(host, with(Some("10.50.8.0/24"), None));
        assert_eq!(within.0, "10.50.0.0/20 10.50.8.0/24 10.50.0.1");
        let bip = NetworkOptions { bip: Some("10.50.8.99/24".into()), ..with(Some("10.50.8.0/25"), None) };
        let told = default_bridge(host, bip);
        assert_eq!(told, ("10.50.8.0/24 10.50.8.0/25 10.50.8.99".into(), vec!["10.50.8.99/24".into()]));
        let six = default_bridge(host, with(None, Some("fd00:5::/64")));
        assert_eq!(six.0, "10.50.8.0/24 - 10.50.8.99, fd00:5::/64 fd00:5::/64 -");
        let local = default_bridge(host, with(None, Some("fe80::/64")));
        assert_eq!(local.0, "10.50.8.0/24 - 10.50.8.99, fe80::/64 fe80::/64 fe80::1");
        assert_eq!(local.1, ["10.50.8.99/24"]);
    });
}

#[test]
fn a_bridge_of_the_user_s_says_which_subnet_it_is() {
    on_a_host(|host| {
        let route = Connection::open().unwrap();
        let mut batch = wharf_netlink::route::Batch::new();
        let mac = "02:00:00:00:00:01".parse().unwrap();
        batch.create_bridge(&wharf_netlink::route::Bridge { name: "own0", mac, mtu: 1500 });
        route.apply(batch).unwrap();
        let index = route.link("own0").unwrap().unwrap().index;
        let mut batch = wharf_netlink::route::Batch::new();
        for third in [160, 176] {
            batch.add_address(index, Ipv4Addr::new(192, 168, third, 88), 20);
        }
        batch.add_address(index, "fd00:1::8888".parse::<std::net::Ipv6Addr>().unwrap(), 64).set_up(index);
        route.apply(batch).unwrap();
        let with = |fixed: &str, fixed6: Option<&str>| NetworkOptions {
            ipv6: true,
            bridge: Some("own0".into()),
            fixed_cidr_v6: fixed6.map(|text| text.parse().unwrap()),
            bridge_rules: wharf_network::BridgeRules { fixed_cidr: Some(fixed.into()), ..Default::default() },
            ..Host::options()
        };
        let (shown, held) = default_bridge(host, with("192.168.177.0/24", None));
        assert_eq!(shown, "192.168.176.0/20 192.168.177.0/24 192.168.176.88, fd00:1::/64 - fd00:1::8888");
        assert_eq!(held.len(), 3, "{held:?}");
        let (shown, _) = default_bridge(host, with("10.1.0.0/24", Some("fd00:1::4000/114")));
        assert_eq!(shown, "192.168.160.0/20 - 192.168.160.88, fd00:1::/64 fd00:1::4000/114 fd00:1::8888");
        let store = wharf_store::Store::open(&host.root()).unwrap();
        let error = wharf_network::Networks::open(store, with("10.1.0.0/24", Some("fd00:2::/64"))).unwrap_err();
        assert!(error.to_string().contains("is outside any subnet"), "{error}");
    });
}
