//! Changes of links, addresses and routes.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::moves::IFLA_NET_NS_FD;
use crate::MacAddress;
use crate::message::{CREATE, EXCLUSIVE, Messages};

// linux/rtnetlink.h
pub(super) const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
pub(super) const SET_LINK: u16 = 19;
pub(super) const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
pub(super) const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;

// linux/if_link.h
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;

// linux/if_addr.h
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// The address is used at once, without asking first whether somebody else has it (`IFA_F_NODAD`).
const NO_DETECTION: u32 = 2;

// linux/rtnetlink.h
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_TABLE: u16 = 15;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_BOOT: u8 = 3;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const TYPE_UNICAST: u8 = 1;

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// `IFF_UP` (linux/if.h).
pub(super) const UP: u32 = 1;

/// `struct ifinfomsg`.
pub(super) fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// The kernel would make one for each processor that there could be, each with directories of its own in sysfs, which is most of
/// what a pair costs on a large host. They are of use for XDP alone (veth(4); the kernel's `drivers/net/veth.c`): who sends, sends
/// on his own processor without any.
fn one_queue(m: &mut Messages) {
    m.u32(IFLA_NUM_TX_QUEUES, 1);
    m.u32(IFLA_NUM_RX_QUEUES, 1);
}

/// A bridge that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    pub name: &'a str,
    /// Given, because without one of its own a bridge changes its address as ports come and go.
    pub mac: MacAddress,
    pub mtu: u32,
}

/// A pair of links that is to be made: one here, one in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mtu: u32,
    /// Index of the bridge whose port it becomes.
    pub master: Option<u32>,
    pub peer: Peer<'a>,
}

/// The other end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    pub name: &'a str,
    pub mac: MacAddress,
    pub netns: BorrowedFd<'a>,
}

/// How a bridge treats one of its ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Gets nothing from other isolated ports.
    pub isolated: bool,
    /// Frames may go back through the port that they came from.
    pub hairpin: bool,
}

/// A route that is to be made, in the main table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: (IpAddr, u8),
    /// Without one, the destination is on the link. Of the same family.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Of two routes to the same place the one with the smaller number is taken. 0 is the kernel's own: 0 for IPv4, 1024
    /// for IPv6.
    pub metric: u32,
}

