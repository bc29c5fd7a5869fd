//! What the kernel and the relay have of published ports when a daemon starts.
//!
//! Rows of published ports are not forced to the disk: after a crash they may be those of a moment before, or missing.
//! Rules and relay live on with the containers, and are what holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wharf_netlink::nft::Family;

use crate::networks::Inner;
use crate::ports::{self, Group};
use crate::{Networks, Published, Result, firewall};

/// The maps that ports are in.
const MAPS: [&str; 4] = [firewall::PUBLISHED, firewall::PUBLISHED_AT, firewall::RANGES, firewall::OPEN];

/// A container's ports, each with the address that it leads to.
type Led = BTreeSet<(IpAddr, Published)>;

fn led(groups: &[Group], family: Family) -> Led {
    let own = groups.iter().filter(|group| firewall::family_of(group.address) == family);
    own.flat_map(|group| group.ports.iter().filter(|port| !group.relays(port)).map(|port| (group.address, *port)))
        .collect()
}

fn grouped(led: Led) -> Vec<Group> {
    let mut groups: BTreeMap<IpAddr, Vec<Published>> = BTreeMap::new();
    for (address, port) in led {
        groups.entry(address).or_default().push(port);
    }
    groups.into_iter().map(|(address, ports)| Group { address, ports }).collect()
}

impl Networks {
    /// Notes what our tables say of published ports, where rows say something else. A table that is not there, as after a
    /// start of the host, says nothing.
    pub(crate) fn take_up_ports(&self) -> Result<()> {
        let inner = &*self.inner;
        // A daemon that is to have none may have come in the place of one that had.
        if !inner.options.rules && !inner.is_led() {
            return Ok(());
        }
        for family in inner.families() {
            let Some(there) = inner.led_by_kernel(family)? else { continue };
            let noted = inner.ports().groups.clone();
            let containers: BTreeSet<&String> = there.keys().chain(noted.keys()).collect();
            for container in containers {
                let now = there.get(container).cloned().unwrap_or_default();
                let groups = noted.get(container).map(Vec::as_slice).unwrap_or_default();
                if led(groups, family) == now {
                    continue;
                }
                tracing::warn!(
                    container,
                    "the published ports in the firewall are not those in the store and are noted"
                );
                let mut ports = inner.ports();
                for group in groups.iter().filter(|group| firewall::family_of(group.address) == family) {
                    let out: Vec<Published> = group.ports.iter().filter(|port| !group.relays(port)).copied().collect();
                    ports.remove_ports(container, &[Group { address: group.address, ports: out }]);
                }
                grouped(now).into_iter().for_each(|group| ports.add(container, group));
                drop(ports);
                inner.write_groups(container)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Whether there are rules of ours, as of a daemon before this one.
    pub(crate) fn is_led(&self) -> bool {
        let (mark, nft) = (self.mark(), self.nft());
        self.families().into_iter().any(|family| nft.tables(family).is_ok_and(|tables| tables.contains(&mark)))
    }

    /// What our table of a family leads to containers, by their IDs; `None` when there is no such table.
    fn led_by_kernel(&self, family: Family) -> Result<Option<BTreeMap<String, Led>>> {
        let (mark, nft) = (self.mark(), self.nft());
        if !nft.tables(family)?.contains(&mark) {
            return Ok(None);
        }
        let mut all: BTreeMap<String, Led> = BTreeMap::new();
        for map in MAPS {
            for element in nft.elements(firewall::table(family, &mark), map)? {
                let Some((container, group)) = ports::read_element(family, map, &element) else { continue };
                let own = all.entry(container).or_default();
                own.extend(group.ports.iter().map(|port| (group.address, *port)));
            }
        }
        Ok(Some(all))
    }
}
