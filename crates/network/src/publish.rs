//! Publishing ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_netlink::conntrack::{self, Exchanges};
use wharf_netlink::nft::{self, Family};
use wharf_store::WriteTx;

use crate::networks::Inner;
use crate::ports::{self, Group, PORTS, Wanted};
use crate::{NetworkError, NetworkRecord, Networks, PortRequest, Protocol, PublishPolicy, Published, Result, firewall};

/// Ports whose tracked exchanges are looked for one by one. More would take longer than it is worth.
const MAX_FORGOTTEN: usize = 32;

impl Networks {
    /// Publishes ports of a container that has `addresses` in our networks, at most one of each family; all of them, or
    /// none.
    ///
    /// What is published is reached from other hosts, from the host's own addresses, from its loopback and from other
    /// containers. A port without an address of the host's is published for every family that the container has, under
    /// one number; on IPv6 for one that has IPv4 alone, too, where there is a relay ([`NetworkOptions::relay`]). In an internal
    /// network and in one of macvlan nothing is published, as Docker does.
    ///
    /// # Errors
    /// `PortTaken` names who has a port: a container, or a program of the host. `Invalid` for an address of the host's of
    /// a family that the container does not have, but IPv6 with a relay.
    pub fn publish(&self, container: &str, addresses: &[IpAddr], ports: &[PortRequest]) -> Result<Vec<Published>> {
        let inner = &*self.inner;
        let mut reached = Vec::new();
        {
            let state = inner.state();
            for address in addresses {
                let network = state.records().find(|record| record.contains(*address));
                let network = network.ok_or_else(|| NetworkError::NotFound(format!("for address {address}")))?;
                reached.extend(network.publishes().then(|| (*address, network.clone())));
            }
        }
        if reached.is_empty() || ports.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<Wanted> =
            ports.iter().map(|port| inner.places(container, port, &reached)).collect::<Result<_>>()?;
        let groups = inner.ports().reserve(container, &wanted)?;
        let made = inner.write_groups(container).and_then(|()| inner.relay(container, &groups));
        if let Err(error) = made.and_then(|()| inner.add_elements(container, &groups)) {
            inner.stop_relaying(container, &groups);
            inner.ports().remove_groups(container, &groups);
            if let Err(left) = inner.write_groups(container) {
                tracing::warn!(error = ?left, "the row of published ports is left");
            }
            return Err(error);
        }
        groups.iter().for_each(|group| inner.forget_sent(group));
        Ok(groups.into_iter().flat_map(|group| group.ports).collect())
    }

    /// Takes back all that a container has published. Nothing published is no error.
    ///
    /// # Errors
    /// When the disk fails or the kernel refuses.
    pub fn unpublish(&self, container: &str) -> Result<()> {
        let inner = &*self.inner;
        let groups = inner.ports().groups.get(container).cloned().unwrap_or_default();
        if groups.is_empty() {
            return Ok(());
        }
        inner.delete_elements(container, &groups)?;
        inner.stop_relaying(container, &groups);
        // Then the row, then the sockets: nobody else gets a port whose rule is still there.
        inner.store.write_soon::<_, NetworkError>(|tx| Ok(tx.delete(PORTS, container).map(drop)?))?;
        inner.ports().remove(container);
        if groups.iter().flat_map(|group| &group.ports).any(|port| port.protocol == Protocol::Udp) {
            let answered: Vec<_> = groups.iter().map(|group| Exchanges::AnsweredBy(group.address)).collect();
            inner.forget_exchanges(&answered);
        }
        Ok(())
    }

