//! Links, addresses and routes that are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use super::Connection;
use super::batch::{
    AF_INET, AF_INET6, IFA_ADDRESS, IFA_LOCAL, IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO,
    IFLA_MASTER, IFLA_MTU, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE,
    UP, link_header,
};
use crate::message::{self, DUMP, Messages};
use crate::{MacAddress, Result};

// linux/rtnetlink.h
const GET_LINK: u16 = 18;
pub(super) const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const GET_MULTICAST: u16 = 58;
/// linux/if_addr.h.
const IFA_MULTICAST: u16 = 7;
/// Leaves the counters out, which nobody here reads.
const IFLA_EXT_MASK: u16 = 29;
const SKIP_STATS: u32 = 1 << 3;
const TYPE_UNICAST: u8 = 1;

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`…; empty for a device.
    pub kind: String,
    pub alias: String,
    pub mac: Option<MacAddress>,
    pub mtu: u32,
    /// Index of the bridge that it is a port of.
    pub master: Option<u32>,
    pub up: bool,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// A unicast route, of any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    pub destination: (IpAddr, u8),
    pub gateway: Option<IpAddr>,
    /// Index of the link; `None` for a route of several.
    pub link: Option<u32>,
    pub metric: u32,
    pub table: u32,
}

impl Connection {
    /// All links.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut request = Messages::default();
        request.message(GET_LINK, DUMP, &link_header(0, 0, 0, 0), "list links".into(), |m| {
            m.u32(IFLA_EXT_MASK, SKIP_STATS);
        });
        self.socket.ask(&request, |answer| link(answer.kind, answer.payload))
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut request = Messages::default();
        request.message(GET_LINK, 0, &link_header(0, 0, 0, 0), format!("look at link `{name}`"), |m| {
            m.text(IFLA_IFNAME, name);
            m.u32(IFLA_EXT_MASK, SKIP_STATS);
        });
        match self.socket.ask(&request, |answer| link(answer.kind, answer.payload)) {
            Err(error) if error.errno == Errno::NODEV => Ok(None),
            found => Ok(found?.pop()),
        }
    }

    /// All addresses, of IPv4 and IPv6.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let mut request = Messages::default();
        request.message(GET_ADDRESS, DUMP, &[0; 8], "list addresses".into(), |_| {});
        self.socket.ask(&request, |answer| address(answer.kind, answer.payload))
    }

    /// The multicast groups of IPv6 that links hear, with the links' indexes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn groups6(&self) -> Result<Vec<(u32, Ipv6Addr)>> {
        let mut request = Messages::default();
        let header = [AF_INET6, 0, 0, 0, 0, 0, 0, 0];
        request.message(GET_MULTICAST, DUMP, &header, "list multicast groups".into(), |_| {});
        self.socket.ask(&request, |answer| {
            let (link, all) = (message::u32_at(answer.payload, 4)?, answer.payload.get(8..)?);
            match message::ip(message::find(all, IFA_MULTICAST)?)? {
                IpAddr::V6(group) => Some((link, group)),
                IpAddr::V4(_) => None,
            }
        })
    }

    /// All unicast routes of all tables, of IPv4 and IPv6.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn routes(&self) -> Result<Vec<RouteEntry>> {
        let mut all = Vec::new();
        // Each by itself: to ask for all families asks those of multicast routing, too.
        for family in [AF_INET, AF_INET6] {
            let mut request = Messages::default();
            let mut header = [0; 12];
            header[0] = family;
            request.message(GET_ROUTE, DUMP, &header, "list routes".into(), |_| {});
            all.extend(self.socket.ask(&request, |answer| route(answer.kind, answer.payload))?);
        }
        Ok(all)
    }
}

fn link(kind: u16, payload: &[u8]) -> Option<Link> {
    if kind != NEW_LINK {
        return None;
    }
    let mut link =
        Link { index: message::u32_at(payload, 4)?, up: message::u32_at(payload, 8)? & UP != 0, ..Link::default() };
    for attribute in message::attributes(payload.get(16..)?) {
        match attribute.kind {
            IFLA_IFNAME => link.name = attribute.text(),
            IFLA_IFALIAS => link.alias = attribute.text(),
            IFLA_ADDRESS => link.mac = attribute.value.try_into().ok().map(MacAddress),
            IFLA_MTU => link.mtu = attribute.u32()?,
            IFLA_MASTER => link.master = attribute.u32(),
            IFLA_LINKINFO => {
                link.kind = message::find(attribute.value, IFLA_INFO_KIND).map(message::text).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// Other families have messages of the same kinds, such as those of multicast routing.
fn is_ip(payload: &[u8]) -> bool {
    payload.first().is_some_and(|family| [AF_INET, AF_INET6].contains(family))
}

fn unspecified(family: u8) -> IpAddr {
    if family == AF_INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn address(kind: u16, payload: &[u8]) -> Option<Address> {
    if kind != NEW_ADDRESS || !is_ip(payload) {
        return None;
    }
    let (prefix, link) = (*payload.get(1)?, message::u32_at(payload, 4)?);
    let (mut local, mut other) = (None, None);
    for attribute in message::attributes(payload.get(8..)?) {
        match attribute.kind {
            // Of a point to point link `IFA_ADDRESS` is the other end's.
            IFA_LOCAL => local = message::ip(attribute.value),
            IFA_ADDRESS => other = message::ip(attribute.value),
            _ => {}
        }
    }
    Some(Address { link, address: local.or(other)?, prefix })
}

fn route(kind: u16, payload: &[u8]) -> Option<RouteEntry> {
    if kind != NEW_ROUTE || !is_ip(payload) || payload.get(7) != Some(&TYPE_UNICAST) {
        return None;
    }
    let mut route = RouteEntry {
        destination: (unspecified(*payload.first()?), *payload.get(1)?),
        gateway: None,
        link: None,
        metric: 0,
        table: u32::from(*payload.get(4)?),
    };
    for attribute in message::attributes(payload.get(12..)?) {
        match attribute.kind {
            RTA_DST => route.destination.0 = message::ip(attribute.value)?,
            RTA_GATEWAY => route.gateway = message::ip(attribute.value),
            RTA_OIF => route.link = attribute.u32(),
            RTA_PRIORITY => route.metric = attribute.u32()?,
            RTA_TABLE => route.table = attribute.u32()?,
            _ => {}
        }
    }
    Some(route)
}
