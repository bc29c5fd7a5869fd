//! Links that are made on top of others, and those that are nothing but links.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Batch;
use super::batch::{
    IFLA_ADDRESS, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, NEW_LINK, SET_LINK,
    link_header,
};
use super::moves::IFLA_NET_NS_FD;
use crate::MacAddress;
use crate::message::{CREATE, EXCLUSIVE};

// linux/if_link.h
const IFLA_LINK: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
const VETH_INFO_PEER: u16 = 1;

/// What a macvlan exchanges with others on the same parent (`enum macvlan_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Nothing.
    Private,
    /// What the switch at the other end sends back.
    Vepa,
    /// All, within the host.
    Bridge,
    /// There are no others.
    Passthru,
}

/// A macvlan that is to be made in another namespace, on a link of this one.
#[derive(Clone, Copy, Debug)]
pub struct Macvlan<'a> {
    /// As it is there.
    pub name: &'a str,
    /// Index of the link that it is on.
    pub parent: u32,
    pub mode: MacvlanMode,
    pub mac: MacAddress,
    pub netns: BorrowedFd<'a>,
}

/// How an ipvlan gets its packets to others (`IPVLAN_MODE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanMode {
    /// By its parent's link, as a neighbour of those there.
    L2,
    /// By its parent's routes, and past its rules for what is forwarded.
    L3,
    /// As [`Self::L3`], through the rules for what comes in and what the host sends.
    L3s,
}

/// What an ipvlan exchanges with others on the same parent (`IPVLAN_F_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// All, within the host.
    Bridge,
    /// Nothing.
    Private,
    /// What the switch at the other end sends back.
    Vepa,
}

/// An ipvlan that is to be made in another namespace, on a link of this one, whose hardware address it has.
#[derive(Clone, Copy, Debug)]
pub struct Ipvlan<'a> {
    /// As it is there.
    pub name: &'a str,
    /// Index of the link that it is on.
    pub parent: u32,
    pub mode: IpvlanMode,
    pub flag: IpvlanFlag,
    /// `None` for the namespace that the request is made in.
    pub netns: Option<BorrowedFd<'a>>,
}

impl Batch {
    /// Makes an ipvlan, down. It has the MTU of its parent.
    pub fn create_ipvlan(&mut self, link: &Ipvlan<'_>) -> &mut Self {
        let mode: u16 = match link.mode {
            IpvlanMode::L2 => 0,
            IpvlanMode::L3 => 1,
            IpvlanMode::L3s => 2,
        };
        let flags: u16 = match link.flag {
            IpvlanFlag::Bridge => 0,
            IpvlanFlag::Private => 1,
            IpvlanFlag::Vepa => 2,
        };
        let action = format!("make ipvlan `{}`", link.name);
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, link.name);
            m.u32(IFLA_LINK, link.parent);
            if let Some(netns) = link.netns {
                m.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
            }
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "ipvlan");
                m.nested(IFLA_INFO_DATA, |m| {
                    m.attribute(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
                    m.attribute(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
                });
            });
        });
        self
    }

    /// Makes a macvlan, down. It has the MTU of its parent.
    pub fn create_macvlan(&mut self, link: &Macvlan<'_>) -> &mut Self {
        let mode: u32 = match link.mode {
            MacvlanMode::Private => 1,
            MacvlanMode::Vepa => 2,
            MacvlanMode::Bridge => 4,
            MacvlanMode::Passthru => 8,
        };
        let action = format!("make macvlan `{}`", link.name);
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, link.name);
            m.attribute(IFLA_ADDRESS, &link.mac.0);
            m.u32(IFLA_LINK, link.parent);
            m.u32(IFLA_NET_NS_FD, link.netns.as_raw_fd().cast_unsigned());
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "macvlan");
                m.nested(IFLA_INFO_DATA, |m| m.u32(IFLA_MACVLAN_MODE, mode));
            });
        });
        self
    }

    /// Makes a link for the frames of another that have a VLAN's tag (802.1Q), down.
    pub fn create_vlan(&mut self, name: &str, parent: u32, vlan: u16) -> &mut Self {
        let action = format!("make VLAN `{name}`");
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, name);
            m.u32(IFLA_LINK, parent);
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "vlan");
                m.nested(IFLA_INFO_DATA, |m| m.attribute(IFLA_VLAN_ID, &vlan.to_ne_bytes()));
            });
        });
        self
    }

    /// Sets a link's alias, an empty one for none, and nothing else of it. The kernel takes none in the request that makes a
    /// link (its `rtnl_create_link`).
    pub fn set_alias(&mut self, name: &str, alias: &str) -> &mut Self {
        let action = format!("set the alias of link `{name}`");
        self.messages.message(SET_LINK, 0, &link_header(0, 0, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, name);
            m.attribute(IFLA_IFALIAS, alias.as_bytes());
        });
        self
    }

    /// Makes a link that leads nowhere, down.
    pub fn create_dummy(&mut self, name: &str) -> &mut Self {
        let action = format!("make dummy link `{name}`");
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, name);
            m.nested(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "dummy"));
        });
        self
    }

    /// Makes a pair of links, both of them here and down.
    pub fn create_pair(&mut self, name: &str, peer: &str) -> &mut Self {
        let action = format!("make link `{name}` to `{peer}`");
        let header = link_header(0, 0, 0, 0);
        self.messages.message(NEW_LINK, CREATE | EXCLUSIVE, &header, action, |m| {
            m.text(IFLA_IFNAME, name);
            m.nested(IFLA_LINKINFO, |m| {
                m.text(IFLA_INFO_KIND, "veth");
                m.nested(IFLA_INFO_DATA, |m| {
                    m.nested(VETH_INFO_PEER, |m| {
                        m.raw(&header);
                        m.text(IFLA_IFNAME, peer);
                    });
                });
            });
        });
        self
    }
}
