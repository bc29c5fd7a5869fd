//! Who does not reach whom.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::host::{HOST, OTHER, ask, ask_from, container, create, create_request, on_a_host, serve, tcp};

/// The output of a program of the host; `None` when there is no such program.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no {program}");
            return None;
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn networks_are_apart_from_one_another_and_from_outside() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        create(&networks, "db", "10.78.0.0/24", &[]);
        let (web, db) = (container(&networks, "web", "web"), container(&networks, "db", "db"));
        serve(&db.netns, 80);
        serve(&db.netns, 81);
        ask_from(&web.netns, db.v4(), 80).unwrap_err();
        host.route_from_other("10.78.0.0/24");
        ask_from(&host.other, db.v4(), 80).unwrap_err();
        networks.publish(&db.id, &db.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert!(ask_from(&host.other, HOST, 8080).is_ok());
        // Publishing opens the host's port, not the container's own address.
        ask_from(&host.other, db.v4(), 80).unwrap_err();
        ask_from(&host.other, db.v4(), 81).unwrap_err();
        ask_from(&web.netns, db.v4(), 80).unwrap_err();
    });
}

#[test]
fn an_internal_network_is_cut_off() {
    on_a_host(|host| {
        let networks = host.networks();
        let mut request = create_request("inside", "10.77.0.0/24", &[]);
        request.internal = true;
        networks.create(&request).unwrap();
        let (a, b) = (container(&networks, "inside", "a"), container(&networks, "inside", "b"));
        assert_eq!(a.endpoint.gateway, None);
        serve(&b.netns, 80);
        serve(&host.other, 82);
        assert_eq!(ask_from(&a.netns, b.v4(), 80).unwrap(), a.v4());
        // Also when it makes itself a route.
        let gateway = Ipv4Addr::new(10, 77, 0, 1).to_string();
        wharf_netlink::namespace::within(std::os::fd::AsFd::as_fd(&a.netns), || {
            run("ip", &["route", "add", "default", "via", &gateway]);
        })
        .unwrap();
        ask_from(&a.netns, OTHER, 82).unwrap_err();
        host.route_from_other("10.77.0.0/24");
        ask_from(&host.other, b.v4(), 80).unwrap_err();
        assert_eq!(networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8080)]).unwrap(), []);
        ask_from(&host.other, HOST, 8080).unwrap_err();
        let c = container(&networks, "bridge", "c");
        serve(&c.netns, 80);
        networks.publish(&c.id, &c.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
        ask_from(&a.netns, HOST, 8081).unwrap_err();
    });
}

#[test]
fn containers_of_a_network_may_be_kept_apart() {
    for bridged in ["0", "1"] {
        on_a_host(|host| {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged);
            let networks = host.networks();
            create(&networks, "apart", "10.77.0.0/24", &[("com.docker.network.bridge.enable_icc", "false")]);
            let (a, b) = (container(&networks, "apart", "a"), container(&networks, "apart", "b"));
            serve(&b.netns, 80);
            serve(&host.other, 82);
            ask_from(&a.netns, b.v4(), 80).unwrap_err();
            assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST);
            assert!(ask(b.v4(), 80).is_ok());
            networks.publish(&b.id, &b.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
            // What is published is for everybody, but that frames which are filtered never leave the bridge.
            assert_eq!(ask_from(&a.netns, HOST, 8080).is_ok(), bridged == "0");
            assert!(ask_from(&host.other, HOST, 8080).is_ok());
        });
    }
}

#[test]
fn masquerading_is_an_option() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "plain", "10.77.0.0/24", &[("com.docker.network.bridge.enable_ip_masquerade", "false")]);
        // Neighbours in the addresses: what one takes away must not be the other's.
        create(&networks, "next", "10.77.1.0/24", &[]);
        let (a, b) = (container(&networks, "plain", "a"), container(&networks, "next", "b"));
        serve(&host.other, 82);
        host.route_from_other("10.77.0.0/24");
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), a.v4());
        assert_eq!(ask_from(&b.netns, OTHER, 82).unwrap(), HOST);
        create(&networks, "last", "10.77.2.0/24", &[]);
        let c = container(&networks, "last", "c");
        networks.disconnect("next", &b.id).unwrap();
        networks.remove("next").unwrap();
        assert_eq!(ask_from(&c.netns, OTHER, 82).unwrap(), HOST);
    });
}

#[test]
fn iptables_that_drops_what_is_forwarded_lets_us_pass() {
    on_a_host(|host| {
        if run("iptables-nft", &["-P", "FORWARD", "DROP"]).is_none() {
            return;
        }
        run("iptables-nft", &["-A", "FORWARD", "-i", "lan0", "-o", "lan0", "-j", "ACCEPT"]);
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        serve(&host.other, 82);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        assert_eq!(ask_from(&a.netns, OTHER, 82).unwrap(), HOST);
        assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER);
        let rules = run("iptables-nft", &["-S", "FORWARD"]).unwrap();
        let lines: Vec<_> = rules.lines().collect();
        assert_eq!(lines.len(), 4, "{rules}");
        assert!(lines[1].starts_with("-A FORWARD -i wharf0") && lines[1].ends_with("-j ACCEPT"), "{rules}");
        assert!(lines[2].starts_with("-A FORWARD -o wharf0") && lines[2].ends_with("-j ACCEPT"), "{rules}");
        create(&networks, "web", "10.77.0.0/24", &[]);
        let b = container(&networks, "web", "b");
        assert_eq!(ask_from(&b.netns, OTHER, 82).unwrap(), HOST);
        drop(networks);
        let networks = host.networks();
        assert_eq!(run("iptables-nft", &["-S", "FORWARD"]).unwrap().lines().count(), 6, "none of them twice");
        run("iptables-nft", &["-F", "FORWARD"]);
        let begun = std::time::Instant::now();
        while run("iptables-nft", &["-S", "FORWARD"]).unwrap().lines().count() < 5 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "they come back");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        networks.destroy().unwrap();
        assert_eq!(run("iptables-nft", &["-S", "FORWARD"]).unwrap().lines().count(), 1);
    });
}

