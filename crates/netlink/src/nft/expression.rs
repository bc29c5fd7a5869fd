//! What rules consist of: small steps over registers.

use super::Family;
use crate::message::Messages;

// enum nft_expr_attributes, and the attributes of each expression: enum nft_*_attributes.
const NAME: u16 = 1;
const DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// Bits of [`Ct::State`].
pub const CT_ESTABLISHED: u32 = 2;
pub const CT_RELATED: u32 = 4;
/// Bit of [`Ct::Status`]: the destination of the connection was changed (`IPS_DST_NAT`).
pub const CT_STATUS_DNAT: u32 = 0x20;

/// One of sixteen places of four bytes; longer values take several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    /// `NFT_REG32_00` and on.
    fn number(self) -> u32 {
        8 + u32::from(self.0 & 15)
    }
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    Mark,
    InputName,
    OutputName,
    /// The protocol in an IP packet, one byte.
    Protocol,
}

impl Meta {
    const fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::InputName => 6,
            Self::OutputName => 7,
            Self::Protocol => 16,
        }
    }
}

/// Bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Source,
    Destination,
    /// Of IPv6.
    Source6,
    Destination6,
    /// Of TCP, UDP and SCTP.
    SourcePort,
    DestinationPort,
}

impl Payload {
    /// Header (`NFT_PAYLOAD_*_HEADER`), offset and length.
    const fn place(self) -> (u32, u32, u32) {
        match self {
            Self::Source => (1, 12, 4),
            Self::Destination => (1, 16, 4),
            Self::Source6 => (1, 8, 16),
            Self::Destination6 => (1, 24, 16),
            Self::SourcePort => (2, 0, 2),
            Self::DestinationPort => (2, 2, 2),
        }
    }
}

/// Protocols whose headers begin with ports and have a checksum over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Tcp,
    Udp,
}

