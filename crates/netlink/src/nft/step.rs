//! What rules that are there consist of, whoever has made them: steps over 64 bytes of registers.

use super::dump::be32;
use super::expression::{DATA_VALUE, DATA_VERDICT};
use crate::message::{self, attributes, find};

/// Where something is in the registers, in bytes.
pub type Place = usize;

/// What a rule or an element decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Accept,
    Drop,
    /// The rest is a program's.
    Queue,
    /// On with the next rule.
    Continue,
    Return,
    Jump(String),
    Goto(String),
    /// One that is not known here, by its number.
    Other(i32),
}

/// One step of a rule. Numbers are the kernel's (linux/netfilter/nf_tables.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `NFT_META_*`.
    Meta {
        key: u32,
        to: Place,
    },
    SetMark {
        from: Place,
    },
    /// `NFT_PAYLOAD_*_HEADER`, bytes.
    Payload {
        base: u32,
        offset: usize,
        length: usize,
        to: Place,
    },
    SetPayload {
        base: u32,
        offset: usize,
        length: usize,
        from: Place,
    },
    /// `NFT_CT_*`.
    Ct {
        key: u32,
        to: Place,
    },
    /// `NFT_FIB_RESULT_*`, `NFTA_FIB_F_*`.
    Fib {
        result: u32,
        flags: u32,
        to: Place,
    },
    Immediate {
        to: Place,
        value: Vec<u8>,
    },
    Verdict(Decision),
    /// `NFT_CMP_*`.
    Compare {
        from: Place,
        operator: u32,
        value: Vec<u8>,
    },
    Range {
        from: Place,
        outside: bool,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    Bitwise {
        from: Place,
        to: Place,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Turns numbers of `size` bytes around.
    Byteorder {
        from: Place,
        to: Place,
        length: usize,
        size: usize,
    },
    Lookup {
        set: String,
        key: Place,
        /// What a map has; `Some(None)` is a verdict.
        to: Option<Option<Place>>,
        inverted: bool,
    },
    DestinationNat {
        address: Option<Place>,
        port: Option<Place>,
    },
    SourceNat,
    /// To this host.
    Redirect {
        port: Option<Place>,
    },
    Reject,
    /// As long as no more come than this says, or with `over` when more do.
    Limit {
        over: bool,
    },
    /// One of the steps of xtables that `iptables-nft` writes: name, revision, data.
    Match(String, u32, Vec<u8>),
    Target(String, u32, Vec<u8>),
    /// Has no part in what becomes of a packet, by its name.
    Aside(String),
    /// One that is not known here, by its name.
    Other(String),
}

/// A register's number as bytes: those of 16 bytes and those of four are the same ones.
fn place(value: &[u8]) -> Option<Place> {
    match usize::try_from(be32(value)?).ok()? {
        number @ 1..=4 => Some((number - 1) * 16),
        number @ 8..=23 => Some((number - 8) * 4),
        _ => None,
    }
}

/// What an element or a rule decides (`NFTA_DATA_VERDICT`).
pub(super) fn decision(data: &[u8]) -> Option<Decision> {
    let verdict = find(data, DATA_VERDICT)?;
    let chain = || find(verdict, 2).map(message::text).unwrap_or_default();
    Some(match be32(find(verdict, 1)?)?.cast_signed() {
        -1 => Decision::Continue,
        -3 => Decision::Jump(chain()),
        -4 => Decision::Goto(chain()),
        -5 => Decision::Return,
        code if code >= 0 => match code & 0xff {
            0 => Decision::Drop,
            1 => Decision::Accept,
            3 => Decision::Queue,
            other => Decision::Other(other),
        },
        other => Decision::Other(other),
    })
}

/// The steps of a rule (`NFTA_RULE_EXPRESSIONS`).
pub(super) fn steps(list: &[u8]) -> Vec<Step> {
    attributes(list)
        .map(|one| {
            let name = find(one.value, 1).map(message::text).unwrap_or_default();
            let data = find(one.value, 2).unwrap_or_default();
            step(&name, data).unwrap_or(Step::Other(name))
        })
        .collect()
}

/// `None` for what is not known.
fn step(name: &str, data: &[u8]) -> Option<Step> {
    let number = |kind| find(data, kind).and_then(be32);
    let size = |kind| number(kind).and_then(|number| usize::try_from(number).ok());
    let at = |kind| find(data, kind).and_then(place);
    let value = |kind| find(find(data, kind)?, DATA_VALUE).map(<[u8]>::to_vec);
    let aside = || Some(Step::Aside(name.to_owned()));
    match name {
        "meta" => match (at(1), at(3)) {
            (Some(to), _) => Some(Step::Meta { key: number(2)?, to }),
            // NFT_META_MARK.
            (None, Some(from)) if number(2)? == 3 => Some(Step::SetMark { from }),
            _ => aside(),
        },
        "payload" => {
            let (base, offset, length) = (number(2)?, size(3)?, size(4)?);
            match (at(1), at(5)) {
                (Some(to), _) => Some(Step::Payload { base, offset, length, to }),
                (None, from) => Some(Step::SetPayload { base, offset, length, from: from? }),
            }
        }
        "ct" => match at(1) {
            Some(to) => Some(Step::Ct { key: number(2)?, to }),
            None => aside(),
        },
        "fib" => Some(Step::Fib { result: number(2)?, flags: number(3)?, to: at(1)? }),
        "immediate" => match at(1) {
            Some(to) => Some(Step::Immediate { to, value: value(2)? }),
            None => Some(Step::Verdict(decision(find(data, 2)?)?)),
        },
        "cmp" => Some(Step::Compare { from: at(1)?, operator: number(2)?, value: value(3)? }),
        "range" => Some(Step::Range { from: at(1)?, outside: number(2)? == 1, low: value(3)?, high: value(4)? }),
        // Shifts and the like are not known.
        "bitwise" if number(6).unwrap_or(0) == 0 => {
            Some(Step::Bitwise { from: at(1)?, to: at(2)?, mask: value(4)?, xor: value(5)? })
        }
        "byteorder" => Some(Step::Byteorder { from: at(1)?, to: at(2)?, length: size(4)?, size: size(5)? }),
        "lookup" => {
            let to = find(data, 3).map(place);
            Some(Step::Lookup { set: message::text(find(data, 1)?), key: at(2)?, to, inverted: number(5) == Some(1) })
        }
        "nat" if number(1)? == 1 => Some(Step::DestinationNat { address: at(3), port: at(5) }),
        "nat" | "masq" => Some(Step::SourceNat),
        "redir" => Some(Step::Redirect { port: at(1) }),
        "reject" => Some(Step::Reject),
        "limit" => Some(Step::Limit { over: number(5).unwrap_or(0) & 1 == 1 }),
        "match" | "target" => {
            let (title, revision) = (message::text(find(data, 1)?), number(2).unwrap_or(0));
            let info = find(data, 3).unwrap_or_default().to_vec();
            Some(if name == "match" { Step::Match(title, revision, info) } else { Step::Target(title, revision, info) })
        }
        "counter" | "log" | "notrack" | "last" | "dup" | "flow_offload" => aside(),
        // NFT_OBJECT_COUNTER, _CT_HELPER, _CT_TIMEOUT, _SECMARK, _SYNPROXY; quotas and limits decide.
        "objref" if matches!(number(1), Some(1 | 3 | 7 | 8)) => aside(),
        _ => None,
    }
}
