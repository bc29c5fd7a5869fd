//! Connecting containers, and letting go of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection, Peer, Port, Route, RouteEntry, Veth};

use crate::background::{self, Leaving};
use crate::choose::{choose, choose6};
use wharf_netlink::MacAddress;

use crate::create::random_id;
use crate::networks::Inner;
use crate::state::endpoint_key;
use crate::{
    Endpoint, EndpointRequest, NetworkError, NetworkRecord, Networks, Result, bandwidth, bridge, interface, ipam, mark,
    parent, sysctl,
};

/// What a route of IPv6 has when nothing is said (`IP6_RT_PRIO_USER`).
pub(crate) const KERNELS_METRIC: u32 = 1024;

impl Networks {
    /// Gives a container an address and a link in a network.
    ///
    /// The address is reserved in one transaction before anything is made, so it is never given twice; the link is
    /// one batch here and one in the container. In the container the default route of the lowest rank is taken; those of
    /// further networks have their rank as their metric, and take over when it goes.
    ///
    /// # Errors
    /// `NotFound`, `Connected`, `NoAddress`, `AddressTaken`, and when the kernel refuses; then nothing of it is left.
    pub fn connect(&self, request: &EndpointRequest<'_>) -> Result<Endpoint> {
        let inner = &*self.inner;
        let interface = inner.interface_name(request)?;
        let (record, link, endpoint) = inner.reserve(request, interface)?;
        let made = inner.write(&endpoint).and_then(|()| {
            let made = match link {
                // Its parent is the user's, who may have made it anew.
                _ if record.parent.is_some() => {
                    let link = parent::ensure(&Connection::open()?, inner.instance(), &record)?;
                    return inner.make_link(request, &record, link, &endpoint);
                }
                Some(link) => inner.make_link(request, &record, link, &endpoint),
                None => Err(NetworkError::NotFound(record.name.clone())),
            };
            if made.is_ok() || Connection::open()?.link(record.bridge.as_deref().unwrap_or_default())?.is_some() {
                return made;
            }
            // The bridge could not be made when the daemon started, or somebody has removed it since.
            let link = inner.ensure_bridge(&record)?;
            inner.make_link(request, &record, link, &endpoint)
        });
        if let Err(error) = made {
            let removed = match record.parent {
                Some(_) => parent::remove_link(request.netns, &endpoint),
                None => background::remove(&[&endpoint.host_interface]),
            };
            if let Err(left) = removed {
                tracing::warn!(error = ?left, "a link is left");
            }
            inner.forget(std::slice::from_ref(&endpoint));
            return Err(error);
        }
        Ok(endpoint)
    }

    /// Takes a container out of a network, at once: when this returns, the link is gone, what was published there is
    /// not any more, and the address is free.
    /// For a container that has ended, [`Self::release`] is quicker. A link of macvlan or ipvlan is the container's alone, and goes by
    /// [`Self::disconnect_from`] or with its namespace.
    ///
    /// # Errors
    /// `NotFound`, `NotConnected`, and when the kernel refuses.
    pub fn disconnect(&self, network_id: &str, container: &str) -> Result<()> {
        self.take_out(network_id, container, None)
    }

    /// As [`Self::disconnect`], for any network; `netns` is the container's.
    ///
    /// # Errors
    /// As there.
    pub fn disconnect_from(&self, network_id: &str, container: &str, netns: BorrowedFd<'_>) -> Result<()> {
        self.take_out(network_id, container, Some(netns))
    }

    fn take_out(&self, network_id: &str, container: &str, netns: Option<BorrowedFd<'_>>) -> Result<()> {
        let endpoint = {
            let state = self.inner.state();
            let network = state.resolve(network_id)?;
            network.endpoints.get(container).cloned().ok_or_else(|| NetworkError::NotConnected {
                container: container.to_owned(),
                network: network.record.name.clone(),
            })?
        };
        self.unpublish_at(container, &endpoint.addresses())?;
        match (endpoint.host_interface.as_str(), netns) {
            ("", Some(netns)) => parent::remove_link(netns, &endpoint)?,
            ("", None) => {}
            (link, _) => background::remove(&[link])?,
        }
        self.inner.delete_rows(std::slice::from_ref(&endpoint))?;
        self.inner.forget_in_memory(std::slice::from_ref(&endpoint));
        Ok(())
    }

