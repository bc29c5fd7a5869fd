//! What the daemon's options and the host say of networks.

use std::net::Ipv6Addr;

use wharf_network::{HostPorts, Ipv6Net, NetworkOptions, PublishPolicy, bind_for_relay};
use wharf_reference::Digest;

use crate::options::Options;

/// What networks are to be, for the daemon whose objects are marked with `instance`.
///
/// # Errors
/// The message for the user.
pub(crate) fn network_options(options: &Options, instance: &str) -> Result<NetworkOptions, String> {
    let (mut pools, mut pools6) = (Vec::new(), Vec::new());
    for (base, size) in &options.pools {
        let invalid = || format!("invalid default address pool '{base}'");
        if base.contains(':') {
            let net: Ipv6Net = base.parse().map_err(|_| invalid())?;
            pools6.push((net, *size));
        } else {
            pools.push((base.parse().map_err(|_| invalid())?, *size));
        }
    }
    if pools6.is_empty() {
        pools6.extend(unique_local(instance).map(|net| (net, UNIQUE_LOCAL_SIZE)));
    }
    let net = |name: &str, text: &Option<String>| {
        let parse = |text: &String| text.parse::<Ipv6Net>().map_err(|e| format!("invalid {name}: {e}"));
        text.as_ref().map(parse).transpose()
    };
    let outside = crate::rootless::host_ports();
    let is_inside = outside.is_some();
    let own = || HostPorts::new(bind_for_relay);
    let host_ports = outside.or_else(|| (!options.rules).then(own));
    let defaults = NetworkOptions::default();
    Ok(NetworkOptions {
        bip: options.bip.clone(),
        default_pools: pools,
        default_pools6: pools6,
        ipv6: options.ipv6,
        fixed_cidr_v6: net("fixed-cidr-v6", &options.fixed_cidr_v6)?,
        bip6: net("bip6", &options.bip6)?,
        default_bridge_options: options.bridge_options.clone(),
        mtu: options.mtu.unwrap_or_else(way_out_mtu),
        publish_policy: if options.publish_policy == "host" { PublishPolicy::Host } else { PublishPolicy::Docker },
        instance: instance.into(),
        ip_forward: options.ip_forward,
        bridge: options.bridge.clone(),
        bridge_rules: options.bridge_rules.clone(),
        // All ports of an ordinary user's daemon are relayed, and of one without rules.
        relay: (options.userland_proxy || host_ports.is_some()).then(|| options.exec_root.clone()),
        // The host's firewall is not in that one's namespace, and who wants no rules wants none of firewalld's.
        system_bus: if is_inside || !options.rules { "/nonexistent".into() } else { defaults.system_bus },
        rules: options.rules,
        host_ports,
    })
}

/// Prefix of the networks in [`unique_local`].
const UNIQUE_LOCAL_SIZE: u8 = 64;

/// Where networks with IPv6 get their subnets when nobody says: a /48 that is this host's and this daemon's own
/// (RFC 4193, 3.2), and always the same.
fn unique_local(instance: &str) -> Option<Ipv6Net> {
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hex = Digest::sha256(format!("{} {instance}", host.trim()).as_bytes()).hex().to_owned();
    let word = |at: usize| u16::from_str_radix(&hex[at..at + 4], 16).unwrap_or_default();
    let address = Ipv6Addr::new(0xfd00 | word(0) & 0xff, word(4), word(8), 0, 0, 0, 0, 0);
    Ipv6Net::new(address, 48)
}

/// The MTU of the device that the default route leads to: a larger one in the containers would have packets dropped on
/// hosts in clouds, where it is below Ethernet's.
fn way_out_mtu() -> u32 {
    const ETHERNET: u32 = 1500;
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut lines = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let device = lines.find(|fields| fields.get(1) == Some(&"00000000")).and_then(|fields| fields.first().copied());
    let mtu = device.and_then(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok());
    mtu.and_then(|text| text.trim().parse().ok()).map_or(ETHERNET, |mtu: u32| mtu.min(ETHERNET))
}
