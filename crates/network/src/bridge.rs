//! Bridges, as the kernel has them.

use std::collections::BTreeSet;

use wharf_netlink::MacAddress;
use wharf_netlink::route::{Batch, Bridge, Connection, Link};

use crate::mark::{self, Mark};
use crate::{Ipv4Net, NetworkError, NetworkRecord, Result, sysctl};

/// The first of `wharf0`, `wharf1`… that no link has.
pub(crate) fn free_name(links: &[Link]) -> String {
    let taken: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    (0u32..).map(|number| format!("wharf{number}")).find(|name| !taken.contains(name.as_str())).unwrap_or_default()
}

/// Networks of the host that ours must not overlap: its addresses, and where its routes lead.
pub(crate) fn host_networks(route: &Connection) -> Result<Vec<Ipv4Net>> {
    let addresses = route.addresses()?.into_iter().map(|entry| (entry.address, entry.prefix));
    // The default route leads everywhere and takes nothing.
    let routes = route.routes()?.into_iter().map(|entry| entry.destination).filter(|(_, prefix)| *prefix > 0);
    Ok(addresses.chain(routes).filter_map(|(address, prefix)| Ipv4Net::new(address, prefix)).collect())
}

/// Makes the bridge of a network, or completes one that is there, and gives its index. A bridge that the user has made
/// is used when the network names it (`com.docker.network.bridge.name`), gets no mark, and so is not removed by us.
pub(crate) fn ensure(route: &Connection, instance: &str, record: &NetworkRecord) -> Result<u32> {
    let (Some(name), Some(subnet), Some(gateway)) = (&record.bridge, record.subnet, record.gateway) else {
        return Err(NetworkError::Invalid(format!("network {} has no bridge", record.name)));
    };
    let there = match route.link(name)? {
        Some(link) if mark::is_of_another(instance, &link.alias) => {
            return Err(NetworkError::Invalid(format!("the bridge `{name}` is another daemon's")));
        }
        Some(link) if link.kind != "bridge" => {
            return Err(NetworkError::Invalid(format!("the link `{name}` is there and no bridge")));
        }
        there => there,
    };
    let mut batch = Batch::new();
    match there {
        Some(link) if mark::read(instance, &link.alias).is_none() => {
            batch.set_up(link.index);
        }
        Some(_) => {
            batch.mark_and_set_up(name, &mark::bridge(instance, &record.id));
        }
        None => {
            batch.create_bridge(&Bridge { name, mac: random_mac()?, mtu: record.mtu });
            batch.mark_and_set_up(name, &mark::bridge(instance, &record.id));
        }
    }
    route.apply(batch)?;
    let Some(link) = route.link(name)? else {
        return Err(NetworkError::NotFound(record.name.clone()));
    };
    let addresses = route.addresses()?;
    if !addresses.iter().any(|entry| entry.link == link.index && entry.address == gateway) {
        let mut batch = Batch::new();
        batch.add_address(link.index, gateway, subnet.prefix());
        route.apply(batch)?;
    }
    // Without it the host's own packets from 127.0.0.1 to a published port would have no way to the container.
    sysctl::ensure(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    Ok(link.index)
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
