//! Rules in nft's words, as far as they have some.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use wharf_netlink::nft::{Decision, Family, Place, Ruleset, Step, StoredRule, StoredSet};

/// Elements of a set without a name that are shown.
const SHOWN: usize = 8;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In the network's order.
    Number,
    /// In the host's.
    Own,
    Address,
    Name,
    Protocol,
    Family,
    State,
    Status,
    Kind,
    Flags,
}

/// What a register has.
#[derive(Clone, Debug)]
struct Thing {
    words: String,
    form: Form,
    length: usize,
}

/// A rule as `nft list ruleset` has it, about.
pub fn rule(ruleset: &Ruleset, rule: &StoredRule) -> String {
    let mut registers: HashMap<Place, Thing> = HashMap::new();
    let mut values: HashMap<Place, Vec<u8>> = HashMap::new();
    let mut masks: HashMap<Place, Vec<u8>> = HashMap::new();
    let mut carrier = "th";
    let mut words: Vec<String> = Vec::new();
    for step in &rule.steps {
        match step {
            Step::Meta { key, to } => drop(registers.insert(*to, meta(*key))),
            Step::Ct { key, to } => drop(registers.insert(*to, ct(*key))),
            Step::Fib { result, flags, to } => drop(registers.insert(*to, fib(*result, *flags))),
            Step::Payload { base, offset, length, to } => {
                masks.remove(to);
                registers.insert(*to, payload(rule.family, *base, *offset, *length, carrier));
            }
            Step::Immediate { to, value } => drop(values.insert(*to, value.clone())),
            Step::Bitwise { from, to, mask, xor } if xor.iter().all(|byte| *byte == 0) => {
                if let Some(thing) = registers.get(from).cloned() {
                    registers.insert(*to, thing);
                }
                masks.insert(*to, mask.clone());
            }
            Step::Bitwise { from, to, .. } | Step::Byteorder { from, to, .. } => {
                if let Some(thing) = registers.get(from).cloned() {
                    registers.insert(*to, thing);
                }
            }
            Step::Compare { from, operator, value } => {
                let Some(thing) = registers.get(from) else { continue };
                if thing.form == Form::Protocol {
                    carrier = match value.first() {
                        Some(6) => "tcp",
                        Some(17) => "udp",
                        _ => carrier,
                    };
                }
                words.extend(comparison(thing, masks.remove(from).as_deref(), *operator, value));
            }
            Step::Range { from, outside, low, high } => {
                let Some(thing) = registers.get(from) else { continue };
                let sign = if *outside { "!= " } else { "" };
                words.push(format!("{} {sign}{}-{}", thing.words, shown(thing.form, low), shown(thing.form, high)));
            }
            Step::Lookup { set, key, to, inverted } => {
                let things = key_of(*key, &registers, find(ruleset, rule, set));
                let names: Vec<&str> = things.iter().map(|thing| thing.words.as_str()).collect();
                let sign = match to {
                    Some(Some(_)) => "map ",
                    Some(None) => "vmap ",
                    None if *inverted => "!= ",
                    None => "",
                };
                words.push(format!("{} {sign}{}", names.join(" . "), set_text(ruleset, rule, set, &things)));
            }
            Step::Verdict(decision) => words.push(verdict(decision)),
            Step::Reject => words.push("reject".into()),
            Step::SourceNat => words.push("snat".into()),
            Step::DestinationNat { address, port } => {
                let address = address.and_then(|place| values.get(&place)).map(|bytes| shown(Form::Address, bytes));
                let port = port.and_then(|place| values.get(&place)).map(|bytes| shown(Form::Number, bytes));
                words.push(match (address, port) {
                    (Some(address), Some(port)) => format!("dnat to {address}:{port}"),
                    (Some(address), None) => format!("dnat to {address}"),
                    _ => "dnat".into(),
                });
            }
            Step::Redirect { port } => {
                let port = port.and_then(|place| values.get(&place)).map(|bytes| shown(Form::Number, bytes));
                words.push(port.map_or("redirect".into(), |port| format!("redirect to :{port}")));
            }
            Step::Limit { over } => words.push(if *over { "limit rate over …" } else { "limit rate …" }.into()),
            Step::SetMark { from } => {
                let value = values.get(from).map_or("…".into(), |bytes| shown(Form::Own, bytes));
                words.push(format!("meta mark set {value}"));
            }
            Step::Match(name, ..) if name == "comment" => {}
            Step::Match(name, _, info) => words.push(xtables(name, info)),
            Step::Target(name, ..) => words.push(format!("xt {name}")),
            Step::Aside(name) if name == "counter" => {}
            Step::Aside(name) | Step::Other(name) => words.push(name.clone()),
            Step::SetPayload { .. } => words.push("set …".into()),
        }
    }
    // What the protocol of a port says is said by the port's own word.
    let said = |word: &str| words.iter().any(|other| other.starts_with(&format!("{word} ")));
    let (tcp, udp) = (said("tcp"), said("udp"));
    words.retain(|word| !(word == "meta l4proto tcp" && tcp || word == "meta l4proto udp" && udp));
    words.join(" ")
}

