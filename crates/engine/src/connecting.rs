//! The networks of a container that starts, and what becomes of them when it has ended.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use wharf_network::{EndpointRequest, Namespace, NetworkRecord};

use crate::endpoint::{self, Asked};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::process::Process;
use crate::record::{Container, Status};
use crate::spec::{EndpointSettings, PortBinding};
use crate::{bundle, ports};

/// What Docker says of who wants to be on a configuration network.
pub(crate) const ON_CONFIGURATION: &str = "cannot create endpoint on configuration-only network";

/// Where a container's network comes from.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// A namespace of its own.
    pub(crate) own: Option<OwnedFd>,
    /// Another container's.
    pub(crate) shared: Option<OwnedFd>,
    /// Namespaces of other containers, by OCI type, and whose they are.
    pub(crate) joined: BTreeMap<&'static str, String>,
    pub(crate) donors: Vec<Process>,
    /// Where `host-gateway` leads to.
    pub(crate) gateways: Vec<IpAddr>,
}

/// Containers that have the network of one another, in a row. More are a circle.
const MAX_CHAIN: usize = 256;

/// As moby says it of a donor of namespaces.
fn is_restarting(id: &str) -> EngineError {
    EngineError::conflict(format!("Container {id} is restarting, wait until the container is running"))
}

impl Engine {
    /// A running container's network namespace, and its `/etc/resolv.conf`: for a build's command that joins it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run.
    pub fn network_of(&self, container: &str) -> Result<(OwnedFd, String)> {
        let container = self.inspect(container)?;
        let namespace = Process::of(&container)?.namespace("net").map_err(|mut error| {
            error.message = format!("joining network namespace of container: {}", error.message);
            error
        })?;
        // There is none where the host's network and files are used.
        let own = std::fs::read_to_string(self.etc_dir(&container).join("resolv.conf"));
        let resolv_conf = own.unwrap_or_else(|_| self.resolv_conf(&container).render(false));
        Ok((namespace, resolv_conf))
    }

    /// Where a container's `hostname`, `hosts` and `resolv.conf` are: with the container whose network it has, if that is
    /// another's, as the addresses and the resolver in them are of that network.
    pub fn etc_dir(&self, record: &Container) -> PathBuf {
        self.dir(&self.owner_of_network(record).as_deref().unwrap_or(record).id)
    }

    /// As [`Self::etc_dir`], if there are such files.
    pub(crate) fn etc_files(&self, record: &Container) -> Option<PathBuf> {
        let owner = self.owner_of_network(record);
        let owner = owner.as_deref().unwrap_or(record);
        bundle::has_etc_files(&owner.host).then(|| self.dir(&owner.id))
    }

    /// The container that the network of this one is from in the end; none when it is its own, or that of one that is gone.
    fn owner_of_network(&self, record: &Container) -> Option<Arc<Container>> {
        let next = |record: &Container| self.inspect(record.host.network_mode.strip_prefix("container:")?).ok();
        // Who comes to be later by the name that is waited for may close a circle, none of which can start.
        std::iter::successors(next(record), |one| next(one)).take(MAX_CHAIN).last()
    }

    /// A container whose namespaces another is about to join.
    fn donor(&self, name: &str) -> Result<Process> {
        let donor = self.inspect(name)?;
        if donor.state.status == Status::Restarting {
            return Err(is_restarting(&donor.id));
        }
        Process::of(&donor)
    }

    /// As [`Self::donor`] for the network, which moby has other words for.
    fn network_of_donor(&self, name: &str) -> Result<OwnedFd> {
        let donor = self.inspect(name).map_err(|error| {
            let message = format!("joining network namespace of container: {}", error.message);
            // It was there when the container was made, or was to be by now.
            let kind = if error.kind == ErrorKind::NotFound { ErrorKind::System } else { error.kind };
            EngineError::new(kind, message)
        })?;
        let joined = match donor.state.status {
            Status::Restarting => {
                let error = is_restarting(&donor.id);
                let message = format!("cannot join network namespace of container: {}", error.message);
                return Err(EngineError::new(error.kind, message));
            }
            _ => Process::of(&donor).and_then(|process| process.namespace("net")),
        };
        joined.map_err(|error| match error.kind {
            ErrorKind::Conflict => EngineError::conflict(format!(
                "cannot join network namespace of a non running container: container {} is {}",
                donor.name,
                donor.state.status.as_str()
            )),
            _ => error,
        })
    }

