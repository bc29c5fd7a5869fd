//! Checks the addresses that a new network asks for, with Docker's words (moby, `ValidateIPAM`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::{Ipv4Net, Ipv6Net, NetworkError, PoolRequest, Result};

/// What both families have.
pub(crate) trait Net: Copy + PartialEq + fmt::Debug + fmt::Display + FromStr {
    type Address: Copy + FromStr + PartialEq + fmt::Debug + fmt::Display;
    const FAMILY: &'static str;
    fn network(self) -> Self;
    fn address(self) -> Self::Address;
    /// The same address with another prefix.
    fn resized(self, prefix: u8) -> Self;
    fn prefix(self) -> u8;
    fn has(self, address: Self::Address) -> bool;
    fn meets(self, other: Self) -> bool;
}

impl Net for Ipv4Net {
    type Address = Ipv4Addr;
    const FAMILY: &'static str = "IPv4";

    fn network(self) -> Self {
        self.network()
    }

    fn address(self) -> Self::Address {
        self.address()
    }

    fn resized(self, prefix: u8) -> Self {
        Self::new(self.address(), prefix).unwrap_or(self)
    }

    fn prefix(self) -> u8 {
        self.prefix()
    }

    fn has(self, address: Ipv4Addr) -> bool {
        self.contains(address)
    }

    fn meets(self, other: Self) -> bool {
        self.overlaps(other)
    }
}

impl Net for Ipv6Net {
    type Address = Ipv6Addr;
    const FAMILY: &'static str = "IPv6";

    fn network(self) -> Self {
        self.network()
    }

    fn address(self) -> Self::Address {
        self.address()
    }

    fn resized(self, prefix: u8) -> Self {
        Self::new(self.address(), prefix).unwrap_or(self)
    }

    fn prefix(self) -> u8 {
        self.prefix()
    }

    fn has(self, address: Ipv6Addr) -> bool {
        self.contains(address)
    }

    fn meets(self, other: Self) -> bool {
        self.overlaps(other)
    }
}

/// A subnet that was asked for, with what goes with it.
#[derive(Debug)]
pub(crate) struct Subnet<N: Net> {
    pub(crate) net: N,
    pub(crate) gateway: Option<N::Address>,
    pub(crate) ip_range: Option<N>,
    pub(crate) aux_addresses: BTreeMap<String, N::Address>,
}

/// The subnets of each family that a network asks for.
#[derive(Debug, Default)]
pub(crate) struct Subnets {
    pub(crate) v4: Vec<Subnet<Ipv4Net>>,
    pub(crate) v6: Vec<Subnet<Ipv6Net>>,
    /// Those of a family that it does not have, which nobody looks at, as in Docker.
    pub(crate) unused: Vec<PoolRequest>,
}

/// Reads and checks what is asked for; `several` of a family are for networks on one of the host's links alone.
///
/// # Errors
/// `Invalid` with all that is wrong; `Forbidden` for a second subnet of a family where there can be none.
pub(crate) fn check(config: &[PoolRequest], ipv4: bool, ipv6: bool, several: bool) -> Result<Subnets> {
    let subnets = read_all(config, ipv4, ipv6)?;
    if !several && subnets.v4.len().max(subnets.v6.len()) > 1 {
        return Err(NetworkError::Forbidden("bridge driver doesn't support multiple subnets".into()));
    }
    for (family, empty) in [("4", none(&subnets.v4)), ("6", none(&subnets.v6))] {
        if empty {
            return Err(NetworkError::Invalid(format!("ipv{family} pool is empty")));
        }
    }
    Ok(subnets)
}

/// Whether all addresses are asked for, which to Docker are none.
fn none<N: Net>(subnets: &[Subnet<N>]) -> bool {
    subnets.iter().any(|subnet| subnet.net.prefix() == 0)
}

/// Checks what is asked for as far as no driver has to be known.
///
/// # Errors
/// `Invalid` with all that is wrong.
pub(crate) fn check_each(config: &[PoolRequest], ipv4: bool, ipv6: bool) -> Result<()> {
    read_all(config, ipv4, ipv6).map(drop)
}

fn read_all(config: &[PoolRequest], ipv4: bool, ipv6: bool) -> Result<Subnets> {
    let (mut subnets, mut faults) = (Subnets::default(), Vec::new());
    for pool in config {
        if let Ok(net) = pool.subnet.parse::<Ipv4Net>() {
            if ipv4 {
                subnets.v4.push(read(net, pool, &mut faults));
            } else {
                subnets.unused.push(pool.clone());
            }
        } else if let Ok(net) = pool.subnet.parse::<Ipv6Net>() {
            if ipv6 {
                subnets.v6.push(read(net, pool, &mut faults));
            } else {
                subnets.unused.push(pool.clone());
            }
        } else {
            faults.push(format!("invalid subnet {}: invalid CIDR block notation", pool.subnet));
        }
    }
    match faults.as_slice() {
        [] => Ok(subnets),
        [only] => Err(NetworkError::Invalid(format!("invalid network config:\n{only}"))),
        several => Err(NetworkError::Invalid(format!("invalid network config:\n* {}", several.join("\n* ")))),
    }
}

fn read<N: Net>(net: N, pool: &PoolRequest, faults: &mut Vec<String>) -> Subnet<N> {
    if net != net.network() {
        faults.push(format!("invalid subnet {net}: it should be {}", net.network()));
    }
    let mut subnet = Subnet { net, gateway: None, ip_range: None, aux_addresses: BTreeMap::new() };
    if !pool.ip_range.is_empty() {
        subnet.ip_range = range(net, &pool.ip_range, faults);
    }
    if !pool.gateway.is_empty() {
        match address(net, &pool.gateway) {
            Ok(found) => subnet.gateway = Some(found),
            Err(why) => faults.push(format!("invalid gateway {}: {why}", pool.gateway)),
        }
    }
    for (name, text) in &pool.aux_addresses {
        match address(net, text) {
            Ok(found) => drop(subnet.aux_addresses.insert(name.clone(), found)),
            Err(why) => faults.push(format!("invalid auxiliary address {name}: {why}")),
        }
    }
    subnet
}

