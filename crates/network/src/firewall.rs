//! Our table: constant rules, and sets that say what they are about.
//!
//! One table per daemon, so that nothing of it is in anybody else's way and nobody else's in its; it is there twice, for
//! IPv4 and, while a network has it, for IPv6, as sets have addresses of one length. The rules never change; a network
//! or a port is a few elements of sets, added and taken away in one batch.
//!
//! ```text
//! raw          from a container nothing reaches the host's loopback, whatever route_localnet allows
//! prerouting   what comes for a local address and a published port is sent on to its container;
//!              never for 127.0.0.0/8, which comes from outside only by forgery
//! output       the same for what the host itself sends, and there 127.0.0.1 is meant
//! postrouting  loopback's sources become the bridge's, as a container's answer to 127.0.0.1 would stay with it;
//!              a container that reaches one of its own network through the host (hairpin) becomes the bridge too,
//!              or the answer would bypass the host and not be recognised; what leaves becomes the host
//! forward      what belongs to a connection goes on; containers of a network reach one another; an internal network
//!              is cut off; into a bridge comes only what was sent to a published port, into one that routes what is
//!              for an open port of a container, or ICMP, and anything into one that is unprotected
//! ```
//!
//! For IPv6 there is no `raw` and nothing of loopback in `prerouting`: the kernel takes no packet from or to `::1` from
//! anywhere but loopback itself. That holds for answers to `::1`, too, where rules have made them so before they are
//! looked at, as they do on a bridge with `br_netfilter`. So what the host sends from `::1` to a published port leaves
//! as that of the bridge's own address of the link, before connections are tracked, and its answers become those to
//! `::1` after that:
//!
//! ```text
//! from-loopback   ::1 to ::1 and a published port: the source becomes fe80::1, which every bridge has
//! to-loopback     from ::1, as the container's address is put back, to fe80::1: the destination becomes ::1
//! ```
//!
//! A container may use ports that containers of other networks publish, as everybody else may.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_netlink::nft::{
    Batch, CT_ESTABLISHED, CT_RELATED, CT_STATUS_DNAT, Chain, Comparison, Ct, Element, Expression, Family, Hook, Key,
    Kind, Meta, Payload, Register, Set, Table, Verdict,
};

use crate::{GatewayMode, NetworkRecord};

/// Our bridges.
const BRIDGES: &str = "bridges";
/// Bridges that nothing gets out of or in.
const INTERNAL: &str = "internal";
/// Pairs of one bridge and itself, where containers reach one another, and of a link that is trusted and a bridge.
const SAME: &str = "same";
/// A bridge and its own addresses.
const HOME: &str = "home";
/// Addresses that the host hides behind its own.
const MASQUERADED: &str = "masqueraded";
/// Addresses that the host hides behind one of its own that was asked for.
const HIDDEN: &str = "hidden";
/// Bridges whose containers are reached by their own addresses.
const ROUTED: &str = "routed";
/// Bridges that everything comes into.
const UNPROTECTED: &str = "unprotected";
/// Ports of containers that are reached by their own addresses.
pub(crate) const OPEN: &str = "open";
/// Ports of all the host's addresses.
pub(crate) const PUBLISHED: &str = "published";
/// Ports of one of the host's addresses.
pub(crate) const PUBLISHED_AT: &str = "published-at";
/// Runs of ports that are the same in the container, of one or all of the host's addresses.
pub(crate) const RANGES: &str = "published-ranges";

/// What is another for each family: how its addresses look, and where in the registers things come behind one.
#[derive(Clone, Copy, Debug)]
struct Shape {
    family: Family,
    address: Kind,
    source: Payload,
    destination: Payload,
    /// Behind an address.
    behind: Register,
    /// Behind a protocol and an address.
    third: Register,
}

const V4: Shape = Shape {
    family: Family::Ip,
    address: Kind::Address,
    source: Payload::Source,
    destination: Payload::Destination,
    behind: Register(1),
    third: Register(2),
};
const V6: Shape = Shape {
    family: Family::Ip6,
    address: Kind::Address6,
    source: Payload::Source6,
    destination: Payload::Destination6,
    behind: Register(4),
    third: Register(5),
};

