//! Networks and containers: who is on which, joined and left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;

use wharf_network::{EndpointRequest, NetworkRecord, Protocol, Published};

use crate::endpoint::{self, Asked};
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::Container;
use crate::slot::Slot;
use crate::spec::{EndpointSettings, PortBinding};

/// Published ports by what is published, as records have them.
type Ports = BTreeMap<String, Option<Vec<PortBinding>>>;

const NOT_TO_HOST: &str = "cannot connect container to host network - container must be created in host network mode";
const NOT_FROM_HOST: &str =
    "cannot disconnect container from host network - container was created in host network mode";

impl Engine {
    /// Puts a container on a network; at once when it runs.
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` when it is there already; `InvalidParameter` when it has another's network, or is to be on
    /// none and on another.
    pub async fn connect_network(&self, network: &str, container: &str, settings: EndpointSettings) -> Result<()> {
        // Who asks for neither hears of the network first, as in Docker.
        self.networks().resolve(network)?;
        let (engine, network, slot) = (self.clone(), network.to_owned(), self.inner.slots.find(container)?);
        to_its_end(async move { engine.connect_now(&network, &slot, settings).await }).await
    }

    async fn connect_now(&self, network: &str, slot: &Arc<Slot>, mut settings: EndpointSettings) -> Result<()> {
        let _turn = slot.turn.lock().await;
        // It may have been removed meanwhile, and its row is not to come back.
        self.inner.slots.find(&slot.id)?;
        let record = slot.record();
        let found = self.networks().resolve(network)?;
        let forbidden = |text: String| EngineError::new(crate::ErrorKind::Forbidden, text);
        let (mode, is_active) = (record.host.network_mode.as_str(), record.state.status.is_active());
        if mode != "host" && found.driver == "host" {
            // What is asked for is looked at first.
            Asked::of(&found.name, &settings, Some(&found))?;
            return Err(EngineError::invalid(NOT_TO_HOST));
        }
        if mode == "host" || mode.starts_with("container:") {
            return Err(EngineError::invalid(
                "container sharing network namespace with another container or host cannot be connected to any other \
                 network",
            ));
        }
        Asked::of(&found.name, &settings, Some(&found))?;
        let is_there = record.networks.contains_key(&found.name);
        let others = record.networks.keys().any(|name| *name != found.name);
        if others && !is_there && (found.name == "none" || record.networks.contains_key("none")) {
            return Err(EngineError::invalid(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ));
        }
        settings.links.iter().flatten().try_for_each(|link| crate::links::parse(link).map(drop))?;
        // Who does not run is told at the start.
        if found.configuration.is_some() && is_active {
            return Err(forbidden(crate::connecting::ON_CONFIGURATION.into()));
        }
        // Of one that does not run it is what the next start gets.
        if is_there && is_active {
            return Err(forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, found.name
            )));
        }
        let asked_mac = Some(settings.mac_address.clone()).filter(|mac| !mac.is_empty());
        if is_active && found.is_joinable() {
            let (engine, own, name) = (self.clone(), record.clone(), found.name.clone());
            let (network_id, driver) = (found.id.clone(), found.driver.clone());
            let connected = blocking(move || {
                let netns = Process::of(&own)?.namespace("net")?;
                let asked = Asked::of(&found.name, &settings, Some(&found))?;
                let numbered = own.networks.values().filter(|settings| !endpoint::has_own_name(settings)).count();
                let request = EndpointRequest {
                    network: &found.id,
                    container: &own.id,
                    name: &own.name,
                    netns: netns.as_fd(),
                    unused: None,
                    index: u32::try_from(numbered).unwrap_or(0),
                    interface: asked.interface.as_deref(),
                    sysctls: &asked.sysctls,
                    rank: None,
                    ip: asked.ip,
                    ip6: asked.ip6,
                    link_local: &asked.link_local,
                    no_ipv6: asked.has_no_ipv6(&own.host),
                    mac: asked.mac,
                    bandwidth: asked.bandwidth,
                    aliases: settings.aliases.as_deref().unwrap_or_default(),
                };
                let endpoint = engine.networks().connect(&request)?;
                endpoint::fill(&mut settings, &endpoint);
                settings.dns_names = crate::dns::names_on(&own, &found, settings.aliases.as_deref());
                let mut all = own.networks.clone();
                all.insert(found.name.clone(), settings.clone());
                let ordered = if all.values().any(|settings| settings.gw_priority != 0) {
                    let ranked = endpoint::ranked(&all, engine.first_network(&own).as_deref());
                    let ids: Vec<String> =
                        ranked.iter().filter_map(|name| all.get(name)).map(|s| s.network_id.clone()).collect();
                    engine.networks().rank(&own.id, netns.as_fd(), &ids).map_err(EngineError::from)
                } else {
                    Ok(())
                };
                if let Err(error) = ordered.and_then(|()| engine.join_names(&own, netns.as_fd(), &all)) {
                    // On it or not: never connected and not in its record.
                    engine.networks().disconnect_from(&found.id, &own.id, netns.as_fd())?;
                    return Err(error);
                }
                let ports = match engine.publish_more(&own, &found, &endpoint.addresses()) {
                    Ok(ports) => ports,
                    Err(error) => {
                        engine.forget_names(&own, std::slice::from_ref(&found), false);
                        engine.networks().disconnect_from(&found.id, &own.id, netns.as_fd())?;
                        return Err(error);
                    }
                };
                Ok((settings, ports))
            });
            let (settings, ports) = connected.await?;
            let before = record;
            let record = slot.change(|record| {
                record.networks.insert(name.clone(), settings);
                record.asked_macs.extend(asked_mac.map(|mac| (name.clone(), mac)));
                record.ports = ports.unwrap_or_else(|| std::mem::take(&mut record.ports));
            });
            self.save(&record).await?;
            self.move_own_names(before, &record).await;
            let attributes = [("container", record.id.as_str()), ("name", &name), ("type", &driver)];
            self.tell_of("network", "connect", &network_id, &attributes);
            return Ok(());
        }
        let record = slot.change(|record| {
            record.networks.insert(found.name.clone(), settings);
            record.asked_macs.remove(&found.name);
            record.asked_macs.extend(asked_mac.map(|mac| (found.name.clone(), mac)));
        });
        self.save(&record).await
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// `NotFound` when there is no such network or container, `System`, as with Docker, when it is not on it.
    pub async fn disconnect_network(&self, network: &str, container: &str, force: bool) -> Result<()> {
        let slot = match self.inner.slots.find(container) {
            Err(_) if force => return self.drop_endpoint(network, container).await,
            found => found?,
        };
        let (engine, network) = (self.clone(), network.to_owned());
        to_its_end(async move {
            // A network that has gone leaves its name with containers that do not run.
            if force
                && engine.networks().resolve(&network).is_err()
                && slot.record().networks.contains_key(&network)
                && !slot.record().state.status.is_active()
            {
                let _turn = slot.turn.lock().await;
                engine.inner.slots.find(&slot.id)?;
                let record = slot.change(|record| drop(record.networks.remove(&network)));
                return engine.save(&record).await;
            }
            engine.disconnect_now(&network, &slot).await
        })
        .await
    }

    /// Takes an endpoint off a network whose container nobody knows any more.
    async fn drop_endpoint(&self, network: &str, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(EngineError::invalid("invalid name: name is empty"));
        }
        let found = self.networks().resolve(network)?;
        let endpoint = self.networks().endpoints(&found.id).into_iter().find(|endpoint| endpoint.name == name);
        let endpoint = endpoint.ok_or_else(|| EngineError::not_found(format!("endpoint {name} not found")))?;
        let networks = self.networks().clone();
        blocking(move || Ok(networks.disconnect(&found.id, &endpoint.container)?)).await
    }

    async fn disconnect_now(&self, network: &str, slot: &Arc<Slot>) -> Result<()> {
        let _turn = slot.turn.lock().await;
        self.inner.slots.find(&slot.id)?;
        let record = slot.record();
        let found = self.networks().resolve(network)?;
        if found.driver == "host" && record.host.network_mode == "host" {
            return Err(EngineError::invalid(NOT_FROM_HOST));
        }
        if !record.networks.contains_key(&found.name) {
            let the = if record.state.status.is_active() { "" } else { "the " };
            let message = format!("container {} is not connected to {the}network {}", record.id, found.name);
            return Err(EngineError::system(message));
        }
        let before = record;
        let record = slot.change(|record| {
            record.networks.remove(&found.name);
            record.asked_macs.remove(&found.name);
        });
        // First what is to be: should this daemon be killed, the next one takes it off the network.
        if record.state.status.is_active() && found.is_joinable() {
            let taken_off = match self.save(&record).await {
                Ok(()) => self.take_off(&found.id, &record).await,
                Err(error) => Err(error),
            };
            if let Err(error) = taken_off {
                let record = slot.change(|record| {
                    record.networks.clone_from(&before.networks);
                    record.asked_macs.clone_from(&before.asked_macs);
                });
                self.save(&record).await?;
                return Err(error);
            }
        }
        if record.state.status.is_active() {
            let (engine, own, left) = (self.clone(), record.clone(), found.clone());
            let ports = blocking(move || {
                engine.forget_names(&own, &[left], false);
                Ok(engine.ports_elsewhere(&own))
            })
            .await?;
            slot.change(|record| record.ports = ports);
            self.move_own_names(before, &slot.record()).await;
        }
        let record = slot.record();
        if record.state.status.is_active() && found.is_joinable() {
            self.save_soon(&record);
        } else {
            self.save(&record).await?;
        }
        let attributes = [("container", record.id.as_str()), ("name", &found.name), ("type", &found.driver)];
        self.tell_of("network", "disconnect", &found.id, &attributes);
        Ok(())
    }

    /// The container finds itself by its name where it is now. One that holds up its own file keeps what is in it.
    async fn move_own_names(&self, before: Arc<Container>, after: &Arc<Container>) {
        let (dir, own) = (self.dir(&after.id), Arc::clone(after));
        let moved = blocking(move || {
            let addresses =
                |record: &Container| record.networks.values().flat_map(endpoint::addresses).collect::<Vec<_>>();
            let (old, new) = (addresses(&before), addresses(&own));
            let gone: Vec<IpAddr> = old.iter().copied().filter(|address| !new.contains(address)).collect();
            let come: Vec<IpAddr> = new.iter().copied().filter(|address| !old.contains(address)).collect();
            crate::etc::move_own(&dir, &own, &gone, &come)
                .map_err(|e| EngineError::from_source("cannot write the container's hosts", &e))
        });
        if let Err(error) = moved.await {
            tracing::warn!("container {}: {error}", after.id);
        }
    }

    /// Takes a container that runs off a network, in the kernel and in what the network knows.
    async fn take_off(&self, network: &str, record: &Arc<Container>) -> Result<()> {
        let (networks, id, own) = (self.networks().clone(), network.to_owned(), Arc::clone(record));
        blocking(move || {
            // Between two starts nobody runs in it.
            let Ok(netns) = Process::of(&own).and_then(|process| process.namespace("net")) else {
                return Ok(networks.disconnect(&id, &own.id)?);
            };
            Ok(networks.disconnect_from(&id, &own.id, netns.as_fd())?)
        })
        .await
    }

    /// Publishes ports that nobody could reach until now, or not by the family of an address that has come with a network,
    /// under the numbers that they have. `None` when there are no such.
    fn publish_more(&self, record: &Container, network: &NetworkRecord, addresses: &[IpAddr]) -> Result<Option<Ports>> {
        if !network.publishes() {
            return Ok(None);
        }
        let mut there = self.networks().published(&record.id);
        if there.is_empty() {
            return self.publish(record, addresses).map(Some);
        }
        if addresses.iter().any(IpAddr::is_ipv6) && self.networks().is_relayed(&record.id) {
            // The kernel can lead there what a process has passed on until now.
            self.networks().unpublish_relayed(&record.id)?;
        }
        let still = self.networks().published(&record.id);
        let is_new = |address: &&IpAddr| still.iter().all(|port| port.host_ip.is_ipv4() != address.is_ipv4());
        let Some(new) = addresses.iter().find(is_new).copied() else {
            return self.relay_more(record, network, addresses);
        };
        let is_bound = network.host_binding.is_none_or(|ip| ip.is_unspecified() || ip.is_ipv4() == new.is_ipv4());
        let mut requests = crate::ports::requests(&record.config, &record.host)?;
        requests.retain(|request| request.host_ip.map_or(is_bound, |ip| ip.is_ipv4() == new.is_ipv4()));
        for request in requests.iter_mut().filter(|request| request.host_ip.is_none()) {
            let same =
                |port: &Published| (port.container_port, port.protocol) == (request.container_port, request.protocol);
            if let Some(place) = there.iter().position(same) {
                let number = there.remove(place).host_port;
                request.host_port = Some((number, number));
            }
        }
        self.networks().publish(&record.id, &[new], &requests)?;
        Ok(Some(self.ports_of(record)))
    }

    /// Publishes ports on the host's IPv6, too, of a container that has got an address of IPv4 alone.
    fn relay_more(&self, record: &Container, network: &NetworkRecord, addresses: &[IpAddr]) -> Result<Option<Ports>> {
        let there = self.networks().published(&record.id);
        let [four @ IpAddr::V4(_)] = addresses else { return Ok(None) };
        let is_bound = network.host_binding.is_none_or(|ip| ip.is_unspecified() || ip.is_ipv6());
        if there.iter().any(|port| port.host_ip.is_ipv6()) || !self.networks().can_relay() {
            return Ok(None);
        }
        let mut requests = crate::ports::requests(&record.config, &record.host)?;
        requests.retain(|request| request.host_ip.map_or(is_bound, |ip| ip.is_ipv6()));
        requests.retain(|request| request.protocol != Protocol::Sctp);
        for request in requests.iter_mut().filter(|request| request.host_ip.is_none()) {
            let same =
                |port: &&Published| (port.container_port, port.protocol) == (request.container_port, request.protocol);
            let number = there.iter().find(same).map(|port| (port.host_port, port.host_port));
            request.host_port = number.or(request.host_port);
            let local = there.iter().find(same).is_some_and(|port| port.host_ip.is_loopback());
            request.host_ip = Some(if local { Ipv6Addr::LOCALHOST.into() } else { Ipv6Addr::UNSPECIFIED.into() });
        }
        self.networks().publish(&record.id, &[*four], &requests)?;
        Ok(Some(self.ports_of(record)))
    }

    /// What a container exposes and publishes.
    fn ports_of(&self, record: &Container) -> Ports {
        let mut ports = record.ports.keys().map(|port| (port.clone(), None)).collect();
        crate::ports::note(&mut ports, &self.networks().published(&record.id));
        ports
    }

    /// What a container has published after it has left a network: what was published there is on another that leads out
    /// from now on, where there is one.
    fn ports_elsewhere(&self, record: &Container) -> Ports {
        let leads_out = |name: &String| self.networks().resolve(name).ok().filter(NetworkRecord::publishes);
        let ranked = endpoint::ranked(&record.networks, self.first_network(record).as_deref());
        let rest: Vec<(NetworkRecord, Vec<IpAddr>)> = ranked
            .iter()
            .filter_map(|name| Some((leads_out(name)?, endpoint::addresses(record.networks.get(name)?).collect())))
            .collect();
        if !self.networks().published(&record.id).is_empty() || record.ports.values().all(Option::is_none) {
            // What is left may be of the one family alone.
            for (network, addresses) in rest.iter().filter(|_| record.ports.values().any(Option::is_some)) {
                if let Err(error) = self.publish_more(record, network, addresses) {
                    tracing::warn!("ports of container {} are not published at {addresses:?}: {error}", record.id);
                }
            }
            return self.ports_of(record);
        }
        let addresses = endpoint::first_of_each(rest.into_iter().flat_map(|(_, addresses)| addresses));
        self.publish(record, &addresses).unwrap_or_else(|error| {
            tracing::warn!("ports of container {} are not published any more: {error}", record.id);
            record.ports.keys().map(|port| (port.clone(), None)).collect()
        })
    }

    /// The containers on a network that run, with their endpoints there.
    pub fn network_users(&self, network: &str) -> Vec<(Arc<crate::record::Container>, EndpointSettings)> {
        let on = |record: Arc<crate::record::Container>| {
            let settings = record.networks.get(network)?.clone();
            record.state.status.is_active().then_some((record, settings))
        };
        self.list().into_iter().filter_map(on).collect()
    }

    /// Removes a network that nobody is on.
    ///
    /// # Errors
    /// `Forbidden` with the names of those who are, and for the networks that are always there.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        let found = self.networks().resolve(name)?;
        let forbidden = |text: String| EngineError::new(crate::ErrorKind::Forbidden, text);
        if matches!(found.name.as_str(), "bridge" | "host" | "none") {
            return Err(forbidden(format!("{} is a pre-defined network and cannot be removed", found.name)));
        }
        let users = self.network_users(&found.name);
        if !users.is_empty() {
            let names: Vec<String> =
                users.iter().map(|(r, _)| format!("name:\"{}\" id:\"{}\"", r.name, &r.id[..12])).collect();
            return Err(forbidden(format!(
                "error while removing network: network {} has active endpoints ({})",
                found.name,
                names.join(", ")
            )));
        }
        let (networks, id) = (self.networks().clone(), found.id.clone());
        let engine = self.clone();
        blocking(move || {
            networks.remove(&id)?;
            engine.forget_network_names(&id);
            Ok(())
        })
        .await?;
        self.tell_of("network", "destroy", &found.id, &[("name", &found.name), ("type", &found.driver)]);
        Ok(())
    }
}
