//! Finding again what an earlier daemon has left, alive or dead.

use std::collections::BTreeSet;
use std::net::IpAddr;

use wharf_netlink::nft::{self, Family};
use wharf_netlink::route::Connection;

use crate::mark::Mark;
use crate::networks::Inner;
use crate::ports;
use crate::state::endpoint_key;
use crate::{Endpoint, NetworkError, Networks, Result, background, bridge, firewall, foreign, ipam, parent, sysctl};

impl Networks {
    /// Frees what containers that are not `alive` (IDs) had: links, addresses, ports. Keeps what the others have, and
    /// holds their ports again. For the daemon's start, before anything is connected.
    ///
    /// # Errors
    /// When the disk fails or the kernel refuses.
    pub fn recover(&self, alive: &[String]) -> Result<()> {
        let alive: BTreeSet<&str> = alive.iter().map(String::as_str).collect();
        let route = Connection::open()?;
        let marked = bridge::ours(&route.links()?, self.inner.instance());
        let lost = self.inner.take_linkless(&marked);
        let mut dead_links = Vec::new();
        for (name, mark) in &marked {
            let Mark::Endpoint { container, .. } = mark else { continue };
            if !alive.contains(container.as_str()) {
                dead_links.push(name.as_str());
            } else {
                self.adopt(name, mark, &lost)?;
            }
        }
        self.inner.put_back(lost);
        background::remove(&dead_links)?;
        let dead: Vec<Endpoint> = {
            let state = self.inner.state();
            let all = state.networks.values().flat_map(|network| network.endpoints.values());
            all.filter(|endpoint| !alive.contains(endpoint.container.as_str())).cloned().collect()
        };
        self.inner.delete_rows(&dead)?;
        self.inner.forget_in_memory(&dead);
        let relayed = self.inner.known_relayed(&alive)?;
        let publishers: Vec<String> = self.inner.ports().groups.keys().cloned().collect();
        for container in publishers {
            if alive.contains(container.as_str()) {
                let served = relayed.get(&container).map(Vec::as_slice).unwrap_or_default();
                self.inner.ports().hold_again(&container, |port| served.contains(port));
            } else {
                self.unpublish(&container)?;
            }
        }
        self.inner.relay_missing(&relayed);
        Ok(())
    }

