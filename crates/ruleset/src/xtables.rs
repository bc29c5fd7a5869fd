//! Steps of xtables, which `iptables-nft` puts into rules of nftables for what that has no steps of its own for, or had
//! none: structures of include/uapi/linux/netfilter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{DYNAMIC, Packet};
use crate::registers::Truth;

/// What a target does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Drops,
    /// Changes the destination.
    Translates(Option<IpAddr>, Option<u16>),
    /// To this host.
    Redirects(Option<u16>),
    /// Changes the source, and ends.
    Hides,
    /// The next rule counts.
    Nothing,
    /// Sets a mark.
    Marks,
    Unknown,
}

fn byte(info: &[u8], at: usize) -> u8 {
    info.get(at).copied().unwrap_or(0)
}

/// In the host's order.
fn half(info: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([byte(info, at), byte(info, at + 1)])
}

fn word(info: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([0, 1, 2, 3].map(|offset| byte(info, at + offset)))
}

fn any(flags: u32, bits: u32) -> bool {
    flags & bits != 0
}

/// Whether a match holds.
pub(crate) fn matches(name: &str, revision: u32, info: &[u8], packet: &Packet, locals: &[IpAddr]) -> Truth {
    match (name, revision) {
        ("comment" | "limit", _) => Truth::Yes,
        // Messages of ICMP are no connections.
        ("icmp" | "icmp6" | "ipv6header" | "frag" | "rt" | "hbh" | "dst", _) => Truth::No,
        ("state", _) => Truth::of(any(word(info, 0), state(packet))),
        ("conntrack", 1..=3) => conntrack(revision, info, packet),
        ("addrtype", 1) => address_type(info, packet, locals),
        ("tcp", _) => {
            let flags = byte(info, 11);
            let ports = ports(packet, info, flags);
            // A first packet has SYN alone, an answer ACK beside it; options are not known.
            let own = if packet.is_reply { 0x12 } else { 2 };
            let of_first = Truth::of((byte(info, 9) & own == byte(info, 10)) != (flags & 4 != 0));
            let options = if byte(info, 8) == 0 { Truth::Yes } else { Truth::Unknown };
            Truth::of(packet.protocol == 6).and(ports).and(of_first).and(options)
        }
        ("udp" | "udplite" | "sctp" | "dccp", _) => {
            if name == "sctp" && word(info, 44) & 4 != 0 {
                return Truth::Unknown;
            }
            let flags = if name == "sctp" { 0 } else { byte(info, 8) };
            let number = match name {
                "udp" => 17,
                "sctp" => 132,
                "dccp" => 33,
                _ => 136,
            };
            let ports = ports(packet, info, flags);
            Truth::of(packet.protocol == number).and(if name == "udp" { ports } else { Truth::Unknown })
        }
        ("multiport", 1) => multiport(info, packet),
        ("mark", 1) => packet
            .mark
            .map_or(Truth::Unknown, |mark| Truth::of((mark & word(info, 4) == word(info, 0)) != (byte(info, 8) != 0))),
        _ => Truth::Unknown,
    }
}

/// Bits of states: `XT_CONNTRACK_STATE_BIT` of `IP_CT_NEW` and `IP_CT_ESTABLISHED`, `XT_CONNTRACK_STATE_INVALID`, `_SNAT`, `_DNAT`.
const NEW: u32 = 8;
const ESTABLISHED: u32 = 2;
const INVALID: u32 = 1;
const SOURCE_CHANGED: u32 = 1 << 6;
const DESTINATION_CHANGED: u32 = 1 << 7;

fn state(packet: &Packet) -> u32 {
    match (packet.is_tracked, packet.is_reply) {
        (false, _) => INVALID,
        (true, false) => NEW,
        (true, true) => ESTABLISHED,
    }
}

/// `xt_conntrack_mtinfo3`, whose ports are ranges in the host's order since that revision.
fn conntrack(revision: u32, info: &[u8], packet: &Packet) -> Truth {
    // XT_CONNTRACK_*.
    const STATE: u16 = 1;
    const PROTOCOL: u16 = 1 << 1;
    const FIRST_DESTINATION: u16 = 1 << 3;
    const FIRST_PORT: u16 = 1 << 9;
    const DIRECTION: u16 = 1 << 12;
    const ALIAS: u16 = 1 << 13;
    let (flags, inverted, states) = (half(info, 146), half(info, 148), u32::from(half(info, 150)));
    if !packet.is_tracked && flags & !(STATE | ALIAS) != 0 {
        return Truth::No;
    }
    let (address, port) = packet.translated.unwrap_or((packet.destination, packet.port));
    let mut bits = state(packet);
    if packet.translated.is_some() && packet.is_tracked {
        bits |= DESTINATION_CHANGED;
    }
    let mut truth = Truth::Yes;
    let mut rest = flags & !ALIAS;
    let mut part = |flag: u16, holds: Truth| {
        if flags & flag != 0 {
            truth = truth.and(if inverted & flag != 0 { holds.not() } else { holds });
            rest &= !flag;
        }
    };
    part(
        STATE,
        match any(states, bits) {
            // Whether the source is hidden is not known on the way back.
            false if states & SOURCE_CHANGED != 0 && packet.is_reply => Truth::Unknown,
            holds => Truth::of(holds),
        },
    );
    part(PROTOCOL, Truth::of(half(info, 136) == u16::from(packet.protocol)));
    let masked = |at: usize| {
        let own = crate::packet::octets(address);
        Truth::of(own.iter().enumerate().all(|(n, own)| own & byte(info, at + 16 + n) == byte(info, at + n)))
    };
    part(FIRST_DESTINATION, masked(32));
    part(DIRECTION, Truth::of(!packet.is_reply));
    if revision == 3 {
        part(FIRST_PORT, Truth::of((half(info, 140)..=half(info, 156)).contains(&port)));
    }
    if rest == 0 { truth } else { truth.and(Truth::Unknown) }
}