/// Changes that go to the kernel in one system call.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) messages: Messages,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a bridge, without spanning tree and down.
    pub fn create_bridge(&mut self, bridge: &Bridge<'_>) -> &mut Self {
        let action = format!("make bridge `{}`", bridge.name);
        let header = link_header(0, 0, 0, 0);
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &header, action, |m| {
            m.text(IFLA_IFNAME, bridge.name);
            m.attribute(IFLA_ADDRESS, &bridge.mac.0);
            m.u32(IFLA_MTU, bridge.mtu);
            m.nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        });
        self
    }

    /// Makes a pair of links. Both are down.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> &mut Self {
        let action = format!("make link `{}` to `{}`", veth.name, veth.peer.name);
        let header = link_header(0, 0, 0, 0);
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &header, action, |m| {
            m.text(IFLA_IFNAME, veth.name);
            m.u32(IFLA_MTU, veth.mtu);
            one_queue(m);
            if let Some(master) = veth.master {
                m.u32(IFLA_MASTER, master);
            }
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "veth");
                m.nested(IFLA_INFO_DATA, |m| {
                    m.nested(VETH_INFO_PEER, |m| {
                        m.raw(&header);
                        m.text(IFLA_IFNAME, veth.peer.name);
                        m.attribute(IFLA_ADDRESS, &veth.peer.mac.0);
                        m.u32(IFLA_MTU, veth.mtu);
                        one_queue(m);
                        m.u32(IFLA_NET_NS_FD, veth.peer.netns.as_raw_fd().cast_unsigned());
                    });
                });
            });
        });
        self
    }

    /// Sets a link's alias, sees to it that it gets no IPv6 address of its own, and takes it up. One that `has_ipv6` not
    /// at all, for its MTU is below 1280 or the kernel's is off, is not asked for that: the kernel would refuse.
    pub fn mark_and_set_up(&mut self, name: &str, alias: &str, has_ipv6: bool) -> &mut Self {
        let header = link_header(0, 0, UP, UP);
        self.messages.message(SET_LINK, 0, &header, format!("set link `{name}` up"), |m| {
            m.text(IFLA_IFNAME, name);
            m.attribute(IFLA_IFALIAS, alias.as_bytes());
            if has_ipv6 {
                m.nested(IFLA_AF_SPEC, |m| {
                    m.nested(AF_INET6.into(), |m| m.u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE));
                });
            }
        });
        self
    }

    /// Takes a link up.
    pub fn set_up(&mut self, index: u32) -> &mut Self {
        let header = link_header(0, index, UP, UP);
        self.messages.message(SET_LINK, 0, &header, format!("set link {index} up"), |_| {});
        self
    }

    /// Says how a bridge treats the port `name`.
    pub fn set_port(&mut self, name: &str, port: Port) -> &mut Self {
        let header = link_header(0, 0, 0, 0);
        self.messages.message(NEW_LINK, 0, &header, format!("set up bridge port `{name}`"), |m| {
            m.text(IFLA_IFNAME, name);
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_SLAVE_KIND, "bridge");
                m.nested(IFLA_INFO_SLAVE_DATA, |m| {
                    m.u8(IFLA_BRPORT_MODE, u8::from(port.hairpin));
                    m.u8(IFLA_BRPORT_ISOLATED, u8::from(port.isolated));
                });
            });
        });
        self
    }

    /// Removes a link; the other end of a pair goes with it.
    pub fn delete_link(&mut self, name: &str) -> &mut Self {
        let header = link_header(0, 0, 0, 0);
        self.messages.message(DELETE_LINK, 0, &header, format!("remove link `{name}`"), |m| {
            m.text(IFLA_IFNAME, name);
        });
        self
    }

    /// Gives the link with this index an address. One of IPv6 is ready at once: whoever gives it away sees to it that
    /// nobody else has it, and to find out would take a second.
    pub fn add_address(&mut self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> &mut Self {
        let address = address.into();
        // `struct ifaddrmsg`.
        let mut header = [family_of(address), prefix, 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let action = format!("add address {address}/{prefix}");
        self.messages.message(NEW_ADDRESS, CREATE | EXCLUSIVE, &header, action, |m| {
            m.ip(IFA_LOCAL, address);
            m.ip(IFA_ADDRESS, address);
            match address {
                IpAddr::V4(address) if prefix < 31 => {
                    m.ipv4(IFA_BROADCAST, Ipv4Addr::from_bits(address.to_bits() | (u32::MAX >> prefix)));
                }
                IpAddr::V4(_) => {}
                IpAddr::V6(_) => m.u32(IFA_FLAGS, NO_DETECTION),
            }
        });
        self
    }

    /// Takes an address away from the link with this index.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> &mut Self {
        let mut header = [family_of(address), prefix, 0, SCOPE_UNIVERSE, 0, 0, 0, 0];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let action = format!("remove address {address}/{prefix}");
        self.messages.message(DELETE_ADDRESS, 0, &header, action, |m| m.ip(IFA_LOCAL, address));
        self
    }

    /// Sees to it that the kernel gives the link with this index no IPv6 address of its own.
    pub fn no_own_address(&mut self, index: u32) -> &mut Self {
        let header = link_header(0, index, 0, 0);
        self.messages.message(SET_LINK, 0, &header, format!("set how link {index} gets addresses"), |m| {
            m.nested(IFLA_AF_SPEC, |m| {
                m.nested(AF_INET6.into(), |m| m.u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE));
            });
        });
        self
    }

    pub fn add_route(&mut self, route: &Route) -> &mut Self {
        self.route(route, NEW_ROUTE, CREATE | EXCLUSIVE, "add")
    }

    /// Takes away the route that was made so; its metric says which one of several.
    pub fn delete_route(&mut self, route: &Route) -> &mut Self {
        self.route(route, DELETE_ROUTE, 0, "remove")
    }

    fn route(&mut self, route: &Route, kind: u16, flags: u16, verb: &str) -> &mut Self {
        let (destination, prefix) = route.destination;
        let scope = if route.gateway.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        // `struct rtmsg`.
        let header = [family_of(destination), prefix, 0, 0, TABLE_MAIN, PROTOCOL_BOOT, scope, TYPE_UNICAST, 0, 0, 0, 0];
        let action = format!("{verb} the route to {destination}/{prefix}");
        self.messages.message(kind, flags, &header, action, |m| {
            if prefix > 0 {
                m.ip(RTA_DST, destination);
            }
            if let Some(gateway) = route.gateway {
                m.ip(RTA_GATEWAY, gateway);
            }
            m.u32(RTA_OIF, route.link);
            if route.metric > 0 {
                m.u32(RTA_PRIORITY, route.metric);
            }
        });
        self
    }
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}
