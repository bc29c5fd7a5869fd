//! Networks of macvlan and ipvlan: containers are in the network of one of the host's links, beside the host and not behind it.
//!
//! There is no bridge, no rule and no published port: the containers have addresses of the outer network, and its router
//! is their gateway. The kernel lets nothing go between them and the host itself. With ipvlan they have the link's own hardware
//! address; in its modes `l3` and `l3s` they send everything to the host, which routes it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use wharf_netlink::route::{Batch, Connection, Ipvlan, IpvlanFlag, IpvlanMode, Link, Macvlan, MacvlanMode};
use wharf_netlink::{NetlinkError, namespace};

use crate::mark::{self, Mark};
use crate::{Endpoint, EndpointRequest, NetworkError, NetworkRecord, Result, sysctl};

pub(crate) const MACVLAN: &str = "macvlan";
pub(crate) const IPVLAN: &str = "ipvlan";
const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
/// How long the link that had an address before may take to go, with the namespace that it is in.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// What a network of macvlan or ipvlan is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The name of the link.
    pub name: String,
    /// Of macvlan `bridge`, `private`, `vepa` or `passthru`, of ipvlan `l2`, `l3` or `l3s`.
    pub mode: String,
    /// Of ipvlan `bridge`, `private` or `vepa`; empty for macvlan.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub flag: String,
}

impl Parent {
    /// Whether containers send by their link to whomever, without a router.
    pub(crate) fn leads_out(&self) -> bool {
        matches!(self.mode.as_str(), "l3" | "l3s")
    }
}

/// How a container's link is made.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

impl Parent {
    fn kind(&self, driver: &str) -> Option<Kind> {
        if driver == IPVLAN {
            Some(Kind::Ipvlan(ipvlan_mode(&self.mode)?, ipvlan_flag(&self.flag)?))
        } else {
            macvlan_mode(&self.mode).map(Kind::Macvlan)
        }
    }
}

/// Reads what a request says of the driver.
///
/// # Errors
/// `Invalid`, in Docker's words.
pub(crate) fn settle(record: &mut NetworkRecord, driver: &str) -> Result<()> {
    driver.clone_into(&mut record.driver);
    (record.bridge, record.masquerade, record.mtu) = (None, false, 0);
    let option = |key: &str, default: &str| match record.options.get(key).map(String::as_str) {
        None | Some("") => default.to_owned(),
        Some(value) => value.to_owned(),
    };
    let invalid = |message: String| Err(NetworkError::Invalid(message));
    let (mode, flag) = if driver == IPVLAN {
        let (mode, flag) = (option(IPVLAN_MODE, "l2"), option(IPVLAN_FLAG, "bridge"));
        if ipvlan_mode(&mode).is_none() {
            return invalid(format!(
                "requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default"
            ));
        }
        if ipvlan_flag(&flag).is_none() {
            return invalid(format!(
                "requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
            ));
        }
        (mode, flag)
    } else {
        let mode = option(MACVLAN_MODE, "bridge");
        if macvlan_mode(&mode).is_none() {
            return invalid(format!(
                "requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
            ));
        }
        (mode, String::new())
    };
    let name = match record.options.get(PARENT).map(String::as_str) {
        Some("lo") => {
            return invalid(format!("loopback interface is not a valid {driver} parent link"));
        }
        None | Some("") => {
            // Nobody else is there.
            record.internal = true;
            own_parent(record)
        }
        Some(parent) => parent.to_owned(),
    };
    record.parent = Some(Parent { name, mode, flag });
    Ok(())
}

/// Refuses a network on a link that another one is on, where the kernel or Docker has one alone there.
pub(crate) fn may_share<'a>(record: &NetworkRecord, mut others: impl Iterator<Item = &'a NetworkRecord>) -> Result<()> {
    let Some(Parent { name, mode, .. }) = &record.parent else { return Ok(()) };
    let on_it = |other: &&NetworkRecord| other.parent.as_ref().is_some_and(|parent| parent.name == *name);
    let Some(other) = others.find(on_it) else { return Ok(()) };
    let is_passthru = |mode: &str| mode == "passthru";
    let other_mode = other.parent.as_ref().map(|parent| parent.mode.as_str()).unwrap_or_default();
    let message = if record.driver == IPVLAN || other.driver == IPVLAN {
        format!("network {} is already using parent interface {name}", other.name)
    } else if is_passthru(mode) {
        format!("cannot use mode passthru, macvlan network {} is already using parent interface {name}", other.name)
    } else if is_passthru(other_mode) {
        format!("macvlan network {} is already using parent interface {name} in mode passthru", other.name)
    } else {
        return Ok(());
    };
    Err(NetworkError::Forbidden(message))
}