    /// Takes single ports of a container back; one that is not published is what was wanted.
    ///
    /// # Errors
    /// When the disk fails or the kernel refuses.
    pub fn unpublish_ports(&self, container: &str, gone: &[Published]) -> Result<()> {
        let inner = &*self.inner;
        let all = inner.ports().groups.get(container).cloned().unwrap_or_default();
        let touched: Vec<Group> =
            all.into_iter().filter(|group| group.ports.iter().any(|port| gone.contains(port))).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let part = |group: &Group, goes: bool| {
            let ports = group.ports.iter().filter(|port| gone.contains(port) == goes).copied().collect();
            Group { address: group.address, ports }
        };
        let out: Vec<Group> = touched.iter().map(|group| part(group, true)).collect();
        let stay: Vec<Group> = touched.iter().map(|group| part(group, false)).collect();
        // Runs of ports are one element, so what stays of a group is made anew.
        inner.exchange_elements(container, &touched, &stay)?;
        inner.stop_relaying(container, &out);
        inner.ports().remove_ports(container, &out);
        // A row of before would publish again.
        self.sync_published(container)?;
        let ports = out.iter().flat_map(|group| &group.ports).filter(|port| port.protocol == Protocol::Udp);
        let sent: Vec<_> =
            ports.map(|port| Exchanges::SentTo { port: port.host_port, ipv6: port.host_ip.is_ipv6() }).collect();
        if sent.len() <= MAX_FORGOTTEN {
            inner.forget_exchanges(&sent);
        }
        Ok(())
    }

    /// Takes back what a container has published at some of its addresses.
    pub(crate) fn unpublish_at(&self, container: &str, addresses: &[IpAddr]) -> Result<()> {
        let inner = &*self.inner;
        let all = inner.ports().groups.get(container).cloned().unwrap_or_default();
        let gone: Vec<Group> = all.into_iter().filter(|group| addresses.contains(&group.address)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        inner.delete_elements(container, &gone)?;
        inner.stop_relaying(container, &gone);
        inner.ports().remove_groups(container, &gone);
        // Forced to the disk: a row of before would publish again at an address that may be another's by then.
        let left = inner.ports().groups.get(container).cloned();
        inner.store.write::<_, NetworkError>(|tx| put_groups(tx, container, left.as_deref()))?;
        let answered: Vec<_> = gone.iter().map(|group| Exchanges::AnsweredBy(group.address)).collect();
        inner.forget_exchanges(&answered);
        Ok(())
    }

    /// Forces to the disk what a container has published.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync_published(&self, container: &str) -> Result<()> {
        let groups = self.inner.ports().groups.get(container).cloned();
        self.inner.store.write::<_, NetworkError>(|tx| put_groups(tx, container, groups.as_deref()))
    }

    /// What a container has published.
    pub fn published(&self, container: &str) -> Vec<Published> {
        let ports = self.inner.ports();
        ports.groups.get(container).into_iter().flatten().flat_map(|group| &group.ports).copied().collect()
    }
}

fn put_groups(tx: &WriteTx, container: &str, groups: Option<&[Group]>) -> Result<()> {
    match groups {
        Some(groups) => tx.put(PORTS, container, &groups)?,
        None => drop(tx.delete(PORTS, container)?),
    }
    Ok(())
}

impl Inner {
    /// Where a port is to be published: addresses of the host's, each with the container's of the same family.
    fn places(&self, container: &str, request: &PortRequest, reached: &[(IpAddr, NetworkRecord)]) -> Result<Wanted> {
        let (mut places, mut routed) = (Vec::new(), Vec::new());
        for (address, network) in reached {
            if network.routes(*address) {
                // Of the host's address the family counts alone.
                if request.host_ip.is_none_or(|host_ip| host_ip.is_ipv4() == address.is_ipv4()) {
                    let any4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
                    routed.push((if address.is_ipv4() { any4 } else { Ipv6Addr::UNSPECIFIED.into() }, *address));
                }
                continue;
            }
            let host_ip = match request.host_ip {
                Some(host_ip) => Some(host_ip),
                None => self.default_binding(address.is_ipv4(), network),
            };
            places.extend(host_ip.filter(|host_ip| host_ip.is_ipv4() == address.is_ipv4()).map(|ip| (ip, *address)));
        }
        places.extend(self.relayed_place(container, request, reached)?);
        if places.is_empty() && routed.is_empty() {
            let host_ip = request.host_ip.or_else(|| reached.iter().find_map(|(_, network)| network.host_binding));
            let six = host_ip.is_some_and(|host_ip| host_ip.is_ipv6());
            return Err(NetworkError::Invalid(format!(
                "cannot publish port {}/{} on {}: the container has no {} address; connect it to a network that has {}",
                request.container_port,
                request.protocol,
                host_ip.map_or_else(|| "the host".into(), |ip| ip.to_string()),
                if six { "IPv6" } else { "IPv4" },
                if six { "(`network create --ipv6`)" } else { "one" },
            )));
        }
        Ok(Wanted { request: *request, places, routed })
    }

