//! Messages as they are on the wire (RFC 1035, RFC 6891): only what a forwarder with a few names of its own needs.
//!
//! Everything that is read comes from somebody hostile, a container or a server out there. So a message is never taken
//! apart further than needed, no compression pointer is ever followed, and no read is without a bound.
//!
//! - [`Query`]: a question that a client sent. [`Answer`]: what we say to it ourselves.
//! - [`Response`]: what a server said, checked as far as it is passed on.

mod answer;
mod name;
mod query;
mod response;

pub(crate) use answer::{Answer, Data};
pub(crate) use name::{reversed, text};
pub(crate) use query::{Query, Refusal};
pub(crate) use response::{Response, restore};

/// Length of a message's header.
pub(crate) const HEADER: usize = 12;
/// A client that says nothing else takes this much over UDP.
pub(crate) const PLAIN_LIMIT: usize = 512;
/// What we take over UDP: it gets through every path in one piece.
pub(crate) const SAFE_LIMIT: u16 = 1232;
/// The most that a length of 16 bits can say.
pub(crate) const MAX: usize = 65535;

// Bits of the second word of the header.
pub(crate) const RESPONSE: u16 = 0x8000;
pub(crate) const OPCODE: u16 = 0x7800;
pub(crate) const TRUNCATED: u16 = 0x0200;
pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
pub(crate) const AUTHENTIC: u16 = 0x0020;
pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
pub(crate) const CODE: u16 = 0x000f;

/// How a query went, where we say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Done = 0,
    Malformed = 1,
    Failed = 2,
    NotImplemented = 4,
    Refused = 5,
}

/// That a query was answered, and that there is no such name: what a server may say to be believed.
pub(crate) const CONCLUSIVE: [u16; 2] = [0, 3];

// Types of records.
pub(crate) const A: u16 = 1;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const AAAA: u16 = 28;
pub(crate) const OPT: u16 = 41;
/// The first type that asks for more than records of one name: transfers of zones.
const TRANSFER: std::ops::RangeInclusive<u16> = 249..=252;
pub(crate) const ANY: u16 = 255;

/// The only class in use.
pub(crate) const INTERNET: u16 = 1;

/// The 16 bits at `at`.
pub(crate) fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    bytes.try_into().ok().map(u16::from_be_bytes)
}

/// The 32 bits at `at`.
fn long(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// Replaces the number of a message.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}
