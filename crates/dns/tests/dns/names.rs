//! Names that the process knows itself.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use wharf_dns::{Container, Network};

use crate::Case;
use crate::client::{A, AAAA, MX, PTR, Reply, TXT, ask, ask_tcp, exchange, labels, query, query_edns, udp};
use crate::fixture::{Fixture, container, member, network, output};
use crate::upstream::Upstream;

pub(crate) const CASES: &[Case] = &[
    ("containers_find_each_other", containers_find_each_other),
    ("busybox_finds_them_too", busybox_finds_them_too),
    ("addresses_lead_back_to_names", addresses_lead_back_to_names),
    ("both_families_are_answered", both_families_are_answered),
    ("several_addresses_take_turns", several_addresses_take_turns),
    ("the_host_has_a_name", the_host_has_a_name),
    ("an_internal_network_knows_its_own_only", an_internal_network_knows_its_own_only),
    ("what_changes_is_known_at_once", what_changes_is_known_at_once),
    ("five_hundred_records", five_hundred_records),
    ("asking_tracks_no_connections", asking_tracks_no_connections),
    ("a_container_may_track_its_own", a_container_may_track_its_own),
];

fn containers_find_each_other() {
    let fixture = Fixture::new();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let members = vec![
        member("c1", "172.18.0.2", &["web", "www", "0123456789ab"]),
        member("c2", "172.18.0.3", &["db", "database", "ba9876543210"]),
    ];
    fixture.server().put_network(&network("n", members)).unwrap();
    let first = fixture.container("c1", &["n"], &[upstream.address]);
    let second = fixture.container("c2", &["n"], &[upstream.address]);
    for (from, name, address) in [
        (&first, "db", "172.18.0.3"),
        (&first, "DataBase.", "172.18.0.3"),
        (&first, "ba9876543210", "172.18.0.3"),
        (&first, "db.nnet", "172.18.0.3"),
        (&second, "web", "172.18.0.2"),
        (&second, "WWW.NNET", "172.18.0.2"),
        (&second, "db", "172.18.0.3"),
        (&second, "localhost", "127.0.0.1"),
    ] {
        for reply in [ask(from, name, A), ask_tcp(from, name, A)] {
            assert_eq!((reply.code, reply.addresses()), (0, vec![address.to_owned()]), "{name}");
            assert_eq!((reply.records[0].0, reply.spelled), (600, labels(name)));
        }
    }
    // Known, and with nothing of the kind: nobody else is asked.
    for kind in [AAAA, MX, TXT] {
        let reply = ask(&first, "db", kind);
        assert_eq!((reply.code, reply.records), (0, vec![]));
    }
    assert_eq!(upstream.spread().0, 0);
    // Not known: as Docker does, others are.
    assert_eq!(ask(&first, "unknown", A).addresses(), ["192.0.2.1"]);
    assert_eq!(ask(&first, "db.other", A).addresses(), ["192.0.2.1"]);
}

fn busybox_finds_them_too() {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    let shown = output(&netns, &["/bin/busybox", "nslookup", "web", "127.0.0.11"]);
    assert!(shown.contains("Name:\tweb\nAddress: 172.18.0.2"), "{shown}");
    let shown = output(&netns, &["/bin/busybox", "nslookup", "172.18.0.2", "127.0.0.11"]);
    assert!(shown.contains("name = web.nnet"), "{shown}");
    // The port is free for a server of the container's own, at every address.
    let shown =
        output(&netns, &["/bin/busybox", "timeout", "1", "/bin/busybox", "nc", "-lu", "-s", "127.0.0.11", "-p", "53"]);
    assert!(!shown.contains("in use"), "{shown}");
}