/// `xt_addrtype_info_v1`.
fn address_type(info: &[u8], packet: &Packet, locals: &[IpAddr]) -> Truth {
    let (source, destination, flags) = (half(info, 0), half(info, 2), word(info, 4));
    // XT_ADDRTYPE_UNICAST, _LOCAL.
    let of = |address: IpAddr| if locals.contains(&address) || address.is_loopback() { 1 << 2 } else { 1 << 1 };
    let side = |wanted: u16, address: Option<IpAddr>, inverted: bool| match wanted {
        0 => Truth::Yes,
        // Who is out there is not here.
        wanted => Truth::of((wanted & address.map_or(1 << 1, of) != 0) != inverted),
    };
    let both = side(source, packet.sender(), any(flags, 1)).and(side(destination, packet.receiver(), any(flags, 2)));
    if any(flags, 4 | 8) { both.and(Truth::Unknown) } else { both }
}

/// A pair of ports in the host's order.
fn in_range(port: u16, info: &[u8], at: usize) -> bool {
    (half(info, at)..=half(info, at + 2)).contains(&port)
}

/// The two pairs of ports that a packet may have: of the source, then of the destination.
fn ports(packet: &Packet, info: &[u8], inverted: u8) -> Truth {
    let (source, destination) = sides(packet);
    let side = |at: usize, bit: u8, port: u16| in_range(port, info, at) != (inverted & bit != 0);
    Truth::of(side(0, 1, source) && side(4, 2, destination))
}

/// A packet's ports.
fn sides(packet: &Packet) -> (u16, u16) {
    if packet.is_reply { (packet.port, DYNAMIC) } else { (DYNAMIC, packet.port) }
}

/// `xt_multiport_v1`.
fn multiport(info: &[u8], packet: &Packet) -> Truth {
    if !matches!(packet.protocol, 6 | 17 | 33 | 132 | 136) {
        return Truth::No;
    }
    let (source, destination) = sides(packet);
    // XT_MULTIPORT_SOURCE, _DESTINATION, _EITHER.
    let wanted = match byte(info, 0) {
        0 => vec![source],
        1 => vec![destination],
        _ => vec![source, destination],
    };
    let count = usize::from(byte(info, 1)).min(15);
    let mut at = 0;
    let mut found = false;
    while at < count {
        let port = half(info, 2 + 2 * at);
        let is_range = byte(info, 32 + at) != 0 && at + 1 < count;
        let last = if is_range { half(info, 4 + 2 * at) } else { port };
        found |= wanted.iter().any(|one| (port..=last).contains(one));
        at += if is_range { 2 } else { 1 };
    }
    let inverted = byte(info, 47) != 0;
    Truth::of(found != inverted)
}

/// What a target does.
pub(crate) fn target(name: &str, revision: u32, info: &[u8], is_ipv4: bool) -> Target {
    match name {
        "REJECT" | "DROP" | "TARPIT" => Target::Drops,
        "DNAT" | "REDIRECT" | "NETMAP" => {
            let (address, port) = range(name, revision, info, is_ipv4);
            match name {
                "DNAT" => Target::Translates(address, port),
                "REDIRECT" => Target::Redirects(port),
                _ => Target::Unknown,
            }
        }
        "SNAT" | "MASQUERADE" => Target::Hides,
        "MARK" | "CONNMARK" => Target::Marks,
        "LOG" | "NFLOG" | "TRACE" | "AUDIT" | "TCPMSS" | "CT" | "NOTRACK" | "CHECKSUM" | "CLASSIFY" | "SECMARK"
        | "CONNSECMARK" | "TTL" | "HL" | "TOS" | "DSCP" | "ECN" | "IDLETIMER" | "LED" | "RATEEST" | "SET" | "TEE" => {
            Target::Nothing
        }
        _ => Target::Unknown,
    }
}

