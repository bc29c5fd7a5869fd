//! Networks of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address and the length of its network's prefix, as `172.17.0.1/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Net {
    address: Ipv4Addr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidNet(pub String);

impl Ipv4Net {
    /// `None` when the prefix is longer than 32 bits.
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix <= 32 { Some(Self { address, prefix }) } else { None }
    }

    /// The address as it was given, which may have bits behind the prefix.
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The same network without an address's own bits.
    pub fn network(self) -> Self {
        Self { address: self.first(), prefix: self.prefix }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The lowest address.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// The highest address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.first().to_bits()
    }

    /// Whether `other` lies in this network whole.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The networks of `prefix` bits in this one, lowest first.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Self> {
        let first = u64::from(self.first().to_bits());
        let count = if prefix < self.prefix || prefix > 32 { 0 } else { 1u64 << (prefix - self.prefix) };
        (0..count).map(move |index| {
            let bits = first + (index << (32 - u32::from(prefix)));
            Self { address: Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)), prefix }
        })
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv4Net {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<Self, InvalidNet> {
        let invalid = || InvalidNet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        // The number's own parser takes a sign.
        if prefix.is_empty() || prefix.len() > 2 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let address = address.parse().map_err(|_| invalid())?;
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(invalid)
    }
}

impl Serialize for Ipv4Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ipv4Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        let bridge = net("172.17.0.1/16");
        assert_eq!(bridge.first(), Ipv4Addr::new(172, 17, 0, 0));
        assert_eq!(bridge.last(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(bridge.network().to_string(), "172.17.0.0/16");
        assert_eq!(net("0.0.0.0/0").last(), Ipv4Addr::BROADCAST);
        assert_eq!(net("1.2.3.4/32").first(), net("1.2.3.4/32").last());
    }

    #[test]
    fn networks_overlap_when_one_covers_the_other() {
        assert!(net("10.0.0.0/8").overlaps(net("10.1.0.0/16")));
        assert!(net("10.1.0.0/16").overlaps(net("10.0.0.0/8")));
        assert!(!net("10.1.0.0/16").overlaps(net("10.2.0.0/16")));
        assert!(net("0.0.0.0/0").covers(net("10.2.0.0/16")));
    }

    #[test]
    fn a_pool_is_split() {
        let all: Vec<_> = net("172.28.0.0/14").split(16).map(|net| net.to_string()).collect();
        assert_eq!(all, ["172.28.0.0/16", "172.29.0.0/16", "172.30.0.0/16", "172.31.0.0/16"]);
        assert_eq!(net("192.168.0.0/16").split(20).count(), 16);
        assert_eq!(net("10.0.0.0/16").split(8).count(), 0);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/", "::/64", "10.0.0.0/008"] {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }
}
