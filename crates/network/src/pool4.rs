//! An IPv4 subnet of a network, and which of its addresses a container gets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Ipv4Net;

/// An IPv4 subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool4 {
    pub subnet: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    /// Whether the user chose it.
    pub gateway_chosen: bool,
    /// Containers get addresses of this part of the subnet only.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses that no container gets, by the user's names for them.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
}

impl Pool4 {
    /// Addresses that no container gets.
    fn reserved(&self) -> BTreeSet<Ipv4Addr> {
        let subnet = self.subnet.network();
        let mut reserved: BTreeSet<_> = self.aux_addresses.values().copied().chain(self.gateway).collect();
        // In a network of two addresses both are hosts (RFC 3021).
        if subnet.prefix() < 31 {
            reserved.extend([subnet.first(), subnet.last()]);
        }
        reserved
    }

    /// The lowest address that is free, as Docker gives them.
    pub(crate) fn lowest_free(&self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (range, reserved) = (self.ip_range.unwrap_or(self.subnet).network(), self.reserved());
        let mut all = (range.first().to_bits()..=range.last().to_bits()).map(Ipv4Addr::from_bits);
        all.find(|address| !reserved.contains(address) && !taken.contains(address))
    }

    /// Whether nobody may have this address of the subnet.
    pub(crate) fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.reserved().contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, gateway: Option<&str>) -> Pool4 {
        Pool4 {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            gateway_chosen: false,
            ip_range: None,
            aux_addresses: BTreeMap::new(),
        }
    }

    fn all(pool: &Pool4) -> Vec<u8> {
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(address) = pool.lowest_free(&taken) {
            taken.insert(address);
            given.push(address.octets()[3]);
        }
        given
    }

    #[test]
    fn the_lowest_free_address_is_given() {
        let mut pool = pool("10.0.0.0/29", Some("10.0.0.1"));
        assert_eq!(all(&pool), [2, 3, 4, 5, 6]);
        let taken = [2, 4, 5, 6].map(|last| Ipv4Addr::new(10, 0, 0, last)).into();
        assert_eq!(pool.lowest_free(&taken), Some(Ipv4Addr::new(10, 0, 0, 3)));
        pool.ip_range = Some("10.0.0.6/31".parse().unwrap());
        pool.aux_addresses.insert("router".into(), Ipv4Addr::new(10, 0, 0, 6));
        assert_eq!(pool.lowest_free(&BTreeSet::new()), None, "6 is the router's and 7 the broadcast");
    }

    #[test]
    fn of_two_addresses_both_are_hosts() {
        assert_eq!(all(&pool("10.0.0.0/31", None)), [0, 1]);
        assert_eq!(all(&pool("10.0.0.0/31", Some("10.0.0.0"))), [1]);
        assert_eq!(all(&pool("10.0.0.7/32", None)), [7]);
    }
}
