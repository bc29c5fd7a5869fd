//! Ports of the host's that no rule of the kernel leads to their containers: those of its IPv6 for containers that have IPv4
//! alone, and all of a daemon in a network namespace of its own (`HostPorts`).
//!
//! The daemon binds them as all others (`hold`), and gives the sockets to the relay (`wharf_relay`), which goes on when the
//! daemon dies. They are in the container's groups with the others: those of the other family than the address are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use wharf_relay::{Port, Protocol as Carrier};

use crate::networks::Inner;
use crate::ports::{Group, Ports};
use crate::{NetworkError, NetworkRecord, Networks, PortRequest, Protocol, Published, Result};

/// Whether somebody can listen on IPv6 here, as Docker asks it.
fn has_listeners6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn carrier(protocol: Protocol) -> Option<Carrier> {
    match protocol {
        Protocol::Tcp => Some(Carrier::Tcp),
        Protocol::Udp => Some(Carrier::Udp),
        Protocol::Sctp => None,
    }
}

fn place(port: &Published) -> Option<(Carrier, SocketAddrV6)> {
    let host_ip = match port.host_ip {
        IpAddr::V6(host_ip) => host_ip,
        IpAddr::V4(host_ip) => host_ip.to_ipv6_mapped(),
    };
    Some((carrier(port.protocol)?, SocketAddrV6::new(host_ip, port.host_port, 0, 0)))
}

/// The ports of groups that are relayed, each with the container's address.
fn relayed(ports: &Ports, groups: &[Group]) -> Vec<(Published, IpAddr)> {
    let of = |group: &Group| -> Vec<(Published, IpAddr)> {
        let own = group.ports.iter().filter(|port| ports.is_relayed(group, port));
        own.map(|port| (*port, group.address)).collect()
    };
    groups.iter().flat_map(of).collect()
}

impl Networks {
    /// Whether a container's ports of the host's IPv6 are relayed; of one that gets IPv6 the kernel can lead them there.
    pub fn is_relayed(&self, container: &str) -> bool {
        let ports = self.inner.ports();
        let crosses = |group: &Group| group.ports.iter().any(|port| group.relays(port));
        ports.groups.get(container).is_some_and(|groups| groups.iter().any(crosses))
    }

    /// Whether ports of the host's IPv6 can be published for containers with IPv4 alone.
    pub fn can_relay(&self) -> bool {
        self.inner.relay.is_some() && has_listeners6()
    }

    /// Takes back what of a container is relayed from one family to the other.
    ///
    /// # Errors
    /// When the disk fails or the relay does not answer.
    pub fn unpublish_relayed(&self, container: &str) -> Result<()> {
        let inner = &*self.inner;
        let groups = inner.ports().groups.get(container).cloned().unwrap_or_default();
        let part = |group: &Group| {
            let ports: Vec<Published> = group.ports.iter().filter(|port| group.relays(port)).copied().collect();
            Group { address: group.address, ports }
        };
        let gone: Vec<Group> = groups.iter().map(part).filter(|group| !group.ports.is_empty()).collect();
        inner.stop_relaying(container, &gone);
        inner.ports().remove_ports(container, &gone);
        inner.write_groups(container)
    }

    /// Has a container's relayed ports go when its monitor (a pidfd) ends while no daemon is there. Where none are
    /// relayed, nothing is done.
    ///
    /// # Errors
    /// When the relay does not answer.
    pub fn hang_relayed(&self, container: &str, monitor: BorrowedFd<'_>) -> Result<()> {
        let has_some = {
            let ports = self.inner.ports();
            ports.groups.get(container).is_some_and(|groups| !relayed(&ports, groups).is_empty())
        };
        match &self.inner.relay {
            Some(relay) if has_some => Ok(relay.hang(container, monitor)?),
            _ => Ok(()),
        }
    }

    /// For the daemon's end: the relay ends if it has nothing to do, and goes on otherwise.
    pub fn leave(&self) {
        if let Some(relay) = &self.inner.relay {
            relay.leave();
        }
    }
}

impl Inner {
    /// Where a port is to be published on IPv6 for a container with IPv4 alone; `None` where it is not.
    pub(crate) fn relayed_place(
        &self,
        container: &str,
        request: &PortRequest,
        reached: &[(IpAddr, NetworkRecord)],
    ) -> Result<Option<(IpAddr, IpAddr)>> {
        if self.relay.is_none() || reached.iter().any(|(address, _)| address.is_ipv6()) {
            return Ok(None);
        }
        let there = reached.first().filter(|(address, network)| !network.routes(*address));
        let Some((address, network)) = there else { return Ok(None) };
        // It may have IPv6 on another network.
        let groups = self.ports().groups.get(container).cloned().unwrap_or_default();
        if request.host_ip.is_none() && groups.iter().any(|group| group.address.is_ipv6()) {
            return Ok(None);
        }
        // By request a port is to be had, else where it can be had.
        let host_ip = match request.host_ip.or(network.host_binding) {
            Some(IpAddr::V6(host_ip)) => IpAddr::V6(host_ip),
            Some(_) if request.host_ip.is_some() => return Ok(None),
            _ => match self.default_binding(false, network) {
                Some(host_ip) if carrier(request.protocol).is_some() && has_listeners6() => host_ip,
                _ => return Ok(None),
            },
        };
        if carrier(request.protocol).is_none() {
            return Err(NetworkError::Invalid(format!(
                "cannot publish port {}/{} on {host_ip}: the container has no IPv6 address, and only TCP and UDP are \
                 passed on to one of IPv4; connect it to a network that has IPv6 (`network create --ipv6`)",
                request.container_port, request.protocol,
            )));
        }
        Ok(Some((host_ip, *address)))
    }

