//! Publishing ports.

use std::net::{IpAddr, Ipv4Addr};

use wharf_netlink::conntrack::{self, Exchanges};
use wharf_netlink::nft;

use crate::networks::Inner;
use crate::ports::{self, Group, PORTS};
use crate::{NetworkError, NetworkRecord, Networks, PortRequest, Protocol, PublishPolicy, Published, Result, firewall};

/// Ports whose tracked exchanges are looked for one by one. More would take longer than it is worth.
const MAX_FORGOTTEN: usize = 32;

impl Networks {
    /// Publishes ports of a container that has `address` in one of our networks; all of them, or none.
    ///
    /// What is published is reached from other hosts, from the host's own addresses, from its loopback and from other
    /// containers, on IPv4. In an internal network nothing is published and the answer is empty, as Docker does.
    ///
    /// # Errors
    /// `PortTaken` names who has a port: a container, or a program of the host. `NotImplemented` for an IPv6 address.
    pub fn publish(&self, container: &str, address: Ipv4Addr, ports: &[PortRequest]) -> Result<Vec<Published>> {
        let inner = &*self.inner;
        let network = {
            let state = inner.state();
            let network = state.records().find(|record| record.subnet.is_some_and(|subnet| subnet.contains(address)));
            network.cloned().ok_or_else(|| NetworkError::NotFound(format!("for address {address}")))?
        };
        if network.internal || ports.is_empty() {
            return Ok(Vec::new());
        }
        let requests = ports.iter().map(|request| Ok((*request, inner.host_address(request, &network)?)));
        let requests = requests.collect::<Result<Vec<_>>>()?;
        let group = inner.ports().reserve(container, address, &requests)?;
        let made = inner.write_groups(container).and_then(|()| inner.add_elements(container, &group));
        if let Err(error) = made {
            inner.ports().remove_group(container, &group);
            if let Err(left) = inner.write_groups(container) {
                tracing::warn!(error = ?left, "the row of published ports is left");
            }
            return Err(error);
        }
        inner.forget_sent(&group);
        Ok(group.ports)
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
        // Then the row, then the sockets: nobody else gets a port whose rule is still there.
        inner.store.write_soon::<_, NetworkError>(|tx| Ok(tx.delete(PORTS, container).map(drop)?))?;
        inner.ports().remove(container);
        if groups.iter().flat_map(|group| &group.ports).any(|port| port.protocol == Protocol::Udp) {
            let answered: Vec<_> = groups.iter().map(|group| Exchanges::AnsweredBy(group.address)).collect();
            inner.forget_exchanges(&answered);
        }
        Ok(())
    }

    /// What a container has published.
    pub fn published(&self, container: &str) -> Vec<Published> {
        let ports = self.inner.ports();
        ports.groups.get(container).into_iter().flatten().flat_map(|group| &group.ports).copied().collect()
    }
}

impl Inner {
    fn host_address(&self, request: &PortRequest, network: &NetworkRecord) -> Result<Ipv4Addr> {
        match request.host_ip {
            Some(IpAddr::V4(address)) => Ok(address),
            // Every address of the host's, of which we serve those of IPv4.
            Some(IpAddr::V6(address)) if address.is_unspecified() => Ok(Ipv4Addr::UNSPECIFIED),
            Some(IpAddr::V6(address)) => {
                Err(NetworkError::NotImplemented(format!("publishing on an IPv6 address is not done yet: [{address}]")))
            }
            None => Ok(network.host_binding.unwrap_or(match self.options.publish_policy {
                PublishPolicy::Docker => Ipv4Addr::UNSPECIFIED,
                PublishPolicy::Host => Ipv4Addr::LOCALHOST,
            })),
        }
    }

    /// Not forced to the disk: should a crash take the row, the elements say the same.
    pub(crate) fn write_groups(&self, container: &str) -> Result<()> {
        let groups = self.ports().groups.get(container).cloned();
        self.store.write_soon::<_, NetworkError>(|tx| {
            match groups {
                Some(groups) => tx.put(PORTS, container, &groups)?,
                None => drop(tx.delete(PORTS, container)?),
            }
            Ok(())
        })
    }

    fn add_elements(&self, container: &str, group: &Group) -> Result<()> {
        let mark = self.mark();
        let mut batch = nft::Batch::new();
        for (map, elements) in ports::elements(container, group) {
            batch.add_elements(firewall::table(&mark), map, &elements, true);
        }
        Ok(self.nft().apply(batch)?)
    }

    pub(crate) fn delete_elements(&self, container: &str, groups: &[Group]) -> Result<()> {
        let mark = self.mark();
        let mut batch = nft::Batch::new();
        for (map, elements) in groups.iter().flat_map(|group| ports::elements(container, group)) {
            batch.delete_elements(firewall::table(&mark), map, &elements);
        }
        match self.nft().apply(batch) {
            // Somebody has flushed the ruleset: what was to go has gone.
            Err(error) if error.errno == rustix::io::Errno::NOENT => Ok(()),
            done => Ok(done?),
        }
    }

    /// What has come for these ports before they were published must not go on to the host.
    fn forget_sent(&self, group: &Group) {
        let ports = group.ports.iter().filter(|port| port.protocol == Protocol::Udp);
        let sent: Vec<_> = ports.map(|port| Exchanges::SentTo(port.host_port)).collect();
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
