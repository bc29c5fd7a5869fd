//! Networks of IPv6 addresses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ipv4net::InvalidNet;

/// An address and the length of its network's prefix, as `fd00::1/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6Net {
    address: Ipv6Addr,
    prefix: u8,
}

impl Ipv6Net {
    /// `None` when the prefix is longer than 128 bits.
    pub const fn new(address: Ipv6Addr, prefix: u8) -> Option<Self> {
        if prefix <= 128 { Some(Self { address, prefix }) } else { None }
    }

    /// The address as it was given, which may have bits behind the prefix.
    pub const fn address(self) -> Ipv6Addr {
        self.address
    }

    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The same network without an address's own bits.
    pub fn network(self) -> Self {
        Self { address: self.first(), prefix: self.prefix }
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The lowest address.
    pub fn first(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() & self.mask())
    }

    /// The highest address.
    pub fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() | !self.mask())
    }

    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & self.mask() == self.first().to_bits()
    }

    /// Whether `other` lies in this network whole.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The lowest network of `prefix` bits in this one that overlaps nothing of `taken`. Steps over what is taken: there
    /// may be more networks in a pool than anybody can count.
    pub fn first_free(self, prefix: u8, taken: &[Self]) -> Option<Self> {
        if prefix < self.prefix || prefix > 128 {
            return None;
        }
        let mut net = Self { address: self.first(), prefix };
        while let Some(other) = taken.iter().find(|other| other.overlaps(net)) {
            let behind = net.last().max(other.last()).to_bits().checked_add(1)?;
            net.address = Ipv6Addr::from_bits(behind);
            if !self.contains(net.address) {
                return None;
            }
        }
        Some(net)
    }
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Ipv6Net {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<Self, InvalidNet> {
        let invalid = || InvalidNet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        // The number's own parser takes a sign.
        if prefix.is_empty() || prefix.len() > 3 || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let address = address.parse().map_err(|_| invalid())?;
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(invalid)
    }
}

impl Serialize for Ipv6Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ipv6Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        let bridge = net("fd00:1::5/64");
        assert_eq!(bridge.network().to_string(), "fd00:1::/64");
        assert_eq!(bridge.last().to_string(), "fd00:1::ffff:ffff:ffff:ffff");
        assert_eq!(net("::/0").last().to_bits(), u128::MAX);
        assert_eq!(net("fd00::1/128").first(), net("fd00::1/128").last());
        assert!(net("fd00::/8").overlaps(net("fd00:1::/64")) && net("fd00:1::/64").overlaps(net("fd00::/8")));
        assert!(!net("fd00::/64").overlaps(net("fd00:0:0:1::/64")));
    }

    #[test]
    fn the_first_free_network_steps_over_what_is_taken() {
        let pool = net("fd00::/48");
        assert_eq!(pool.first_free(64, &[]), Some(net("fd00::/64")));
        assert_eq!(pool.first_free(64, &[net("fd00::1/128"), net("fd00:0:0:1::/64")]), Some(net("fd00:0:0:2::/64")));
        assert_eq!(pool.first_free(64, &[net("fd00::/49")]), Some(net("fd00:0:0:8000::/64")));
        assert_eq!(net("fd00::/8").first_free(64, &[net("::/0")]), None, "at once");
        assert_eq!(net("fd00::/64").first_free(64, &[net("fd00::/64")]), None);
        assert_eq!(pool.first_free(47, &[]), None);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "fd00::", "fd00::/129", "fd00:/64", "fd00::/+8", "fd00::/", "10.0.0.0/8", "fd00::/0064"] {
            assert!(text.parse::<Ipv6Net>().is_err(), "{text}");
        }
    }
}