    /// Lets go of a container that has ended: its ports, its addresses, its links. Does not wait for the links, which
    /// go with the container's namespace; their addresses are not given to anybody else before they have.
    ///
    /// # Errors
    /// When the disk fails or the kernel refuses.
    pub fn release(&self, container: &str) -> Result<()> {
        let unpublished = self.unpublish(container);
        let endpoints = self.endpoints_of(container);
        if !endpoints.is_empty() {
            self.inner.delete_rows(&endpoints)?;
            let since = Instant::now();
            // First noted as leaving, then free.
            let linked = endpoints.iter().filter(|endpoint| !endpoint.host_interface.is_empty());
            self.inner.background.leave(linked.map(|endpoint| Leaving {
                network: endpoint.network_id.clone(),
                container: endpoint.container.clone(),
                addresses: endpoint.addresses(),
                host_interface: endpoint.host_interface.clone(),
                since,
            }));
            self.inner.forget_in_memory(&endpoints);
        }
        unpublished
    }

    /// Puts a container's ways out into another order: that of the first network (by its ID) is taken.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rank(&self, container: &str, netns: BorrowedFd<'_>, networks: &[String]) -> Result<()> {
        let endpoints = self.endpoints_of(container);
        let route = namespace::within(netns, Connection::open)??;
        let (links, there) = (route.links()?, route.routes()?);
        let (mut old, mut new) = (Batch::new(), Batch::new());
        for (rank, id) in (0..).zip(networks) {
            let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.network_id == *id) else { continue };
            let Some(link) = links.iter().find(|link| link.name == endpoint.interface) else { continue };
            for wanted in defaults(endpoint, link.index, rank) {
                let same = |entry: &&RouteEntry| {
                    entry.link == Some(link.index)
                        && (entry.destination, entry.gateway) == (wanted.destination, wanted.gateway)
                };
                // What the container has taken away itself is not put back.
                let Some(entry) = there.iter().find(same) else { continue };
                old.delete_route(&Route { metric: entry.metric, ..wanted });
                new.add_route(&wanted);
            }
        }
        route.apply(old)?;
        Ok(route.apply(new)?)
    }

    /// Gives a container another name in its networks.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn rename(&self, container: &str, name: &str) -> Result<()> {
        let renamed: Vec<Endpoint> = {
            let mut state = self.inner.state();
            let endpoints = state.networks.values_mut().filter_map(|network| network.endpoints.get_mut(container));
            endpoints
                .map(|endpoint| {
                    name.clone_into(&mut endpoint.name);
                    endpoint.clone()
                })
                .collect()
        };
        renamed.iter().try_for_each(|endpoint| self.inner.write(endpoint))
    }
}

impl Inner {
    /// Notes an endpoint with a free address, in memory.
    fn reserve(
        &self,
        request: &EndpointRequest<'_>,
        interface: String,
    ) -> Result<(NetworkRecord, Option<u32>, Endpoint)> {
        let endpoint_id = random_id()?;
        let mut state = self.state();
        let id =
            state.resolve(if request.network == "default" { "bridge" } else { request.network })?.record.id.clone();
        let network = state.networks.get_mut(&id).ok_or_else(|| NetworkError::NotFound(request.network.to_owned()))?;
        let record = network.record.clone();
        if record.subnet.is_none() && record.pool6.is_none() {
            return Err(NetworkError::Invalid(format!("no container can be connected to the network {}", record.name)));
        }
        if record.driver == parent::IPVLAN && request.mac.is_some() {
            let message = "ipvlan interfaces do not support custom mac address assignment";
            return Err(NetworkError::Invalid(message.into()));
        }
        let link = network.link;
        if network.endpoints.contains_key(request.container) {
            return Err(NetworkError::Connected { name: request.name.to_owned(), network: record.name });
        }
        let leaving = self.background.leaving(&id);
        let (ip, ip6) = (choose(network, request, &leaving)?, choose6(network, request, &leaving)?);
        let Some(first) = ip.map(IpAddr::V4).or(ip6.map(IpAddr::V6)) else {
            let message = format!("network {} has IPv6 only, and the container has turned that off", record.name);
            return Err(NetworkError::Invalid(message));
        };
        let (gateway, prefix) = ip.map_or((record.way_out4(), 0), |ip| record.place4(ip));
        let (gateway6, prefix6) = ip6.map(|ip| record.place6(ip)).unwrap_or_default();
        let endpoint = Endpoint {
            network_id: id,
            // Of the endpoint's ID, so that no two are the same and a person finds it again.
            host_interface: if record.parent.is_some() { String::new() } else { format!("veth{}", &endpoint_id[..8]) },
            endpoint_id,
            container: request.container.to_owned(),
            name: request.name.to_owned(),
            aliases: request.aliases.to_vec(),
            ip,
            prefix,
            gateway,
            ip6,
            prefix6,
            gateway6,
            mac: request.mac.unwrap_or_else(|| ipam::mac_of(first)),
            parents_mac: record.driver == parent::IPVLAN,
            leads_out: !record.internal && record.parent.as_ref().is_some_and(crate::Parent::leads_out),
            interface,
        };
        network.endpoints.insert(endpoint.container.clone(), endpoint.clone());
        drop(state);
        let addresses = endpoint.addresses();
        for old in leaving.iter().filter(|old| old.addresses.iter().any(|address| addresses.contains(address))) {
            if let Err(error) = self.background.hurry(old) {
                self.forget_in_memory(std::slice::from_ref(&endpoint));
                return Err(error);
            }
        }
        Ok((record, link, endpoint))
    }

