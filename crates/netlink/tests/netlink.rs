//! Against the kernel, each test in network namespaces of its own.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;

use wharf_netlink::nft::{self, Element, Expression, Family, Key, Kind, Payload, Register, Set, Verdict};
use wharf_netlink::route::{Batch, Bridge, Connection, Link, Peer, Port, Route, TokenBucket, Veth};
use wharf_netlink::{MacAddress, conntrack, namespace};

const MAC: MacAddress = MacAddress([2, 0x42, 1, 2, 3, 4]);

/// Does `f` in a new network namespace with its loopback up.
fn isolated(f: impl FnOnce() + Send) {
    let made = namespace::create(|| {
        let route = Connection::open()?;
        let mut batch = Batch::new();
        batch.set_up(1);
        route.apply(batch)?;
        f();
        Ok(())
    });
    match made {
        Err(error) if error.errno == rustix::io::Errno::PERM => eprintln!("skipped: no right to a network namespace"),
        made => drop(made.expect("a namespace")),
    }
}

fn link(route: &Connection, name: &str) -> Link {
    route.link(name).unwrap().unwrap_or_else(|| panic!("there is no link {name}"))
}

#[test]
fn a_bridge_with_a_port_in_another_namespace() {
    isolated(|| {
        let (other, ()) = namespace::create(|| Ok(())).unwrap();
        let route = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.create_bridge(&Bridge { name: "br0", mac: MAC, mtu: 1400 }).mark_and_set_up("br0", "ours", true);
        route.apply(batch).unwrap();
        let bridge = link(&route, "br0");
        assert_eq!((bridge.kind.as_str(), bridge.alias.as_str(), bridge.mtu), ("bridge", "ours", 1400));
        assert_eq!((bridge.mac, bridge.up, bridge.master), (Some(MAC), true, None));

        let mut batch = Batch::new();
        let peer = Peer { name: "eth0", mac: MAC, netns: other.as_fd() };
        batch
            .add_address(bridge.index, Ipv4Addr::new(10, 1, 0, 1), 24)
            .create_veth(&Veth { name: "v0", mtu: 1400, master: Some(bridge.index), peer })
            .set_port("v0", Port { isolated: true, hairpin: true })
            .mark_and_set_up("v0", "ours too", true);
        route.apply(batch).unwrap();
        assert_eq!(link(&route, "v0").master, Some(bridge.index));
        let addresses = route.addresses().unwrap();
        assert!(addresses.iter().any(|a| a.link == bridge.index && a.address == Ipv4Addr::new(10, 1, 0, 1)));
        let routes = route.routes().unwrap();
        assert!(routes.iter().any(|r| r.destination == (Ipv4Addr::new(10, 1, 0, 0).into(), 24)), "{routes:?}");

        namespace::within(other.as_fd(), || {
            let route = Connection::open().unwrap();
            let eth0 = link(&route, "eth0");
            assert_eq!((eth0.mac, eth0.kind.as_str()), (Some(MAC), "veth"));
            let default = Route {
                destination: (Ipv4Addr::UNSPECIFIED.into(), 0),
                gateway: Some(Ipv4Addr::new(10, 1, 0, 1).into()),
                link: eth0.index,
                metric: 3,
            };
            let mut batch = Batch::new();
            batch.set_up(eth0.index).add_address(eth0.index, Ipv4Addr::new(10, 1, 0, 2), 24).add_route(&default);
            route.apply(batch).unwrap();
            let routes = route.routes().unwrap();
            assert!(routes.iter().any(|r| r.gateway == default.gateway && r.metric == 3), "{routes:?}");
        })
        .unwrap();

        let mut batch = Batch::new();
        batch.delete_link("v0").delete_link("br0");
        route.apply(batch).unwrap();
        assert_eq!(route.link("v0").unwrap(), None);
    });
}

