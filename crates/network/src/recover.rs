//! Finding again what an earlier daemon has left, alive or dead.

use std::collections::{BTreeMap, BTreeSet};

use wharf_netlink::nft;
use wharf_netlink::route::Connection;

use crate::mark::Mark;
use crate::ports::{self, Group};
use crate::state::endpoint_key;
use crate::{Endpoint, NetworkError, Networks, Result, background, bridge, firewall, foreign, ipam};

/// The maps that ports are in.
const MAPS: [&str; 3] = [firewall::PUBLISHED, firewall::PUBLISHED_AT, firewall::RANGES];

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
        let mut dead_links = Vec::new();
        for (name, mark) in &marked {
            let Mark::Endpoint { network, container, endpoint, ip, interface } = mark else { continue };
            if !alive.contains(container.as_str()) {
                dead_links.push(name.as_str());
            } else {
                self.adopt(name, network, container, endpoint, *ip, interface)?;
            }
        }
        background::remove(&dead_links)?;
        let dead: Vec<Endpoint> = {
            let state = self.inner.state();
            let all = state.networks.values().flat_map(|network| network.endpoints.values());
            all.filter(|endpoint| !alive.contains(endpoint.container.as_str())).cloned().collect()
        };
        self.inner.delete_rows(&dead)?;
        self.inner.forget_in_memory(&dead);
        let publishers: Vec<String> = self.inner.ports().groups.keys().cloned().collect();
        for container in publishers {
            if alive.contains(container.as_str()) {
                self.inner.ports().hold_again(&container);
            } else {
                self.unpublish(&container)?;
            }
        }
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
        let nft = inner.nft();
        let mark = inner.mark();
        foreign::let_pass(&nft, &mark, &[])?;
        if nft.tables(firewall::table(&mark).family)?.contains(&mark) {
            let mut batch = nft::Batch::new();
            batch.delete_table(firewall::table(&mark));
            nft.apply(batch)?;
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
        let mark = inner.mark();
        let tables = inner.nft().tables(firewall::table(&mark).family);
        let healed = match tables {
            Ok(tables) if !tables.contains(&mark) => {
                tracing::warn!(table = mark, "somebody has removed our rules; they are made again");
                self.restore()
            }
            Ok(_) => {
                let bridges = inner.state().records().filter(|record| record.bridge.is_some()).count();
                let missing = foreign::is_incomplete(&inner.nft(), &mark, bridges);
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

    /// Makes in the kernel what is missing of the rows, and removes what has none.
    pub(crate) fn restore(&self) -> Result<()> {
        let inner = &self.inner;
        self.forward()?;
        let route = Connection::open()?;
        let mark = inner.mark();
        let table = firewall::table(&mark);
        for (container, group) in self.lost_ports()? {
            tracing::warn!(container, "ports are in the firewall and not in the store; they are noted again");
            inner.ports().add(&container, group);
            inner.write_groups(&container)?;
        }
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
        let mut batch = nft::Batch::new();
        firewall::rebuild(&mut batch, table);
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
            firewall::add_network(&mut batch, table, record);
        }
        for (container, groups) in &inner.ports().groups {
            for (map, elements) in groups.iter().flat_map(|group| ports::elements(container, group)) {
                batch.add_elements(table, map, &elements, false);
            }
        }
        inner.nft().apply(batch)?;
        self.let_pass();
        Ok(())
    }

    /// Ports that are in our table, and in no row: the row was not on the disk yet when the daemon died.
    fn lost_ports(&self) -> Result<Vec<(String, Group)>> {
        let (mark, nft) = (self.inner.mark(), self.inner.nft());
        let known: BTreeSet<String> = self.inner.ports().groups.keys().cloned().collect();
        let mut lost: BTreeMap<(String, std::net::Ipv4Addr), Group> = BTreeMap::new();
        for map in MAPS {
            for element in nft.elements(firewall::table(&mark), map)? {
                let Some((container, group)) = ports::read_element(map, &element) else { continue };
                if !known.contains(&container) {
                    let all = lost.entry((container, group.address));
                    all.or_insert_with(|| Group { address: group.address, ports: Vec::new() })
                        .ports
                        .extend(group.ports);
                }
            }
        }
        Ok(lost.into_iter().map(|((container, _), group)| (container, group)).collect())
    }

    /// Notes an endpoint whose link is there and whose row is not. Its name is not on the link: [`Self::rename`].
    fn adopt(
        &self,
        link: &str,
        network: &str,
        container: &str,
        endpoint: &str,
        ip: std::net::Ipv4Addr,
        interface: &str,
    ) -> Result<()> {
        let adopted = {
            let mut state = self.inner.state();
            let Some(network) = state.networks.get_mut(network) else { return Ok(()) };
            let Some(subnet) = network.record.subnet else { return Ok(()) };
            if network.endpoints.contains_key(container) || network.owner(ip).is_some() {
                return Ok(());
            }
            let adopted = Endpoint {
                network_id: network.record.id.clone(),
                endpoint_id: endpoint.to_owned(),
                container: container.to_owned(),
                name: container.get(..12).unwrap_or(container).to_owned(),
                aliases: Vec::new(),
                ip,
                prefix: subnet.prefix(),
                gateway: network.record.gateway.filter(|_| !network.record.internal),
                mac: ipam::mac_of(ip),
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
