//! What is said of who reaches a port, beside who does.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use wharf_network::{Answer, CreateNetwork, IpamRequest, Networks, PoolRequest, PortRequest, Protocol, Reach, Way};

use crate::firewall::{DROPS, run};
use crate::host::{
    Container, HOST, HOST6, Host, ask, ask_from, container, create, create_request, on_a_host, serve, serve6, tcp,
};

const LOOPBACK: &str = "this host, by its loopback";
const OWN: &str = "this host, by its address on lan0";
const OTHERS: &str = "other hosts, by lan0";
const WEB: &str = "containers of network web";
const BESIDE: &str = "containers of its network bridge";

fn reach(networks: &Networks, a: &Container) -> Reach {
    let mut all = networks.reach(&a.id, Some(a.netns.as_fd()), None, &|port| port.host_ip.is_ipv4()).unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn way<'a>(reach: &'a Reach, from: &str) -> &'a Way {
    reach.ways.iter().find(|way| way.from == from).unwrap_or_else(|| panic!("no way from {from}: {reach:#?}"))
}

/// Loads rules; `false` where there is no nft.
fn load(host: &Host, rules: &str) -> bool {
    let file = host.root().with_file_name("rules");
    std::fs::write(&file, rules).unwrap();
    run("nft", &["-f", file.to_str().unwrap()]).is_some()
}

/// A chain with rules, for its hook and priority, that accepts what is left.
fn chain(hook: &str, kind: &str, priority: i32, rules: &str) -> String {
    format!("table inet mine {{\nchain c {{ type {kind} hook {hook} priority {priority}; {rules}\n}}\n}}")
}

