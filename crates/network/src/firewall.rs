//! Our table: constant rules, and sets that say what they are about.
//!
//! One table per daemon, so that nothing of it is in anybody else's way and nobody else's in its. The rules never
//! change; a network or a port is a few elements of sets, added and taken away in one batch.
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
//!              is cut off; into a bridge comes only what was sent to a published port
//! ```
//!
//! A container may use ports that containers of other networks publish, as everybody else may.

use std::net::Ipv4Addr;

use wharf_netlink::nft::{
    Batch, CT_ESTABLISHED, CT_RELATED, CT_STATUS_DNAT, Chain, Comparison, Ct, Element, Expression, Family, Hook, Key,
    Kind, Meta, Payload, Register, Set, Table, Verdict,
};

use crate::NetworkRecord;

/// Our bridges.
const BRIDGES: &str = "bridges";
/// Bridges that nothing gets out of or in.
const INTERNAL: &str = "internal";
/// Pairs of one bridge and itself, where containers reach one another.
const SAME: &str = "same";
/// A bridge and its own addresses.
const HOME: &str = "home";
/// Addresses that the host hides behind its own.
const MASQUERADED: &str = "masqueraded";
/// Ports of all the host's addresses.
pub(crate) const PUBLISHED: &str = "published";
/// Ports of one of the host's addresses.
pub(crate) const PUBLISHED_AT: &str = "published-at";
/// Runs of ports that are the same in the container, of one or all of the host's addresses.
pub(crate) const RANGES: &str = "published-ranges";

const SETS: [Set<'static>; 8] = [
    Set { name: BRIDGES, key: &[Kind::LinkName], data: &[], interval: false },
    Set { name: INTERNAL, key: &[Kind::LinkName], data: &[], interval: false },
    Set { name: SAME, key: &[Kind::LinkName, Kind::LinkName], data: &[], interval: false },
    Set { name: HOME, key: &[Kind::LinkName, Kind::Address], data: &[], interval: true },
    Set { name: MASQUERADED, key: &[Kind::Address], data: &[], interval: true },
    Set { name: PUBLISHED, key: &[Kind::Protocol, Kind::Port], data: &[Kind::Address, Kind::Port], interval: false },
    Set {
        name: PUBLISHED_AT,
        key: &[Kind::Protocol, Kind::Address, Kind::Port],
        data: &[Kind::Address, Kind::Port],
        interval: false,
    },
    Set { name: RANGES, key: &[Kind::Protocol, Kind::Address, Kind::Port], data: &[Kind::Address], interval: true },
];

/// `RTN_LOCAL` (linux/rtnetlink.h).
const LOCAL: [u8; 4] = 2u32.to_ne_bytes();
const LOOPBACK: [u8; 4] = [127, 0, 0, 0];
const FIRST: Register = Register(0);
const SECOND: Register = Register(1);
const THIRD: Register = Register(2);
/// Behind the name of a link, which takes four.
const FIFTH: Register = Register(4);

/// The table by its name.
pub(crate) fn table(name: &str) -> Table<'_> {
    Table { family: Family::Ip, name }
}