fn addresses_lead_back_to_names() {
    let fixture = Fixture::new();
    let upstream = Upstream::new([192, 0, 2, 1]);
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["Web", "alias"])])).unwrap();
    fixture.server().put_network(&network("other", vec![member("c2", "172.19.0.2", &["far"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let reply = ask(&netns, "2.0.18.172.IN-ADDR.ARPA", PTR);
    assert_eq!(reply.records, [(600, labels("Web.nnet"))]);
    assert_eq!(upstream.spread().0, 0);
    // What is no address of a network of ours is somebody else's.
    ask(&netns, "2.0.19.172.in-addr.arpa", PTR);
    assert_eq!(upstream.asked("2.0.19.172.in-addr.arpa"), 1);
}

fn both_families_are_answered() {
    let fixture = Fixture::new();
    let mut both = member("c1", "172.18.0.2", &["web"]);
    both.addresses.push("fd00::2".parse().unwrap());
    fixture.server().put_network(&network("n", vec![both])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    let address = "fd00::2".parse::<Ipv6Addr>().unwrap();
    assert_eq!(ask(&netns, "web", AAAA).records, [(600, address.octets().to_vec())]);
    let reversed = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    assert_eq!(ask(&netns, &reversed, PTR).records, [(600, labels("web.nnet"))]);
}

fn several_addresses_take_turns() {
    let fixture = Fixture::new();
    let members = (2..5).map(|n| member(&format!("c{n}"), &format!("172.18.0.{n}"), &["service"])).collect();
    fixture.server().put_network(&network("n", members)).unwrap();
    let netns = fixture.container("c2", &["n"], &[]);
    let replies: Vec<Vec<String>> = (0..3).map(|_| ask(&netns, "service", A).addresses()).collect();
    let mut firsts: Vec<&String> = replies.iter().map(|all| &all[0]).collect();
    firsts.sort();
    assert_eq!(firsts, ["172.18.0.2", "172.18.0.3", "172.18.0.4"]);
    assert!(replies.iter().all(|all| all.len() == 3));
}

fn the_host_has_a_name() {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    for name in ["host.docker.internal", "Gateway.Docker.Internal."] {
        assert_eq!(ask(&netns, name, A).addresses(), ["172.18.0.1"]);
    }
}

fn an_internal_network_knows_its_own_only() {
    let fixture = Fixture::new();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let inside = Network { internal: true, ..network("in", vec![member("c1", "172.20.0.2", &["web"])]) };
    fixture.server().put_network(&inside).unwrap();
    fixture.server().put_network(&network("out", vec![])).unwrap();
    let netns = fixture.container("c1", &["in"], &[upstream.address]);
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.20.0.2"]);
    for name in ["example.com", "single"] {
        assert_eq!(ask(&netns, name, A).code, 2);
    }
    assert_eq!(upstream.spread().0, 0);
    // With another network that leads out, it may ask.
    fixture.server().put_container(&container("c1", &["in", "out"], &[upstream.address]), None, None).unwrap();
    assert_eq!(ask(&netns, "example.com", A).addresses(), ["192.0.2.1"]);
}

fn what_changes_is_known_at_once() {
    let fixture = Fixture::new();
    let server = fixture.server();
    server.put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    assert_eq!(ask(&netns, "new", A).code, 2);
    for _ in 0..2 {
        server.put_member("n", &member("c2", "172.18.0.3", &["new"])).unwrap();
        assert_eq!(ask(&netns, "new", A).addresses(), ["172.18.0.3"]);
    }
    let links = BTreeMap::from([("linked".to_owned(), "new".to_owned())]);
    server.put_container(&Container { links, ..container("c1", &["n"], &[]) }, None, None).unwrap();
    assert_eq!(ask(&netns, "linked", A).addresses(), ["172.18.0.3"]);
    for _ in 0..2 {
        server.remove_member("n", "c2").unwrap();
        assert_eq!(ask(&netns, "new", A).code, 2);
    }
    server.put_network(&network("n", vec![member("c1", "172.18.0.9", &["web"])])).unwrap();
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.9"]);
    for _ in 0..2 {
        server.remove_network("n").unwrap();
        assert_eq!(ask(&netns, "web", A).code, 2);
    }
    assert!(server.put_member("n", &member("c2", "172.18.0.3", &["new"])).is_err());
    assert!(server.put_container(&container("unheard", &["n"], &[]), None, None).is_err());
}

fn five_hundred_records() {
    let fixture = Fixture::new();
    let address = |n: u32| format!("172.18.{}.{}", n / 250, n % 250 + 2);
    let members = (0..500).map(|n| member(&format!("c{n}"), &address(n), &[&format!("name{n}"), "all"])).collect();
    fixture.server().put_network(&network("n", members)).unwrap();
    let netns = fixture.container("c0", &["n"], &[]);
    for n in (0..500).step_by(7) {
        assert_eq!(ask(&netns, &format!("name{n}"), A).addresses(), [address(n)]);
    }
    let reply = ask(&netns, "all", A);
    assert!(reply.truncated && reply.records.len() > 20, "{} records", reply.records.len());
    assert_eq!(ask_tcp(&netns, "all", A).records.len(), 500);
    let bytes = exchange(&udp(&netns), &query_edns(1, "all", A, 16384));
    assert_eq!(Reply::parse(&bytes).records.len(), 500);
    let plain = exchange(&udp(&netns), &query(1, "all", A));
    assert!(plain.len() <= 512);
}

/// A table of connections would be paid for by each packet of the container's.
fn asking_tracks_no_connections() {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    for _ in 0..10 {
        assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
        assert_eq!(ask_tcp(&netns, "web", A).addresses(), ["172.18.0.2"]);
    }
    let tracked = output(&netns, &["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]);
    assert_eq!(tracked.trim(), "0");
}

/// One with a firewall and translations of its own, as a mesh of services sets up: its rules see both ways.
fn a_container_may_track_its_own() {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    let rules = fixture.root().join("rules");
    let own = "table inet mine {
        chain out { type nat hook output priority -100; tcp dport 9 redirect to :10; }
        chain in { type filter hook input priority 0; policy drop; ct state established accept; ip daddr 127.0.0.11 accept; }
    }\n";
    std::fs::write(&rules, own).unwrap();
    let said =
        output(&netns, &["sh", "-c", &format!("command -v nft || exit 0; nft -f {} || echo bad", rules.display())]);
    if said.is_empty() {
        eprintln!("skipped: there is no nft");
        return;
    }
    assert!(!said.contains("bad"), "{said}");
    for _ in 0..3 {
        assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
        assert_eq!(ask_tcp(&netns, "web", A).addresses(), ["172.18.0.2"]);
    }
    let tracked = output(&netns, &["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]);
    assert_ne!(tracked.trim(), "0");
}
