//! Which subnet a network gets, and which hardware address goes with an address.

use std::net::{IpAddr, Ipv4Addr};

use crate::{Ipv4Net, MacAddress};

/// Docker's pools (its daemon's `default-address-pools`): a network, and the prefix of the networks in it.
const POOLS: [(Ipv4Addr, u8, u8); 7] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 18, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 19, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 24, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 28, 0, 0), 14, 16),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];

/// Where networks come from when Docker's 31 are all taken, its daemon gives up, and nobody has said where else: 16,384 more.
/// Small ones, in the part of 10.0.0.0/8 that is numbered last.
const FURTHER: (Ipv4Addr, u8, u8) = (Ipv4Addr::new(10, 192, 0, 0), 10, 24);

/// The first network of the pools that overlaps nothing of `taken`; `pools` empty means Docker's, and what follows them.
pub(crate) fn free_network(pools: &[(Ipv4Net, u8)], taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let default: Vec<_> = POOLS
        .into_iter()
        .chain([FURTHER])
        .filter_map(|(address, prefix, size)| Some((Ipv4Net::new(address, prefix)?, size)))
        .collect();
    let pools = if pools.is_empty() { &default } else { pools };
    let all = pools.iter().flat_map(|(pool, size)| pool.split(*size));
    all.into_iter().find(|net| !taken.iter().any(|other| other.overlaps(*net)))
}

/// The hardware address that goes with an address. Made of it, so that what others remember of an address stays
/// true when another container gets it.
pub(crate) fn mac_of(address: IpAddr) -> MacAddress {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            MacAddress([0x02, 0x42, a, b, c, d])
        }
        // All sixteen bytes count (FNV-1a): addresses of one subnet may have their last ones in common.
        IpAddr::V6(address) => {
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            let [_, _, _, a, b, c, d, e] = address.octets().into_iter().fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes();
            MacAddress([0x02, a, b, c, d, e])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn networks_come_from_the_pools_in_docker_s_order() {
        let mut taken = Vec::new();
        for _ in 0..300 {
            taken.push(free_network(&[], &taken).unwrap());
        }
        assert_eq!((taken[0], taken[14]), (net("172.17.0.0/16"), net("172.31.0.0/16")));
        assert_eq!((taken[15], taken[30]), (net("192.168.0.0/20"), net("192.168.240.0/20")));
        // Docker's are used up.
        assert_eq!((taken[31], taken[299]), (net("10.192.0.0/24"), net("10.193.12.0/24")));
    }

    #[test]
    fn what_the_host_has_is_left_out() {
        assert_eq!(free_network(&[], &[net("172.17.5.0/24")]), Some(net("172.18.0.0/16")));
        assert_eq!(free_network(&[], &[net("172.16.0.0/12")]), Some(net("192.168.0.0/20")));
        assert_eq!(free_network(&[(net("10.0.0.0/8"), 24)], &[net("10.0.0.0/24")]), Some(net("10.0.1.0/24")));
        assert_eq!(free_network(&[(net("10.0.0.0/24"), 24)], &[net("10.0.0.0/8")]), None);
    }
}