    fn ensure_bridge(&self, record: &NetworkRecord) -> Result<u32> {
        let link = bridge::ensure(&Connection::open()?, self.instance(), record)?;
        if let Some(network) = self.state().networks.get_mut(&record.id) {
            network.link = Some(link);
        }
        Ok(link)
    }

    /// Makes the link of an endpoint: the host's end in the bridge, the container's with its address and routes.
    fn make_link(
        &self,
        request: &EndpointRequest<'_>,
        record: &NetworkRecord,
        bridge: u32,
        endpoint: &Endpoint,
    ) -> Result<()> {
        if record.parent.is_some() {
            parent::make_link(request, record, bridge, endpoint)?;
            return self.set_up_link(request, record, endpoint);
        }
        let limits = request.bandwidth.on(record)?;
        let name = &endpoint.host_interface;
        let peer = Peer { name: &endpoint.interface, mac: endpoint.mac, netns: request.netns };
        let mut batch = Batch::new();
        batch.create_veth(&Veth { name, mtu: record.mtu, master: Some(bridge), peer });
        let port = Port { isolated: !record.icc, hairpin: bridged_traffic_is_filtered() };
        if port != Port::default() {
            batch.set_port(name, port);
        }
        batch.mark_and_set_up(name, &mark::endpoint(self.instance(), endpoint), sysctl::link_has_ipv6(record.mtu));
        let host = Connection::open()?;
        host.apply(batch)?;
        bandwidth::set(&host, name, limits.down, false)?;
        self.set_up_link(request, record, endpoint)?;
        // As of the container's end.
        for name in [Some(name), record.bridge.as_ref()].into_iter().flatten() {
            host.link(name)?;
        }
        Ok(())
    }

    /// Gives the link in the container its addresses and routes, and takes it up.
    fn set_up_link(&self, request: &EndpointRequest<'_>, record: &NetworkRecord, endpoint: &Endpoint) -> Result<()> {
        let has_ipv6 = endpoint.ip6.is_some() || request.link_local.iter().any(IpAddr::is_ipv6);
        let open = || {
            if record.parent.is_some() && endpoint.ip.is_some() {
                // Told to all as it comes up: somebody outside may be asking for it already, and asks once a second.
                sysctl::ensure(&format!("ipv4/conf/{}/arp_notify", endpoint.interface), "1")?;
            }
            if has_ipv6 {
                sysctl::ensure(&format!("ipv6/conf/{}/disable_ipv6", endpoint.interface), "0")?;
            }
            request.sysctls.iter().try_for_each(|sysctl| sysctl.set(&endpoint.interface))?;
            Ok::<_, NetworkError>(Connection::open()?)
        };
        let opened;
        let route = match request.unused {
            Some(unused) if record.parent.is_none() && !has_ipv6 && request.sysctls.is_empty() => &unused.inside,
            _ => {
                opened = namespace::within(request.netns, open)??;
                &opened
            }
        };
        let rank = request.rank.map_or_else(|| interface::last_rank(route), Ok)?;
        let Some(link) = route.link(&endpoint.interface)? else {
            return Err(NetworkError::NotFound(format!("interface {}", endpoint.interface)));
        };
        let mut batch = Batch::new();
        // Its own address of the link comes first, for neighbours know one another by that.
        if endpoint.ip6.is_some() {
            batch.no_own_address(link.index).add_address(link.index, link_local(endpoint.mac), 64);
        }
        for address in endpoint.addresses() {
            let prefix = if address.is_ipv4() { endpoint.prefix } else { endpoint.prefix6 };
            batch.add_address(link.index, address, prefix);
        }
        for address in request.link_local {
            batch.add_address(link.index, *address, if address.is_ipv4() { 16 } else { 64 });
        }
        if record.parent.is_some() {
            route.apply(batch)?;
            parent::set_up(route, link.index)?;
            batch = Batch::new();
        } else {
            batch.set_up(link.index);
        }
        bandwidth::set(route, &endpoint.interface, request.bandwidth.on(record)?.up, false)?;
        for default in defaults(endpoint, link.index, rank) {
            batch.add_route(&default);
        }
        route.apply(batch)?;
        bridge::await_heard(route, link.index, &endpoint.addresses())?;
        // The kernel enables links that have come up behind our back, and what is sent meanwhile is lost; an ARP
        // request that is lost costs a second. Looking at a link makes it do that first (since Linux 6.8; before, it
        // is a matter of luck and a few milliseconds).
        route.link(&endpoint.interface)?;
        Ok(())
    }