/// The name of the parent of a network that names none.
fn own_parent(record: &NetworkRecord) -> String {
    let prefix = if record.driver == IPVLAN { "di" } else { "dm" };
    format!("{prefix}-{}", record.id.get(..12).unwrap_or(&record.id))
}

fn ipvlan_mode(text: &str) -> Option<IpvlanMode> {
    match text {
        "l2" => Some(IpvlanMode::L2),
        "l3" => Some(IpvlanMode::L3),
        "l3s" => Some(IpvlanMode::L3s),
        _ => None,
    }
}

fn ipvlan_flag(text: &str) -> Option<IpvlanFlag> {
    match text {
        "bridge" => Some(IpvlanFlag::Bridge),
        "private" => Some(IpvlanFlag::Private),
        "vepa" => Some(IpvlanFlag::Vepa),
        _ => None,
    }
}

fn macvlan_mode(text: &str) -> Option<MacvlanMode> {
    match text {
        "bridge" => Some(MacvlanMode::Bridge),
        "private" => Some(MacvlanMode::Private),
        "vepa" => Some(MacvlanMode::Vepa),
        "passthru" => Some(MacvlanMode::Passthru),
        _ => None,
    }
}

/// Gives the index of a network's parent, and makes it where it is ours to make: a VLAN of one of the host's links
/// (`eth0.10`), or, for a network that names no parent, a link that leads nowhere.
pub(crate) fn ensure(route: &Connection, instance: &str, record: &NetworkRecord) -> Result<u32> {
    let Some(Parent { name, .. }) = &record.parent else {
        return Err(NetworkError::Invalid(format!("network {} has no parent", record.name)));
    };
    let mark = mark::parent(instance, &record.id);
    match route.link(name)? {
        // Nobody else calls a link so: an earlier daemon was killed before it could mark it.
        Some(link) if *name == own_parent(record) && link.alias.is_empty() => set_peer_up(route, name)?,
        Some(link) if mark::read(instance, &link.alias).is_none() => return Ok(link.index),
        // One of ours that was not taken up any more.
        Some(_) => {}
        None if *name == own_parent(record) => make_own(route, name, &mark)?,
        None => make_vlan(route, name, &mark)?,
    }
    let mut batch = Batch::new();
    batch.mark_and_set_up(name, &mark, sysctl::link_has_ipv6(record.mtu));
    route.apply(batch)?;
    match route.link(name)? {
        Some(link) => Ok(link.index),
        None => Err(NetworkError::NotFound(record.name.clone())),
    }
}

/// A dummy, or, where the kernel has none, one end of a pair whose other end is nobody's. Marked in the same system call,
/// as the kernel takes no alias in the request that makes a link.
fn make_own(route: &Connection, name: &str, mark: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.create_dummy(name).set_alias(name, mark);
    match route.apply(batch) {
        Err(NetlinkError { errno: Errno::OPNOTSUPP, .. }) => {
            let peer = peer_of(name);
            let mut batch = Batch::new();
            batch.create_pair(name, &peer).set_alias(name, mark);
            // A link is up when both ends are.
            batch.mark_and_set_up(&peer, "", sysctl::has_ipv6());
            Ok(route.apply(batch)?)
        }
        made => Ok(made?),
    }
}

/// The other end of the pair that a network's own parent may be.
fn peer_of(name: &str) -> String {
    name.replacen('d', "e", 1)
}

fn set_peer_up(route: &Connection, name: &str) -> Result<()> {
    let peer = peer_of(name);
    if route.link(&peer)?.is_some() {
        let mut batch = Batch::new();
        batch.mark_and_set_up(&peer, "", sysctl::has_ipv6());
        route.apply(batch)?;
    }
    Ok(())
}

fn make_vlan(route: &Connection, name: &str, mark: &str) -> Result<()> {
    let invalid = |message: String| Err(NetworkError::Invalid(message));
    let Some((parent, number)) = name.rsplit_once('.') else {
        return invalid(format!(
            "the requested parent interface {name} was not found on the host (a VLAN of one is made when it is named so: \
             eth0.10)"
        ));
    };
    let Some(vlan) = number.parse::<u16>().ok().filter(|vlan| (1..=4094).contains(vlan)) else {
        return invalid(format!("vlan id must be between 1-4094, received: {number}"));
    };
    let Some(link) = route.link(parent)? else {
        return invalid(format!("-o parent interface was not found on the host: {parent}"));
    };
    let mut batch = Batch::new();
    batch.create_vlan(name, link.index, vlan).set_alias(name, mark);
    match route.apply(batch) {
        Err(NetlinkError { errno: Errno::OPNOTSUPP, .. }) => Err(NetworkError::NotImplemented(format!(
            "cannot make the VLAN {name}: this host's kernel has no VLANs (802.1Q)"
        ))),
        // The host has made it a moment ago, and the mark went to what is not ours.
        Err(error) if error.errno == Errno::EXIST => {
            let mut batch = Batch::new();
            batch.set_alias(name, "");
            route.apply(batch)?;
            Err(error.into())
        }
        made => Ok(made?),
    }
}

