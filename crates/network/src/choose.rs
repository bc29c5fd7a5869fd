//! Which addresses a new endpoint gets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::background::Leaving;
use crate::state::Network;
use crate::{EndpointRequest, NetworkError, NetworkRecord, Result};

/// The address of a new endpoint.
pub(crate) fn choose(
    network: &Network,
    request: &EndpointRequest<'_>,
    leaving: &[Leaving],
) -> Result<Option<Ipv4Addr>> {
    let record = &network.record;
    if let Some(address) = request.ip {
        requested(network, address.into(), record.subnet_chosen)?;
        return Ok(Some(address));
    }
    let pools = record.pools4();
    if pools.is_empty() {
        return Ok(None);
    }
    let taken: BTreeSet<Ipv4Addr> = network.taken();
    // The container had an address a moment ago: it is still its own.
    if let Some(old) = four(old_of(leaving, request)).find(|ip| !taken.contains(ip)) {
        return Ok(Some(old));
    }
    let rested = taken.iter().copied().chain(four(leaving)).collect();
    let free = |taken| pools.iter().find_map(|pool| pool.lowest_free(taken));
    // One that something may still answer for is better than none: that is seen to, then, before it is used.
    let free = free(&rested).or_else(|| free(&taken));
    Ok(Some(free.ok_or_else(|| full(record, "IPv4"))?))
}

/// As [`choose`], of IPv6.
pub(crate) fn choose6(
    network: &Network,
    request: &EndpointRequest<'_>,
    leaving: &[Leaving],
) -> Result<Option<Ipv6Addr>> {
    let record = &network.record;
    if let Some(address) = request.ip6 {
        requested(network, address.into(), record.pool6.as_ref().is_some_and(|pool| pool.chosen))?;
        return Ok(Some(address));
    }
    if record.pool6.is_none() || request.no_ipv6 {
        return Ok(None);
    }
    let taken: BTreeSet<Ipv6Addr> = network.taken6();
    let old = six(old_of(leaving, request)).find(|ip| record.contains((*ip).into()) && !taken.contains(ip));
    if old.is_some() {
        return Ok(old);
    }
    let rested = taken.iter().copied().chain(six(leaving)).collect();
    let free = |taken| record.pools6().find_map(|pool| pool.lowest_free(taken));
    let free = free(&rested).or_else(|| free(&taken));
    Ok(Some(free.ok_or_else(|| full(record, "IPv6"))?))
}

fn full(record: &NetworkRecord, family: &'static str) -> NetworkError {
    NetworkError::NoAddress { family, name: record.name.clone(), id: record.id.clone() }
}

fn old_of<'a>(leaving: &'a [Leaving], request: &'a EndpointRequest<'_>) -> impl Iterator<Item = &'a Leaving> {
    leaving.iter().filter(|old| old.container == request.container)
}

fn four<'a>(leaving: impl IntoIterator<Item = &'a Leaving>) -> impl Iterator<Item = Ipv4Addr> {
    let all = leaving.into_iter().flat_map(|old| &old.addresses);
    all.filter_map(|address| if let IpAddr::V4(address) = address { Some(*address) } else { None })
}

fn six<'a>(leaving: impl IntoIterator<Item = &'a Leaving>) -> impl Iterator<Item = Ipv6Addr> {
    let all = leaving.into_iter().flat_map(|old| &old.addresses);
    all.filter_map(|address| if let IpAddr::V6(address) = address { Some(*address) } else { None })
}

fn requested(network: &Network, address: IpAddr, chosen: bool) -> Result<()> {
    let record = &network.record;
    if record.predefined {
        return Err(NetworkError::Invalid(
            "user specified IP address is supported on user defined networks only".into(),
        ));
    }
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    if (address.is_ipv6() && record.pool6.is_none()) || (address.is_ipv4() && record.subnet.is_none()) {
        let message = format!("invalid address {address}: network {} has no {family}", record.name);
        return Err(NetworkError::Invalid(message));
    }
    if !chosen {
        return Err(NetworkError::Invalid(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .into(),
        ));
    }
    if !record.contains(address) {
        return Err(NetworkError::Invalid(format!(
            "invalid address {address}: it does not belong to any of this network's subnets"
        )));
    }
    if let Some(other) = network.owner(address) {
        return Err(NetworkError::AddressTaken { address, owner: format!("container {}", other.name) });
    }
    let reserved = match address {
        IpAddr::V4(address) => {
            record.pools4().iter().any(|pool| pool.subnet.contains(address) && pool.is_reserved(address))
        }
        IpAddr::V6(address) => record.pools6().any(|pool| pool.subnet.contains(address) && pool.is_reserved(address)),
    };
    if reserved {
        return Err(NetworkError::AddressTaken { address, owner: format!("network {}", record.name) });
    }
    Ok(())
}