#[test]
fn what_is_said_is_what_is() {
    let dnat = "ct status dnat accept";
    let all: Vec<(&str, String)> = vec![
        ("no rules", String::new()),
        ("drops by policy", DROPS.into()),
        ("lets in what is published", DROPS.replace("ct state established,related accept\n    }\n    chain output", &format!("ct state established,related accept; {dnat}\n    }}\n    chain output"))),
        ("drops the container's port", chain("forward", "filter", 10, "tcp dport 80 drop")),
        ("does not drop the host's port there", chain("forward", "filter", -10, "tcp dport 8080 drop")),
        ("drops the host's port before", chain("prerouting", "filter", -300, "iifname \"lan0\" tcp dport 8080 drop")),
        ("drops what comes in", chain("input", "filter", 0, "policy drop; ct state established accept; iif lo accept")),
        ("refuses what goes out", chain("output", "filter", -200, "oifname \"lo\" tcp dport { 80, 8000-8100 } reject")),
        ("drops behind", chain("postrouting", "filter", 300, "oifname \"wharf0\" meta l4proto tcp ct original proto-dst 8080 drop")),
        ("ranges", chain("forward", "filter", 0, "tcp dport 1-79 drop; tcp dport != 80 drop; ip daddr 172.17.0.0/24 tcp flags & (syn|ack) == syn drop")),
        ("others' addresses", chain("forward", "filter", 0, "iifname \"lan0\" ip daddr { 10.0.0.0/8, 172.17.0.0-172.17.0.1 } drop")),
        ("a map of verdicts", "table ip mine { chain in { tcp dport vmap { 22 : accept, 80 : goto out }\n}
            chain out { ct state new iifname . oifname { \"lan0\" . \"wharf0\" } drop; }
            chain c { type filter hook forward priority 0; iifname vmap { \"lan0\" : jump in }; }
        }".into()),
        ("marks", "table ip mine { chain a { type filter hook prerouting priority -150; iifname \"lan0\" meta mark set 0x10; }
            chain c { type filter hook forward priority 0; meta mark & 0xff == 0x10 drop; }
        }".into()),
        ("local by its type", chain("prerouting", "filter", -200, "fib daddr type local iif lan0 tcp dport 8080 ct state new drop")),
        ("sent elsewhere before us", chain("prerouting", "nat", -110, "iifname \"lan0\" tcp dport 8080 dnat ip to 10.9.0.77:1")),
        ("accepted before", chain("forward", "filter", -5, "accept")),
    ];
    for (title, rules) in all {
        on_a_host(|host| {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
            let networks = host.networks();
            create(&networks, "web", "10.77.0.0/24", &[]);
            let (a, b) = (container(&networks, "bridge", "a"), container(&networks, "bridge", "b"));
            let c = container(&networks, "web", "c");
            serve(&a.netns, 80);
            networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
            if !load(host, &rules) {
                return;
            }
            let reach = reach(&networks, &a);
            let real = [
                (LOOPBACK, ask(Ipv4Addr::LOCALHOST, 8080)),
                (OWN, ask(HOST, 8080)),
                (OTHERS, ask_from(&host.other, HOST, 8080)),
                (WEB, ask_from(&c.netns, Ipv4Addr::new(10, 77, 0, 1), 8080)),
                (BESIDE, ask_from(&b.netns, a.v4(), 80)),
            ];
            for (from, real) in real {
                let way = way(&reach, from);
                let wanted = if real.is_ok() { Answer::Yes } else { Answer::No };
                assert_eq!(way.answer, wanted, "{title}: {way:#?}\n{real:?}");
                assert_eq!(way.answer == Answer::No, !way.why.is_empty(), "{title}: {way:#?}");
            }
            assert!(reach.notes.is_empty(), "{title}: {:?}", reach.notes);
            networks.destroy().unwrap();
        });
    }
}

#[test]
fn who_it_is_decides() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let rules = "table inet filter {
            set friends { type ipv4_addr; elements = { 10.9.0.2, 10.9.0.3 } }
            chain ours { ip saddr @friends tcp dport 80 accept; }
            chain forward { type filter hook forward priority 0; policy drop; ct state established accept; jump ours; }
        }";
        if !load(host, rules) {
            return;
        }
        let said = reach(&networks, &a);
        let others = way(&said, OTHERS);
        assert_eq!(others.answer, Answer::Some, "{others:#?}");
        let words = "some are let in by nftables's rule `ip saddr @friends tcp dport 80 accept` in chain ours of table inet \
                     filter; others are dropped by nftables's chain forward of table inet filter, by its policy";
        assert_eq!(others.why, words);
        let deciders: Vec<_> = others.rules.iter().map(|rule| (rule.chain.as_str(), rule.rule.is_some())).collect();
        assert_eq!(deciders, [("ours", true), ("forward", false)]);
        assert!(ask_from(&host.other, HOST, 8080).is_ok());
        run("nft", &["flush", "chain", "inet", "filter", "ours"]);
        run("nft", &["chain", "inet", "filter", "forward", "{ policy accept; }"]);
        run("nft", &["add", "rule", "inet", "filter", "ours", "ip", "saddr", "10.9.0.2", "reject"]);
        let said = reach(&networks, &a);
        let others = way(&said, OTHERS);
        assert_eq!(others.answer, Answer::Some, "{others:#?}");
        assert!(
            others.why.starts_with("some are kept out by nftables's rule `ip saddr 10.9.0.2 reject`"),
            "{others:#?}"
        );
        networks.destroy().unwrap();
    });
}

#[test]
fn a_policy_that_drops_is_named() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        if !load(host, DROPS) {
            return;
        }
        let said = reach(&networks, &a);
        let others = way(&said, OTHERS);
        assert_eq!(
            others.why,
            "dropped by nftables's chain forward of table inet filter, by its policy: what is published has to be let \
             through there (`ct status dnat accept`)"
        );
        assert_eq!((others.rules.len(), others.rules[0].table.as_str()), (1, "inet filter"));
        assert_eq!(said.notes, ["nothing listens on port 80/tcp in the container"]);
        assert_eq!((said.published.as_deref(), said.address), (Some("0.0.0.0:8080"), IpAddr::V4(a.v4())));
        networks.destroy().unwrap();
    });
}

#[test]
fn iptables_is_read_too() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        if run("iptables-nft", &["-P", "FORWARD", "DROP"]).is_none() {
            return;
        }
        let rule = |words: &str| run("iptables-nft", &words.split(' ').collect::<Vec<_>>());
        // Before ours for our bridges.
        rule("-I FORWARD -i lan0 -p tcp -m multiport --dports 22,80 -m conntrack --ctstate NEW -j REJECT");
        let said = reach(&networks, &a);
        let others = way(&said, OTHERS);
        assert_eq!((others.answer, others.rules[0].owner.as_str()), (Answer::No, "iptables"), "{others:#?}");
        ask_from(&host.other, HOST, 8080).unwrap_err();
        rule("-F FORWARD");
        rule("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        rule("-A FORWARD -i lan0 -p tcp -m tcp --dport 80 -m comment --comment web -j ACCEPT");
        let said = reach(&networks, &a);
        assert_eq!(way(&said, OTHERS).answer, Answer::Yes, "{said:#?}");
        assert!(ask_from(&host.other, HOST, 8080).is_ok());
        networks.destroy().unwrap();
    });
}