    /// The namespace with all endpoints in it and all ports published; or what is joined instead.
    #[allow(clippy::type_complexity)]
    pub(crate) fn prepare_network(
        &self,
        record: &Container,
    ) -> Result<(Network, BTreeMap<String, EndpointSettings>, BTreeMap<String, Option<Vec<PortBinding>>>)> {
        let mut network = Network::default();
        for (kind, mode) in [("ipc", &record.host.ipc_mode), ("pid", &record.host.pid_mode)] {
            if let Some(of) = mode.strip_prefix("container:") {
                let donor = self.donor(of).map_err(|error| {
                    // With moby, each is found in another step of the start, and what fails there is the engine's.
                    let kind_of = if kind == "pid" { ErrorKind::System } else { error.kind };
                    let message = format!("failed to join {} namespace: {}", kind.to_uppercase(), error.message);
                    EngineError::new(kind_of, message)
                })?;
                network.joined.insert(kind, donor.path(&format!("ns/{kind}")));
                network.donors.push(donor);
            }
        }
        let mode = record.host.network_mode.as_str();
        if mode == "host" {
            let mut endpoints = record.networks.clone();
            for settings in endpoints.values_mut() {
                settings.endpoint_id = crate::names::random_id()?;
            }
            return Ok((network, endpoints, BTreeMap::new()));
        }
        if let Some(of) = mode.strip_prefix("container:") {
            if self.inspect(of).is_ok_and(|other| other.id == record.id) {
                return Err(EngineError::invalid("cannot join own network namespace"));
            }
            network.shared = Some(self.network_of_donor(of)?);
            return Ok((network, BTreeMap::new(), BTreeMap::new()));
        }
        let own = self.networks().namespace()?;
        let mut endpoints = record.networks.clone();
        let done = self.connect_all(record, &own, &mut endpoints).and_then(|addresses| {
            network.gateways =
                endpoint::gateways(&endpoints, &endpoint::ranked(&endpoints, self.first_network(record).as_deref()));
            self.answer_names(record, own.as_fd(), &endpoints, None)?;
            if record.networks.keys().all(|name| name == "none") {
                return Ok(BTreeMap::new());
            }
            self.publish(record, &addresses).map_err(|error| not_published(record, &endpoints, &addresses, error))
        });
        match done {
            Ok(published) => {
                network.own = Some(own.into());
                Ok((network, endpoints, published))
            }
            Err(mut error) => {
                self.release_network(record);
                error.message = format!("failed to set up container networking: {}", error.message);
                Err(error)
            }
        }
    }

