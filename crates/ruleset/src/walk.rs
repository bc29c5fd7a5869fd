//! Going through the chains of a hook as a packet does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_netlink::nft::{ChainEntry, Decision, Family, Hook, Place, Policy, Ruleset, Step, StoredRule};

use crate::matching;
use crate::packet::{Packet, octets};
use crate::registers::{Bytes, Registers, Truth, all, known};
use crate::text;
use crate::xtables::{self, Target};

/// Chains that jump to one another deeper than the kernel allows (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// Where connection tracking is among the chains of a hook (`NF_IP_PRI_CONNTRACK`).
const TRACKING: i32 = -200;
/// `struct nft_regs`: the length of a link's name.
const NAME: usize = 16;

/// Who decides: a rule, or with no `rule` a chain's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// With its family, as `inet filter`.
    pub table: String,
    pub chain: String,
    /// In nft's words.
    pub rule: Option<String>,
    pub handle: Option<u64>,
    pub comment: Option<String>,
}

/// A chain that lets in only some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What lets them in.
    pub by: Vec<Cause>,
    /// What drops the others.
    pub others: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing drops it.
    Goes,
    Dropped(Cause),
    /// A rule does with it what cannot be told.
    Unclear(Cause),
}

/// What came of a packet.
#[derive(Clone, Debug)]
pub struct Course {
    pub packet: Packet,
    pub fate: Fate,
    /// Those that only some get through.
    pub limits: Vec<Limit>,
    /// Rules that keep some out.
    pub except: Vec<Cause>,
}

/// A way through the host's rules.
#[derive(Debug)]
pub struct Walk<'a> {
    ruleset: &'a Ruleset,
    locals: &'a [IpAddr],
}

enum Flow {
    Accept,
    Drop(Cause),
    /// To the end of the chain, or out of it.
    Return,
    Unclear(Cause),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Accepts,
    Drops,
    Unclear,
}

/// What a rule does that may be about the packet.
struct Doubt {
    cause: Cause,
    does: Does,
}

/// What a rule comes to.
enum Action {
    Nothing,
    Decide(Decision),
    Translate(Option<IpAddr>, Option<u16>),
    Redirect(Option<u16>),
    Unclear,
}

impl<'a> Walk<'a> {
    /// `locals` are the host's own addresses.
    pub fn new(ruleset: &'a Ruleset, locals: &'a [IpAddr]) -> Self {
        Self { ruleset, locals }
    }

    /// Begins with a packet.
    pub fn start(packet: Packet) -> Course {
        Course { packet, fate: Fate::Goes, limits: Vec::new(), except: Vec::new() }
    }

    /// Goes on through the chains of a hook; whether it goes on behind them.
    pub fn hook(&self, hook: Hook, course: &mut Course) -> bool {
        let mut translated = false;
        for (family, chain) in self.base_chains(hook, course.packet.family()) {
            // The first rule that changes a connection's address is the last.
            if chain.kind == "nat" && (translated || course.packet.is_reply) {
                continue;
            }
            let is_early = matches!(hook, Hook::Prerouting | Hook::Output) && chain.priority <= TRACKING;
            course.packet.is_tracked = !is_early;
            let before = course.packet.destination;
            let port = course.packet.port;
            let mut doubts = Vec::new();
            let mut flow = self.chain(family, &chain.table, &chain.name, &mut course.packet, &mut doubts, 0);
            translated |= (course.packet.destination, course.packet.port) != (before, port);
            if matches!(flow, Flow::Return) && chain.policy == Some(Policy::Drop) {
                flow = Flow::Drop(policy(family, chain));
            }
            let (in_doubt, out): (Vec<Doubt>, Vec<Doubt>) =
                doubts.into_iter().partition(|doubt| doubt.does != Does::Drops);
            let causes = |doubts: Vec<Doubt>| doubts.into_iter().map(|doubt| doubt.cause);
            match flow {
                Flow::Accept | Flow::Return => {
                    let unclear = in_doubt.into_iter().filter(|doubt| doubt.does == Does::Unclear).collect();
                    course.except.extend(causes(out).chain(causes(unclear)));
                }
                Flow::Drop(cause) if in_doubt.is_empty() => {
                    course.fate = Fate::Dropped(cause);
                    return false;
                }
                Flow::Drop(others) => course.limits.push(Limit { by: causes(in_doubt).collect(), others }),
                Flow::Unclear(cause) => {
                    course.fate = Fate::Unclear(cause);
                    return false;
                }
            }
        }
        true
    }

