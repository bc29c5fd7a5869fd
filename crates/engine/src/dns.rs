//! Names on user-defined networks: what the process that answers for them (`wharf_dns`) is told of containers.
//!
//! It is started with the first container that needs it, and told all again when it had to be started once more.
//! Whatever it is told can be told twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Mutex;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_dns::{DnsError, Member, Network, Server, Sockets};
use wharf_network::{Endpoint, NetworkRecord};

use crate::endpoint;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::etc::{self, ResolvConf};
use crate::process::Process;
use crate::record::Container;
use crate::slot::lock;
use crate::spec::EndpointSettings;

/// The port of name servers.
const PORT: u16 = 53;

/// The connection to the process, once one was needed.
#[derive(Debug)]
pub(crate) struct Dns {
    exec_root: PathBuf,
    server: Mutex<Option<Server>>,
}

impl Dns {
    pub(crate) fn new(exec_root: PathBuf) -> Self {
        Self { exec_root, server: Mutex::default() }
    }
}

fn failed(error: &DnsError) -> EngineError {
    EngineError::from_source("cannot answer for names on the container's networks", error)
}

/// Containers know each other by name there.
fn has_names(network: &NetworkRecord) -> bool {
    network.is_joinable() && network.name != "bridge"
}

/// The names that a container has on a network, as an endpoint shows them; `None` where nobody has any.
pub(crate) fn names_on(record: &Container, network: &NetworkRecord, aliases: Option<&[String]>) -> Option<Vec<String>> {
    let short = record.id.get(..12).unwrap_or(&record.id);
    let own = std::iter::once(record.name.as_str());
    let all = own.chain(aliases.into_iter().flatten().map(String::as_str)).chain([short, &record.config.hostname]);
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !name.is_empty() && names.iter().all(|have| have != name) {
            names.push(name.to_owned());
        }
    }
    has_names(network).then_some(names)
}

impl Engine {
    /// Asks the process, which is started where there is none; once more when it had gone.
    fn with_dns<T>(&self, ask: impl Fn(&Server) -> wharf_dns::Result<T>) -> Result<T> {
        let dns = &self.inner.dns;
        let mut place = lock(&dns.server);
        if let Some(server) = place.as_ref() {
            match ask(server) {
                Err(error) if error.is_gone() => *place = None,
                told => return told.map_err(|e| failed(&e)),
            }
        }
        let server = Server::start(&dns.exec_root).map_err(|e| failed(&e))?;
        self.tell_all(&server).map_err(|e| failed(&e))?;
        let told = ask(&server).map_err(|e| failed(&e));
        *place = Some(server);
        told
    }

    /// Tells a process that may know nothing of all containers that run, and has it forget those that do not.
    fn tell_all(&self, server: &Server) -> wharf_dns::Result<()> {
        let known = server.known()?;
        let running: Vec<_> = self.list().into_iter().filter(|record| record.state.status.is_active()).collect();
        for id in known.containers.iter().filter(|id| running.iter().all(|record| record.id != **id)) {
            server.remove_container(id)?;
        }
        let mut told = Vec::new();
        for record in running {
            let networks = self.answered(&record, &record.networks);
            for network in networks.iter().filter(|network| !told.contains(&network.id)) {
                server.put_network(&self.everybody(network))?;
            }
            told.extend(networks.iter().map(|network| network.id.clone()));
            // One that has left the last of them asks on, until it ends.
            if networks.is_empty() && !known.containers.contains(&record.id) {
                continue;
            }
            if let Some(bridge) = self.default_bridge(&record) {
                server.put_network(&self.everybody(&bridge))?;
            }
            let container = self.asker(&record, &networks, &record.networks);
            let monitor = monitor_of(&record);
            let until = monitor.as_ref().map(AsFd::as_fd);
            if known.containers.contains(&record.id) {
                server.put_container(&container, None, until)?;
                continue;
            }
            // One that ends just now needs no names.
            let Ok(netns) = Process::of(&record).and_then(|process| process.namespace("net")) else { continue };
            server.put_container(&container, Some(&Sockets::open(netns.as_fd())?), until)?;
        }
        Ok(())
    }

