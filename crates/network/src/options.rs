//! How the daemon wants its networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::{HostPorts, Ipv4Net, Ipv6Net};

/// Who may reach a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishPolicy {
    /// As Docker: everybody who reaches the host, whatever the host's input rules say.
    #[default]
    Docker,
    /// A port that is published without an address is the loopback's only; who gives an address opens it.
    Host,
}

/// Settings of [`crate::Networks`].
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Address and prefix of the default bridge; by default the first pool that is free on this host.
    pub bip: Option<String>,
    /// Where networks that name no subnet get theirs: a pool, and the prefix of a network in it.
    /// Empty means Docker's.
    pub default_pools: Vec<(Ipv4Net, u8)>,
    /// Where networks with IPv6 that name no such subnet get theirs.
    pub default_pools6: Vec<(Ipv6Net, u8)>,
    /// Whether the default bridge has IPv6, too.
    pub ipv6: bool,
    /// Its IPv6 subnet; by default one of the pools.
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// The bridge's own address in it, and its prefix.
    pub bip6: Option<Ipv6Net>,
    /// Options of bridge networks that name no others.
    pub default_bridge_options: BTreeMap<String, String>,
    pub mtu: u32,
    pub publish_policy: PublishPolicy,
    /// Marks what is ours in the kernel: the nft table `wharf-INSTANCE`, and the aliases of links.
    pub instance: String,
    /// Turns on the host's forwarding where it is off.
    pub ip_forward: bool,
    /// What else the default bridge is to be.
    pub bridge_rules: BridgeRules,
    /// The device of the default bridge; by default the one that carries our mark, or the first free of `wharf0`,
    /// `wharf1`…. `none` is dockerd's word for no default network.
    pub bridge: Option<String>,
    /// The daemon's volatile directory, where the process has its socket that leads the host's IPv6 ports to containers
    /// with IPv4 alone; `None` for none, whose ports are refused then.
    pub relay: Option<PathBuf>,
    /// The socket of the bus that firewalld is on.
    pub system_bus: PathBuf,
    /// Whether there are rules of ours in the kernel's firewall. Without them nobody translates addresses or keeps networks
    /// apart, and all published ports are relayed: somebody else sees to that. There is to be a relay then.
    pub rules: bool,
    /// Where published ports are bound instead of in this namespace; all are relayed then, and there is to be a relay.
    pub host_ports: Option<HostPorts>,
}

/// What the default bridge lets its containers do, and where they have their addresses and their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeRules {
    /// Containers reach one another.
    pub icc: bool,
    /// What leaves gets the host's address.
    pub masquerade: bool,
    /// Where ports are published whose request names no address.
    pub host_binding: Option<IpAddr>,
    /// The part of the subnet that containers get addresses of, as CIDR; where nothing else says which subnet it is,
    /// the subnet itself.
    pub fixed_cidr: Option<String>,
    /// Containers' way out, where that is not the bridge itself.
    pub gateway: Option<Ipv4Addr>,
    pub gateway6: Option<Ipv6Addr>,
}

impl Default for BridgeRules {
    fn default() -> Self {
        Self { icc: true, masquerade: true, host_binding: None, fixed_cidr: None, gateway: None, gateway6: None }
    }
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bip: None,
            default_pools: Vec::new(),
            // For tests: a daemon gives a pool that is its host's own (RFC 4193).
            default_pools6: Ipv6Net::new(Ipv6Addr::new(0xfd77, 0x6861, 0x7266, 0, 0, 0, 0, 0), 48)
                .map(|pool| (pool, 64))
                .into_iter()
                .collect(),
            ipv6: false,
            fixed_cidr_v6: None,
            bip6: None,
            default_bridge_options: BTreeMap::new(),
            mtu: 1500,
            publish_policy: PublishPolicy::Docker,
            instance: String::from("00000000"),
            ip_forward: true,
            bridge_rules: BridgeRules::default(),
            bridge: None,
            relay: None,
            system_bus: wharf_dbus::system_bus(),
            rules: true,
            host_ports: None,
        }
    }
}