impl Carrier {
    /// Its number in an IP packet (`IPPROTO_*`).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum is in the header.
    const fn checksum(self) -> u32 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// What connection tracking knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    State,
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Accept,
    Drop,
    /// Back to the chain that jumped here.
    Return,
    Jump(&'a str),
}

/// One step of a rule. Where a comparison or lookup does not hold, the rule ends without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression<'a> {
    LoadMeta(Meta, Register),
    SetMeta(Meta, Register),
    LoadPayload(Payload, Register),
    /// Writes an address of IPv6 into the packet; the checksum behind the header is corrected.
    WriteAddress6(Payload, Register),
    /// Writes a port into the packet, which must be of that protocol; its checksum is corrected.
    WritePort(Carrier, Payload, Register),
    /// The type of the destination address (`RTN_*`), as the routing table sees it.
    LoadDestinationType(Register),
    LoadCt(Ct, Register),
    /// Keeps only bits of a register's four bytes.
    Mask(Register, u32),
    Compare(Comparison, Register, &'a [u8]),
    /// Loads a constant.
    Immediate(Register, &'a [u8]),
    /// Whether what begins in a register is (or with `invert`, is not) in a set.
    Lookup {
        set: &'a str,
        key: Register,
        invert: bool,
    },
    /// Loads what a map has for what begins in a register.
    Map {
        map: &'a str,
        key: Register,
        to: Register,
    },
    Counter,
    Verdict(Verdict<'a>),
    /// Changes the destination of the connection. The family is that of the address.
    DestinationNat {
        family: Family,
        address: Register,
        port: Option<Register>,
    },
    /// Changes the source of the connection. The family is that of the address.
    SourceNat {
        family: Family,
        address: Register,
    },
    /// Changes the source of the connection to the address that the packet leaves with.
    Masquerade,
}

pub(super) fn write(m: &mut Messages, expression: &Expression<'_>) {
    match *expression {
        Expression::LoadMeta(key, to) => named(m, "meta", |m| {
            m.be32(2, key.number());
            m.be32(1, to.number());
        }),
        Expression::SetMeta(key, from) => named(m, "meta", |m| {
            m.be32(2, key.number());
            m.be32(3, from.number());
        }),
        Expression::LoadPayload(what, to) => named(m, "payload", |m| {
            let (base, offset, length) = what.place();
            m.be32(1, to.number());
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
        }),
        Expression::WriteAddress6(what, from) => named(m, "payload", |m| {
            let (base, offset, length) = what.place();
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
            m.be32(5, from.number());
            // The header has no checksum of its own; NFT_PAYLOAD_L4CSUM_PSEUDOHDR.
            m.be32(6, 0);
            m.be32(7, 0);
            m.be32(8, 1);
        }),
        Expression::WritePort(carrier, what, from) => named(m, "payload", |m| {
            let (base, offset, length) = what.place();
            m.be32(2, base);
            m.be32(3, offset);
            m.be32(4, length);
            m.be32(5, from.number());
            // NFT_PAYLOAD_CSUM_INET.
            m.be32(6, 1);
            m.be32(7, carrier.checksum());
        }),
        Expression::LoadDestinationType(to) => named(m, "fib", |m| {
            m.be32(1, to.number());
            // NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR.
            m.be32(2, 3);
            m.be32(3, 1 << 1);
        }),
        Expression::LoadCt(what, to) => named(m, "ct", |m| {
            m.be32(1, to.number());
            m.be32(2, if what == Ct::State { 0 } else { 2 });
        }),
        Expression::Mask(register, bits) => named(m, "bitwise", |m| {
            m.be32(1, register.number());
            m.be32(2, register.number());
            m.be32(3, 4);
            m.nested(4, |m| m.attribute(DATA_VALUE, &bits.to_ne_bytes()));
            m.nested(5, |m| m.attribute(DATA_VALUE, &[0; 4]));
        }),
        Expression::Compare(how, register, value) => named(m, "cmp", |m| {
            m.be32(1, register.number());
            m.be32(2, if how == Comparison::Equal { 0 } else { 1 });
            m.nested(3, |m| m.attribute(DATA_VALUE, value));
        }),
        Expression::Immediate(register, value) => named(m, "immediate", |m| {
            m.be32(1, register.number());
            m.nested(2, |m| m.attribute(DATA_VALUE, value));
        }),
        Expression::Lookup { set, key, invert } => named(m, "lookup", |m| {
            m.text(1, set);
            m.be32(2, key.number());
            if invert {
                m.be32(5, 1);
            }
        }),
        Expression::Map { map, key, to } => named(m, "lookup", |m| {
            m.text(1, map);
            m.be32(2, key.number());
            m.be32(3, to.number());
        }),
        Expression::Counter => named(m, "counter", |m| {
            m.be64(1, 0);
            m.be64(2, 0);
        }),
        Expression::Verdict(verdict) => named(m, "immediate", |m| {
            // NFT_REG_VERDICT.
            m.be32(1, 0);
            m.nested(2, |m| write_verdict(m, verdict));
        }),
        Expression::DestinationNat { family, address, port } => named(m, "nat", |m| {
            // NFT_NAT_DNAT.
            m.be32(1, 1);
            m.be32(2, family.number().into());
            m.be32(3, address.number());
            if let Some(port) = port {
                m.be32(5, port.number());
            }
        }),
        Expression::SourceNat { family, address } => named(m, "nat", |m| {
            // NFT_NAT_SNAT.
            m.be32(1, 0);
            m.be32(2, family.number().into());
            m.be32(3, address.number());
        }),
        Expression::Masquerade => named(m, "masq", |_| {}),
    }
}

fn named(m: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    m.text(NAME, name);
    m.nested(DATA, data);
}

fn write_verdict(m: &mut Messages, verdict: Verdict<'_>) {
    // NF_* (linux/netfilter.h) and enum nft_verdicts.
    let (code, chain) = match verdict {
        Verdict::Accept => (1, None),
        Verdict::Drop => (0, None),
        Verdict::Return => (-5, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
    };
    m.nested(DATA_VERDICT, |m| {
        m.be32(VERDICT_CODE, i32::cast_unsigned(code));
        if let Some(chain) = chain {
            m.text(VERDICT_CHAIN, chain);
        }
    });
}