/// A set's name, what its key and its data consist of, and whether its elements are ranges.
type Parts = (&'static str, Vec<Kind>, Vec<Kind>, bool);

fn sets(address: Kind) -> [Parts; 12] {
    let (link, protocol, port) = (Kind::LinkName, Kind::Protocol, Kind::Port);
    [
        (BRIDGES, vec![link], vec![], false),
        (INTERNAL, vec![link], vec![], false),
        (SAME, vec![link, link], vec![], false),
        (HOME, vec![link, address], vec![], true),
        (MASQUERADED, vec![address], vec![], true),
        (HIDDEN, vec![address], vec![address], true),
        (ROUTED, vec![link], vec![], false),
        (UNPROTECTED, vec![link], vec![], false),
        (OPEN, vec![protocol, address, port], vec![], false),
        (PUBLISHED, vec![protocol, port], vec![address, port], false),
        (PUBLISHED_AT, vec![protocol, address, port], vec![address, port], false),
        (RANGES, vec![protocol, address, port], vec![address], true),
    ]
}

/// `RTN_LOCAL` (linux/rtnetlink.h).
const LOCAL: [u8; 4] = 2u32.to_ne_bytes();
const LOOPBACK: [u8; 4] = [127, 0, 0, 0];
const LOOPBACK6: [u8; 16] = Ipv6Addr::LOCALHOST.octets();
const LINK_LOCAL6: [u8; 16] = crate::bridge::LINK_LOCAL.octets();
/// Numbers of protocols.
const ICMP: [u8; 1] = [1];
const ICMP6: [u8; 1] = [58];
const FIRST: Register = Register(0);
/// Behind a protocol.
const SECOND: Register = Register(1);
/// Behind the name of a link, which takes four.
const FIFTH: Register = Register(4);
/// Behind the name of a link and an address.
const NINTH: Register = Register(8);

/// The family of an address.
pub(crate) const fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::Ip } else { Family::Ip6 }
}

/// The table by its name.
pub(crate) fn table(family: Family, name: &str) -> Table<'_> {
    Table { family, name }
}

