//! Networks of macvlan: containers are in the network of one of the host's links, beside the host and not behind it.
//!
//! There is no bridge, no rule and no published port: the containers have addresses of the outer network, and its router
//! is their gateway. The kernel lets nothing go between them and the host itself.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use wharf_netlink::route::{Batch, Connection, Link, Macvlan, MacvlanMode};
use wharf_netlink::{NetlinkError, namespace};

use crate::mark::{self, Mark};
use crate::{Endpoint, EndpointRequest, NetworkError, NetworkRecord, Result, sysctl};

pub(crate) const DRIVER: &str = "macvlan";
const PARENT: &str = "parent";
const MODE: &str = "macvlan_mode";
/// How long the link that had an address before may take to go, with the namespace that it is in.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// What a network of macvlan is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// The name of the link.
    pub name: String,
    /// `bridge`, `private`, `vepa` or `passthru`.
    pub mode: String,
}

/// Reads what a request says of the driver.
///
/// # Errors
/// `Invalid`, in Docker's words.
pub(crate) fn settle(record: &mut NetworkRecord) -> Result<()> {
    DRIVER.clone_into(&mut record.driver);
    (record.bridge, record.masquerade, record.mtu) = (None, false, 0);
    let mode = record.options.get(MODE).map(String::as_str).filter(|mode| !mode.is_empty()).unwrap_or("bridge");
    if mode_of(mode).is_none() {
        let message =
            format!("requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default");
        return Err(NetworkError::Invalid(message));
    }
    let parent = match record.options.get(PARENT).map(String::as_str) {
        Some("lo") => {
            return Err(NetworkError::Invalid("loopback interface is not a valid macvlan parent link".into()));
        }
        None | Some("") => {
            // Nobody else is there.
            record.internal = true;
            own_parent(record)
        }
        Some(parent) => parent.to_owned(),
    };
    record.parent = Some(Parent { name: parent, mode: mode.to_owned() });
    Ok(())
}

/// The name of the parent of a network that names none.
fn own_parent(record: &NetworkRecord) -> String {
    format!("dm-{}", record.id.get(..12).unwrap_or(&record.id))
}

fn mode_of(text: &str) -> Option<MacvlanMode> {
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
    match route.link(name)? {
        // One of ours that was not taken up any more.
        Some(link) if mark::read(instance, &link.alias).is_none() => return Ok(link.index),
        Some(_) => {}
        None if *name == own_parent(record) => make_own(route, name)?,
        None => make_vlan(route, name)?,
    }
    let mut batch = Batch::new();
    batch.mark_and_set_up(name, &mark::parent(instance, &record.id), sysctl::link_has_ipv6(record.mtu));
    route.apply(batch)?;
    match route.link(name)? {
        Some(link) => Ok(link.index),
        None => Err(NetworkError::NotFound(record.name.clone())),
    }
}

/// A dummy, or, where the kernel has none, one end of a pair whose other end is nobody's.
fn make_own(route: &Connection, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    batch.create_dummy(name);
    match route.apply(batch) {
        Err(NetlinkError { errno: Errno::OPNOTSUPP, .. }) => {
            let peer = name.replacen("dm-", "dp-", 1);
            let mut batch = Batch::new();
            batch.create_pair(name, &peer);
            route.apply(batch)?;
            // A link is up when both ends are.
            let mut batch = Batch::new();
            batch.mark_and_set_up(&peer, "", sysctl::has_ipv6());
            Ok(route.apply(batch)?)
        }
        made => Ok(made?),
    }
}

fn make_vlan(route: &Connection, name: &str) -> Result<()> {
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
    batch.create_vlan(name, link.index, vlan);
    match route.apply(batch) {
        Err(NetlinkError { errno: Errno::OPNOTSUPP, .. }) => Err(NetworkError::NotImplemented(format!(
            "cannot make the VLAN {name}: this host's kernel has no VLANs (802.1Q)"
        ))),
        made => Ok(made?),
    }
}

/// Removes the parent of a network that has gone, if it was ours.
pub(crate) fn remove(route: &Connection, instance: &str, record: &NetworkRecord) -> Result<()> {
    let Some(Parent { name, .. }) = &record.parent else { return Ok(()) };
    let is_ours = |link: Link| link.alias == mark::parent(instance, &record.id);
    if route.link(name)?.is_some_and(is_ours) { crate::background::remove(&[name]) } else { Ok(()) }
}

/// Makes the link of an endpoint in the container's namespace; down.
pub(crate) fn make_link(
    request: &EndpointRequest<'_>,
    record: &NetworkRecord,
    parent: u32,
    endpoint: &Endpoint,
) -> Result<()> {
    let mode = record.parent.as_ref().and_then(|parent| mode_of(&parent.mode)).unwrap_or(MacvlanMode::Bridge);
    let (name, mac) = (endpoint.interface.as_str(), endpoint.mac);
    let mut batch = Batch::new();
    batch.create_macvlan(&Macvlan { name, parent, mode, mac, netns: request.netns });
    Ok(Connection::open()?.apply(batch)?)
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
pub(crate) fn parent_of(mark: &Mark) -> Option<&str> {
    if let Mark::Parent(id) = mark { Some(id) } else { None }
}