/// Makes the table with nothing in its sets, in the place of one that is there.
pub(crate) fn rebuild(batch: &mut Batch, table: Table<'_>) {
    // A table that is there is not made anew, so there is one to delete for sure.
    batch.add_table(table, "").delete_table(table).add_table(table, "made by wharf daemon; changes are lost");
    for set in &SETS {
        batch.add_set(table, set);
    }
    let chains = [
        ("raw", "filter", Hook::Prerouting, -300),
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

    for address in [Payload::Destination, Payload::Source] {
        let rule = [&link_in(Meta::InputName, BRIDGES)[..], &loopback(address), &[drop]].concat();
        batch.add_rule(table, "raw", "", &rule);
    }

    let rule = [&loopback(Payload::Destination)[..], &[Expression::Verdict(Verdict::Return)]].concat();
    batch.add_rule(table, "prerouting", "", &rule);
    for chain in ["prerouting", "output"] {
        let local = [Expression::LoadDestinationType(FIRST), Expression::Compare(Comparison::Equal, FIRST, &LOCAL)];
        batch.add_rule(table, chain, "", &[&local[..], &[publish]].concat());
    }
    let protocol = Expression::LoadMeta(Meta::Protocol, FIRST);
    let to_port = Expression::DestinationNat { address: FIRST, port: Some(SECOND) };
    let to_address = Expression::DestinationNat { address: FIRST, port: None };
    let address = Expression::LoadPayload(Payload::Destination, SECOND);
    let port = |register| Expression::LoadPayload(Payload::DestinationPort, register);
    let map = |map| Expression::Map { map, key: FIRST, to: FIRST };
    batch.add_rule(table, "publish", "", &[protocol, address, port(THIRD), map(PUBLISHED_AT), to_port]);
    batch.add_rule(table, "publish", "", &[protocol, port(SECOND), map(PUBLISHED), to_port]);
    batch.add_rule(table, "publish", "", &[protocol, address, port(THIRD), map(RANGES), to_address]);

    let masquerade = [Expression::Masquerade];
    let rule = [&link_in(Meta::OutputName, BRIDGES)[..], &loopback(Payload::Source), &masquerade].concat();
    batch.add_rule(table, "postrouting", "", &rule);
    let rule = [&ct(Ct::Status, &CT_STATUS_DNAT)[..], &home(false), &masquerade].concat();
    batch.add_rule(table, "postrouting", "", &rule);
    let source = [
        Expression::LoadPayload(Payload::Source, FIRST),
        Expression::Lookup { set: MASQUERADED, key: FIRST, invert: false },
    ];
    batch.add_rule(table, "postrouting", "", &[&source[..], &home(true), &masquerade].concat());

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
    batch.add_rule(table, "forward", "", &[&into[..], &[drop]].concat());
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
fn home(invert: bool) -> [Expression<'static>; 3] {
    [
        Expression::LoadMeta(Meta::OutputName, FIRST),
        Expression::LoadPayload(Payload::Source, FIFTH),
        Expression::Lookup { set: HOME, key: FIRST, invert },
    ]
}

/// The elements of a network, by their set; none for one without a bridge.
fn network(record: &NetworkRecord) -> Vec<(&'static str, Vec<Element>)> {
    let (Some(bridge), Some(subnet)) = (&record.bridge, record.subnet) else { return Vec::new() };
    let plain = |key: Key| Element { key, ..Element::default() };
    let link = || Key::new().link_name(bridge);
    let mut all = vec![(BRIDGES, vec![plain(link())])];
    if record.internal {
        all.push((INTERNAL, vec![plain(link())]));
    }
    if record.icc {
        all.push((SAME, vec![plain(link().link_name(bridge))]));
    }
    let home = Element { key_end: Some(link().address(subnet.last())), ..plain(link().address(subnet.first())) };
    all.push((HOME, vec![home]));
    if record.masquerade && !record.internal {
        let mut range = vec![plain(Key::new().address(subnet.first()))];
        if let Some(behind) = subnet.last().to_bits().checked_add(1) {
            let key = Key::new().address(Ipv4Addr::from_bits(behind));
            range.push(Element { ends_interval: true, ..plain(key) });
        }
        all.push((MASQUERADED, range));
    }
    all
}

pub(crate) fn add_network(batch: &mut Batch, table: Table<'_>, record: &NetworkRecord) {
    for (set, elements) in network(record) {
        batch.add_elements(table, set, &elements, false);
    }
}

pub(crate) fn remove_network(batch: &mut Batch, table: Table<'_>, record: &NetworkRecord) {
    for (set, elements) in network(record) {
        batch.delete_elements(table, set, &elements);
    }
}