/// `nf_nat_range2`, and `nf_nat_ipv4_multi_range_compat` of older revisions for IPv4.
fn range(name: &str, revision: u32, info: &[u8], is_ipv4: bool) -> (Option<IpAddr>, Option<u16>) {
    // NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED.
    const ADDRESSES: u32 = 1;
    const PORTS: u32 = 2;
    let port = |at: usize| u16::from_be_bytes([byte(info, at), byte(info, at + 1)]);
    let four = |at: usize| IpAddr::V4(Ipv4Addr::from([0, 1, 2, 3].map(|offset| byte(info, at + offset))));
    let old = is_ipv4 && (revision == 0 || (name == "DNAT" && revision < 2));
    let (flags, address, port) = if old {
        (word(info, 4), four(8), port(16))
    } else {
        let six = || IpAddr::V6(Ipv6Addr::from(std::array::from_fn(|offset| byte(info, 4 + offset))));
        (word(info, 0), if is_ipv4 { four(4) } else { six() }, port(36))
    };
    (Some(address).filter(|_| any(flags, ADDRESSES)), Some(port).filter(|_| any(flags, PORTS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, port: u16) -> Packet {
        Packet::first(None, "172.17.0.2".parse().unwrap(), protocol, port)
    }

    #[test]
    fn matches_of_iptables() {
        let (web, locals) = (packet(6, 80), ["10.9.0.1".parse().unwrap()]);
        let holds = |name, revision, info: &[u8], packet: &Packet| matches(name, revision, info, packet, &locals);
        let mut tcp = [0u16, u16::MAX, 80, 90].map(u16::to_ne_bytes).concat();
        tcp.extend([0, 0, 0, 0]);
        assert_eq!(holds("tcp", 0, &tcp, &web), Truth::Yes);
        assert_eq!(holds("tcp", 0, &tcp, &packet(6, 91)), Truth::No);
        assert_eq!(holds("tcp", 0, &tcp, &packet(17, 80)), Truth::No);
        tcp[11] = 2;
        assert_eq!(holds("tcp", 0, &tcp, &web), Truth::No);
        let mut several = vec![1, 3];
        several.extend([22u16, 80, 90].map(u16::to_ne_bytes).concat());
        several.resize(48, 0);
        several[33] = 1;
        assert_eq!(holds("multiport", 1, &several, &packet(6, 85)), Truth::Yes);
        assert_eq!(holds("multiport", 1, &several, &packet(6, 23)), Truth::No);
        let mut tracked = vec![0; 152];
        (tracked[146], tracked[150]) = (1, 6);
        assert_eq!(holds("conntrack", 3, &tracked, &web), Truth::No, "RELATED,ESTABLISHED");
        tracked[150] = 8;
        assert_eq!(holds("conntrack", 3, &tracked, &web), Truth::Yes, "NEW");
        tracked[150] = 128;
        let sent_on = Packet { translated: Some((locals[0], 8080)), ..packet(6, 80) };
        assert_eq!(
            (holds("conntrack", 3, &tracked, &web), holds("conntrack", 3, &tracked, &sent_on)),
            (Truth::No, Truth::Yes)
        );
        // `--ctorigdstport 8080 --ctdir ORIGINAL`, as people have it in DOCKER-USER.
        let mut port = vec![0; 162];
        port[146..148].copy_from_slice(&(1u16 << 9 | 1 << 12).to_ne_bytes());
        for at in [140, 156] {
            port[at..at + 2].copy_from_slice(&8080u16.to_ne_bytes());
        }
        assert_eq!(
            (holds("conntrack", 3, &port, &web), holds("conntrack", 3, &port, &sent_on)),
            (Truth::No, Truth::Yes)
        );
        assert_eq!(holds("conntrack", 3, &port, &sent_on.reply()), Truth::No);
        let mut local = vec![0; 8];
        local[2] = 4;
        assert_eq!(holds("addrtype", 1, &local, &web), Truth::No);
        assert_eq!(holds("addrtype", 1, &local, &Packet { destination: locals[0], ..web.clone() }), Truth::Yes);
        assert_eq!(holds("recent", 0, &[], &web), Truth::Unknown);
    }

    #[test]
    fn targets_of_iptables() {
        let mut info = vec![0; 40];
        info[0] = 3;
        info[4..8].copy_from_slice(&[172, 17, 0, 2]);
        info[36..38].copy_from_slice(&80u16.to_be_bytes());
        let to = Target::Translates(Some("172.17.0.2".parse().unwrap()), Some(80));
        assert_eq!(target("DNAT", 2, &info, true), to);
        let mut old = vec![0; 20];
        (old[0], old[4]) = (1, 3);
        old[8..12].copy_from_slice(&[172, 17, 0, 2]);
        old[16..18].copy_from_slice(&80u16.to_be_bytes());
        assert_eq!(target("DNAT", 0, &old, true), to);
        assert_eq!(target("REJECT", 0, &[], true), Target::Drops);
        assert_eq!(target("LOG", 0, &[], true), Target::Nothing);
        assert_eq!(target("TPROXY", 1, &[], true), Target::Unknown);
    }
}
