//! How a network of a bridge meets the rest of the world, for each family (`com.docker.network.bridge.gateway_mode_ipv4`
//! and `…_ipv6`).

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wharf_netlink::nft::Family;

use crate::NetworkRecord;

/// What becomes of packets that leave a network and come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// What leaves has the host's address; in comes what was sent to a port that the host publishes.
    #[default]
    Nat,
    /// As [`Self::Nat`], and who knows the way to a container reaches all its ports.
    NatUnprotected,
    /// Containers keep their addresses, and who knows the way to one reaches the ports that it publishes; the host has
    /// none for it.
    Routed,
    /// Of an internal network: the host has no address in it either.
    Isolated,
}

impl FromStr for GatewayMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "nat" => Ok(Self::Nat),
            "nat-unprotected" => Ok(Self::NatUnprotected),
            "routed" => Ok(Self::Routed),
            "isolated" => Ok(Self::Isolated),
            _ => Err(format!("unknown gateway mode {text}")),
        }
    }
}

impl GatewayMode {
    /// Whether the host gives its own address to what leaves.
    pub(crate) fn hides(self) -> bool {
        matches!(self, Self::Nat | Self::NatUnprotected)
    }
}

impl NetworkRecord {
    pub(crate) fn mode(&self, family: Family) -> GatewayMode {
        if family == Family::Ip { self.mode4 } else { self.mode6 }
    }

    /// Whether an address of it is reached without one of the host's.
    pub(crate) fn routes(&self, address: IpAddr) -> bool {
        let mode = if address.is_ipv4() { self.mode4 } else { self.mode6 };
        mode == GatewayMode::Routed
    }

    /// Whether the host has no IPv4 address in it.
    pub(crate) fn is_without_address4(&self) -> bool {
        self.inhibit4 || self.mode4 == GatewayMode::Isolated
    }

    /// Whether nobody is to be its IPv4 gateway, as far as the user names none.
    pub(crate) fn is_without_gateway4(&self) -> bool {
        self.mode4 == GatewayMode::Isolated || (self.inhibit4 && self.internal) || self.needs_no_router()
    }

    /// The same of IPv6.
    pub(crate) fn is_without_gateway6(&self) -> bool {
        self.mode6 == GatewayMode::Isolated || self.needs_no_router()
    }

    /// Whether it is on one of the host's links and its containers send to no router there.
    fn needs_no_router(&self) -> bool {
        self.parent.as_ref().is_some_and(|parent| self.internal || parent.leads_out())
    }
}