    fn base_chains(&self, hook: Hook, family: Family) -> Vec<(Family, &'a ChainEntry)> {
        let mut chains: Vec<_> = self
            .ruleset
            .chains
            .iter()
            .filter(|(of, chain)| (*of == family || *of == Family::Inet) && chain.hook == Some(hook))
            .map(|(of, chain)| (*of, chain))
            .collect();
        chains.sort_by_key(|(_, chain)| chain.priority);
        chains
    }

    fn chain(
        &self,
        family: Family,
        table: &str,
        name: &str,
        packet: &mut Packet,
        doubts: &mut Vec<Doubt>,
        depth: usize,
    ) -> Flow {
        let of_chain = |rule: &&StoredRule| rule.family == family && rule.table == table && rule.chain == name;
        for rule in self.ruleset.rules.iter().filter(of_chain) {
            let cause = || cause(self.ruleset, rule);
            if depth > DEEPEST {
                return Flow::Unclear(cause());
            }
            let (truth, actions) = self.rule(rule, packet);
            let is_sure = truth == Truth::Yes && actions.len() == 1;
            for action in actions {
                let doubt = |does| Doubt { cause: cause(), does };
                match action {
                    Action::Nothing | Action::Decide(Decision::Continue) => {}
                    Action::Decide(Decision::Accept) if is_sure => return Flow::Accept,
                    Action::Decide(Decision::Accept) => doubts.push(doubt(Does::Accepts)),
                    Action::Decide(Decision::Drop) if is_sure => return Flow::Drop(cause()),
                    Action::Decide(Decision::Drop) => doubts.push(doubt(Does::Drops)),
                    Action::Decide(Decision::Return) if is_sure => return Flow::Return,
                    Action::Decide(Decision::Jump(to) | Decision::Goto(to)) if !is_sure => {
                        let mut apart = packet.clone();
                        let does = match self.chain(family, table, &to, &mut apart, doubts, depth + 1) {
                            Flow::Accept => Does::Accepts,
                            Flow::Drop(_) => Does::Drops,
                            Flow::Return => continue,
                            Flow::Unclear(_) => Does::Unclear,
                        };
                        doubts.push(doubt(does));
                    }
                    Action::Decide(Decision::Jump(to)) => {
                        match self.chain(family, table, &to, packet, doubts, depth + 1) {
                            Flow::Return => {}
                            done => return done,
                        }
                    }
                    Action::Decide(Decision::Goto(to)) => {
                        return self.chain(family, table, &to, packet, doubts, depth + 1);
                    }
                    Action::Translate(address, port) if is_sure => {
                        if address.is_none() && port.is_none() {
                            return Flow::Unclear(cause());
                        }
                        packet.translate(address, port);
                        return Flow::Accept;
                    }
                    Action::Redirect(port) if is_sure => {
                        let here = match packet.family() {
                            Family::Ip6 => Ipv6Addr::LOCALHOST.into(),
                            _ => Ipv4Addr::LOCALHOST.into(),
                        };
                        packet.translate(Some(here), port);
                        return Flow::Accept;
                    }
                    Action::Decide(Decision::Queue | Decision::Other(_)) | Action::Unclear if is_sure => {
                        return Flow::Unclear(cause());
                    }
                    _ => doubts.push(doubt(Does::Unclear)),
                }
            }
        }
        Flow::Return
    }

