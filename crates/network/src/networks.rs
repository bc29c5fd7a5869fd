//! All networks of a daemon: opened, made, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_netlink::nft::{self, Family};
use wharf_netlink::route::Connection;
use wharf_relay::Relay;
use wharf_store::Store;

use crate::Pool6;
use crate::background::{Background, Namespace};
use crate::ports::Ports;
use crate::state::{NETWORKS, Network, State};
use crate::{
    CreateNetwork, Endpoint, NetworkError, NetworkOptions, NetworkRecord, Result, bridge, configuration, create,
    firewall, firewalld, foreign, ipam, mark, parent, pool6, sysctl,
};

/// All networks of a daemon. Cheap to clone.
///
/// Works in the network namespace of the thread that calls: for a daemon that is the host's, always.
#[derive(Clone, Debug)]
pub struct Networks {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) options: NetworkOptions,
    /// Both held for moments, never over a request to the kernel or the disk.
    state: Mutex<State>,
    ports: Mutex<Ports>,
    /// One for all, as closing one takes long: see [`nft::Connection`].
    nft: Mutex<nft::Connection>,
    /// Held while what the kernel has is made or removed; whether it was removed for good.
    changing: Mutex<bool>,
    /// What firewalld was told.
    firewalld: Mutex<Told>,
    /// Where there is to be one.
    pub(crate) relay: Option<Relay>,
    pub(crate) background: Background,
    /// There are to be no rules, and there were some of ours when this daemon came: what they led is the relay's now.
    pub(crate) changes_hands: AtomicBool,
}

/// Bridges that are in a zone of firewalld, as long as its table is the same.
#[derive(Debug, Default)]
struct Told {
    table: Option<u64>,
    bridges: BTreeSet<String>,
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes our rules, where there are to be some.
    pub(crate) fn apply(&self, batch: nft::Batch) -> wharf_netlink::Result<()> {
        if self.options.rules { self.nft().apply(batch) } else { Ok(()) }
    }

    pub(crate) fn nft(&self) -> MutexGuard<'_, nft::Connection> {
        self.nft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changing(&self) -> MutexGuard<'_, bool> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told_firewalld(&self) -> MutexGuard<'_, Told> {
        self.firewalld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of our table, and the first word of our marks.
    pub(crate) fn mark(&self) -> String {
        mark::instance_name(&self.options.instance)
    }

    pub(crate) fn instance(&self) -> &str {
        &self.options.instance
    }

    /// Whether a network that rules are about has IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.state().records().any(|record| record.pool6.is_some() && record.bridge.is_some())
    }

    /// Those that our table is to be there for.
    pub(crate) fn families(&self) -> Vec<Family> {
        if sysctl::has_ipv6() { vec![Family::Ip, Family::Ip6] } else { vec![Family::Ip] }
    }

    /// The bridges of networks that have addresses of a family.
    pub(crate) fn bridges(&self, family: Family) -> Vec<String> {
        let state = self.state();
        let there = state.records().filter(|record| family == Family::Ip || record.pool6.is_some());
        there.filter_map(|record| record.bridge.clone()).collect()
    }
}