/// Makes the table with nothing in its sets, in the place of one that is there.
pub(crate) fn rebuild(batch: &mut Batch, table: Table<'_>) {
    let shape = if table.family == Family::Ip { V4 } else { V6 };
    // A table that is there is not made anew, so there is one to delete for sure.
    batch.add_table(table, "").delete_table(table).add_table(table, "made by wharf daemon; changes are lost");
    for (name, key, data, interval) in &sets(shape.address) {
        batch.add_set(table, &Set { name, key, data, interval: *interval });
    }
    let chains = [
        ("prerouting", "nat", Hook::Prerouting, -100),
        ("output", "nat", Hook::Output, -100),
        ("postrouting", "nat", Hook::Postrouting, 100),
        ("forward", "filter", Hook::Forward, 0),
    ];
    batch.add_chain(table, Chain { name: "publish", base: None });
    for (name, kind, hook, priority) in chains {
        batch.add_chain(table, Chain { name, base: Some((kind, hook, priority)) });
    }
    let drop = Expression::Verdict(Verdict::Drop);
    let accept = Expression::Verdict(Verdict::Accept);
    let publish = Expression::Verdict(Verdict::Jump("publish"));

    if shape.family == Family::Ip {
        batch.add_chain(table, Chain { name: "raw", base: Some(("filter", Hook::Prerouting, -300)) });
        for address in [Payload::Destination, Payload::Source] {
            // Every packet comes here: the address is looked at first, which is quicker than a name.
            let rule = [&loopback(address)[..], &link_in(Meta::InputName, BRIDGES), &[drop]].concat();
            batch.add_rule(table, "raw", "", &rule);
        }
        let rule = [&loopback(Payload::Destination)[..], &[Expression::Verdict(Verdict::Return)]].concat();
        batch.add_rule(table, "prerouting", "", &rule);
    }
    for chain in ["prerouting", "output"] {
        let local = [Expression::LoadDestinationType(FIRST), Expression::Compare(Comparison::Equal, FIRST, &LOCAL)];
        batch.add_rule(table, chain, "", &[&local[..], &[publish]].concat());
    }
    let protocol = Expression::LoadMeta(Meta::Protocol, FIRST);
    let to_port = Expression::DestinationNat { family: shape.family, address: FIRST, port: Some(shape.behind) };
    let to_address = Expression::DestinationNat { family: shape.family, address: FIRST, port: None };
    let address = Expression::LoadPayload(shape.destination, SECOND);
    let port = |register| Expression::LoadPayload(Payload::DestinationPort, register);
    let map = |map| Expression::Map { map, key: FIRST, to: FIRST };
    batch.add_rule(table, "publish", "", &[protocol, address, port(shape.third), map(PUBLISHED_AT), to_port]);
    batch.add_rule(table, "publish", "", &[protocol, port(SECOND), map(PUBLISHED), to_port]);
    batch.add_rule(table, "publish", "", &[protocol, address, port(shape.third), map(RANGES), to_address]);

    let masquerade = [Expression::Masquerade];
    if shape.family == Family::Ip {
        let rule = [&link_in(Meta::OutputName, BRIDGES)[..], &loopback(Payload::Source), &masquerade].concat();
        batch.add_rule(table, "postrouting", "", &rule);
    } else {
        loopback6(batch, table);
    }
    let rule = [&ct(Ct::Status, &CT_STATUS_DNAT)[..], &home(shape, false), &masquerade].concat();
    batch.add_rule(table, "postrouting", "", &rule);
    let behind = [Expression::LoadPayload(shape.source, FIRST), Expression::Map { map: HIDDEN, key: FIRST, to: NINTH }];
    // The map comes first, as it has nothing for most; what it has is out of the way of what is compared then.
    let snat = [Expression::SourceNat { family: shape.family, address: NINTH }];
    batch.add_rule(table, "postrouting", "", &[&behind[..], &home(shape, true), &snat].concat());
    let source = [
        Expression::LoadPayload(shape.source, FIRST),
        Expression::Lookup { set: MASQUERADED, key: FIRST, invert: false },
    ];
    batch.add_rule(table, "postrouting", "", &[&source[..], &home(shape, true), &masquerade].concat());

    const KNOWN: u32 = CT_ESTABLISHED | CT_RELATED;
    batch.add_rule(table, "forward", "", &[&ct(Ct::State, &KNOWN)[..], &[accept]].concat());
    let same = [
        Expression::LoadMeta(Meta::InputName, FIRST),
        Expression::LoadMeta(Meta::OutputName, FIFTH),
        Expression::Lookup { set: SAME, key: FIRST, invert: false },
    ];
    batch.add_rule(table, "forward", "", &[&same[..], &[accept]].concat());
    for name in [Meta::InputName, Meta::OutputName] {
        batch.add_rule(table, "forward", "", &[&link_in(name, INTERNAL)[..], &[drop]].concat());
    }
    let into = link_in(Meta::OutputName, BRIDGES);
    batch.add_rule(table, "forward", "", &[&into[..], &ct(Ct::Status, &CT_STATUS_DNAT), &[accept]].concat());
    let unprotected = link_in(Meta::OutputName, UNPROTECTED);
    batch.add_rule(table, "forward", "", &[&unprotected[..], &[accept]].concat());
    let routed = link_in(Meta::OutputName, ROUTED);
    let icmp = if shape.family == Family::Ip { &ICMP } else { &ICMP6 };
    let is_icmp = [protocol, Expression::Compare(Comparison::Equal, FIRST, icmp)];
    batch.add_rule(table, "forward", "", &[&routed[..], &is_icmp, &[accept]].concat());
    let is_open = [protocol, address, port(shape.third), Expression::Lookup { set: OPEN, key: FIRST, invert: false }];
    batch.add_rule(table, "forward", "", &[&routed[..], &is_open, &[accept]].concat());
    batch.add_rule(table, "forward", "", &[&into[..], &[drop]].concat());
}

/// Lets the host reach published ports at `::1`, see above.
fn loopback6(batch: &mut Batch, table: Table<'_>) {
    batch.add_chain(table, Chain { name: "from-loopback", base: Some(("filter", Hook::Output, -300)) });
    batch.add_chain(table, Chain { name: "to-loopback", base: Some(("filter", Hook::Input, 150)) });
    let is = |place, address: &'static [u8; 16]| {
        [Expression::LoadPayload(place, FIRST), Expression::Compare(Comparison::Equal, FIRST, address)]
    };
    let write = |place, address: &'static [u8; 16]| {
        [Expression::Immediate(FIRST, address), Expression::WriteAddress6(place, FIRST)]
    };
    let own = [is(V6.source, &LOOPBACK6), is(V6.destination, &LOOPBACK6)].concat();
    let protocol = Expression::LoadMeta(Meta::Protocol, FIRST);
    let address = Expression::LoadPayload(V6.destination, SECOND);
    let port = |register| Expression::LoadPayload(Payload::DestinationPort, register);
    // Whether the map has it; what it has counts later.
    let found = |map| Expression::Map { map, key: FIRST, to: FIRST };
    let published: [&[Expression<'_>]; 3] = [
        &[protocol, address, port(V6.third), found(PUBLISHED_AT)],
        &[protocol, port(SECOND), found(PUBLISHED)],
        &[protocol, address, port(V6.third), found(RANGES)],
    ];
    for steps in published {
        let rule = [&own[..], steps, &write(V6.source, &LINK_LOCAL6)].concat();
        batch.add_rule(table, "from-loopback", "", &rule);
    }
    let answer = [
        &link_in(Meta::InputName, BRIDGES)[..],
        &is(V6.source, &LOOPBACK6),
        &is(V6.destination, &LINK_LOCAL6),
        &write(V6.destination, &LOOPBACK6),
    ];
    batch.add_rule(table, "to-loopback", "", &answer.concat());
}

