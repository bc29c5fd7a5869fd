//! Bridges, as the kernel has them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use wharf_netlink::MacAddress;
use wharf_netlink::route::{Batch, Bridge, Connection, Link};

use crate::mark::{self, Mark};
use crate::{GatewayMode, Ipv4Net, Ipv6Net, NetworkError, NetworkRecord, Result, sysctl};

/// The address of every bridge on its link, as Docker has it.
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The first of `wharf0`, `wharf1`… that no link has.
pub(crate) fn free_name(links: &[Link]) -> String {
    let taken: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    (0u32..).map(|number| format!("wharf{number}")).find(|name| !taken.contains(name.as_str())).unwrap_or_default()
}

/// Networks of the host that ours must not overlap: its addresses, and where its routes lead.
#[derive(Debug, Default)]
pub(crate) struct Occupied {
    pub(crate) v4: Vec<Ipv4Net>,
    pub(crate) v6: Vec<Ipv6Net>,
}

/// What the host has.
pub(crate) fn host_networks(route: &Connection) -> Result<Occupied> {
    let addresses = route.addresses()?.into_iter().map(|entry| (entry.address, entry.prefix));
    // The default route leads everywhere and takes nothing.
    let routes = route.routes()?.into_iter().map(|entry| entry.destination).filter(|(_, prefix)| *prefix > 0);
    let mut occupied = Occupied::default();
    for (address, prefix) in addresses.chain(routes) {
        match address {
            IpAddr::V4(address) => occupied.v4.extend(Ipv4Net::new(address, prefix)),
            IpAddr::V6(address) => occupied.v6.extend(Ipv6Net::new(address, prefix)),
        }
    }
    Ok(occupied)
}

