//! Sets and maps, and what is in them.

use std::net::IpAddr;
#[cfg(test)]
use std::net::Ipv4Addr;

use super::batch::comment;
use super::expression::DATA_VALUE;
use crate::message::Messages;

// enum nft_set_attributes
const TABLE: u16 = 1;
const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LENGTH: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LENGTH: u16 = 7;
const DESCRIPTION: u16 = 9;
const ID: u16 = 10;
const USERDATA: u16 = 13;
const DESCRIPTION_CONCATENATION: u16 = 2;
const FIELD_LENGTH: u16 = 1;

// enum nft_set_flags
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;
const FLAG_CONCATENATION: u32 = 0x80;

// enum nft_set_elem_attributes
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_DATA: u16 = 2;
pub(super) const ELEMENT_FLAGS: u16 = 3;
pub(super) const ELEMENT_USERDATA: u16 = 6;
pub(super) const ELEMENT_KEY_END: u16 = 10;
/// `NFT_SET_ELEM_INTERVAL_END`.
pub(super) const INTERVAL_END: u32 = 1;

/// Longest name of a link, with its NUL (`IFNAMSIZ`).
const NAME_LENGTH: usize = 16;

/// A kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Address,
    /// Of IPv6.
    Address6,
    Protocol,
    Port,
    LinkName,
}

impl Kind {
    /// nft's number for it, which only tells nft how to show it (src/datatype.h of nftables).
    const fn number(self) -> u32 {
        match self {
            Self::Address => 7,
            Self::Address6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::LinkName => 41,
        }
    }

    /// In which order nft reads a plain key (enum byteorder of nftables): the names of links are the host's, all else
    /// is the network's.
    const fn order(self) -> u32 {
        match self {
            Self::LinkName => 1,
            _ => 2,
        }
    }

    const fn length(self) -> u32 {
        match self {
            Self::Address => 4,
            Self::Address6 | Self::LinkName => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// A set, or with `data` a map.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    pub name: &'a str,
    /// What a key consists of, one after another.
    pub key: &'a [Kind],
    pub data: &'a [Kind],
    /// Whether an element is a range.
    pub interval: bool,
}

/// A value as a register holds it: each part fills whole places of four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    bytes: Vec<u8>,
}

impl Key {
    pub fn new() -> Self {
        Self::default()
    }

    /// Four bytes of IPv4, or sixteen of IPv6.
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        match address.into() {
            IpAddr::V4(address) => self.bytes.extend(address.octets()),
            IpAddr::V6(address) => self.bytes.extend(address.octets()),
        }
        self
    }

    pub fn protocol(mut self, number: u8) -> Self {
        self.bytes.extend([number, 0, 0, 0]);
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.bytes.extend(port.to_be_bytes());
        self.bytes.extend([0; 2]);
        self
    }

    pub fn link_name(mut self, name: &str) -> Self {
        let end = self.bytes.len() + NAME_LENGTH;
        self.bytes.extend(name.as_bytes().iter().take(NAME_LENGTH - 1));
        self.bytes.resize(end, 0);
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Something in a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub key: Key,
    /// Of an interval set whose key is a concatenation: the last key of the range.
    pub key_end: Option<Key>,
    /// Of an interval set with a plain key: this is the first key behind a range.
    pub ends_interval: bool,
    /// What a map has for it.
    pub data: Option<Key>,
    pub comment: Option<String>,
}

pub(super) fn write(m: &mut Messages, table: &str, set: &Set<'_>, id: u32) {
    m.text(TABLE, table);
    m.text(NAME, set.name);
    let concatenated = set.interval && set.key.len() > 1;
    let flags = [(set.interval, FLAG_INTERVAL), (!set.data.is_empty(), FLAG_MAP), (concatenated, FLAG_CONCATENATION)];
    m.be32(FLAGS, flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag));
    let (kind, length) = shape(set.key);
    m.be32(KEY_TYPE, kind);
    m.be32(KEY_LENGTH, length);
    if !set.data.is_empty() {
        let (kind, length) = shape(set.data);
        m.be32(DATA_TYPE, kind);
        m.be32(DATA_LENGTH, length);
    }
    m.be32(ID, id);
    if let [only] = set.key {
        // For nft alone, which shows nonsense without it: `NFTNL_UDATA_SET_KEYBYTEORDER`, its length, its value.
        m.attribute(USERDATA, &[&[0, 4], &only.order().to_ne_bytes()[..]].concat());
    }
    if concatenated {
        m.nested(DESCRIPTION, |m| {
            m.nested(DESCRIPTION_CONCATENATION, |m| {
                for kind in set.key {
                    m.nested(1, |m| m.be32(FIELD_LENGTH, kind.length()));
                }
            });
        });
    }
}

/// nft's number for a concatenation, six bits a part, and its length.
fn shape(kinds: &[Kind]) -> (u32, u32) {
    let number = kinds.iter().fold(0, |all, kind| all << 6 | kind.number());
    let length = match kinds {
        [only] => only.length(),
        _ => kinds.iter().map(|kind| kind.length().next_multiple_of(4)).sum(),
    };
    (number, length)
}

pub(super) fn write_element(m: &mut Messages, element: &Element) {
    m.nested(ELEMENT_KEY, |m| m.attribute(DATA_VALUE, element.key.as_bytes()));
    if let Some(end) = &element.key_end {
        m.nested(ELEMENT_KEY_END, |m| m.attribute(DATA_VALUE, end.as_bytes()));
    }
    if element.ends_interval {
        m.be32(ELEMENT_FLAGS, INTERVAL_END);
    }
    if let Some(data) = &element.data {
        m.nested(ELEMENT_DATA, |m| m.attribute(DATA_VALUE, data.as_bytes()));
    }
    if let Some(text) = &element.comment {
        m.attribute(ELEMENT_USERDATA, &comment(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_as_registers_are() {
        let key = Key::new().protocol(6).address(Ipv4Addr::new(1, 2, 3, 4)).port(80);
        assert_eq!(key.as_bytes(), [6, 0, 0, 0, 1, 2, 3, 4, 0, 80, 0, 0]);
        let name = Key::new().link_name("wharf0");
        assert_eq!(name.as_bytes(), b"wharf0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(Key::new().link_name("a-name-that-is-too-long").as_bytes().len(), 16);
    }

    #[test]
    fn a_concatenation_has_a_shape() {
        assert_eq!(shape(&[Kind::Address]), (7, 4));
        assert_eq!(shape(&[Kind::Protocol, Kind::Address, Kind::Port]), (12 << 12 | 7 << 6 | 13, 12));
        assert_eq!(shape(&[Kind::LinkName, Kind::Address]), (41 << 6 | 7, 20));
    }
}