    /// After a start of the daemon: the process that an earlier one has left is told what has changed meanwhile.
    pub(crate) fn take_up_names(&self) {
        let needed = self
            .list()
            .iter()
            .any(|record| record.state.status.is_active() && !self.answered(record, &record.networks).is_empty());
        let taken_up = if needed { self.with_dns(|_| Ok(())) } else { self.take_up_the_rest() };
        if let Err(error) = taken_up {
            tracing::warn!("{error}");
        }
    }

    /// Nobody needs names: a process that is still there ends, unless it has containers that have left their networks.
    fn take_up_the_rest(&self) -> Result<()> {
        let dns = &self.inner.dns;
        let mut place = lock(&dns.server);
        if let Some(server) = Server::find(&dns.exec_root).map_err(|e| failed(&e))? {
            self.tell_all(&server).map_err(|e| failed(&e))?;
            if server.known().map_err(|e| failed(&e))?.containers.is_empty() {
                return server.quit().map_err(|e| failed(&e));
            }
            *place = Some(server);
        }
        Ok(())
    }

    /// Those of its networks on which containers know each other by name: the user's own.
    pub(crate) fn networks_with_names(&self, endpoints: &BTreeMap<String, EndpointSettings>) -> Vec<NetworkRecord> {
        let found = endpoints.values().filter_map(|endpoint| self.networks().resolve(&endpoint.network_id).ok());
        found.filter(has_names).collect()
    }

    /// Those of its networks on which its names are looked up here: the ones with names, or the default bridge where nothing
    /// that the container could ask itself leads out.
    pub(crate) fn answered(
        &self,
        record: &Container,
        endpoints: &BTreeMap<String, EndpointSettings>,
    ) -> Vec<NetworkRecord> {
        let named = self.networks_with_names(endpoints);
        let Some(endpoint) = endpoints.get("bridge").filter(|_| named.is_empty()) else { return named };
        let has_own = record.host.dns.as_ref().is_some_and(|own| !own.is_empty());
        let ipv6 = endpoint::addresses(endpoint).any(|address| address.is_ipv6());
        if has_own || !self.resolv_conf(record).is_out_of_reach(ipv6) {
            return named;
        }
        self.networks().resolve(&endpoint.network_id).into_iter().collect()
    }

    /// Makes a container known on its networks, and answers it; `netns` is where it will ask. The sockets keep that
    /// alive: they go with what `until` is of, its monitor, as soon as there is one ([`Self::bind_names`]).
    pub(crate) fn answer_names(
        &self,
        record: &Container,
        netns: BorrowedFd<'_>,
        endpoints: &BTreeMap<String, EndpointSettings>,
        until: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let networks = self.answered(record, endpoints);
        if networks.is_empty() {
            return Ok(());
        }
        let sockets = Sockets::open(netns).map_err(|e| failed(&e))?;
        self.with_dns(|server| {
            for network in &networks {
                self.tell_member(server, network, &record.id)?;
            }
            if let Some(bridge) = self.default_bridge(record) {
                server.put_network(&self.everybody(&bridge))?;
            }
            server.put_container(&self.asker(record, &networks, endpoints), Some(&sockets), until)
        })
    }

    /// Answers the command of a build, that is on this network, with IPv6 or without. False where nobody has a name and the
    /// host's resolvers can be asked from there.
    ///
    /// # Errors
    /// `System` when the process that answers cannot be had.
    pub fn answer_step(&self, id: &str, network: &NetworkRecord, netns: BorrowedFd<'_>, ipv6: bool) -> Result<bool> {
        let daemon = &self.inner.options.dns;
        let resolv = ResolvConf::of_host().with(&daemon.servers, &daemon.search, &daemon.options);
        if !has_names(network) && !resolv.is_out_of_reach(ipv6) {
            return Ok(false);
        }
        let sockets = Sockets::open(netns).map_err(|e| failed(&e))?;
        let asker = wharf_dns::Container {
            id: id.to_owned(),
            networks: vec![network.id.clone()],
            upstreams: resolv
                .servers
                .iter()
                .filter_map(|text| Some(SocketAddr::new(text.parse().ok()?, PORT)))
                .collect(),
            near: Vec::new(),
            links: BTreeMap::new(),
        };
        self.with_dns(|server| {
            server.put_network(&self.everybody(network))?;
            server.put_container(&asker, Some(&sockets), None)
        })?;
        Ok(true)
    }