/// Makes the bridge of a network, or completes one that is there, and gives its index. A bridge that the user has made
/// is used when the network names it (`com.docker.network.bridge.name`), gets no mark, and so is not removed by us.
pub(crate) fn ensure(route: &Connection, instance: &str, record: &NetworkRecord) -> Result<u32> {
    let Some(name) = &record.bridge else {
        return Err(NetworkError::Invalid(format!("network {} has no bridge", record.name)));
    };
    if record.pool6.is_some() && !sysctl::has_ipv6() {
        let message = format!("network {} needs IPv6, which this host's kernel does not have", record.name);
        return Err(NetworkError::Invalid(message));
    }
    let there = match route.link(name)? {
        Some(link) if mark::is_of_another(instance, &link.alias) => {
            return Err(NetworkError::Invalid(format!("the bridge `{name}` is another daemon's")));
        }
        Some(link) if link.kind != "bridge" => {
            return Err(NetworkError::Invalid(format!("the link `{name}` is there and no bridge")));
        }
        there => there,
    };
    let ours = there.as_ref().is_none_or(|link| mark::read(instance, &link.alias).is_some());
    let mut batch = Batch::new();
    match there {
        Some(link) if mark::read(instance, &link.alias).is_none() => {
            batch.set_up(link.index);
        }
        Some(_) => {
            batch.mark_and_set_up(name, &mark::bridge(instance, &record.id), sysctl::link_has_ipv6(record.mtu));
        }
        None => {
            batch.create_bridge(&Bridge { name, mac: random_mac()?, mtu: record.mtu });
            batch.mark_and_set_up(name, &mark::bridge(instance, &record.id), sysctl::link_has_ipv6(record.mtu));
        }
    }
    route.apply(batch)?;
    let Some(link) = route.link(name)? else {
        return Err(NetworkError::NotFound(record.name.clone()));
    };
    let mut wanted: Vec<(IpAddr, u8)> = Vec::new();
    let own4 = record.gateway.filter(|_| !record.is_without_address4());
    if let (Some(subnet), Some(gateway)) = (record.subnet, own4) {
        wanted.push((gateway.into(), subnet.prefix()));
        // Without it the host's own packets from 127.0.0.1 to a published port would have no way to the container.
        sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    }
    let pool6 = record.pool6.as_ref().filter(|_| record.mode6 != GatewayMode::Isolated);
    if pool6.is_none() && ours && sysctl::has_ipv6() {
        // Nobody speaks IPv6 there, neither as a router (CVE-2020-13401) nor by addresses of a time when it had some. Some
        // hosts let nobody set it; then what is new there has no IPv6 of ours either.
        if let Err(error) = sysctl::ensure(&format!("ipv6/conf/{name}/disable_ipv6"), "1") {
            tracing::warn!("the bridge {name} keeps the host's IPv6: {error}");
        }
    }
    if let Some(pool) = pool6 {
        // Hosts may have it off for what comes new; and no container is this host's router.
        sysctl::ensure(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
        sysctl::ensure(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        wanted.push((LINK_LOCAL.into(), 64));
        wanted.extend(pool.gateway.map(|gateway| (gateway.into(), pool.subnet.prefix())));
    }
    // A network may have the prefix of link-local addresses.
    wanted.dedup();
    let there = route.addresses()?;
    wanted.retain(|(address, _)| !there.iter().any(|entry| entry.link == link.index && entry.address == *address));
    if !wanted.is_empty() {
        let mut batch = Batch::new();
        for (address, prefix) in &wanted {
            batch.add_address(link.index, *address, *prefix);
        }
        route.apply(batch)?;
        let addresses: Vec<IpAddr> = wanted.into_iter().map(|(address, _)| address).collect();
        await_heard(route, link.index, &addresses)?;
    }
    Ok(link.index)
}

/// Takes the addresses off a bridge of ours that a network had there and is not to have any more.
pub(crate) fn forget_addresses(instance: &str, before: &NetworkRecord, now: &NetworkRecord) -> Result<()> {
    let nets = |record: &NetworkRecord| -> Vec<(IpAddr, u8)> {
        let four = record.gateway.zip(record.subnet).map(|(address, net)| (address.into(), net.prefix()));
        let six = record.pool6.as_ref().and_then(|pool| Some((pool.gateway?.into(), pool.subnet.prefix())));
        four.into_iter().chain(six).collect()
    };
    let wanted = nets(now);
    let old: Vec<_> = nets(before).into_iter().filter(|net| !wanted.contains(net)).collect();
    let Some(name) = before.bridge.as_ref().filter(|_| !old.is_empty()) else { return Ok(()) };
    let route = Connection::open()?;
    let Some(link) = route.link(name)?.filter(|link| mark::read(instance, &link.alias).is_some()) else {
        return Ok(());
    };
    let mut batch = Batch::new();
    for entry in route.addresses()?.into_iter().filter(|entry| entry.link == link.index) {
        if old.contains(&(entry.address, entry.prefix)) {
            batch.delete_address(link.index, entry.address, entry.prefix);
        }
    }
    Ok(route.apply(batch)?)
}

/// How long the kernel may take to hear what is said to a new address.
const PATIENCE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_micros(200);

/// Waits until a link hears neighbours that ask for its new addresses of IPv6. The kernel joins their groups (RFC 4291,
/// 2.7.1) by a thread of its own some moments after it has given the address, and who asks meanwhile asks again only
/// after a second.
pub(crate) fn await_heard(route: &Connection, link: u32, addresses: &[IpAddr]) -> Result<()> {
    let group = |address: &IpAddr| match address {
        IpAddr::V6(address) => {
            let [.., a, b] = address.segments();
            Some((link, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a & 0xff, b)))
        }
        IpAddr::V4(_) => None,
    };
    let wanted: Vec<_> = addresses.iter().filter_map(group).collect();
    let until = Instant::now() + PATIENCE;
    while !wanted.is_empty() && Instant::now() < until {
        let heard = route.groups6()?;
        if wanted.iter().all(|group| heard.contains(group)) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Links that carry our mark.
pub(crate) fn ours(links: &[Link], instance: &str) -> Vec<(String, Mark)> {
    links.iter().filter_map(|link| Some((link.name.clone(), mark::read(instance, &link.alias)?))).collect()
}

/// An address of its own for a bridge: locally administered, unicast.
fn random_mac() -> Result<MacAddress> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|error| NetworkError::Invalid(format!("no random bytes: {error}")))?;
    bytes[0] = bytes[0] & 0xfc | 0x02;
    Ok(MacAddress(bytes))
}
