//! What networks are, and what is asked of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wharf_netlink::MacAddress;

use crate::{
    Bandwidth, Configuration, GatewayMode, InterfaceSysctl, Ipv4Net, Ipv6Net, Namespace, Parent, Pool4, Pool6,
};

/// Names of reserved addresses that are containers' way out (moby, `libnetwork/drivers/bridge`, `DefaultGatewayV4AuxKey`).
pub(crate) const WAY_OUT4: &str = "DefaultGatewayIPv4";
pub(crate) const WAY_OUT6: &str = "DefaultGatewayIPv6";

/// A network, as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`.
    pub driver: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// Nothing gets out of it or in.
    pub internal: bool,
    #[serde(default)]
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// `default` unless the request named one.
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    /// Whether containers get IPv4 addresses.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// The IPv4 subnet. `None` for `host` and `none`, and where there is no IPv4.
    pub subnet: Option<Ipv4Net>,
    /// Whether the user chose the subnet: only then may a container ask for an address.
    pub subnet_chosen: bool,
    pub gateway: Option<Ipv4Addr>,
    /// Whether the user chose it: `inspect` shows of a subnet what was asked for.
    #[serde(default = "yes")]
    pub gateway_chosen: bool,
    /// Containers get addresses of this part of the subnet only.
    pub ip_range: Option<Ipv4Net>,
    /// Addresses that no container gets, by the user's names for them.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Where containers get IPv6 addresses.
    #[serde(default)]
    pub pool6: Option<Pool6>,
    /// Further subnets, which networks on one of the host's links may have: a container has an address of one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further4: Vec<Pool4>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further6: Vec<Pool6>,
    /// What was asked for of a family that the network does not have: `inspect` shows it, as Docker does.
    #[serde(default)]
    pub unused_pools: Vec<PoolRequest>,
    /// The device of a bridge network.
    pub bridge: Option<String>,
    /// The link of the host's that a network of macvlan or ipvlan is on.
    #[serde(default)]
    pub parent: Option<Parent>,
    pub mtu: u32,
    /// Whether containers of the network reach one another.
    pub icc: bool,
    /// Whether what leaves the network gets the host's address.
    pub masquerade: bool,
    #[serde(default)]
    pub mode4: GatewayMode,
    #[serde(default)]
    pub mode6: GatewayMode,
    /// The bridge gets no IPv4 address: somebody else is the gateway.
    #[serde(default)]
    pub inhibit4: bool,
    /// Links of the host's that all ports of containers are open for.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// The address that ports are published on when a request names none.
    pub host_binding: Option<IpAddr>,
    /// What the host hides containers behind, instead of the address of the link that they go out by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host4: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host6: Option<Ipv6Addr>,
    /// Made by us and not to be removed: `bridge`, `host`, `none`.
    pub predefined: bool,
    /// Of a configuration network, which nobody can be on. Its subnets are in `unused_pools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// The name of the configuration network that it was made of; empty for most.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_from: String,
}

/// What `network create` asks for.
#[derive(Clone, Debug, Default)]
pub struct CreateNetwork {
    pub name: String,
    /// Empty means `bridge`.
    pub driver: String,
    pub internal: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    pub ipam: IpamRequest,
    /// Whether containers get IPv4 addresses; by default they do.
    pub ipv4: Option<bool>,
    /// Whether they get IPv6 addresses; by default they do not.
    pub ipv6: Option<bool>,
    /// Makes a configuration network.
    pub config_only: bool,
    /// The configuration network that says all but `internal` and `attachable`; empty for none.
    pub config_from: String,
    /// `local`, or a swarm's, which is refused.
    pub scope: String,
    /// A swarm's, which is refused.
    pub ingress: bool,
}

/// The addresses that a new network asks for.
#[derive(Clone, Debug, Default)]
pub struct IpamRequest {
    /// Empty means `default`.
    pub driver: String,
    pub options: BTreeMap<String, String>,
    /// At most one for IPv4 and one for IPv6, but for a network on one of the host's links; what is not there comes from the
    /// default pools.
    pub config: Vec<PoolRequest>,
}