fn find<'a>(ruleset: &'a Ruleset, rule: &StoredRule, name: &str) -> Option<&'a StoredSet> {
    ruleset.sets.iter().find(|set| set.family == rule.family && set.table == rule.table && set.name == name)
}

/// What a key consists of, one behind another in the registers.
fn key_of(key: Place, registers: &HashMap<Place, Thing>, set: Option<&StoredSet>) -> Vec<Thing> {
    let end = key + set.map_or(1, |set| set.key_length);
    let mut at = key;
    let mut things = Vec::new();
    while at < end {
        let Some(thing) = registers.get(&at) else { break };
        at += thing.length.next_multiple_of(4).max(4);
        things.push(thing.clone());
    }
    things
}

fn set_text(ruleset: &Ruleset, rule: &StoredRule, name: &str, things: &[Thing]) -> String {
    let Some(set) = find(ruleset, rule, name).filter(|set| set.is_anonymous) else { return format!("@{name}") };
    let mut all: Vec<String> = Vec::new();
    let mut elements: Vec<_> = set.elements.iter().collect();
    elements.sort_by(|a, b| a.key.cmp(&b.key).then(b.ends_interval.cmp(&a.ends_interval)));
    for (at, element) in elements.iter().enumerate() {
        if element.ends_interval {
            continue;
        }
        let parts = |bytes: &[u8]| {
            let mut from = 0;
            let each = things.iter().map(|thing| {
                let part = bytes.get(from..(from + thing.length).min(bytes.len())).unwrap_or_default();
                from += thing.length.next_multiple_of(4);
                shown(thing.form, part)
            });
            each.collect::<Vec<_>>()
        };
        let first = parts(&element.key);
        let last = element.key_end.as_deref().map(parts);
        let last = last.or_else(|| {
            let behind = elements.get(at + 1).filter(|next| set.is_interval && next.ends_interval)?;
            Some(parts(&before(&behind.key)))
        });
        let pairs = first.iter().enumerate().map(|(at, first)| match last.as_ref().and_then(|last| last.get(at)) {
            Some(last) if last != first => format!("{first}-{last}"),
            _ => first.clone(),
        });
        let key = if element.is_catch_all { "*".into() } else { pairs.collect::<Vec<_>>().join(" . ") };
        all.push(match &element.decision {
            Some(decision) => format!("{key} : {}", verdict(decision)),
            None => key,
        });
    }
    let more = if all.len() > SHOWN { ", …" } else { "" };
    all.truncate(SHOWN);
    format!("{{ {}{more} }}", all.join(", "))
}

/// The number before one of the network's order.
fn before(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (value, borrows) = byte.overflowing_sub(1);
        *byte = value;
        if !borrows {
            break;
        }
    }
    bytes
}

fn thing(words: impl Into<String>, form: Form, length: usize) -> Thing {
    Thing { words: words.into(), form, length }
}