#[test]
fn where_it_is_published_counts() {
    on_a_host(|host| {
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let a = container(&networks, "bridge", "a");
        serve(&a.netns, 80);
        let local = PortRequest { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..tcp(80, 8080) };
        networks.publish(&a.id, &a.endpoint.addresses(), &[local]).unwrap();
        let said = reach(&networks, &a);
        assert_eq!(way(&said, LOOPBACK).answer, Answer::Yes);
        for from in [OWN, OTHERS, WEB] {
            let way = way(&said, from);
            assert_eq!(way.answer, Answer::No, "{way:#?}");
            assert!(way.why.starts_with("it is published on "), "{way:#?}");
        }
        ask_from(&host.other, HOST, 8080).unwrap_err();
        // The container's own address.
        let own = networks.reach(&a.id, None, Some((Protocol::Tcp, 80)), &|_| false).unwrap().remove(0);
        assert_eq!(way(&own, "this host").answer, Answer::Yes);
        assert_eq!(way(&own, WEB).answer, Answer::No);
        assert!(way(&own, WEB).why.starts_with("dropped by Wharf's rule `"), "{own:#?}");
        assert_eq!(own.notes, ["the container does not run"]);
        networks.destroy().unwrap();
    });
}

#[test]
fn the_container_may_refuse_by_itself() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let inside = wharf_netlink::namespace::within(a.netns.as_fd(), || {
            std::mem::forget(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).unwrap());
            load(host, &chain("input", "filter", 0, "iifname \"eth0\" tcp dport 80 drop"))
        });
        if !inside.unwrap() {
            return;
        }
        let said = reach(&networks, &a);
        let others = way(&said, OTHERS);
        assert_eq!(others.answer, Answer::No);
        assert!(
            others.why.starts_with("in the container dropped by nftables's rule `iifname \"eth0\" tcp dport 80 drop`")
        );
        let note = "what listens on port 80/tcp in the container does so on 127.0.0.1 alone, and not on 172.17.0.2";
        assert_eq!(said.notes, [note]);
        networks.destroy().unwrap();
    });
}

/// What ufw says in this host, with a configuration of the test's own; `None` where it is not installed.
fn ufw(host: &Host, words: &str) -> Option<String> {
    let dir = host.root().with_file_name("ufw");
    let script = format!(
        "set -e; [ -d {dir} ] || {{ mkdir {dir}; cp -a /etc/ufw {dir}/etc; cp -a /etc/default/ufw {dir}/default; }}; \
         mount --bind {dir}/etc /etc/ufw; mount --bind {dir}/default /etc/default/ufw; exec ufw --force {words}",
        dir = dir.display()
    );
    if !std::path::Path::new("/usr/sbin/ufw").exists() {
        eprintln!("skipped: there is no ufw");
        return None;
    }
    run("unshare", &["--mount", "sh", "-c", &script])
}

#[test]
fn ufw_is_read_too() {
    on_a_host(|host| {
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        let Some(_) = ufw(host, "enable") else { return };
        let networks = host.networks();
        create(&networks, "web", "10.77.0.0/24", &[]);
        let (a, c) = (container(&networks, "bridge", "a"), container(&networks, "web", "c"));
        serve(&a.netns, 80);
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        let compare = |title: &str, wanted: Answer| {
            let said = reach(&networks, &a);
            let real = [
                (LOOPBACK, ask(Ipv4Addr::LOCALHOST, 8080)),
                (OWN, ask(HOST, 8080)),
                (OTHERS, ask_from(&host.other, HOST, 8080)),
                (WEB, ask_from(&c.netns, Ipv4Addr::new(10, 77, 0, 1), 8080)),
            ];
            for (from, real) in real {
                let way = way(&said, from);
                assert_eq!(way.answer == Answer::Yes, real.is_ok(), "{title}: {way:#?}\n{real:?}");
            }
            assert_eq!(way(&said, OTHERS).answer, wanted, "{title}: {said:#?}");
            way(&said, OTHERS).clone()
        };
        compare("enabled", Answer::Yes);
        // As people close ports of containers under Docker.
        let rule = "-I FORWARD -i lan0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP";
        run("iptables-nft", &rule.split(' ').collect::<Vec<_>>());
        let others = compare("a port that is closed", Answer::No);
        assert_eq!((others.rules[0].owner.as_str(), others.rules[0].chain.as_str()), ("ufw", "FORWARD"));
        let words = "iifname \"lan0\" meta l4proto tcp ct original proto-dst 8080 ct direction original drop";
        assert_eq!(others.rules[0].rule.as_deref(), Some(words));
        networks.destroy().unwrap();
    });
}