/// A subnet that a new network asks for; empty texts were not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRequest {
    pub subnet: String,
    pub ip_range: String,
    pub gateway: String,
    pub aux_addresses: BTreeMap<String, String>,
}

/// A container that is to be connected.
#[derive(Clone, Copy, Debug)]
pub struct EndpointRequest<'a> {
    /// Name or ID.
    pub network: &'a str,
    /// The container's ID.
    pub container: &'a str,
    /// The container's name.
    pub name: &'a str,
    pub netns: BorrowedFd<'a>,
    /// The same, where it is one that nobody has used: then no thread needs to enter it.
    pub unused: Option<&'a Namespace>,
    /// The interface becomes `ethINDEX`, or gets the next number that is free in the container.
    pub index: u32,
    /// The interface gets this name instead ([`is_interface_name`](crate::is_interface_name)).
    pub interface: Option<&'a str>,
    /// What is set of it, before it is up.
    pub sysctls: &'a [InterfaceSysctl],
    /// Its place among the container's ways out, the lowest of which is taken; by default behind all others.
    pub rank: Option<u32>,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    /// Further addresses of its interface, which nobody looks after.
    pub link_local: &'a [IpAddr],
    /// The container has turned IPv6 off: it gets no such address.
    pub no_ipv6: bool,
    pub mac: Option<MacAddress>,
    /// What is not said is the network's.
    pub bandwidth: Bandwidth,
    /// Further names of the container in this network.
    pub aliases: &'a [String],
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network_id: String,
    /// 64 hex digits.
    pub endpoint_id: String,
    pub container: String,
    /// The container's name.
    pub name: String,
    pub aliases: Vec<String>,
    /// `None` in a network without IPv4.
    pub ip: Option<Ipv4Addr>,
    pub prefix: u8,
    /// `None` in an internal network, which leads nowhere.
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    #[serde(default)]
    pub prefix6: u8,
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    pub mac: MacAddress,
    /// Its link has the hardware address of the network's parent (ipvlan), and `mac` is only what its link-local address is
    /// made of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents_mac: bool,
    /// What is for no neighbour goes out by the link without a gateway (ipvlan's `l3` and `l3s`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leads_out: bool,
    /// The host's end of the link; empty where it has none (macvlan, ipvlan).
    pub host_interface: String,
    /// The container's end, `ethN` unless a name was asked for.
    pub interface: String,
}

impl Endpoint {
    /// Its addresses: that of IPv4, then that of IPv6.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ip.map(IpAddr::V4).into_iter().chain(self.ip6.map(IpAddr::V6)).collect()
    }
}

impl NetworkRecord {
    /// Whether containers can be put on it.
    pub fn is_joinable(&self) -> bool {
        self.bridge.is_some() || self.parent.is_some()
    }

    /// Whether it has IPv6, or networks that are made of it.
    pub fn has_ipv6(&self) -> bool {
        self.pool6.is_some() || self.configuration.is_some_and(|configuration| configuration.ipv6)
    }

    /// Whether ports of containers can be published there: others come in by the host, and by no macvlan or ipvlan.
    pub fn publishes(&self) -> bool {
        !self.internal && self.bridge.is_some()
    }

    /// Where containers send what is for no neighbour of theirs: to the bridge, unless an address is reserved under the name
    /// that Docker has for another one.
    pub(crate) fn way_out4(&self) -> Option<Ipv4Addr> {
        self.aux_addresses.get(WAY_OUT4).copied().or(self.gateway).filter(|_| !self.internal)
    }

    /// Its IPv4 subnets.
    pub fn pools4(&self) -> Vec<Pool4> {
        let first = self.subnet.map(|subnet| Pool4 {
            subnet,
            gateway: self.gateway,
            gateway_chosen: self.gateway_chosen,
            ip_range: self.ip_range,
            aux_addresses: self.aux_addresses.clone(),
        });
        first.into_iter().chain(self.further4.iter().cloned()).collect()
    }