    /// Whether a rule is about the packet, and what it comes to: several possibilities where a map has them.
    fn rule(&self, rule: &StoredRule, packet: &mut Packet) -> (Truth, Vec<Action>) {
        let mut registers = Registers::new();
        let mut truth = Truth::Yes;
        let nothing = (Truth::No, Vec::new());
        for step in &rule.steps {
            let holds = match step {
                Step::Meta { key, to } => {
                    registers.set(*to, &meta(*key, packet));
                    Truth::Yes
                }
                Step::SetMark { from } => {
                    let value = all(&registers.get(*from, 4)).and_then(|bytes| bytes.try_into().ok());
                    packet.mark = value.map(u32::from_ne_bytes).filter(|_| truth == Truth::Yes);
                    Truth::Yes
                }
                Step::Payload { base, offset, length, to } => {
                    let header = match base {
                        1 => packet.network_header(),
                        2 => packet.transport_header(),
                        _ => Vec::new(),
                    };
                    let bytes: Bytes = (*offset..offset + length).map(|at| header.get(at).copied().flatten()).collect();
                    registers.set(*to, &bytes);
                    registers
                        .note_address(*to, *base == 1 && packet.destination.is_ipv4() && matches!(offset, 12 | 16));
                    Truth::Yes
                }
                Step::Ct { key, to } => match tracked(*key, packet) {
                    Some(bytes) => {
                        registers.set(*to, &bytes);
                        Truth::Yes
                    }
                    None => Truth::No,
                },
                Step::Fib { result, flags, to } => {
                    registers.set(*to, &self.route(*result, *flags, packet));
                    Truth::Yes
                }
                Step::Immediate { to, value } => {
                    registers.set(*to, &known(value));
                    Truth::Yes
                }
                Step::Compare { from, operator, value } if registers.cannot_be(*from, value) => {
                    Truth::of(*operator == 1)
                }
                Step::Compare { from, operator, value } => {
                    matching::compare(*operator, &registers.get(*from, value.len()), value)
                }
                Step::Range { from, outside, low, high } => {
                    let inside = matching::within(&registers.get(*from, low.len()), low, high);
                    if *outside { inside.not() } else { inside }
                }
                Step::Bitwise { from, to, mask, xor } => {
                    let bytes = registers.get(*from, mask.len());
                    let masked = bytes.iter().zip(mask.iter().zip(xor)).map(|(byte, (mask, xor))| match byte {
                        Some(byte) => Some(byte & mask ^ xor),
                        None => Some(*xor).filter(|_| *mask == 0),
                    });
                    let (masked, is_address) = (masked.collect::<Bytes>(), registers.is_address(*from));
                    registers.set(*to, &masked);
                    registers.note_address(*to, is_address);
                    Truth::Yes
                }
                Step::Byteorder { from, to, length, size } => {
                    let mut bytes = registers.get(*from, *length);
                    if cfg!(target_endian = "little") {
                        bytes.chunks_mut((*size).max(1)).for_each(<[_]>::reverse);
                    }
                    registers.set(*to, &bytes);
                    Truth::Yes
                }
                Step::Lookup { set, key, to, inverted } => {
                    let Some(set) =
                        self.ruleset.sets.iter().find(|other| {
                            other.family == rule.family && other.table == rule.table && other.name == *set
                        })
                    else {
                        truth = truth.and(Truth::Unknown);
                        continue;
                    };
                    let (found, holds) = matching::find(set, &registers.get(*key, set.key_length));
                    match to {
                        None if *inverted => holds.not(),
                        None => holds,
                        Some(None) => {
                            let truth = truth.and(holds);
                            let decisions = found.iter().filter_map(|element| element.decision.clone());
                            return (truth, decisions.map(Action::Decide).collect());
                        }
                        Some(Some(to)) => {
                            match (found.as_slice(), holds) {
                                ([only], Truth::Yes) => {
                                    registers.set(*to, &known(only.data.as_deref().unwrap_or_default()));
                                }
                                _ => registers.set(*to, &[None; 32]),
                            }
                            holds
                        }
                    }
                }
                // Up to some number everybody gets through.
                Step::Limit { over } => Truth::of(!over),
                Step::Match(name, revision, info) => xtables::matches(name, *revision, info, packet, self.locals),
                Step::Aside(_) | Step::SetPayload { .. } => Truth::Yes,
                Step::Other(_) => Truth::Unknown,
                Step::Verdict(decision) => return (truth, vec![Action::Decide(decision.clone())]),
                Step::Reject => return (truth, vec![Action::Decide(Decision::Drop)]),
                Step::SourceNat => return (truth, vec![Action::Decide(Decision::Accept)]),
                Step::DestinationNat { address, port } => {
                    let action = match (self.address(*address, &registers, packet), number(*port, &registers)) {
                        (Ok(address), Ok(port)) => Action::Translate(address, port),
                        _ => Action::Unclear,
                    };
                    return (truth, vec![action]);
                }
                Step::Redirect { port } => {
                    let action = number(*port, &registers).map_or(Action::Unclear, Action::Redirect);
                    return (truth, vec![action]);
                }
                Step::Target(name, revision, info) => {
                    let action = match xtables::target(name, *revision, info, packet.destination.is_ipv4()) {
                        Target::Drops => Action::Decide(Decision::Drop),
                        Target::Translates(address, port) => Action::Translate(address, port),
                        Target::Redirects(port) => Action::Redirect(port),
                        Target::Hides => Action::Decide(Decision::Accept),
                        Target::Marks => {
                            packet.mark = None;
                            Action::Nothing
                        }
                        Target::Nothing => Action::Nothing,
                        Target::Unknown => Action::Unclear,
                    };
                    return (truth, vec![action]);
                }
            };
            truth = truth.and(holds);
            if truth == Truth::No {
                return nothing;
            }
        }
        (truth, vec![Action::Nothing])
    }