    /// Has the relay serve the ports of `groups` that need it.
    pub(crate) fn relay(&self, container: &str, groups: &[Group]) -> Result<()> {
        let Some(relay) = &self.relay else { return Ok(()) };
        let ports = self.ports();
        let mut wanted = Vec::new();
        for (port, address) in relayed(&ports, groups) {
            let Some((protocol, host)) = place(&port) else { continue };
            let Some(socket) = ports.socket(container, &port) else { continue };
            let socket = socket.try_clone().map_err(NetworkError::host("give a published port to the relay"))?;
            let target = SocketAddr::new(address, port.container_port);
            wanted.push((Port { container: container.to_owned(), protocol, host, target }, socket));
        }
        drop(ports);
        if wanted.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = wanted.iter().map(|(port, socket)| (port.clone(), socket.as_fd())).collect();
        Ok(relay.put(&wanted)?)
    }

    /// Has the relay let go of the ports of `groups`.
    pub(crate) fn stop_relaying(&self, container: &str, groups: &[Group]) {
        let Some(relay) = &self.relay else { return };
        let places: Vec<_> = relayed(&self.ports(), groups).iter().filter_map(|(port, _)| place(port)).collect();
        if places.is_empty() {
            return;
        }
        if let Err(error) = relay.remove(container, &places) {
            tracing::warn!(?error, container, "the relay keeps ports that are not published any more");
        }
    }

    /// What the relay serves of containers that are `alive`; others' ports it lets go of. What no row says is noted again: it
    /// was not on the disk yet when the daemon died; and what a row says beyond that, it has let go of.
    pub(crate) fn known_relayed(&self, alive: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<Published>>> {
        let mut all: BTreeMap<String, Vec<Published>> = BTreeMap::new();
        let Some(relay) = &self.relay else { return Ok(all) };
        let mut noted = BTreeSet::new();
        // Where it has ended, too, the rows say what it is to serve.
        // What the kernel led for the daemon before was none of the relay's.
        let goes_on = relay.is_there() && !self.changes_hands.load(Ordering::Relaxed);
        for known in relay.known()? {
            if !alive.contains(known.container.as_str()) {
                relay.remove(&known.container, &[(known.protocol, known.host)])?;
                continue;
            }
            let protocol = if known.protocol == Carrier::Tcp { Protocol::Tcp } else { Protocol::Udp };
            let port = Published {
                container_port: known.target.port(),
                protocol,
                host_ip: IpAddr::V6(*known.host.ip()).to_canonical(),
                host_port: known.host.port(),
            };
            let mut ports = self.ports();
            let groups = ports.groups.get(&known.container);
            if !groups.into_iter().flatten().any(|group| group.ports.contains(&port)) {
                ports.add(&known.container, Group { address: known.target.ip(), ports: vec![port] });
                noted.insert(known.container.clone());
            }
            all.entry(known.container).or_default().push(port);
        }
        if goes_on {
            noted.extend(self.forget_not_relayed(&all));
        }
        noted.iter().try_for_each(|container| self.write_groups(container))?;
        Ok(all)
    }

    /// Forgets ports that rows say are relayed and that the relay does not have. Gives the containers.
    fn forget_not_relayed(&self, served: &BTreeMap<String, Vec<Published>>) -> Vec<String> {
        let mut ports = self.ports();
        let mut touched = Vec::new();
        for (container, groups) in ports.groups.clone() {
            let served = served.get(&container).map(Vec::as_slice).unwrap_or_default();
            let part = |group: &Group| {
                let gone = group.ports.iter().filter(|port| ports.is_relayed(group, port) && !served.contains(port));
                Group { address: group.address, ports: gone.copied().collect() }
            };
            let gone: Vec<Group> = groups.iter().map(part).filter(|group| !group.ports.is_empty()).collect();
            if !gone.is_empty() {
                ports.remove_ports(&container, &gone);
                touched.push(container);
            }
        }
        touched
    }

    /// Has the relay serve what it should and does not.
    pub(crate) fn relay_missing(&self, known: &BTreeMap<String, Vec<Published>>) {
        let all = self.ports().groups.clone();
        for (container, groups) in all {
            let known = known.get(&container).map(Vec::as_slice).unwrap_or_default();
            let missing = |group: Group| {
                let ports = group.ports.iter().filter(|port| !known.contains(port));
                Group { address: group.address, ports: ports.copied().collect() }
            };
            let missing: Vec<Group> = groups.into_iter().map(missing).collect();
            if let Err(error) = self.relay(&container, &missing) {
                tracing::warn!(?error, container, "published ports are not relayed");
            }
        }
    }

    /// Starts the relay again when somebody has ended it: the sockets that the daemon has, or binds anew, go on.
    pub(crate) fn heal_relay(&self) {
        let Some(relay) = &self.relay else { return };
        let containers: Vec<String> = {
            let ports = self.ports();
            let some = ports.groups.iter().filter(|(_, groups)| !relayed(&ports, groups).is_empty());
            some.map(|(container, _)| container.clone()).collect()
        };
        if containers.is_empty() || relay.is_there() {
            return;
        }
        tracing::warn!("the process that relays ports has gone; it is started again");
        for container in &containers {
            self.ports().hold_again(container, |_| false);
        }
        self.relay_missing(&BTreeMap::new());
    }
}