#[test]
fn nft_shows_our_table() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080), tcp(90, 90), tcp(91, 91)]).unwrap();
        let Some(text) = run("nft", &["list", "ruleset"]) else { return };
        for part in [
            "table ip wharf-0123abcd {",
            "elements = { \"wharf0\" }",
            "elements = { \"wharf0\" . \"wharf0\" }",
            "elements = { \"wharf0\" . 172.17.0.0/16 }",
            "elements = { 172.17.0.0/16 }",
            "tcp . 8080 comment",
            ": 172.17.0.2 . 80 }",
            "tcp . 0.0.0.0/0 . 90-91 comment",
            "ip daddr 127.0.0.0/8 iifname @bridges drop",
            "fib daddr type local jump publish",
            "ct status dnat oifname . ip saddr @home masquerade",
            "ip saddr @masqueraded oifname . ip saddr != @home masquerade",
            "ct state established,related accept",
            "iifname . oifname @same accept",
            "oifname @bridges ct status dnat accept",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        networks.destroy().unwrap();
        assert_eq!(run("nft", &["list", "ruleset"]).unwrap(), "");
        let links = wharf_netlink::route::Connection::open().unwrap().links().unwrap();
        assert!(!links.iter().any(|link| link.alias.starts_with("wharf-")), "{links:?}");
    });
}

/// A host's firewall as people write it for nftables: what is not allowed is dropped.
pub(crate) const DROPS: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iif lo accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
    chain output { type filter hook output priority filter; policy accept; }
}";

#[test]
fn a_firewall_of_nftables_has_the_last_word() {
    // Before us or after us.
    for before in [true, false] {
        on_a_host(|host| {
            // Frames within a bridge are not filtered, where the kernel could do so at all.
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            let rules = host.root().with_file_name("rules");
            std::fs::write(&rules, DROPS).unwrap();
            let load = || run("nft", &["-f", rules.to_str().unwrap()]);
            if before && load().is_none() {
                return;
            }
            let networks = host.networks();
            if !before {
                load();
            }
            let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
            serve(&a.netns, 80);
            serve(&host.other, 82);
            networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
            // From this host, and between containers of a network, nothing is forwarded.
            assert!(ask(HOST, 8080).is_ok() && ask(Ipv4Addr::LOCALHOST, 8080).is_ok());
            assert!(ask_from(&b.netns, a.v4(), 80).is_ok());
            // All else is as its owner has it: no rule of ours gets around that.
            ask_from(&host.other, HOST, 8080).unwrap_err();
            ask_from(&b.netns, OTHER, 82).unwrap_err();
            // What is published alone, then all.
            run("nft", &["add", "rule", "inet", "filter", "forward", "ct", "status", "dnat", "accept"]);
            assert_eq!(ask_from(&host.other, HOST, 8080).unwrap(), OTHER, "with the client's address");
            ask_from(&b.netns, OTHER, 82).unwrap_err();
            run("nft", &["add", "rule", "inet", "filter", "forward", "iifname", "wharf0", "accept"]);
            assert_eq!(ask_from(&b.netns, OTHER, 82).unwrap(), HOST);
            let ruleset = run("nft", &["list", "table", "inet", "filter"]).unwrap();
            assert!(!ruleset.contains("wharf-"), "it is its owner's alone: {ruleset}");
            networks.destroy().unwrap();
        });
    }
}

#[test]
fn the_host_s_policy_stays_behind_a_firewall() {
    on_a_host(|host| {
        let rules = host.root().with_file_name("rules");
        std::fs::write(&rules, DROPS).unwrap();
        if run("nft", &["-f", rules.to_str().unwrap()]).is_none() {
            return;
        }
        run("nft", &["add", "rule", "inet", "filter", "forward", "ct", "status", "dnat", "accept"]);
        let policy = wharf_network::PublishPolicy::Host;
        let options = wharf_network::NetworkOptions { publish_policy: policy, ..crate::host::Host::options() };
        let networks = host.networks_with(options);
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        let there = wharf_network::PortRequest { host_ip: Some(HOST.into()), ..tcp(80, 8081) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080), there]).unwrap();
        // On the loopback unless an address is given, whatever the firewall would let through.
        assert!(ask(Ipv4Addr::LOCALHOST, 8080).is_ok());
        ask_from(&host.other, HOST, 8080).unwrap_err();
        assert_eq!(ask_from(&host.other, HOST, 8081).unwrap(), OTHER);
        networks.destroy().unwrap();
    });
}
