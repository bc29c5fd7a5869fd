//! The IPv6 addresses of a network: which it has, and which a container gets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::Ipv6Net;

/// The IPv6 side of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool6 {
    pub subnet: Ipv6Net,
    /// Whether the user chose the subnet: only then may a container ask for an address.
    pub chosen: bool,
    /// The bridge's address.
    pub gateway: Option<Ipv6Addr>,
    /// Whether the user chose it.
    #[serde(default = "yes")]
    pub gateway_chosen: bool,
    /// Containers get addresses of this part of the subnet only.
    pub ip_range: Option<Ipv6Net>,
    /// Addresses that no container gets, by the user's names for them.
    pub aux_addresses: BTreeMap<String, Ipv6Addr>,
}

const fn yes() -> bool {
    true
}

impl Pool6 {
    /// A subnet of ours, with its first address for the bridge.
    pub(crate) fn new(subnet: Ipv6Net) -> Self {
        let subnet = subnet.network();
        let mut pool = Self {
            subnet,
            chosen: false,
            gateway: None,
            gateway_chosen: false,
            ip_range: None,
            aux_addresses: BTreeMap::new(),
        };
        pool.settle();
        pool
    }

    /// A gateway that was not named is the first address that is not taken, of the range that the user chose, if any.
    pub(crate) fn settle(&mut self) {
        if self.gateway.is_none() {
            self.gateway = self.lowest_free(&BTreeSet::new());
        }
    }

    /// Whether nobody may have this address of the subnet: the first one is that of any router (RFC 4291, 2.6.1), but between
    /// two (RFC 6164).
    pub(crate) fn is_reserved(&self, address: Ipv6Addr) -> bool {
        let first = self.subnet.prefix() != 127 && address == self.subnet.first();
        first || self.gateway == Some(address) || self.aux_addresses.values().any(|other| *other == address)
    }

    /// The lowest address that is free, as Docker gives them.
    pub(crate) fn lowest_free(&self, taken: &BTreeSet<Ipv6Addr>) -> Option<Ipv6Addr> {
        let range = self.ip_range.unwrap_or(self.subnet).network();
        let mut all = (range.first().to_bits()..=range.last().to_bits()).map(Ipv6Addr::from_bits);
        all.find(|address| !taken.contains(address) && !self.is_reserved(*address))
    }
}

/// The first network of the pools that overlaps nothing of `taken`.
pub(crate) fn free_network(pools: &[(Ipv6Net, u8)], taken: &[Ipv6Net]) -> Option<Ipv6Net> {
    pools.iter().find_map(|(pool, size)| pool.first_free(*size, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_given() {
        let mut pool = Pool6::new(net("fd00::/125"));
        assert_eq!(pool.gateway, Some(address("fd00::1")));
        let mut taken = BTreeSet::new();
        while let Some(free) = pool.lowest_free(&taken) {
            taken.insert(free);
        }
        let all: Vec<_> = taken.iter().map(|address| address.segments()[7]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6, 7], "there is no broadcast");
        taken.remove(&address("fd00::4"));
        assert_eq!(pool.lowest_free(&taken), Some(address("fd00::4")));
        pool.ip_range = Some(net("fd00::6/127"));
        pool.aux_addresses.insert("router".into(), address("fd00::6"));
        assert_eq!(pool.lowest_free(&BTreeSet::new()), Some(address("fd00::7")));
        assert!(pool.is_reserved(address("fd00::")) && pool.is_reserved(address("fd00::6")));
    }

    #[test]
    fn a_gateway_is_of_the_range() {
        let mut pool = Pool6 { gateway: None, ip_range: Some(net("fd00::8000/113")), ..Pool6::new(net("fd00::/64")) };
        pool.settle();
        assert_eq!(pool.gateway, Some(address("fd00::8000")));
        assert_eq!(pool.lowest_free(&BTreeSet::new()), Some(address("fd00::8001")));
    }

    #[test]
    fn pools_are_taken_in_order() {
        let pools = [(net("fd01::/64"), 64), (net("fd02::/48"), 64)];
        assert_eq!(free_network(&pools, &[]), Some(net("fd01::/64")));
        assert_eq!(free_network(&pools, &[net("fd01::5/128")]), Some(net("fd02::/64")));
        assert_eq!(free_network(&pools, &[net("fd00::/8")]), None);
    }
}