    /// Writes the row of an endpoint. Not forced to the disk: should a crash take it, the link's mark says the same. Where
    /// the host has no link to mark, it is.
    fn write(&self, endpoint: &Endpoint) -> Result<()> {
        let (table, key) = endpoint_key(&endpoint.network_id, &endpoint.container);
        if endpoint.host_interface.is_empty() {
            return self.store.write::<_, NetworkError>(|tx| Ok(tx.put(table, &key, endpoint)?));
        }
        self.store.write_soon::<_, NetworkError>(|tx| Ok(tx.put(table, &key, endpoint)?))
    }

    pub(crate) fn delete_rows(&self, endpoints: &[Endpoint]) -> Result<()> {
        self.store.write_soon::<_, NetworkError>(|tx| {
            for endpoint in endpoints {
                let (table, key) = endpoint_key(&endpoint.network_id, &endpoint.container);
                tx.delete(table, &key)?;
            }
            Ok(())
        })
    }

    pub(crate) fn forget_in_memory(&self, endpoints: &[Endpoint]) {
        let mut state = self.state();
        for endpoint in endpoints {
            if let Some(network) = state.networks.get_mut(&endpoint.network_id) {
                network.endpoints.remove(&endpoint.container);
            }
        }
    }

    fn forget(&self, endpoints: &[Endpoint]) {
        if let Err(error) = self.delete_rows(endpoints) {
            tracing::warn!(?error, "the row of an endpoint is left");
        }
        self.forget_in_memory(endpoints);
    }
}

/// The ways out of an endpoint: `rank` is its place among those of its container.
fn defaults(endpoint: &Endpoint, link: u32, rank: u32) -> Vec<Route> {
    let four = (endpoint.ip.is_some() && (endpoint.gateway.is_some() || endpoint.leads_out)).then(|| Route {
        destination: (Ipv4Addr::UNSPECIFIED.into(), 0),
        gateway: endpoint.gateway.map(IpAddr::V4).filter(|_| !endpoint.leads_out),
        link,
        metric: rank,
    });
    let six = (endpoint.ip6.is_some() && (endpoint.gateway6.is_some() || endpoint.leads_out)).then(|| Route {
        destination: (Ipv6Addr::UNSPECIFIED.into(), 0),
        gateway: endpoint.gateway6.map(IpAddr::V6).filter(|_| !endpoint.leads_out),
        link,
        // The first has the kernel's own.
        metric: if rank == 0 { 0 } else { rank.saturating_add(KERNELS_METRIC) },
    });
    four.into_iter().chain(six).collect()
}

/// The address of a link that the kernel would make of its hardware address (RFC 4291, appendix A), had we not turned
/// that off to have it without the time that it takes to see whether somebody else has it.
fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3])
}

/// Whether frames between ports of a bridge go through the rules for packets (`br_netfilter`). Then one that a rule
/// sends back into the bridge that it came from never leaves that: the port must let it go back, and between isolated
/// ports it does not get through at all, so that there a container does not reach what its neighbour publishes.
fn bridged_traffic_is_filtered() -> bool {
    let names = ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"];
    names.iter().any(|name| sysctl::read(name).is_ok_and(|value| value == "1"))
}