fn meta(key: u32) -> Thing {
    match key {
        3 => thing("meta mark", Form::Own, 4),
        4 => thing("iif", Form::Own, 4),
        5 => thing("oif", Form::Own, 4),
        6 => thing("iifname", Form::Name, 16),
        7 => thing("oifname", Form::Name, 16),
        10 => thing("meta skuid", Form::Own, 4),
        15 => thing("meta nfproto", Form::Family, 1),
        16 => thing("meta l4proto", Form::Protocol, 1),
        key => thing(format!("meta #{key}"), Form::Number, 4),
    }
}

fn ct(key: u32) -> Thing {
    match key {
        0 => thing("ct state", Form::State, 4),
        2 => thing("ct status", Form::Status, 4),
        3 => thing("ct mark", Form::Own, 4),
        8 | 19 | 21 => thing("ct original saddr", Form::Address, if key == 21 { 16 } else { 4 }),
        9 | 20 | 22 => thing("ct original daddr", Form::Address, if key == 22 { 16 } else { 4 }),
        12 => thing("ct original proto-dst", Form::Number, 2),
        key => thing(format!("ct #{key}"), Form::Number, 4),
    }
}

fn fib(result: u32, flags: u32) -> Thing {
    let names = ["saddr", "daddr", "mark", "iif", "oif"];
    let words: Vec<&str> =
        names.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name).collect();
    let (result, form) = match result {
        3 => ("type", Form::Kind),
        2 => ("oifname", Form::Name),
        _ => ("oif", Form::Own),
    };
    thing(format!("fib {} {result}", words.join(" . ")), form, 4)
}

fn payload(family: Family, base: u32, offset: usize, length: usize, carrier: &str) -> Thing {
    let ip = if length == 16 || family == Family::Ip6 { "ip6" } else { "ip" };
    match (base, offset, length) {
        (1, 12, 4) | (1, 8, 16) => thing(format!("{ip} saddr"), Form::Address, length),
        (1, 16, 4) | (1, 24, 16) => thing(format!("{ip} daddr"), Form::Address, length),
        (1, 9, 1) if ip == "ip" => thing("ip protocol", Form::Protocol, 1),
        (1, 6, 1) if ip == "ip6" => thing("ip6 nexthdr", Form::Protocol, 1),
        (2, 0, 2) => thing(format!("{carrier} sport"), Form::Number, 2),
        (2, 2, 2) => thing(format!("{carrier} dport"), Form::Number, 2),
        (2, 13, 1) if carrier == "tcp" => thing("tcp flags", Form::Flags, 1),
        // A network whose length is that of whole bytes.
        (1, 12, 1..4) => thing(format!("{ip} saddr"), Form::Address, length),
        (1, 16, 1..4) => thing(format!("{ip} daddr"), Form::Address, length),
        _ => thing(
            format!("@{},{},{}", ["ll", "nh", "th", "ih"].get(base as usize).unwrap_or(&"?"), offset * 8, length * 8),
            Form::Number,
            length,
        ),
    }
}

fn comparison(thing: &Thing, mask: Option<&[u8]>, operator: u32, value: &[u8]) -> Option<String> {
    let words = &thing.words;
    let all_zero = value.iter().all(|byte| *byte == 0);
    if let Some(mask) = mask {
        // `ct state x` is a mask that leaves something.
        if matches!(thing.form, Form::State | Form::Status) && all_zero {
            let sign = if operator == 0 { "!= " } else { "" };
            return Some(format!("{words} {sign}{}", shown(thing.form, mask)));
        }
        if thing.form == Form::Address {
            let prefix: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            let sign = if operator == 1 { "!= " } else { "" };
            return Some(format!("{words} {sign}{}/{prefix}", shown(Form::Address, value)));
        }
        let sign = if operator == 1 { "!=" } else { "==" };
        return Some(format!("{words} & {} {sign} {}", shown(thing.form, mask), shown(thing.form, value)));
    }
    let sign = ["", "!= ", "< ", "<= ", "> ", ">= "].get(operator as usize).unwrap_or(&"? ");
    if thing.form == Form::Address && value.len() < 4 {
        let mut address = value.to_vec();
        address.resize(4, 0);
        return Some(format!("{words} {sign}{}/{}", shown(Form::Address, &address), value.len() * 8));
    }
    if thing.form == Form::Name && value.len() < 16 && !value.ends_with(&[0]) {
        return Some(format!("{words} {sign}\"{}*\"", String::from_utf8_lossy(value)));
    }
    // What nft adds by itself to tell the families apart.
    (thing.form != Form::Family || operator != 0).then(|| format!("{words} {sign}{}", shown(thing.form, value)))
}

