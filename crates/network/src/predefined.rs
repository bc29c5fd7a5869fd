//! The networks that are always there: `bridge`, `host`, `none`.

use std::net::{IpAddr, Ipv4Addr};

use wharf_netlink::route::{Connection, Link};

use crate::mark::{self, Mark};
use crate::record::{WAY_OUT4, WAY_OUT6};
use crate::state::{NETWORKS, Network};
use crate::{
    BridgeRules, Ipv4Net, Ipv6Net, NetworkError, NetworkRecord, Networks, Pool6, Result, bridge, create,
    default_addresses, ipam, pool6, sysctl,
};

/// The name of a bridge that says that there is to be no default network (dockerd, `--bridge`).
const NO_BRIDGE: &str = "none";

/// The name of Docker's own bridge: the only one that is made when it is asked for by name and is not there.
const DOCKERS_BRIDGE: &str = "docker0";

impl Networks {
    pub(crate) fn make_predefined(&self) -> Result<()> {
        let inner = &self.inner;
        let mut records = Vec::new();
        for (name, driver) in [("host", "host"), ("none", "null")] {
            if inner.state().named(name).is_none() {
                records.push(create::predefined(name, driver)?);
            }
        }
        let present = inner.state().named("bridge").map(|network| network.record.clone());
        if inner.options.bridge.as_deref() == Some(NO_BRIDGE) {
            if let Some(present) = present {
                self.drop_default_bridge(&present)?;
            }
        } else {
            let mut wanted = self.default_bridge(present.as_ref())?;
            if let Some(present) = &present
                && moves(present, &wanted)
                && self.is_in_use(present)?
            {
                tracing::warn!(
                    "containers that run are on the default bridge: it keeps its addresses, and gets those that the options \
                     name when the daemon is started without such containers"
                );
                wanted = kept(present, wanted);
            }
            if let Some(present) = present.as_ref().filter(|present| present.bridge == wanted.bridge) {
                bridge::forget_addresses(&inner.options.instance, present, &wanted)?;
            }
            if present.as_ref() != Some(&wanted) {
                records.push(wanted);
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        inner.store.write::<_, NetworkError>(|tx| {
            records.iter().try_for_each(|record| Ok(tx.put(NETWORKS, &record.id, record)?))
        })?;
        let mut state = inner.state();
        for record in records {
            match state.networks.get_mut(&record.id) {
                Some(network) => network.record = record,
                None => drop(state.networks.insert(record.id.clone(), Network::new(record))),
            }
        }
        Ok(())
    }

    /// Forgets the default bridge, whose link and rules then go as any that have no row. One that containers of an earlier
    /// daemon are on stays until they have left it and the daemon starts once more.
    fn drop_default_bridge(&self, present: &NetworkRecord) -> Result<()> {
        let inner = &self.inner;
        let stay = inner.state().networks.get(&present.id).map_or(0, |network| network.endpoints.len());
        if stay > 0 {
            tracing::warn!(
                "the default bridge stays, as {stay} containers are on it: start the daemon again without them"
            );
            return Ok(());
        }
        inner.store.write::<_, NetworkError>(|tx| Ok(tx.delete(NETWORKS, &present.id)?))?;
        inner.state().networks.remove(&present.id);
        Ok(())
    }

    /// Whether containers of an earlier daemon are on a bridge that is there. The kernel is asked: the rows of a daemon that was
    /// killed may be behind.
    fn is_in_use(&self, present: &NetworkRecord) -> Result<bool> {
        let links = Connection::open()?.links()?;
        let bridge = links.iter().find(|link| present.bridge.as_ref() == Some(&link.name));
        let is_ours = |link: &&Link| mark::read(&self.inner.options.instance, &link.alias).is_some();
        Ok(bridge.is_some_and(|bridge| links.iter().filter(is_ours).any(|link| link.master == Some(bridge.index))))
    }

    /// The default bridge as the options want it, and otherwise as it is.
    fn default_bridge(&self, present: Option<&NetworkRecord>) -> Result<NetworkRecord> {
        let options = &self.inner.options;
        let route = Connection::open()?;
        let links = route.links()?;
        let mut record = match present {
            Some(present) => present.clone(),
            None => self.lost_bridge(&route, &links)?,
        };
        record.mtu = options.mtu;
        if let Some(name) = &options.bridge {
            let is_known = name == DOCKERS_BRIDGE || record.bridge.as_ref() == Some(name);
            if !is_known && !links.iter().any(|link| link.name == *name) {
                return Err(NetworkError::NoBridge(name.clone()));
            }
            record.bridge = Some(name.clone());
        }
        let mut there = record.bridge.as_ref().and_then(|name| links.iter().find(|link| link.name == *name));
        let taken = there.is_some_and(|link| mark::is_of_another(&options.instance, &link.alias));
        if record.bridge.is_none() || (taken && options.bridge.is_none()) {
            record.bridge = Some(bridge::free_name(&links));
            there = None;
        }
        let ours = there.is_some_and(|link| mark::read(&options.instance, &link.alias).is_some());
        let is_users = !ours && there.is_some() && options.bridge.is_some();
        let nets = match there {
            Some(link) => addresses_of(&route, link)?,
            // As it was before the host was started anew.
            None => Nets::of(&record),
        };
        let bip = options.bip.as_deref().map(bridge_address).transpose()?;
        let fixed = options.bridge_rules.fixed_cidr.as_deref().map(fixed_cidr).transpose()?;
        if let (Some(bip), Some(range)) = (bip, fixed)
            && !bip.network().covers(range.network())
        {
            let message = format!("fixed-cidr: {} is not in the subnet of bip", range.network());
            return Err(NetworkError::Invalid(message));
        }
        let plan = default_addresses::plan(bip, fixed, &nets.v4, is_users);
        if plan.is_outside {
            tracing::warn!("fixed-cidr is outside of the subnet that the bridge has, and is not taken");
        }
        record.ip_range = plan.range;
        record.gateway_chosen = plan.gateway.is_some() || plan.subnet.is_none();
        match plan.subnet {
            Some(subnet) if there.is_some() || options.bip.is_some() || fixed.is_some() => {
                record.gateway = plan.gateway;
                record.aux_addresses.clear();
                create::settle(&mut record, subnet)?;
            }
            _ => self.find_subnet(&route, &mut record)?,
        }
        self.default_pool6(&route, &mut record, &nets.v6, is_users)?;
        apply(&options.bridge_rules, &mut record)?;
        Ok(shown(record))
    }

    /// The IPv6 side of the default bridge, as the options want it: as it was, unless they say otherwise.
    fn default_pool6(
        &self,
        route: &Connection,
        record: &mut NetworkRecord,
        there: &[Ipv6Net],
        is_users: bool,
    ) -> Result<()> {
        let options = &self.inner.options;
        if !options.ipv6 {
            record.pool6 = None;
            return Ok(());
        }
        let fixed = options.fixed_cidr_v6;
        if let Some(net) = options.bip6 {
            if net.prefix() > 126 || net.address() == net.first() {
                return Err(NetworkError::Invalid(format!("bip6: {net} is no address of a bridge")));
            }
            if fixed.is_some_and(|range| !net.network().covers(range.network())) {
                return Err(NetworkError::Invalid(format!("fixed-cidr-v6: it is not in {}", net.network())));
            }
        }
        // A link's own address is none of the network's, unless that is all there is to be.
        let takes_own = fixed.is_some_and(default_addresses::is_link_local);
        let there: Vec<Ipv6Net> =
            there.iter().copied().filter(|net| takes_own || !default_addresses::is_link_local(*net)).collect();
        let plan = default_addresses::plan(options.bip6, fixed, &there, is_users);
        if let (true, Some(fixed)) = (plan.is_outside, fixed) {
            return Err(NetworkError::Invalid(format!(
                "fixed-cidr-v6={fixed} is outside any subnet implied by addresses on the user-managed default bridge"
            )));
        }
        if let Some(subnet) = plan.subnet {
            let gateway_chosen = plan.gateway.is_some();
            let (gateway, ip_range) = (plan.gateway, plan.range);
            let mut pool = Pool6 { gateway, gateway_chosen, ip_range, ..Pool6::new(subnet) };
            pool.settle();
            record.pool6 = Some(pool);
            return Ok(());
        }
        if record.pool6.is_none() {
            let mut taken = bridge::host_networks(route)?.v6;
            let state = self.inner.state();
            taken.extend(state.records().flat_map(NetworkRecord::pools6).map(|pool| pool.subnet));
            drop(state);
            let free = pool6::free_network(&options.default_pools6, &taken).ok_or(NetworkError::NoPool)?;
            record.pool6 = Some(Pool6 { gateway_chosen: true, ..Pool6::new(free) });
        }
        Ok(())
    }

    /// The default bridge when there is no row of it: the one that an earlier daemon has left in the kernel, so that
    /// containers that live go on, or a new one.
    fn lost_bridge(&self, route: &Connection, links: &[Link]) -> Result<NetworkRecord> {
        let mut record = NetworkRecord { masquerade: true, ..create::predefined("bridge", "bridge")? };
        for (name, found) in bridge::ours(links, &self.inner.options.instance) {
            let Mark::Bridge(id) = found else { continue };
            let known = self.inner.state().networks.contains_key(&id);
            // What a user's network has is named after its ID.
            let link = links.iter().find(|link| link.name == name && !known && !name.starts_with("br-"));
            let nets = link.map(|link| addresses_of(route, link)).transpose()?.unwrap_or_default();
            if let Some(net) = nets.v4.first() {
                record.id = id;
                record.bridge = Some(name);
                record.subnet = Some(net.network());
                record.gateway = Some(net.address());
                break;
            }
        }
        Ok(record)
    }

    /// A subnet for a bridge that is not there: what it was, unless the host has got that meanwhile.
    fn find_subnet(&self, route: &Connection, record: &mut NetworkRecord) -> Result<()> {
        let mut taken = bridge::host_networks(route)?;
        let state = self.inner.state();
        let others = state.records().filter(|other| other.id != record.id);
        // Networks of macvlan and ipvlan have several.
        taken.v4.extend(others.flat_map(NetworkRecord::pools4).map(|pool| pool.subnet));
        drop(state);
        if record.subnet.is_some_and(|subnet| !taken.v4.iter().any(|other| other.overlaps(subnet))) {
            return Ok(());
        }
        record.gateway = None;
        let free = ipam::free_network(&self.inner.options.default_pools, &taken.v4).ok_or(NetworkError::NoPool)?;
        create::settle(record, free)
    }

    /// Turns forwarding on where that is wanted; that of IPv6 when a network has it.
    pub(crate) fn forward(&self, ipv6: bool) -> Result<()> {
        if !self.inner.options.ip_forward {
            return Ok(());
        }
        // What comes new first: its own value would else be told from that of all.
        for name in ["default", "all"] {
            if ipv6 && sysctl::has_ipv6() && sysctl::ensure(&format!("ipv6/conf/{name}/forwarding"), "1")? {
                tracing::info!(
                    "net.ipv6.conf.{name}.forwarding was 0 and is 1 now: without it no container reaches another host by \
                     IPv6. A host that has its own address from a router's announcements needs accept_ra=2 for that"
                );
            }
        }
        if sysctl::ensure("ipv4/ip_forward", "1")? {
            tracing::info!("net.ipv4.ip_forward was 0 and is 1 now: without it no container reaches another host");
        }
        Ok(())
    }
}

/// Whether containers would be where nobody finds them any more.
fn moves(present: &NetworkRecord, wanted: &NetworkRecord) -> bool {
    let pool6 = |record: &NetworkRecord| record.pool6.as_ref().map(|pool| (pool.subnet, pool.gateway));
    let same = present.subnet == wanted.subnet && present.gateway == wanted.gateway && present.bridge == wanted.bridge;
    // One that gets the other family beside its own moves nobody.
    !same || (pool6(present).is_some() && pool6(present) != pool6(wanted))
}

/// What is wanted, where it is.
fn kept(present: &NetworkRecord, wanted: NetworkRecord) -> NetworkRecord {
    shown(NetworkRecord {
        bridge: present.bridge.clone(),
        subnet: present.subnet,
        subnet_chosen: present.subnet_chosen,
        gateway: present.gateway,
        gateway_chosen: present.gateway_chosen,
        ip_range: present.ip_range,
        aux_addresses: present.aux_addresses.clone(),
        pool6: present.pool6.clone().or(wanted.pool6.clone()),
        ..wanted
    })
}

/// The rules of the default bridge, of which none is left of an earlier daemon's.
fn apply(rules: &BridgeRules, record: &mut NetworkRecord) -> Result<()> {
    record.icc = rules.icc;
    record.masquerade = rules.masquerade;
    record.host_binding = rules.host_binding.filter(|address| !address.is_unspecified());
    let outside = |name: &str, address: IpAddr| {
        NetworkError::Invalid(format!("{name}: {address} is not in the default bridge's subnet"))
    };
    record.aux_addresses.remove(WAY_OUT4);
    if let Some(gateway) = rules.gateway {
        if !record.contains(gateway.into()) {
            return Err(outside("default-gateway", gateway.into()));
        }
        record.aux_addresses.insert(WAY_OUT4.into(), gateway);
    }
    if let Some(pool) = &mut record.pool6 {
        pool.aux_addresses.remove(WAY_OUT6);
        if let Some(gateway) = rules.gateway6 {
            if !pool.subnet.contains(gateway) {
                return Err(outside("default-gateway-v6", gateway.into()));
            }
            pool.aux_addresses.insert(WAY_OUT6.into(), gateway);
        }
    }
    Ok(())
}

/// With the options that Docker's default bridge shows.
fn shown(mut record: NetworkRecord) -> NetworkRecord {
    let bridge = record.bridge.clone().unwrap_or_default();
    let shown = [
        ("default_bridge", "true".to_owned()),
        ("enable_icc", record.icc.to_string()),
        ("enable_ip_masquerade", record.masquerade.to_string()),
        ("host_binding_ipv4", record.host_binding.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_string()),
        ("name", bridge),
    ];
    for (key, value) in shown {
        record.options.insert(format!("com.docker.network.bridge.{key}"), value);
    }
    record.options.insert("com.docker.network.driver.mtu".into(), record.mtu.to_string());
    record
}

/// The address in `--bip`.
fn bridge_address(bip: &str) -> Result<Ipv4Net> {
    let net: Ipv4Net = bip.parse().map_err(|error| NetworkError::Invalid(format!("bip: {error}")))?;
    if net.prefix() > 30 || net.address() == net.first() || net.address() == net.last() {
        return Err(NetworkError::Invalid(format!("bip: {net} is no address of a bridge")));
    }
    Ok(net)
}

/// The range in `--fixed-cidr`.
fn fixed_cidr(text: &str) -> Result<Ipv4Net> {
    text.parse().map_err(|error| NetworkError::Invalid(format!("fixed-cidr: {error}")))
}

/// Addresses with their prefixes.
#[derive(Debug, Default)]
struct Nets {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Nets {
    /// Those that a network's bridge is to have.
    fn of(record: &NetworkRecord) -> Self {
        let four = record.subnet.zip(record.gateway).and_then(|(net, address)| Ipv4Net::new(address, net.prefix()));
        let pool6 = record.pool6.as_ref().and_then(|pool| Ipv6Net::new(pool.gateway?, pool.subnet.prefix()));
        Self { v4: four.into_iter().collect(), v6: pool6.into_iter().collect() }
    }
}

/// The addresses of a link, in the kernel's order.
fn addresses_of(route: &Connection, link: &Link) -> Result<Nets> {
    let mut nets = Nets::default();
    for entry in route.addresses()?.into_iter().filter(|entry| entry.link == link.index) {
        match entry.address {
            IpAddr::V4(address) => nets.v4.extend(Ipv4Net::new(address, entry.prefix)),
            IpAddr::V6(address) => nets.v6.extend(Ipv6Net::new(address, entry.prefix)),
        }
    }
    Ok(nets)
}