fn range<N: Net>(net: N, text: &str, faults: &mut Vec<String>) -> Option<N> {
    let before = faults.len();
    let Ok(range) = text.parse::<N>() else {
        let is_other = text.parse::<Ipv4Net>().is_ok() || text.parse::<Ipv6Net>().is_ok();
        faults.push(if is_other {
            format!("invalid ip-range {text}: parent subnet is an {} block", N::FAMILY)
        } else {
            format!("invalid ip-range {text}: invalid CIDR block notation")
        });
        return None;
    };
    if range.prefix() < net.prefix() {
        faults.push(format!("invalid ip-range {text}: CIDR block is bigger than its parent subnet {net}"));
    }
    if range != range.network() {
        faults.push(format!("invalid ip-range {range}: it should be {}", range.network()));
    }
    if !net.meets(range) {
        faults.push(format!("invalid ip-range {text}: parent subnet {net} doesn't contain ip-range"));
    }
    (faults.len() == before).then_some(range)
}

/// An address; a prefix behind it is that of its subnet, as some clients write it.
fn address<N: Net>(net: N, text: &str) -> std::result::Result<N::Address, String> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    if bare.parse::<IpAddr>().is_err() {
        return Err("invalid address".into());
    }
    let Ok(address) = bare.parse::<N::Address>() else {
        return Err(format!("parent subnet is an {} block", N::FAMILY));
    };
    if net.has(address) { Ok(address) } else { Err(format!("parent subnet {net} doesn't contain this address")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, ip_range: &str, gateway: &str) -> PoolRequest {
        PoolRequest {
            subnet: subnet.into(),
            ip_range: ip_range.into(),
            gateway: gateway.into(),
            aux_addresses: BTreeMap::new(),
        }
    }

    #[test]
    fn one_subnet_of_each_family() {
        let both = [pool("fd00:1::/64", "fd00:1::8000/113", "fd00:1::99"), pool("10.1.0.0/16", "", "10.1.0.9/16")];
        let found = check(&both, true, true, false).unwrap();
        let (four, six) = (&found.v4[0], &found.v6[0]);
        assert_eq!((four.net.to_string(), four.gateway), ("10.1.0.0/16".into(), Some(Ipv4Addr::new(10, 1, 0, 9))));
        assert_eq!(six.ip_range.unwrap().to_string(), "fd00:1::8000/113");
        assert_eq!(six.gateway.unwrap().to_string(), "fd00:1::99");
        let found = check(&both, true, false, false).unwrap();
        assert!(found.v4.len() == 1 && found.v6.is_empty(), "what the network does not have is left out");
        let twice = [pool("fd00:1::/64", "", ""), pool("fd00:2::/64", "", "")];
        assert_eq!(check(&twice, true, true, true).unwrap().v6.len(), 2);
        let twice = check(&twice, true, true, false).unwrap_err();
        assert_eq!(twice.to_string(), "bridge driver doesn't support multiple subnets");
    }

    #[test]
    fn subnets_of_one_or_two_addresses_are_taken() {
        for subnet in ["10.1.0.0/31", "10.1.0.0/32", "fd00::/127", "fd00::/128"] {
            assert!(check(&[pool(subnet, "", "")], true, true, false).is_ok(), "{subnet}");
        }
        for (subnet, words) in [("0.0.0.0/0", "ipv4 pool is empty"), ("::/0", "ipv6 pool is empty")] {
            assert_eq!(check(&[pool(subnet, "", "")], true, true, false).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn faults_have_docker_s_words() {
        let faults = [
            (pool("fd00::", "", ""), "invalid subnet fd00::: invalid CIDR block notation"),
            (pool("", "", ""), "invalid subnet : invalid CIDR block notation"),
            (pool("", "", "10.0.0.1"), "invalid subnet : invalid CIDR block notation"),
            (pool("fd00::1/64", "", ""), "invalid subnet fd00::1/64: it should be fd00::/64"),
            (pool("10.1.2.3/16", "", ""), "invalid subnet 10.1.2.3/16: it should be 10.1.0.0/16"),
            (pool("fd00::/64", "10.0.0.0/24", ""), "invalid ip-range 10.0.0.0/24: parent subnet is an IPv6 block"),
            (
                pool("fd00::/64", "fd00::/60", ""),
                "invalid ip-range fd00::/60: CIDR block is bigger than its parent subnet fd00::/64",
            ),
            (
                pool("10.0.0.0/24", "10.0.1.0/28", ""),
                "invalid ip-range 10.0.1.0/28: parent subnet 10.0.0.0/24 doesn't contain ip-range",
            ),
            (pool("fd00::/64", "", "10.0.0.1"), "invalid gateway 10.0.0.1: parent subnet is an IPv6 block"),
            (
                pool("fd00::/64", "", "fd01::1"),
                "invalid gateway fd01::1: parent subnet fd00::/64 doesn't contain this address",
            ),
            (pool("fd00::/64", "", "x"), "invalid gateway x: invalid address"),
        ];
        for (pool, words) in faults {
            let error = check(&[pool], true, true, false).unwrap_err().to_string();
            assert_eq!(error, format!("invalid network config:\n{words}"));
        }
        let two = check(&[pool("fd00::1/64", "", "x")], true, true, false).unwrap_err().to_string();
        assert_eq!(two.lines().filter(|line| line.starts_with("* ")).count(), 2, "{two}");
    }
}