    /// Its IPv6 subnets.
    pub fn pools6(&self) -> impl Iterator<Item = &Pool6> {
        self.pool6.iter().chain(&self.further6)
    }

    /// The way out and the prefix of a container with this address.
    pub(crate) fn place4(&self, address: Ipv4Addr) -> (Option<Ipv4Addr>, u8) {
        match self.further4.iter().find(|pool| pool.subnet.contains(address)) {
            Some(pool) => (pool.gateway.filter(|_| !self.internal), pool.subnet.prefix()),
            None => (self.way_out4(), self.subnet.map_or(0, Ipv4Net::prefix)),
        }
    }

    /// The same of IPv6.
    pub(crate) fn place6(&self, address: Ipv6Addr) -> (Option<Ipv6Addr>, u8) {
        match self.further6.iter().find(|pool| pool.subnet.contains(address)) {
            Some(pool) => (pool.gateway.filter(|_| !self.internal), pool.subnet.prefix()),
            None => (self.way_out6(), self.pool6.as_ref().map_or(0, |pool| pool.subnet.prefix())),
        }
    }

    /// The same of IPv6.
    pub(crate) fn way_out6(&self) -> Option<Ipv6Addr> {
        let pool = self.pool6.as_ref()?;
        pool.aux_addresses.get(WAY_OUT6).copied().or(pool.gateway).filter(|_| !self.internal)
    }

    /// The bridge's addresses.
    pub fn gateways(&self) -> Vec<IpAddr> {
        if self.parent.is_some() {
            return Vec::new();
        }
        let six = self.pool6.as_ref().and_then(|pool| pool.gateway);
        self.gateway.map(IpAddr::V4).into_iter().chain(six.map(IpAddr::V6)).collect()
    }

    /// Whether an address is of one of its subnets.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let further = self.further4.iter().map(|pool| pool.subnet);
                self.subnet.into_iter().chain(further).any(|subnet| subnet.contains(address))
            }
            IpAddr::V6(address) => self.pools6().any(|pool| pool.subnet.contains(address)),
        }
    }
}

impl NetworkRecord {
    /// Whether an address is of a subnet that was asked for of a family that the network does not have: nobody gets it.
    pub fn is_of_no_use(&self, address: IpAddr) -> bool {
        self.unused_pools.iter().any(|pool| match address {
            IpAddr::V4(address) => pool.subnet.parse::<Ipv4Net>().is_ok_and(|subnet| subnet.contains(address)),
            IpAddr::V6(address) => pool.subnet.parse::<Ipv6Net>().is_ok_and(|subnet| subnet.contains(address)),
        })
    }
}

const fn yes() -> bool {
    true
}

/// What carries a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number in an IP header.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// Takes `tcp`, `udp` and `sctp` in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!("invalid proto: {text}")),
        }
    }
}

/// A port that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None` means all of the host's, of the families that the container has; `0.0.0.0` and `::` all of one family.
    pub host_ip: Option<IpAddr>,
    /// The first free one of the range; `None` means any free one.
    pub host_port: Option<(u16, u16)>,
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    /// 0 in a network that routes: then it is the container's own that is open, and no port of the host's.
    pub host_port: u16,
}

/// A network for tests.
#[cfg(test)]
pub(crate) fn sample() -> NetworkRecord {
    NetworkRecord {
        id: "f".repeat(64),
        name: "net".into(),
        driver: "bridge".into(),
        created: String::new(),
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        ipam_driver: "default".into(),
        ipam_options: BTreeMap::new(),
        ipv4: true,
        subnet: None,
        subnet_chosen: false,
        gateway: None,
        gateway_chosen: false,
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        pool6: None,
        further4: Vec::new(),
        further6: Vec::new(),
        unused_pools: Vec::new(),
        bridge: Some("br-test".into()),
        parent: None,
        mtu: 1500,
        icc: true,
        masquerade: true,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        inhibit4: false,
        trusted: Vec::new(),
        host_binding: None,
        host4: None,
        host6: None,
        predefined: false,
        configuration: None,
        config_from: String::new(),
    }
}