#[test]
fn both_families_and_routed_networks() {
    let dnat =
        "table inet mine { chain c { type filter hook forward priority 0; policy drop; ct state established accept
        meta nfproto ipv6 tcp dport 80 accept
        }
    }";
    for rules in [String::new(), dnat.to_owned(), chain("forward", "filter", 0, "ip6 daddr fd00::/8 drop")] {
        on_a_host(|host| {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
            let networks = host.networks();
            let pool = |subnet: &str| PoolRequest { subnet: subnet.into(), ..PoolRequest::default() };
            let request = |name: &str, subnets: [&str; 2], options: &[(&str, &str)]| CreateNetwork {
                ipv6: Some(true),
                ipam: IpamRequest { config: subnets.map(pool).to_vec(), ..IpamRequest::default() },
                ..create_request(name, "", options)
            };
            networks.create(&request("net", ["10.50.0.0/24", "fd99::/64"], &[])).unwrap();
            let routed = [("com.docker.network.bridge.gateway_mode_ipv6", "routed")];
            networks.create(&request("routed", ["10.51.0.0/24", "fd98::/64"], &routed)).unwrap();
            let (a, r) = (container(&networks, "net", "a"), container(&networks, "routed", "r"));
            for container in [&a, &r] {
                serve6(&container.netns, 80);
            }
            networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
            networks.publish(&r.id, &r.endpoint.addresses(), &[tcp(80, 8081)]).unwrap();
            host.route_from_other("fd98::/64");
            if !load(host, &rules) {
                return;
            }
            let of = |c: &Container, six: bool| {
                let all = networks.reach(&c.id, Some(c.netns.as_fd()), None, &|port| port.host_ip.is_ipv6() == six);
                all.unwrap().remove(0)
            };
            let said = of(&a, true);
            for (from, real) in [
                (LOOPBACK, ask(std::net::Ipv6Addr::LOCALHOST, 8080).is_ok()),
                (OWN, ask(HOST6, 8080).is_ok()),
                (OTHERS, ask_from(&host.other, HOST6, 8080).is_ok()),
            ] {
                assert_eq!(way(&said, from).answer == Answer::Yes, real, "{rules}: {:#?}", way(&said, from));
            }
            // By the container's own address, and nothing of the host's.
            let said = of(&r, true);
            assert_eq!((said.published.as_deref(), said.address), (None, r.v6().into()));
            let others = way(&said, "other hosts, by lan0, with a route to it");
            let real = ask_from(&host.other, r.v6(), 80).is_ok();
            assert_eq!(others.answer == Answer::Yes, real, "{rules}: {others:#?}");
            networks.destroy().unwrap();
        });
    }
}

#[test]
fn tables_of_iptables_legacy_are_told_of() {
    on_a_host(|host| {
        let networks = host.networks();
        let a = container(&networks, "bridge", "a");
        networks.publish(&a.id, &a.endpoint.addresses(), &[tcp(80, 8080)]).unwrap();
        serve(&a.netns, 80);
        assert_eq!(reach(&networks, &a).notes, [""; 0]);
        let list = ["-t", "filter", "-A", "FORWARD", "-j", "DROP"];
        let done = std::process::Command::new("iptables-legacy").args(list).output();
        if !done.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this host has no iptables-legacy");
            return networks.destroy().unwrap();
        }
        let said = reach(&networks, &a);
        let note = &said.notes[0];
        assert!(
            note.starts_with("IPv4 has tables of iptables-legacy (filter), whose rules are not looked at"),
            "{note}"
        );
        networks.destroy().unwrap();
    });
}
