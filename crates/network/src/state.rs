//! What is in the store, in memory: the store is this process's alone, so both are always the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_store::{ReadTx, Table};

use crate::{Endpoint, NetworkError, NetworkRecord, Result};

/// Networks by ID.
pub(crate) const NETWORKS: Table = Table::new("networks");
/// Endpoints by `NETWORK/CONTAINER`.
const ENDPOINTS: Table = Table::new("endpoints");

/// The row of an endpoint.
pub(crate) fn endpoint_key(network: &str, container: &str) -> (Table, String) {
    (ENDPOINTS, format!("{network}/{container}"))
}

/// A network and who is in it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) record: NetworkRecord,
    /// By the container's ID.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// Index of the bridge, once it is known to be there.
    pub(crate) link: Option<u32>,
}

impl Network {
    pub(crate) fn new(record: NetworkRecord) -> Self {
        Self { record, endpoints: BTreeMap::new(), link: None }
    }

    /// Who has an address, if anybody.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| endpoint.addresses().contains(&address))
    }

    pub(crate) fn taken(&self) -> BTreeSet<Ipv4Addr> {
        self.endpoints.values().filter_map(|endpoint| endpoint.ip).collect()
    }

    pub(crate) fn taken6(&self) -> BTreeSet<Ipv6Addr> {
        self.endpoints.values().filter_map(|endpoint| endpoint.ip6).collect()
    }
}

/// All networks.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// By ID.
    pub(crate) networks: BTreeMap<String, Network>,
}

impl State {
    /// Reads the rows. An endpoint whose network is gone is left out.
    pub(crate) fn load(tx: &ReadTx) -> Result<Self> {
        let mut state = Self::default();
        for (id, record) in tx.list::<NetworkRecord>(NETWORKS)? {
            state.networks.insert(id, Network::new(record));
        }
        for (_, endpoint) in tx.list::<Endpoint>(ENDPOINTS)? {
            if let Some(network) = state.networks.get_mut(&endpoint.network_id) {
                network.endpoints.insert(endpoint.container.clone(), endpoint);
            }
        }
        Ok(state)
    }

    /// The network of this name, ID or unique ID prefix.
    pub(crate) fn resolve(&self, text: &str) -> Result<&Network> {
        if let Some(network) = self.networks.get(text).or_else(|| self.named(text)) {
            return Ok(network);
        }
        let begins: Vec<_> = match text {
            "" => Vec::new(),
            _ => self.networks.values().filter(|network| network.record.id.starts_with(text)).collect(),
        };
        match begins.as_slice() {
            [] => Err(NetworkError::NotFound(text.to_owned())),
            [only] => Ok(only),
            more => Err(NetworkError::Ambiguous(text.to_owned(), more.len())),
        }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|network| network.record.name == name)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &NetworkRecord> {
        self.networks.values().map(|network| &network.record)
    }
}