    fn address(&self, place: Option<Place>, registers: &Registers, packet: &Packet) -> Result<Option<IpAddr>, ()> {
        let Some(place) = place else { return Ok(None) };
        let bytes = all(&registers.get(place, octets(packet.destination).len())).ok_or(())?;
        let four = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
        let address = four.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from));
        address.map(Some).map_err(|_| ())
    }

    /// What the routing table says (`fib`).
    fn route(&self, result: u32, flags: u32, packet: &Packet) -> Bytes {
        const OF_SOURCE: u32 = 1;
        const PRESENT: u32 = 1 << 5;
        let is_local = |address: IpAddr| self.locals.contains(&address) || address.is_loopback();
        if result == 3 {
            // RTN_LOCAL, RTN_UNICAST; who is out there is not here.
            let local = if flags & OF_SOURCE != 0 { packet.sender() } else { packet.receiver() }.is_some_and(is_local);
            return known(&if local { 2u32 } else { 1 }.to_ne_bytes());
        }
        // Whether there is a way back: by where it came from.
        match &packet.input {
            _ if flags & OF_SOURCE == 0 => vec![None; NAME],
            Some(_) if flags & PRESENT != 0 => known(&[1]),
            Some(link) if result == 1 => known(&link.index.to_ne_bytes()),
            Some(link) => name(&link.name),
            None => vec![None; NAME],
        }
    }
}

impl Packet {
    fn translate(&mut self, address: Option<IpAddr>, port: Option<u16>) {
        self.translated.get_or_insert((self.destination, self.port));
        self.destination = address.unwrap_or(self.destination);
        self.port = port.unwrap_or(self.port);
    }
}

/// A port that is in a register, where one is.
fn number(place: Option<Place>, registers: &Registers) -> Result<Option<u16>, ()> {
    let Some(place) = place else { return Ok(None) };
    let bytes = all(&registers.get(place, 2)).ok_or(())?;
    Ok(bytes.try_into().ok().map(u16::from_be_bytes))
}

fn name(text: &str) -> Bytes {
    let mut bytes = known(text.as_bytes());
    bytes.resize(NAME, Some(0));
    bytes
}

/// `NFT_META_*`.
fn meta(key: u32, packet: &Packet) -> Bytes {
    let is_ipv4 = packet.destination.is_ipv4();
    let index = |link: &Option<crate::Link>| known(&link.as_ref().map_or(0, |link| link.index).to_ne_bytes());
    let link = |link: &Option<crate::Link>| name(link.as_ref().map_or("", |link| &link.name));
    match key {
        1 => known(&if is_ipv4 { 0x0800u16 } else { 0x86dd }.to_be_bytes()),
        3 => packet.mark.map_or(vec![None; 4], |mark| known(&mark.to_ne_bytes())),
        4 => index(&packet.input),
        5 => index(&packet.output),
        6 => link(&packet.input),
        7 => link(&packet.output),
        15 => known(&[if is_ipv4 { 2 } else { 10 }]),
        16 => known(&[packet.protocol]),
        // PACKET_HOST.
        18 => known(&[0]),
        _ => vec![None; NAME],
    }
}

/// `NFT_CT_*`; `None` where there is nothing that is tracked, and a rule that asks for it ends.
fn tracked(key: u32, packet: &Packet) -> Option<Bytes> {
    let (address, port) = packet.translated.unwrap_or((packet.destination, packet.port));
    if !packet.is_tracked {
        // NF_CT_STATE_INVALID_BIT.
        return (key == 0).then(|| known(&1u32.to_ne_bytes()));
    }
    Some(match key {
        // NF_CT_STATE_BIT(IP_CT_NEW), or of IP_CT_ESTABLISHED.
        0 => known(&if packet.is_reply { 2u32 } else { 8 }.to_ne_bytes()),
        // IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY.
        1 => known(&[u8::from(packet.is_reply)]),
        // IPS_DST_NAT.
        2 => known(&if packet.translated.is_some() { 0x20u32 } else { 0 }.to_ne_bytes()),
        3 => known(&0u32.to_ne_bytes()),
        7 => known(&[if address.is_ipv4() { 2 } else { 10 }]),
        8 | 19 | 21 => packet.source_bytes(),
        9 | 20 | 22 => known(&octets(address)),
        10 => known(&[packet.protocol]),
        12 => known(&port.to_be_bytes()),
        _ => vec![None; NAME],
    })
}

fn table_name(family: Family, table: &str) -> String {
    let family = match family {
        Family::Inet => "inet",
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
    };
    format!("{family} {table}")
}

fn policy(family: Family, chain: &ChainEntry) -> Cause {
    let (table, chain) = (table_name(family, &chain.table), chain.name.clone());
    Cause { table, chain, rule: None, handle: None, comment: None }
}

fn cause(ruleset: &Ruleset, rule: &StoredRule) -> Cause {
    Cause {
        table: table_name(rule.family, &rule.table),
        chain: rule.chain.clone(),
        rule: Some(text::rule(ruleset, rule)),
        handle: Some(rule.handle),
        comment: rule.comment.clone(),
    }
}