fn link_in(name: Meta, set: &'static str) -> [Expression<'static>; 2] {
    [Expression::LoadMeta(name, FIRST), Expression::Lookup { set, key: FIRST, invert: false }]
}

fn loopback(address: Payload) -> [Expression<'static>; 3] {
    [
        Expression::LoadPayload(address, FIRST),
        Expression::Mask(FIRST, u32::from_ne_bytes([255, 0, 0, 0])),
        Expression::Compare(Comparison::Equal, FIRST, &LOOPBACK),
    ]
}

/// Any of `bits`.
fn ct(what: Ct, bits: &u32) -> [Expression<'static>; 3] {
    [
        Expression::LoadCt(what, FIRST),
        Expression::Mask(FIRST, *bits),
        Expression::Compare(Comparison::NotEqual, FIRST, &[0; 4]),
    ]
}

/// Whether a packet leaves through the bridge that its source belongs to.
fn home(shape: Shape, invert: bool) -> [Expression<'static>; 3] {
    [
        Expression::LoadMeta(Meta::OutputName, FIRST),
        Expression::LoadPayload(shape.source, FIFTH),
        Expression::Lookup { set: HOME, key: FIRST, invert },
    ]
}

/// The addresses of a network's subnet: the first, the last, and the first behind them.
fn span(record: &NetworkRecord, family: Family) -> Option<(IpAddr, IpAddr, Option<IpAddr>)> {
    if family == Family::Ip {
        let subnet = record.subnet?;
        let behind = subnet.last().to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into());
        return Some((subnet.first().into(), subnet.last().into(), behind));
    }
    let subnet = record.pool6.as_ref()?.subnet;
    let behind = subnet.last().to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into());
    Some((subnet.first().into(), subnet.last().into(), behind))
}

/// The elements of a network, by their set; none for one without a bridge, or without addresses of the family.
fn network(record: &NetworkRecord, family: Family) -> Vec<(&'static str, Vec<Element>)> {
    let (Some(bridge), Some((first, last, behind))) = (&record.bridge, span(record, family)) else {
        return Vec::new();
    };
    let plain = |key: Key| Element { key, ..Element::default() };
    let link = || Key::new().link_name(bridge);
    let mut all = vec![(BRIDGES, vec![plain(link())])];
    if record.internal {
        all.push((INTERNAL, vec![plain(link())]));
    }
    if record.icc {
        all.push((SAME, vec![plain(link().link_name(bridge))]));
    }
    let home = Element { key_end: Some(link().address(last)), ..plain(link().address(first)) };
    all.push((HOME, vec![home]));
    match record.mode(family) {
        GatewayMode::Routed => all.push((ROUTED, vec![plain(link())])),
        GatewayMode::NatUnprotected => all.push((UNPROTECTED, vec![plain(link())])),
        GatewayMode::Nat | GatewayMode::Isolated => {}
    }
    let trusted: BTreeSet<&String> = record.trusted.iter().filter(|name| *name != bridge).collect();
    let trusted: Vec<Element> =
        trusted.into_iter().map(|name| plain(Key::new().link_name(name).link_name(bridge))).collect();
    if !trusted.is_empty() {
        all.push((SAME, trusted));
    }
    if record.masquerade && !record.internal && record.mode(family).hides() {
        let behind_one = match family {
            Family::Ip => record.host4.map(IpAddr::V4),
            _ => record.host6.map(IpAddr::V6),
        };
        let data = behind_one.map(|address| Key::new().address(address));
        let mut range = vec![Element { data, ..plain(Key::new().address(first)) }];
        if let Some(behind) = behind {
            range.push(Element { ends_interval: true, ..plain(Key::new().address(behind)) });
        }
        all.push((if behind_one.is_some() { HIDDEN } else { MASQUERADED }, range));
    }
    all
}

pub(crate) fn add_network(batch: &mut Batch, table: Table<'_>, record: &NetworkRecord) {
    for (set, elements) in network(record, table.family) {
        batch.add_elements(table, set, &elements, false);
    }
}

pub(crate) fn remove_network(batch: &mut Batch, table: Table<'_>, record: &NetworkRecord) {
    for (set, elements) in network(record, table.family) {
        batch.delete_elements(table, set, &elements);
    }
}