    /// Connects to each network, that of the network mode first: it is `eth0`. Answers with the first addresses, of each
    /// family, that can be reached from outside.
    fn connect_all(
        &self,
        record: &Container,
        namespace: &Namespace,
        endpoints: &mut BTreeMap<String, EndpointSettings>,
    ) -> Result<Vec<IpAddr>> {
        let first = self.first_network(record);
        let ranked = endpoint::ranked(endpoints, first.as_deref());
        let mut order: Vec<String> = endpoints.keys().cloned().collect();
        // Names that are asked for go first: the others are numbered around them.
        let is_named = |name: &String| endpoints.get(name).is_some_and(endpoint::has_own_name);
        let named = order.iter().filter(|name| is_named(name)).count();
        order.sort_by_key(|name| (!is_named(name), Some(name) != first.as_ref()));
        let mut reached = BTreeMap::new();
        for (index, name) in order.iter().enumerate() {
            let settings = endpoints.get_mut(name).ok_or_else(|| EngineError::system("an endpoint is gone"))?;
            let found = self.networks().resolve(name)?;
            if found.configuration.is_some() {
                return Err(EngineError::new(ErrorKind::Forbidden, ON_CONFIGURATION));
            }
            if found.driver == "null" {
                settings.network_id = found.id;
                settings.endpoint_id = crate::names::random_id()?;
                continue;
            }
            let asked = Asked::of(&found.name, settings, Some(&found))?;
            let request = EndpointRequest {
                network: &found.id,
                container: &record.id,
                name: &record.name,
                netns: namespace.as_fd(),
                // With the first link in it, it is used.
                unused: (index == 0).then_some(namespace),
                index: u32::try_from(index.saturating_sub(named)).unwrap_or(0),
                interface: asked.interface.as_deref(),
                sysctls: &asked.sysctls,
                rank: ranked.iter().position(|other| other == name).and_then(|rank| u32::try_from(rank).ok()),
                ip: asked.ip,
                ip6: asked.ip6,
                link_local: &asked.link_local,
                no_ipv6: asked.has_no_ipv6(&record.host),
                mac: asked.mac.or_else(|| record.asked_macs.get(name).and_then(|mac| mac.parse().ok())),
                bandwidth: asked.bandwidth,
                aliases: settings.aliases.as_deref().unwrap_or_default(),
            };
            let endpoint = self.networks().connect(&request)?;
            endpoint::fill(settings, &endpoint);
            settings.dns_names = crate::dns::names_on(record, &found, settings.aliases.as_deref());
            // Through an internal network nobody comes in, and through a macvlan not by the host.
            if found.publishes() {
                reached.insert(name.clone(), endpoint.addresses());
            }
            self.tell_of(
                "network",
                "connect",
                &found.id,
                &[("container", &record.id), ("name", name), ("type", &found.driver)],
            );
        }
        let reached = ranked.iter().filter_map(|name| reached.remove(name)).flatten();
        Ok(endpoint::first_of_each(reached))
    }

    /// The network of a container's network mode.
    pub(crate) fn first_network(&self, record: &Container) -> Option<String> {
        self.networks().resolve(&record.host.network_mode).map(|network: NetworkRecord| network.name).ok()
    }

    /// Publishes a container's ports at these addresses; without one they are only listed.
    pub(crate) fn publish(
        &self,
        record: &Container,
        addresses: &[IpAddr],
    ) -> Result<BTreeMap<String, Option<Vec<PortBinding>>>> {
        let requests = ports::requests(&record.config, &record.host)?;
        let mut published = ports::exposed(&record.config);
        if !addresses.is_empty() && !requests.is_empty() {
            self.networks().publish(&record.id, addresses, &requests)?;
            ports::note(&mut published, &self.networks().published(&record.id));
        }
        Ok(published)
    }

    /// Gives back the addresses and ports of a container that has ended, or was never started.
    pub(crate) fn release_network(&self, record: &Container) {
        self.free_network(record);
        self.tell_disconnected(record);
    }

    /// [`Self::release_network`] without a word.
    pub(crate) fn free_network(&self, record: &Container) {
        if record.host.network_mode == "host" || record.host.network_mode.starts_with("container:") {
            return;
        }
        self.forget_names(record, &self.answered(record, &record.networks), true);
        if let Err(error) = self.networks().release(&record.id) {
            tracing::warn!("cannot free the network of container {}: {error}", record.id);
        }
    }

    pub(crate) fn tell_disconnected(&self, record: &Container) {
        for (name, endpoint) in record.networks.iter().filter(|(_, endpoint)| !endpoint.network_id.is_empty()) {
            let Ok(network) = self.networks().resolve(&endpoint.network_id) else { continue };
            let attributes = [("container", record.id.as_str()), ("name", name), ("type", &network.driver)];
            self.tell_of("network", "disconnect", &network.id, &attributes);
        }
    }
}

/// Docker's words of ports that cannot be had, which scripts look for, around ours.
fn not_published(
    record: &Container,
    endpoints: &BTreeMap<String, EndpointSettings>,
    addresses: &[IpAddr],
    mut error: EngineError,
) -> EngineError {
    let has = |settings: &&EndpointSettings| endpoint::addresses(settings).any(|own| addresses.contains(&own));
    let id = endpoints.values().find(has).map(|settings| settings.endpoint_id.as_str()).unwrap_or_default();
    error.message = format!(
        "driver failed programming external connectivity on endpoint {} ({id}): {}",
        record.name, error.message
    );
    error
}