    /// Removes our bridges, our table, and the links of containers. The rows stay: the next daemon makes it all anew.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn destroy(&self) -> Result<()> {
        let inner = &self.inner;
        let mut removed = inner.changing();
        *removed = true;
        let route = Connection::open()?;
        let marked = bridge::ours(&route.links()?, inner.instance());
        let names: Vec<&str> = marked.iter().map(|(name, _)| name.as_str()).collect();
        background::remove(&names)?;
        self.leave();
        self.remove_rules()
    }

    /// Takes our rules out of the kernel, also those that an earlier daemon has left.
    fn remove_rules(&self) -> Result<()> {
        let inner = &self.inner;
        let nft = inner.nft();
        let mark = inner.mark();
        for family in inner.families() {
            foreign::let_pass(&nft, family, &mark, &[])?;
            if nft.tables(family)?.contains(&mark) {
                let mut batch = nft::Batch::new();
                batch.delete_table(firewall::table(family, &mark));
                nft.apply(batch)?;
            }
        }
        Ok(())
    }

    /// Makes our rules anew when somebody has removed them (`nft flush ruleset`, a firewall that was loaded again):
    /// without them published ports are closed and networks open to one another.
    pub(crate) fn heal(&self) {
        let inner = &self.inner;
        let removed = inner.changing();
        if *removed {
            return;
        }
        inner.heal_relay();
        if !inner.options.rules {
            return;
        }
        let mark = inner.mark();
        for family in inner.families() {
            let bridges = inner.bridges(family).len();
            if bridges == 0 {
                continue;
            }
            let tables = inner.nft().tables(family);
            let healed = match tables {
                Ok(tables) if !tables.contains(&mark) => {
                    tracing::warn!(table = mark, "somebody has removed our rules; they are made again");
                    self.restore()
                }
                Ok(_) => {
                    let missing = foreign::is_incomplete(&inner.nft(), family, &mark, bridges);
                    missing.map(|missing| {
                        if missing {
                            self.let_pass()
                        }
                    })
                }
                Err(error) => Err(error.into()),
            };
            if let Err(error) = healed {
                tracing::warn!(?error, "our rules are not as they should be");
            }
        }
    }

    /// Makes in the kernel what is missing of the rows, and removes what has none.
    pub(crate) fn restore(&self) -> Result<()> {
        let inner = &self.inner;
        self.forward(inner.has_ipv6())?;
        let route = Connection::open()?;
        let mark = inner.mark();
        let records: Vec<_> = inner.state().records().filter(|record| record.bridge.is_some()).cloned().collect();
        let ids: BTreeSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        for (name, found) in bridge::ours(&route.links()?, inner.instance()) {
            let Mark::Bridge(id) = found else { continue };
            let named = records.iter().any(|record| record.id == id && record.bridge.as_deref() == Some(name.as_str()));
            if !named || !ids.contains(id.as_str()) {
                tracing::info!(bridge = name, "a bridge of ours has no network any more and is removed");
                background::remove(&[&name])?;
            }
        }
        self.restore_parents(&route)?;
        let mut batch = nft::Batch::new();
        firewall::rebuild(&mut batch, firewall::table(Family::Ip, &mark));
        let table6 = firewall::table(Family::Ip6, &mark);
        if inner.has_ipv6() {
            firewall::rebuild(&mut batch, table6);
        } else if sysctl::has_ipv6() && inner.nft().tables(Family::Ip6)?.contains(&mark) {
            batch.delete_table(table6);
        }
        for record in &records {
            match bridge::ensure(&route, inner.instance(), record) {
                Ok(link) => {
                    if let Some(network) = inner.state().networks.get_mut(&record.id) {
                        network.link = Some(link);
                    }
                }
                // One network must not keep the daemon from starting; who connects to it is told.
                Err(error) if !record.predefined => {
                    tracing::warn!(?error, network = record.name, "the bridge of a network cannot be made");
                }
                Err(error) => return Err(error),
            }
            firewall::add_network(&mut batch, firewall::table(Family::Ip, &mark), record);
            if record.pool6.is_some() {
                firewall::add_network(&mut batch, table6, record);
            }
        }
        for (container, groups) in &inner.ports().groups {
            for group in groups {
                let family = firewall::family_of(group.address);
                if family == Family::Ip6 && !inner.has_ipv6() {
                    continue;
                }
                for (map, elements) in ports::elements(container, group) {
                    batch.add_elements(firewall::table(family, &mark), map, &elements, false);
                }
            }
        }
        if !inner.options.rules {
            return self.remove_rules();
        }
        inner.nft().apply(batch)?;
        self.let_pass();
        Ok(())
    }

    /// Makes what is missing of the parents of networks that are ours to make, and removes those of no network.
    fn restore_parents(&self, route: &Connection) -> Result<()> {
        let inner = &self.inner;
        let records: Vec<_> = inner.state().records().filter(|record| record.parent.is_some()).cloned().collect();
        for (name, found) in bridge::ours(&route.links()?, inner.instance()) {
            // Networks may share one, and it carries the mark of one of them.
            let used = records.iter().any(|record| record.parent.as_ref().is_some_and(|parent| parent.name == name));
            if parent::is_one(&found) && !used {
                tracing::info!(link = name, "a parent of ours has no network any more and is removed");
                background::remove(&[&name])?;
            }
        }
        for record in records {
            match parent::ensure(route, inner.instance(), &record) {
                Ok(link) => {
                    if let Some(network) = inner.state().networks.get_mut(&record.id) {
                        network.link = Some(link);
                    }
                }
                // Who connects to it is told.
                Err(error) => tracing::warn!(?error, network = record.name, "a network has no parent"),
            }
        }
        Ok(())
    }

    /// Notes an endpoint whose link is there and whose row is not, or is of an earlier link: the container was taken off the
    /// network and put on it again, and the row was not on the disk yet when the daemon died. Its name is not on the link:
    /// [`Self::rename`].
    fn adopt(&self, link: &str, mark: &Mark, lost: &[Endpoint]) -> Result<()> {
        let Mark::Endpoint { network, container, endpoint, ip, interface, ip6 } = mark else { return Ok(()) };
        let adopted = {
            let mut state = self.inner.state();
            let Some(network) = state.networks.values_mut().find(|other| other.record.id.starts_with(network)) else {
                return Ok(());
            };
            let record = &network.record;
            let addresses: Vec<IpAddr> = ip.map(IpAddr::V4).into_iter().chain(ip6.map(IpAddr::V6)).collect();
            let known = network.endpoints.contains_key(container);
            let taken = addresses.iter().any(|address| !record.contains(*address) || network.owner(*address).is_some());
            let Some(first) = addresses.first().filter(|_| !known && !taken) else { return Ok(()) };
            let earlier = lost.iter().find(|lost| lost.network_id == record.id && lost.container == *container);
            let (gateway, prefix) = ip.map(|ip| record.place4(ip)).unwrap_or_default();
            let (gateway6, prefix6) = ip6.map(|ip| record.place6(ip)).unwrap_or_default();
            let adopted = Endpoint {
                network_id: record.id.clone(),
                endpoint_id: endpoint.to_owned(),
                container: container.to_owned(),
                name: earlier.map_or(container.get(..12).unwrap_or(container), |earlier| &earlier.name).to_owned(),
                aliases: earlier.map(|earlier| earlier.aliases.clone()).unwrap_or_default(),
                ip: *ip,
                prefix,
                gateway,
                ip6: *ip6,
                prefix6,
                gateway6,
                mac: ipam::mac_of(*first),
                parents_mac: false,
                leads_out: false,
                host_interface: link.to_owned(),
                interface: interface.to_owned(),
            };
            network.endpoints.insert(container.to_owned(), adopted.clone());
            adopted
        };
        let (table, key) = endpoint_key(&adopted.network_id, container);
        self.inner.store.write_soon::<_, NetworkError>(|tx| Ok(tx.put(table, &key, &adopted)?))
    }
}

impl Inner {
    /// Takes the endpoints out of memory whose links are not there.
    fn take_linkless(&self, marked: &[(String, Mark)]) -> Vec<Endpoint> {
        let there: BTreeSet<&str> = marked.iter().map(|(name, _)| name.as_str()).collect();
        let gone = |endpoint: &Endpoint| {
            !endpoint.host_interface.is_empty() && !there.contains(endpoint.host_interface.as_str())
        };
        let mut state = self.state();
        let mut taken = Vec::new();
        for network in state.networks.values_mut() {
            taken.extend(network.endpoints.values().filter(|endpoint| gone(endpoint)).cloned());
            network.endpoints.retain(|_, endpoint| !gone(endpoint));
        }
        taken
    }

    /// Puts those back that no link is in the place of, and whose addresses nobody has got since.
    fn put_back(&self, endpoints: Vec<Endpoint>) {
        let mut state = self.state();
        for endpoint in endpoints {
            let Some(network) = state.networks.get_mut(&endpoint.network_id) else { continue };
            let is_free = |address: &IpAddr| network.owner(*address).is_none();
            if endpoint.addresses().iter().all(is_free) {
                network.endpoints.entry(endpoint.container.clone()).or_insert(endpoint);
            }
        }
    }
}