/// The names of bits that are set, or the number.
fn bits(value: u32, names: &[(u32, &str)]) -> String {
    let words: Vec<&str> = names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    if words.is_empty() { format!("{value:#x}") } else { words.join(",") }
}

fn shown(form: Form, bytes: &[u8]) -> String {
    let number = bytes.iter().take(8).fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    let own = <[u8; 4]>::try_from(bytes).map_or(0, u32::from_ne_bytes);
    match form {
        Form::Number => number.to_string(),
        Form::Own => format!("{own:#x}"),
        Form::Address => match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
            (Ok(four), _) => Ipv4Addr::from(four).to_string(),
            (_, Ok(six)) => Ipv6Addr::from(six).to_string(),
            _ => format!("{number:#x}"),
        },
        Form::Name => {
            let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            format!("\"{}\"", String::from_utf8_lossy(name))
        }
        Form::Protocol => match number {
            1 => "icmp".into(),
            6 => "tcp".into(),
            17 => "udp".into(),
            58 => "icmpv6".into(),
            132 => "sctp".into(),
            other => other.to_string(),
        },
        Form::Family => if number == 2 { "ipv4" } else { "ipv6" }.into(),
        Form::State => bits(own, &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")]),
        Form::Status => bits(own, &[(0x10, "snat"), (0x20, "dnat")]),
        Form::Kind => match own {
            1 => "unicast".into(),
            2 => "local".into(),
            3 => "broadcast".into(),
            5 => "multicast".into(),
            other => other.to_string(),
        },
        Form::Flags => {
            let value = u32::try_from(number).unwrap_or(0);
            bits(value, &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg")])
        }
    }
}

fn verdict(decision: &Decision) -> String {
    match decision {
        Decision::Accept => "accept".into(),
        Decision::Drop => "drop".into(),
        Decision::Queue => "queue".into(),
        Decision::Continue => "continue".into(),
        Decision::Return => "return".into(),
        Decision::Jump(chain) => format!("jump {chain}"),
        Decision::Goto(chain) => format!("goto {chain}"),
        Decision::Other(code) => format!("verdict {code}"),
    }
}

/// The two of iptables that most rules have.
fn xtables(name: &str, info: &[u8]) -> String {
    let half = |at: usize| info.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes);
    match name {
        "tcp" | "udp" if info.len() >= 8 && (half(4), half(6)) != (0, u16::MAX) => {
            format!("{name} dport {}", range(half(4), half(6)))
        }
        "conntrack" if info.len() >= 158 => {
            // XT_CONNTRACK_STATE, _ORIGDST_PORT, _DIRECTION.
            let (flags, inverted) = (half(146), half(148));
            let sign = |flag: u16| if inverted & flag != 0 { "!= " } else { "" };
            let names = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (128, "dnat")];
            let mut words = Vec::new();
            if flags & 1 != 0 {
                words.push(format!("ct state {}{}", sign(1), bits(half(150).into(), &names)));
            }
            if flags & 1 << 9 != 0 {
                words.push(format!("ct original proto-dst {}{}", sign(1 << 9), range(half(140), half(156))));
            }
            if flags & 1 << 12 != 0 {
                words.push(format!("ct direction {}", if inverted & 1 << 12 != 0 { "reply" } else { "original" }));
            }
            if flags & !(1 | 1 << 9 | 1 << 12 | 1 << 13) != 0 {
                words.push("xt conntrack".into());
            }
            words.join(" ")
        }
        name => format!("xt {name}"),
    }
}

fn range(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