    /// The address of the host's for a port that names none; `None` when the network's is of the other family. One that
    /// means all addresses means those of both families.
    pub(crate) fn default_binding(&self, ipv4: bool, network: &NetworkRecord) -> Option<IpAddr> {
        let (any, local): (IpAddr, IpAddr) = if ipv4 {
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into())
        } else {
            (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into())
        };
        match (network.host_binding, self.options.publish_policy) {
            (Some(binding), _) if binding.is_unspecified() => Some(any),
            (Some(binding), _) => Some(binding).filter(|binding| binding.is_ipv4() == ipv4),
            (None, PublishPolicy::Docker) => Some(any),
            (None, PublishPolicy::Host) => Some(local),
        }
    }

    /// Not forced to the disk: should a crash take the row, the elements say the same.
    pub(crate) fn write_groups(&self, container: &str) -> Result<()> {
        let groups = self.ports().groups.get(container).cloned();
        self.store.write_soon::<_, NetworkError>(|tx| put_groups(tx, container, groups.as_deref()))
    }

    fn add_elements(&self, container: &str, groups: &[Group]) -> Result<()> {
        let mark = self.mark();
        let mut batch = nft::Batch::new();
        for group in groups {
            let table = firewall::table(firewall::family_of(group.address), &mark);
            for (map, elements) in ports::elements(container, group) {
                batch.add_elements(table, map, &elements, true);
            }
        }
        Ok(self.apply(batch)?)
    }

    pub(crate) fn delete_elements(&self, container: &str, groups: &[Group]) -> Result<()> {
        self.exchange_elements(container, groups, &[])
    }

    /// Takes elements away and puts others there, in one step for each family.
    fn exchange_elements(&self, container: &str, old: &[Group], new: &[Group]) -> Result<()> {
        let mark = self.mark();
        // A batch for each family: the table of one may be gone without the other's.
        for family in [Family::Ip, Family::Ip6] {
            let mut batch = nft::Batch::new();
            let own = |group: &&Group| firewall::family_of(group.address) == family;
            for group in old.iter().filter(own) {
                for (map, elements) in ports::elements(container, group) {
                    batch.delete_elements(firewall::table(family, &mark), map, &elements);
                }
            }
            for group in new.iter().filter(own) {
                for (map, elements) in ports::elements(container, group) {
                    batch.add_elements(firewall::table(family, &mark), map, &elements, true);
                }
            }
            match self.apply(batch) {
                // Somebody has flushed the ruleset: what was to go has gone.
                Err(error) if error.errno == rustix::io::Errno::NOENT => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// What has come for these ports before they were published must not go on to the host.
    fn forget_sent(&self, group: &Group) {
        let ports = group
            .ports
            .iter()
            .filter(|port| port.protocol == Protocol::Udp && port.host_port > 0 && !group.relays(port));
        let ipv6 = group.address.is_ipv6();
        let sent: Vec<_> = ports.map(|port| Exchanges::SentTo { port: port.host_port, ipv6 }).collect();
        if sent.len() <= MAX_FORGOTTEN {
            self.forget_exchanges(&sent);
        }
    }

    fn forget_exchanges(&self, exchanges: &[Exchanges]) {
        if exchanges.is_empty() {
            return;
        }
        if let Err(error) = conntrack::forget(&self.nft(), exchanges) {
            // They end by themselves when nothing is sent for half a minute.
            tracing::debug!(?error, "tracked exchanges are not forgotten");
        }
    }
}