impl Networks {
    /// Opens the networks of `store`. Makes `bridge`, `host` and `none` where they are missing, and in the kernel what
    /// is missing of the bridges; our table is made anew from the rows, in one step that no packet notices.
    ///
    /// # Errors
    /// When the options make no sense, when no pool is free, and when the kernel refuses.
    pub fn open(store: Store, options: NetworkOptions) -> Result<Self> {
        if options.instance.is_empty() || !options.instance.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(NetworkError::Invalid(format!("`{}` is no name for an instance", options.instance)));
        }
        let (state, groups) =
            store.read::<_, NetworkError>(|tx| Ok((State::load(tx)?, tx.list(crate::ports::PORTS)?)))?;
        let ports = Ports::new(groups.into_iter().collect::<BTreeMap<_, _>>(), options.host_ports.clone());
        let relay = options.relay.as_deref().map(Relay::new);
        let inner = Inner {
            store,
            options,
            relay,
            state: Mutex::new(state),
            ports: Mutex::new(ports),
            nft: Mutex::new(nft::Connection::open()?),
            changing: Mutex::default(),
            firewalld: Mutex::default(),
            background: Background::start()?,
            changes_hands: AtomicBool::new(false),
        };
        let networks = Self { inner: Arc::new(inner) };
        networks.make_predefined()?;
        networks.take_up_ports()?;
        let changes_hands = !networks.inner.options.rules && networks.inner.is_led();
        networks.inner.changes_hands.store(changes_hands, Ordering::Relaxed);
        networks.restore()?;
        networks.tell_firewalld();
        let watched = Arc::downgrade(&networks.inner);
        networks.inner.background.watch(Box::new(move || {
            if let Some(inner) = watched.upgrade() {
                let networks = Self { inner };
                networks.heal();
                networks.tell_firewalld();
            }
        }));
        Ok(networks)
    }

    /// All networks, by name.
    pub fn list(&self) -> Vec<NetworkRecord> {
        let mut all: Vec<_> = self.inner.state().records().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The network of this name, ID, or unique ID prefix.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`.
    pub fn resolve(&self, text: &str) -> Result<NetworkRecord> {
        Ok(self.inner.state().resolve(text)?.record.clone())
    }

    /// Makes a network.
    ///
    /// # Errors
    /// For what is not accepted (Docker's texts), when no pool is free, and when the kernel refuses; then nothing of
    /// it is left.
    pub fn create(&self, request: &CreateNetwork) -> Result<NetworkRecord> {
        let inner = &self.inner;
        let changing = inner.changing();
        create::review(request, &inner.options)?;
        if inner.state().named(&request.name).is_some() {
            return Err(NetworkError::NameTaken(request.name.clone()));
        }
        configuration::check(request)?;
        if request.config_only {
            return self.keep_configuration(configuration::record(request, &inner.options)?);
        }
        let completed = match request.config_from.as_str() {
            "" => None,
            name => Some(configuration::applied(request, &self.configuration(name)?)),
        };
        let create::Draft { mut record, ipv6 } = create::record(completed.as_ref().unwrap_or(request), &inner.options)?;
        let route = Connection::open()?;
        let others: Vec<_> = {
            let state = inner.state();
            parent::may_share(&record, state.records())?;
            let same = |other: &&NetworkRecord| other.bridge.is_some() && other.bridge == record.bridge;
            if let Some(other) = state.records().find(same) {
                return Err(NetworkError::Forbidden(format!(
                    "network {} has the bridge {} already",
                    other.name,
                    record.bridge.as_deref().unwrap_or_default()
                )));
            }
            state.records().cloned().collect()
        };
        self.find_addresses(&route, &mut record, ipv6, &others)?;
        let link = match self.make(&route, &record) {
            Ok(link) => link,
            Err(error) => {
                self.unmake(&record, true);
                return Err(error);
            }
        };
        let written = inner.store.write::<_, NetworkError>(|tx| Ok(tx.put(NETWORKS, &record.id, &record)?));
        if let Err(error) = written {
            self.unmake(&record, true);
            return Err(error);
        }
        let network = Network { link: Some(link), ..Network::new(record.clone()) };
        inner.state().networks.insert(record.id.clone(), network);
        self.let_pass();
        drop(changing);
        self.tell_firewalld();
        Ok(record)
    }

    /// The subnets of a new network: those that it asks for, unless another has them, or else those that are free.
    fn find_addresses(
        &self,
        route: &Connection,
        record: &mut NetworkRecord,
        ipv6: bool,
        others: &[NetworkRecord],
    ) -> Result<()> {
        let options = &self.inner.options;
        let occupied =
            |wanted: bool| if wanted { bridge::host_networks(route) } else { Ok(bridge::Occupied::default()) };
        let mut taken = occupied((record.ipv4 && record.subnet.is_none()) || (ipv6 && record.pool6.is_none()))?;
        taken.v4.extend(others.iter().flat_map(|other| other.pools4()).map(|pool| pool.subnet));
        taken.v6.extend(others.iter().flat_map(|other| other.pools6()).map(|pool| pool.subnet));
        Self::refuse_overlap(record, others)?;
        match record.subnet {
            Some(subnet) => create::settle(record, subnet)?,
            None if record.ipv4 => {
                let free = ipam::free_network(&options.default_pools, &taken.v4).ok_or(NetworkError::NoPool)?;
                create::settle(record, free)?;
            }
            None => {}
        }
        if record.pool6.is_none() && ipv6 {
            let free = pool6::free_network(&options.default_pools6, &taken.v6).ok_or(NetworkError::NoPool)?;
            let mut pool = Pool6::new(free);
            if record.is_without_gateway6() {
                pool.gateway = None;
            }
            record.pool6 = Some(pool);
        }
        Ok(())
    }

    /// Refuses subnets that another network has, or the same one twice.
    fn refuse_overlap(record: &NetworkRecord, others: &[NetworkRecord]) -> Result<()> {
        let four: Vec<_> = record.pools4().into_iter().map(|pool| pool.subnet).collect();
        let six: Vec<_> = record.pools6().map(|pool| pool.subnet).collect();
        let overlap = |who: &str| NetworkError::Overlap(format!("other one on this address space{who}"));
        for other in others {
            let meets4 = other.pools4().iter().any(|other| four.iter().any(|net| net.overlaps(other.subnet)));
            let meets6 = other.pools6().any(|other| six.iter().any(|net| net.overlaps(other.subnet)));
            if meets4 || meets6 {
                return Err(overlap(&format!(": network {}", other.name)));
            }
        }
        let twice4 = four.iter().enumerate().any(|(index, net)| four[..index].iter().any(|other| other.overlaps(*net)));
        let twice6 = six.iter().enumerate().any(|(index, net)| six[..index].iter().any(|other| other.overlaps(*net)));
        if twice4 || twice6 { Err(overlap("")) } else { Ok(()) }
    }

    /// Removes a network that no container is connected to.
    ///
    /// # Errors
    /// `NotFound`, `CannotRemove`, `InUse`.
    pub fn remove(&self, text: &str) -> Result<NetworkRecord> {
        let inner = &self.inner;
        let changing = inner.changing();
        let record = {
            let mut state = inner.state();
            let network = state.resolve(text)?;
            let record = network.record.clone();
            if record.predefined {
                return Err(NetworkError::CannotRemove(record.name));
            }
            if !network.endpoints.is_empty() {
                let names = network.endpoints.values().map(|endpoint| format!("name:\"{}\"", endpoint.name));
                let endpoints = names.collect::<Vec<_>>().join(", ");
                return Err(NetworkError::InUse { name: record.name, endpoints });
            }
            if record.configuration.is_some() && state.records().any(|other| other.config_from == record.name) {
                return Err(NetworkError::Forbidden(format!(
                    "error while removing network: configuration network {:?} is in use",
                    record.name
                )));
            }
            // From here on nobody connects to it.
            state.networks.remove(&record.id);
            record
        };
        let deleted = inner.store.write::<_, NetworkError>(|tx| Ok(tx.delete(NETWORKS, &record.id)?));
        if let Err(error) = deleted {
            inner.state().networks.insert(record.id.clone(), Network::new(record));
            return Err(error);
        }
        if record.configuration.is_some() {
            return Ok(record);
        }
        self.unmake(&record, false);
        self.let_pass();
        drop(changing);
        let told = record.bridge.as_ref().filter(|bridge| self.inner.told_firewalld().bridges.remove(*bridge));
        if let Some(bridge) = told
            && let Err(error) = firewalld::forget(&self.inner.options.system_bus, bridge)
        {
            tracing::debug!("firewalld keeps the bridge {bridge} in its zone: {error}");
        }
        Ok(record)
    }

    /// Removes the networks that no container is connected to and `unwanted` says yes to; answers with what went.
    ///
    /// # Errors
    /// When the disk or the kernel fails; what was removed until then is.
    pub fn prune(&self, unwanted: &dyn Fn(&NetworkRecord) -> bool) -> Result<Vec<NetworkRecord>> {
        let mut gone = Vec::new();
        for record in self.list() {
            if record.predefined || !unwanted(&record) {
                continue;
            }
            match self.remove(&record.id) {
                Ok(record) => gone.push(record),
                // In use, or removed by somebody else.
                Err(NetworkError::InUse { .. } | NetworkError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// Who is connected to a network (by its ID), by the container's ID.
    pub fn endpoints(&self, network_id: &str) -> Vec<Endpoint> {
        let state = self.inner.state();
        state.networks.get(network_id).map(|network| network.endpoints.values().cloned().collect()).unwrap_or_default()
    }

    /// Where a container is connected, by the network's ID.
    pub fn endpoints_of(&self, container: &str) -> Vec<Endpoint> {
        let state = self.inner.state();
        state.networks.values().filter_map(|network| network.endpoints.get(container)).cloned().collect()
    }

    /// A new network namespace.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn namespace(&self) -> Result<Namespace> {
        self.inner.background.namespace()
    }

    /// Makes what the kernel has of a network.
    fn make(&self, route: &Connection, record: &NetworkRecord) -> Result<u32> {
        if record.parent.is_some() {
            let link = parent::ensure(route, self.inner.instance(), record)?;
            parent::probe(route, record, link)?;
            return Ok(link);
        }
        self.forward(record.pool6.is_some())?;
        let link = bridge::ensure(route, self.inner.instance(), record)?;
        let mut batch = nft::Batch::new();
        let mark = self.inner.mark();
        firewall::add_network(&mut batch, firewall::table(Family::Ip, &mark), record);
        if record.pool6.is_some() {
            let table = firewall::table(Family::Ip6, &mark);
            if !self.inner.has_ipv6() {
                firewall::rebuild(&mut batch, table);
            }
            firewall::add_network(&mut batch, table, record);
        }
        self.inner.apply(batch)?;
        Ok(link)
    }

    /// Removes what the kernel has of a network. With `quiet`, some of it may never have been made.
    fn unmake(&self, record: &NetworkRecord, quiet: bool) {
        if record.parent.is_some() {
            let removed = Connection::open().map_err(NetworkError::from);
            let others: Vec<_> = self.inner.state().records().cloned().collect();
            let removed = removed.and_then(|route| parent::remove(&route, self.inner.instance(), record, &others));
            if let Err(error) = removed
                && !quiet
            {
                tracing::warn!(?error, network = record.name, "something of a network is left");
            }
            return;
        }
        let mark = self.inner.mark();
        let mut rules = Ok(());
        for family in record.pool6.is_some().then_some(Family::Ip6).into_iter().chain([Family::Ip]) {
            let table = firewall::table(family, &mark);
            let mut batch = nft::Batch::new();
            if family == Family::Ip6 && !self.inner.has_ipv6() {
                // It was the last one.
                batch.delete_table(table);
            } else {
                firewall::remove_network(&mut batch, table, record);
            }
            rules = rules.and(self.inner.apply(batch).map_err(NetworkError::from));
        }
        let link = Connection::open().map_err(NetworkError::from).and_then(|route| {
            let Some(name) = &record.bridge else { return Ok(()) };
            // A bridge that carries another's mark, or none, is not ours to remove.
            let there =
                route.link(name)?.is_some_and(|link| link.alias == mark::bridge(self.inner.instance(), &record.id));
            if there { crate::background::remove(&[name]) } else { Ok(()) }
        });
        for failed in [rules, link].into_iter().filter_map(Result::err).filter(|_| !quiet) {
            // Its row is gone; what is left in the kernel is recognised and removed at the next start.
            tracing::warn!(error = ?failed, network = record.name, "something of a network is left");
        }
    }

    /// Tells firewalld of our bridges when it runs and has not been told of them. It may be slow: nothing is held meanwhile.
    fn tell_firewalld(&self) {
        if *self.inner.changing() {
            return;
        }
        let Ok(table) = firewalld::table(&self.inner.nft()) else { return };
        let bridges = self.inner.bridges(Family::Ip);
        let missing: Vec<&str> = {
            let mut told = self.inner.told_firewalld();
            if told.table != table {
                *told = Told { table, ..Told::default() };
            }
            bridges.iter().filter(|bridge| !told.bridges.contains(*bridge)).map(String::as_str).collect()
        };
        if table.is_none() || missing.is_empty() {
            return;
        }
        match firewalld::let_pass(&self.inner.options.system_bus, &missing) {
            Ok(()) => self.inner.told_firewalld().bridges.extend(missing.into_iter().map(str::to_owned)),
            // It may be just starting: it is told of them in a second.
            Err(error) => tracing::warn!("firewalld could not be told to let our bridges pass: {error}"),
        }
    }

    /// Lets our bridges pass where somebody else's rules would drop what they forward.
    pub(crate) fn let_pass(&self) {
        if !self.inner.options.rules {
            return;
        }
        for family in self.inner.families() {
            let bridges = self.inner.bridges(family);
            let bridges: Vec<&str> = bridges.iter().map(String::as_str).collect();
            if let Err(error) = foreign::let_pass(&self.inner.nft(), family, &self.inner.mark(), &bridges) {
                tracing::warn!(?error, "the rules of `iptables` could not be told to let our bridges pass");
            }
        }
    }
}