#[test]
fn a_link_keeps_its_permanent_addresses_over_a_move() {
    isolated(|| {
        let (other, ()) = namespace::create(|| Ok(())).unwrap();
        let (third, ()) = namespace::create(|| Ok(())).unwrap();
        let route = Connection::open().unwrap();
        let mut batch = Batch::new();
        let peer = Peer { name: "far", mac: MAC, netns: third.as_fd() };
        batch.create_veth(&Veth { name: "near", mtu: 1400, master: None, peer });
        route.apply(batch).unwrap();
        for words in [
            "link set near up",
            "address add 10.2.0.1/24 dev near",
            "address add 10.2.0.2/24 dev near label near:1",
            "address add 10.3.0.1 peer 10.3.0.2/32 dev near",
            "address add 169.254.7.7/16 scope link dev near",
            "address add 10.4.0.1/24 valid_lft 1000 preferred_lft 1000 dev near",
            "address add fd00:7::1/64 nodad dev near",
        ] {
            let status = Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(status.success(), "{words}");
        }
        let near = link(&route, "near");
        let kept = route.permanent_addresses(near.index).unwrap();
        assert_eq!(kept.len(), 4, "{kept:?}");
        let mut batch = Batch::new();
        batch.move_link(near.index, "eth7", other.as_fd());
        route.apply(batch).unwrap();
        assert_eq!(route.link("near").unwrap(), None);
        namespace::within(other.as_fd(), || {
            let route = Connection::open().unwrap();
            let moved = link(&route, "eth7");
            assert!(!moved.up && moved.mtu == 1400, "{moved:?}");
            assert_eq!(route.permanent_addresses(moved.index).unwrap(), []);
            let mut batch = Batch::new();
            for address in &kept {
                batch.restore_address(moved.index, address, true);
            }
            batch.set_up(moved.index);
            route.apply(batch).unwrap();
            let shown = Command::new("ip").args(["-oneline", "address", "show", "scope", "global"]).output().unwrap();
            let shown = String::from_utf8(shown.stdout).unwrap();
            for want in ["10.2.0.1/24", "10.2.0.2/24", "10.3.0.1 peer 10.3.0.2/32", "fd00:7::1/64"] {
                assert!(shown.contains(want), "{want}: {shown}");
            }
            assert!(!shown.contains("near") && !shown.contains("10.4."), "{shown}");
        })
        .unwrap();
    });
}

#[test]
fn an_error_names_the_request_and_says_why() {
    isolated(|| {
        let route = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.create_bridge(&Bridge { name: "br0", mac: MAC, mtu: 1500 });
        batch.create_bridge(&Bridge { name: "br0", mac: MAC, mtu: 1500 });
        batch.delete_link("br0");
        let error = route.apply(batch).unwrap_err();
        assert_eq!(error.errno, rustix::io::Errno::EXIST);
        assert!(error.to_string().starts_with("cannot make bridge `br0`"), "{error}");
        let mut batch = Batch::new();
        batch.create_bridge(&Bridge { name: "br1", mac: MAC, mtu: 1 << 20 });
        let error = route.apply(batch).unwrap_err();
        assert!(error.detail.is_some(), "{error:?}");
    });
}

#[test]
fn many_links_are_listed_whole() {
    isolated(|| {
        let route = Connection::open().unwrap();
        let mut batch = Batch::new();
        for number in 0..300 {
            batch.create_bridge(&Bridge { name: &format!("br{number}"), mac: MAC, mtu: 1500 });
        }
        route.apply(batch).unwrap();
        assert_eq!(route.links().unwrap().iter().filter(|link| link.kind == "bridge").count(), 300);
    });
}

const TABLE: nft::Table<'static> = nft::Table { family: Family::Ip, name: "wharf-test" };

fn ports() -> Set<'static> {
    let key = &[Kind::Protocol, Kind::Address, Kind::Port];
    Set { name: "ports", key, data: &[Kind::Address, Kind::Port], interval: true }
}

fn element(port: u16, comment: &str) -> Element {
    Element {
        key: Key::new().protocol(6).address(Ipv4Addr::UNSPECIFIED).port(port),
        key_end: Some(Key::new().protocol(6).address(Ipv4Addr::BROADCAST).port(port)),
        data: Some(Key::new().address(Ipv4Addr::new(10, 1, 0, 2)).port(80)),
        comment: Some(comment.into()),
        ..Element::default()
    }
}

fn table(elements: &[Element]) -> nft::Batch {
    let mut batch = nft::Batch::new();
    let (first, second, third) = (Register(0), Register(1), Register(2));
    batch
        .add_table(TABLE, "a test")
        .add_set(TABLE, &ports())
        .add_set(TABLE, &Set { name: "links", key: &[Kind::LinkName], data: &[], interval: false })
        .add_chain(TABLE, nft::Chain { name: "in", base: Some(("nat", nft::Hook::Prerouting, -100)) })
        .add_rule(
            TABLE,
            "in",
            "published ports",
            &[
                Expression::LoadMeta(nft::Meta::Protocol, first),
                Expression::LoadPayload(Payload::Destination, second),
                Expression::LoadPayload(Payload::DestinationPort, third),
                Expression::Map { map: "ports", key: first, to: first },
                Expression::DestinationNat { family: Family::Ip, address: first, port: Some(second) },
            ],
        )
        .insert_rule(TABLE, "in", "", &[Expression::Counter, Expression::Verdict(Verdict::Return)])
        .add_elements(TABLE, "ports", elements, true);
    batch
}