/// Removes the parent of a network that has gone, if it was ours and none of the `others` is on it.
pub(crate) fn remove(
    route: &Connection,
    instance: &str,
    record: &NetworkRecord,
    others: &[NetworkRecord],
) -> Result<()> {
    let Some(Parent { name, .. }) = &record.parent else { return Ok(()) };
    let is_ours = |link: Link| mark::read(instance, &link.alias).is_some_and(|mark| is_one(&mark));
    let is_used = others.iter().any(|other| other.parent.as_ref().is_some_and(|parent| parent.name == *name));
    if !is_used && route.link(name)?.is_some_and(is_ours) { crate::background::remove(&[name]) } else { Ok(()) }
}

/// Sees that a container's link can be made at all: not every kernel has ipvlan, and none has it on a link that a bridge or
/// a macvlan is on.
pub(crate) fn probe(route: &Connection, record: &NetworkRecord, parent: u32) -> Result<()> {
    let Some(Kind::Ipvlan(mode, flag)) = record.parent.as_ref().and_then(|parent| parent.kind(&record.driver)) else {
        return Ok(());
    };
    // In a namespace of its own, which goes with its handle: a daemon that is killed here leaves nothing on the parent.
    let (netns, ()) = namespace::create(|| Ok(()))?;
    let name = "probe";
    let mut batch = Batch::new();
    batch.create_ipvlan(&Ipvlan { name, parent, mode, flag, netns: Some(netns.as_fd()) });
    route.apply(batch).map_err(|error| explained(error, record))?;
    // The kernel takes its time with a namespace, and the parent may be wanted for something else at once.
    namespace::within(netns.as_fd(), || crate::background::remove(&[name]))?
}

fn explained(error: NetlinkError, record: &NetworkRecord) -> NetworkError {
    let (driver, name) =
        (&record.driver, record.parent.as_ref().map(|parent| parent.name.as_str()).unwrap_or_default());
    match error.errno {
        Errno::OPNOTSUPP => NetworkError::NotImplemented(format!(
            "cannot make an {driver} link: this host's kernel has none (its module is called {driver})"
        )),
        Errno::BUSY => NetworkError::Forbidden(format!(
            "cannot make an {driver} link on {name}: a bridge, or a network of another driver, has that link already"
        )),
        _ => error.into(),
    }
}

/// Makes the link of an endpoint in the container's namespace; down.
pub(crate) fn make_link(
    request: &EndpointRequest<'_>,
    record: &NetworkRecord,
    parent: u32,
    endpoint: &Endpoint,
) -> Result<()> {
    let (name, mac) = (endpoint.interface.as_str(), endpoint.mac);
    let mut batch = Batch::new();
    match record.parent.as_ref().and_then(|parent| parent.kind(&record.driver)) {
        Some(Kind::Ipvlan(mode, flag)) => {
            batch.create_ipvlan(&Ipvlan { name, parent, mode, flag, netns: Some(request.netns) });
        }
        kind => {
            let mode = if let Some(Kind::Macvlan(mode)) = kind { mode } else { MacvlanMode::Bridge };
            batch.create_macvlan(&Macvlan { name, parent, mode, mac, netns: request.netns });
        }
    }
    Connection::open()?.apply(batch).map_err(|error| explained(error, record))
}

/// Takes up a link in a container. The hardware address is made of the IP address, and as long as the link of a container
/// that has ended a moment ago is there with the same one, the kernel lets no other come up.
pub(crate) fn set_up(route: &Connection, link: u32) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut batch = Batch::new();
        batch.set_up(link);
        match route.apply(batch) {
            Err(error) if matches!(error.errno, Errno::ADDRINUSE | Errno::BUSY) && Instant::now() < until => {
                std::thread::sleep(LOOK);
            }
            done => return Ok(done?),
        }
    }
}

/// Removes the link of an endpoint from a container that goes on.
pub(crate) fn remove_link(netns: std::os::fd::BorrowedFd<'_>, endpoint: &Endpoint) -> Result<()> {
    namespace::within(netns, || crate::background::remove(&[&endpoint.interface]))?
}

/// Whether a mark is of a parent.
pub(crate) fn is_one(mark: &Mark) -> bool {
    matches!(mark, Mark::Parent(_))
}