    /// The command of a build has ended.
    pub fn forget_step(&self, id: &str) {
        if lock(&self.inner.dns.server).is_some() {
            // It knows nothing of one on a network without names.
            let _ = self.with_dns(|server| server.remove_container(id));
        }
    }

    /// A container that runs has come to a network: it asks here from now on, whomever it asked before.
    pub(crate) fn join_names(
        &self,
        record: &Container,
        netns: BorrowedFd<'_>,
        endpoints: &BTreeMap<String, EndpointSettings>,
    ) -> Result<()> {
        let before = self.answered(record, &record.networks);
        if before.is_empty() {
            let monitor = monitor_of(record);
            self.answer_names(record, netns, endpoints, monitor.as_ref().map(AsFd::as_fd))?;
            if self.answered(record, endpoints).is_empty() {
                return Ok(());
            }
            let text = self.resolv_conf(record).render(true);
            // In place: the container has this very file mounted.
            return etc::put(&self.dir(&record.id), "resolv.conf", &text)
                .map_err(|e| EngineError::from_source("cannot write the container's resolv.conf", &e));
        }
        let networks = self.answered(record, endpoints);
        self.with_dns(|server| {
            networks.iter().try_for_each(|network| self.tell_member(server, network, &record.id))?;
            server.put_container(&self.asker(record, &networks, endpoints), None, None)
        })
    }

    fn tell_member(&self, server: &Server, network: &NetworkRecord, container: &str) -> wharf_dns::Result<()> {
        if !has_names(network) {
            return server.put_network(&self.everybody(network));
        }
        let endpoints = self.networks().endpoints(&network.id);
        let Some(own) = endpoints.iter().find(|endpoint| endpoint.container == container) else { return Ok(()) };
        match server.put_member(&network.id, &self.member(own)) {
            // The first on it.
            Err(error) if error.is_refused() => server.put_network(&self.everybody(network)),
            told => told,
        }
    }

    /// The sockets keep the container's namespace alive, and those of relayed ports are the host's: they go with its monitor, also while no daemon is there.
    pub(crate) fn bind_names(&self, record: &Container, monitor: i32) {
        let networks = self.answered(record, &record.networks);
        let monitor = Pid::from_raw(monitor).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(monitor) = &monitor
            && let Err(error) = self.networks().hang_relayed(&record.id, monitor.as_fd())
        {
            tracing::warn!("container {}: {error}", record.id);
        }
        let (Some(monitor), false) = (monitor, networks.is_empty()) else { return };
        let container = self.asker(record, &networks, &record.networks);
        if let Err(error) = self.with_dns(|server| server.put_container(&container, None, Some(monitor.as_fd()))) {
            tracing::warn!("container {}: {error}", record.id);
        }
    }

    /// Forgets a container that has ended or left a network; `left` are those that it is on no more.
    pub(crate) fn forget_names(&self, record: &Container, left: &[NetworkRecord], ended: bool) {
        // What was never told need not be forgotten. One that ends may be known though it is on none of them: it asks on
        // after it has left the last.
        if (left.is_empty() && !ended) || lock(&self.inner.dns.server).is_none() {
            return;
        }
        let forgotten = self.with_dns(|server| {
            for network in left.iter().filter(|network| has_names(network)) {
                server.remove_member(&network.id, &record.id)?;
            }
            if ended {
                return server.remove_container(&record.id);
            }
            let networks = self.answered(record, &record.networks);
            server.put_container(&self.asker(record, &networks, &record.networks), None, None)
        });
        if let Err(error) = forgotten {
            tracing::warn!("container {}: {error}", record.id);
        }
    }