#[test]
fn a_table_is_made_whole_and_read_back() {
    isolated(|| {
        let nft = nft::Connection::open().unwrap();
        nft.apply(table(&[element(80, "web"), element(443, "tls")])).unwrap();
        assert_eq!(nft.tables(Family::Ip).unwrap(), ["wharf-test"]);
        let chains = nft.chains(Family::Ip).unwrap();
        assert_eq!((chains[0].hook, chains[0].priority), (Some(nft::Hook::Prerouting), -100));
        assert_eq!(chains[0].policy, Some(nft::Policy::Accept));
        let rules = nft.rules(TABLE, "in").unwrap();
        assert_eq!(rules.iter().map(|r| r.comment.as_deref()).collect::<Vec<_>>(), [None, Some("published ports")]);
        let mut elements = nft.elements(TABLE, "ports").unwrap();
        elements.sort_by_key(|e| e.comment.clone());
        assert_eq!(elements[1].comment.as_deref(), Some("web"));
        assert_eq!(Some(elements[1].key.as_slice()), Some(element(80, "").key.as_bytes()));
        assert_eq!(elements[1].data.as_deref(), Some([10, 1, 0, 2, 0, 80, 0, 0].as_slice()));

        // A batch with an error in it changes nothing.
        let mut batch = nft::Batch::new();
        batch.flush_set(TABLE, "ports").delete_rule(TABLE, "in", rules[1].handle).delete_rule(TABLE, "in", 1 << 40);
        assert!(nft.apply(batch).unwrap_err().to_string().starts_with("cannot delete a rule of chain `in`"));
        assert_eq!(nft.elements(TABLE, "ports").unwrap().len(), 2);

        let mut batch = nft::Batch::new();
        batch.delete_elements(TABLE, "ports", &[element(80, "")]).delete_rule(TABLE, "in", rules[1].handle);
        nft.apply(batch).unwrap();
        assert_eq!(nft.elements(TABLE, "ports").unwrap().len(), 1);
        assert_eq!(nft.elements(TABLE, "nothing").unwrap(), []);

        let mut batch = nft::Batch::new();
        batch.delete_table(TABLE);
        nft.apply(batch).unwrap();
        assert_eq!(nft.tables(Family::Ip).unwrap(), [""; 0]);
    });
}

#[test]
fn a_batch_of_many_elements_is_one_batch() {
    isolated(|| {
        let nft = nft::Connection::open().unwrap();
        let elements: Vec<_> = (1..=3_000).map(|port| element(port, "0123456789ab")).collect();
        let begun = std::time::Instant::now();
        nft.apply(table(&elements)).unwrap();
        eprintln!("3000 elements: {:?}", begun.elapsed());
        assert_eq!(nft.elements(TABLE, "ports").unwrap().len(), 3_000);
    });
}

#[test]
fn nft_shows_what_was_made() {
    isolated(|| {
        nft::Connection::open().unwrap().apply(table(&[element(80, "web")])).unwrap();
        let Ok(output) = Command::new("nft").args(["list", "ruleset"]).output() else {
            return eprintln!("skipped: there is no nft");
        };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for part in [
            "table ip wharf-test {",
            "comment \"a test\"",
            "type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service",
            "tcp . 0.0.0.0/0 . 80 comment \"web\" : 10.1.0.2 . 80",
            "type nat hook prerouting priority dstnat; policy accept;",
            "to meta l4proto . ip daddr . th dport map @ports comment \"published ports\"",
            "type ifname",
        ] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    });
}

#[test]
fn tracked_connections_are_forgotten_by_choice() {
    isolated(|| {
        let all = [
            conntrack::Exchanges::AnsweredBy(Ipv4Addr::LOCALHOST.into()),
            conntrack::Exchanges::SentTo { port: 53, ipv6: false },
        ];
        conntrack::forget(&nft::Connection::open().unwrap(), &all).unwrap();
    });
}

#[test]
fn a_link_sends_through_a_token_bucket() {
    isolated(|| {
        let (other, ()) = namespace::create(|| Ok(())).unwrap();
        let route = Connection::open().unwrap();
        let mut batch = Batch::new();
        let peer = Peer { name: "far", mac: MAC, netns: other.as_fd() };
        batch.create_veth(&Veth { name: "near", mtu: 1500, master: None, peer });
        route.apply(batch).unwrap();
        let near = link(&route, "near").index;
        let own = || route.root_queues().unwrap().into_iter().find(|queue| queue.link == near);
        let set = |rate| {
            let mut batch = Batch::new();
            batch.set_token_bucket(near, TokenBucket { rate, burst: 125_000, limit: 1_000_000 });
            route.apply(batch).unwrap();
            own().unwrap()
        };
        let first = set(12_500_000);
        assert_eq!((first.kind.as_str(), first.rate), ("tbf", Some(12_500_000)));
        // As the kernel's own program sees it; more than 32 bits hold, too.
        assert_eq!(set(5_000_000_000).rate, Some(5_000_000_000));
        let said = Command::new("tc").args(["-j", "qdisc", "show", "dev", "near"]).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("\"kind\":\"tbf\"") && said.contains("\"rate\":5000000000,"), "{said}");
        assert_eq!(set(1000).rate, Some(1000));

        let mut batch = Batch::new();
        batch.delete_root_queue(near);
        route.apply(batch).unwrap();
        assert!(own().is_none_or(|queue| queue.kind != "tbf"));
        let mut batch = Batch::new();
        batch.delete_root_queue(near);
        assert_eq!(route.apply(batch).unwrap_err().errno, rustix::io::Errno::NOENT);
    });
}