    /// Its name has changed.
    pub(crate) fn rename_names(&self, record: &Container) {
        let networks = self.answered(record, &record.networks);
        if networks.is_empty() || !record.state.status.is_active() {
            return;
        }
        let told = self.with_dns(|server| networks.iter().try_for_each(|n| self.tell_member(server, n, &record.id)));
        if let Err(error) = told {
            tracing::warn!("container {}: {error}", record.id);
        }
    }

    pub(crate) fn forget_network_names(&self, network: &str) {
        if lock(&self.inner.dns.server).is_some() {
            // It knows nothing of a network that nobody was ever on.
            let _ = self.with_dns(|server| server.remove_network(network));
        }
    }

    /// Ends the process if it has nobody to answer; else it goes on without this daemon.
    pub(crate) fn leave_names(&self) {
        let server = lock(&self.inner.dns.server).take();
        if let Some(server) = server
            && server.known().is_ok_and(|known| known.containers.is_empty())
        {
            let _ = server.quit();
        }
    }

    fn everybody(&self, network: &NetworkRecord) -> Network {
        let endpoints = self.networks().endpoints(&network.id);
        Network {
            id: network.id.clone(),
            name: network.name.clone(),
            internal: network.internal,
            gateways: network.gateways(),
            members: if network.predefined { Vec::new() } else { endpoints.iter().map(|e| self.member(e)).collect() },
        }
    }

    fn member(&self, endpoint: &Endpoint) -> Member {
        let mut names = vec![endpoint.name.clone()];
        names.extend(endpoint.aliases.iter().cloned());
        names.push(endpoint.container.chars().take(12).collect());
        if let Ok(record) = self.inspect(&endpoint.container) {
            names.push(record.config.hostname.clone());
        }
        names.retain(|name| !name.is_empty());
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        Member { container: endpoint.container.clone(), addresses: endpoint.addresses(), names }
    }

    fn asker(
        &self,
        record: &Container,
        networks: &[NetworkRecord],
        endpoints: &BTreeMap<String, EndpointSettings>,
    ) -> wharf_dns::Container {
        let upstreams = self.resolv_conf(record).servers;
        let upstreams: Vec<SocketAddr> =
            upstreams.iter().filter_map(|text| Some(SocketAddr::new(text.parse().ok()?, PORT))).collect();
        // By the host's own address on that network, from where it is as near.
        let is_near = |server: &&SocketAddr| networks.iter().any(|network| network.contains(server.ip()));
        let near = upstreams.iter().filter(is_near).copied().collect();
        let mut networks: Vec<String> = networks.iter().map(|network| network.id.clone()).collect();
        // Has no names, but leads out.
        networks.extend(self.default_bridge(record).map(|bridge| bridge.id).filter(|id| !networks.contains(id)));
        let links = self.endpoint_links(endpoints);
        wharf_dns::Container { id: record.id.clone(), networks, upstreams, near, links }
    }

    fn default_bridge(&self, record: &Container) -> Option<NetworkRecord> {
        record.networks.contains_key("bridge").then(|| self.networks().resolve("bridge").ok()).flatten()
    }

    /// Whom the container would ask without us.
    pub(crate) fn resolv_conf(&self, record: &Container) -> ResolvConf {
        let list = |own: &Option<Vec<String>>| own.clone().unwrap_or_default();
        let (daemon, host) = (&self.inner.options.dns, &record.host);
        ResolvConf::of_host().with(&daemon.servers, &daemon.search, &daemon.options).with(
            &list(&host.dns),
            &list(&host.dns_search),
            &list(&host.dns_options),
        )
    }
}

/// The monitor is the parent of the container's first process.
fn monitor_of(record: &Container) -> Option<std::os::fd::OwnedFd> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", record.state.pid)).ok()?;
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    pidfd_open(Pid::from_raw(parent)?, PidfdFlags::empty()).ok()
}
