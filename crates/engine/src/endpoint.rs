//! A container's place on one network: what it asks for, and what it has got.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wharf_network::{Bandwidth, Endpoint, InterfaceSysctl, MacAddress, NetworkRecord, is_interface_name};

use crate::error::{EngineError, Result};
use crate::spec::{EndpointIpam, EndpointSettings, HostConfig};

/// The name of the container's interface.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// Kernel parameters of the container's interface, with commas between them.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What a container asks for on a network: addresses, and how its interface is to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) link_local: Vec<IpAddr>,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) interface: Option<String>,
    pub(crate) sysctls: Vec<InterfaceSysctl>,
    pub(crate) bandwidth: Bandwidth,
}

impl Asked {
    /// Reads what `settings` ask for on the network `name`, which may not be there.
    ///
    /// # Errors
    /// `InvalidParameter` for what is no address, or none of the network's, no name, no parameter of an interface, with all
    /// that is wrong in Docker's words (moby, `validateEndpointSettings`).
    pub(crate) fn of(name: &str, settings: &EndpointSettings, network: Option<&NetworkRecord>) -> Result<Self> {
        let (mut asked, mut faults) = (Self::default(), Vec::new());
        let none = EndpointIpam::default();
        let config = settings.ipam_config.as_ref().unwrap_or(&none);
        let (four, six) = (config.ipv4_address.as_str(), config.ipv6_address.as_str());
        if matches!(name, "bridge" | "host" | "none") {
            if !four.is_empty() || !six.is_empty() {
                faults.push("user specified IP address is supported on user defined networks only".into());
            }
            // The default network knows no names.
            if settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
                faults.push("network-scoped alias is supported only for containers in user defined networks".into());
            }
        }
        asked.ip = four.parse().ok().filter(|ip: &Ipv4Addr| !ip.is_unspecified());
        if !four.is_empty() && asked.ip.is_none() {
            faults.push(format!("invalid IPv4 address: {four}"));
        }
        asked.ip6 = six.parse().ok().filter(|ip: &Ipv6Addr| !ip.is_unspecified() && ip.to_ipv4_mapped().is_none());
        if !six.is_empty() && asked.ip6.is_none() {
            faults.push(format!("invalid IPv6 address: {six}"));
        }
        for text in config.link_local_ips.iter().flatten() {
            match text.parse::<IpAddr>() {
                Ok(ip) if is_link_local(ip) => asked.link_local.push(ip),
                // Docker finds it at the start, and calls it so.
                Ok(ip) if !ip.is_unspecified() => faults.push(format!("invalid link local IP address: {ip}")),
                _ => faults.push(format!("invalid link-local IP address: {text}")),
            }
        }
        let (mut four, mut six) = (four, six);
        if let Some(network) = network {
            // As with Docker: what the network was told and does not use is shown, and not given.
            if asked.ip.is_some_and(|address| network.is_of_no_use(address.into())) {
                (four, asked.ip) = ("", None);
            }
            if asked.ip6.is_some_and(|address| network.is_of_no_use(address.into())) {
                (six, asked.ip6) = ("", None);
            }
            let four = (four, asked.ip.map(IpAddr::V4), network.subnet_chosen);
            let six = (six, asked.ip6.map(IpAddr::V6), network.pool6.as_ref().is_some_and(|pool| pool.chosen));
            faults.extend([four, six].into_iter().filter_map(|asked| fault_of_range(network, asked)));
        }
        let mac = settings.mac_address.as_str();
        asked.mac = mac.parse().ok();
        if !mac.is_empty() && asked.mac.is_none() {
            return Err(EngineError::invalid(format!("invalid MAC address {mac}")));
        }
        let option = |key: &str| settings.driver_opts.as_ref().and_then(|all| all.get(key)).filter(|v| !v.is_empty());
        asked.interface = option(INTERFACE).cloned();
        if let Some(name) = asked.interface.as_ref().filter(|name| !is_interface_name(name)) {
            faults.push(format!("error renaming interface: {name:?} is no name of one: it has 1 to 15 bytes"));
        }
        for text in option(SYSCTLS).into_iter().flat_map(|all| all.split(',')) {
            match text.parse() {
                Ok(sysctl) => asked.sysctls.push(sysctl),
                Err(fault) => faults.push(fault),
            }
        }
        match settings.driver_opts.as_ref().map(Bandwidth::of).transpose() {
            Ok(bandwidth) => asked.bandwidth = bandwidth.unwrap_or_default(),
            Err(fault) => faults.push(fault),
        }
        let all = match faults.as_slice() {
            [] => return Ok(asked),
            [only] => only.clone(),
            several => format!("* {}", several.join("\n* ")),
        };
        Err(EngineError::invalid(format!("invalid endpoint settings:\n{all}")))
    }

    /// Whether its interface is to have no IPv6, whatever the network has.
    pub(crate) fn has_no_ipv6(&self, host: &HostConfig) -> bool {
        has_no_ipv6(host) || self.sysctls.iter().any(InterfaceSysctl::disables_ipv6)
    }
}

/// What is wrong with an address of one family for a network, whose subnet of that family the user chose or not.
fn fault_of_range(network: &NetworkRecord, (text, address, chosen): (&str, Option<IpAddr>, bool)) -> Option<String> {
    if text.is_empty() || (chosen && address.is_some_and(|address| network.contains(address))) {
        return None;
    }
    Some(if chosen {
        format!("no configured subnet or ip-range contain the IP address {text}")
    } else {
        "user specified IP address is supported only when connecting to networks with user configured subnets".into()
    })
}

/// The hardware addresses that are asked for, by the network's name.
pub(crate) fn asked_macs(endpoints: &BTreeMap<String, EndpointSettings>) -> BTreeMap<String, String> {
    let asked = endpoints.iter().filter(|(_, settings)| !settings.mac_address.is_empty());
    asked.map(|(name, settings)| (name.clone(), settings.mac_address.clone())).collect()
}

/// RFC 3927 and RFC 4291, 2.5.6.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether its interface is not numbered with the others.
pub(crate) fn has_own_name(settings: &EndpointSettings) -> bool {
    settings.driver_opts.as_ref().and_then(|all| all.get(INTERFACE)).is_some_and(|name| !name.is_empty())
}

/// Notes what a container has got.
pub(crate) fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    settings.network_id.clone_from(&endpoint.network_id);
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    settings.mac_address = if endpoint.parents_mac { String::new() } else { endpoint.mac.to_string() };
    settings.gateway = text(endpoint.gateway.filter(|_| endpoint.ip.is_some()).map(IpAddr::V4));
    settings.ip_address = text(endpoint.ip.map(IpAddr::V4));
    settings.ip_prefix_len = endpoint.prefix;
    settings.ipv6_gateway = text(endpoint.gateway6.map(IpAddr::V6));
    settings.global_ipv6_address = text(endpoint.ip6.map(IpAddr::V6));
    settings.global_ipv6_prefix_len = endpoint.prefix6;
}

/// Forgets what a container that has ended had.
pub(crate) fn clear(settings: &mut EndpointSettings) {
    settings.endpoint_id.clear();
    settings.mac_address.clear();
    settings.gateway.clear();
    settings.ip_address.clear();
    settings.ip_prefix_len = 0;
    settings.ipv6_gateway.clear();
    settings.global_ipv6_address.clear();
    settings.global_ipv6_prefix_len = 0;
}

/// The addresses that a container has on a network: that of IPv4, then that of IPv6.
pub(crate) fn addresses(settings: &EndpointSettings) -> impl Iterator<Item = IpAddr> {
    [&settings.ip_address, &settings.global_ipv6_address].into_iter().filter_map(|text| text.parse().ok())
}

/// The names of a container's networks, the one first whose way out is taken: that of the highest priority, else that
/// of the network mode, else by name.
pub(crate) fn ranked(endpoints: &BTreeMap<String, EndpointSettings>, first: Option<&str>) -> Vec<String> {
    let mut all: Vec<(&String, &EndpointSettings)> = endpoints.iter().collect();
    all.sort_by_key(|(name, settings)| (std::cmp::Reverse(settings.gw_priority), Some(name.as_str()) != first, *name));
    all.into_iter().map(|(name, _)| name.clone()).collect()
}

/// Of all addresses the first of each family.
pub(crate) fn first_of_each(all: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut first: Vec<IpAddr> = Vec::new();
    for address in all {
        if first.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
            first.push(address);
        }
    }
    first
}

/// A container's ways out: the first of each family.
pub(crate) fn gateways(endpoints: &BTreeMap<String, EndpointSettings>, ranked: &[String]) -> Vec<IpAddr> {
    let all = ranked.iter().filter_map(|name| endpoints.get(name));
    first_of_each(
        all.flat_map(|settings| [&settings.gateway, &settings.ipv6_gateway]).filter_map(|text| text.parse().ok()),
    )
}

/// Whether a container is to have no IPv6 on its interfaces, whatever its networks have.
fn has_no_ipv6(host: &HostConfig) -> bool {
    let value = host.sysctls.as_ref().and_then(|all| all.get("net.ipv6.conf.all.disable_ipv6"));
    value.is_some_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(four: &str, six: &str, link_local: &[&str], mac: &str) -> EndpointSettings {
        EndpointSettings {
            ipam_config: Some(EndpointIpam {
                ipv4_address: four.into(),
                ipv6_address: six.into(),
                link_local_ips: Some(link_local.iter().map(|text| (*text).to_owned()).collect()),
            }),
            mac_address: mac.into(),
            ..EndpointSettings::default()
        }
    }

    #[test]
    fn addresses_are_read_or_refused() {
        let good = settings("10.0.0.9", "fd00::9", &["169.254.3.4", "fe80::5"], "02:42:00:00:00:01");
        let asked = Asked::of("web", &good, None).unwrap();
        assert_eq!((asked.ip, asked.ip6), (Some([10, 0, 0, 9].into()), Some("fd00::9".parse().unwrap())));
        assert_eq!((asked.link_local.len(), asked.mac.is_some()), (2, true));
        assert_eq!(Asked::of("web", &EndpointSettings::default(), None).unwrap(), Asked::default());
        let one = Asked::of("web", &settings("", "10.0.0.1", &[], ""), None).unwrap_err();
        assert_eq!(one.message, "invalid endpoint settings:\ninvalid IPv6 address: 10.0.0.1");
        for address in ["169.253.5.5", "2001:db8::89"] {
            let refused = Asked::of("web", &settings("", "", &[address], ""), None).unwrap_err().message;
            assert!(refused.ends_with(&format!("invalid link local IP address: {address}")), "{refused}");
        }
        let all = Asked::of("web", &settings("fd00::1", "::", &["x"], ""), None).unwrap_err().message;
        assert_eq!(all.lines().filter(|line| line.starts_with("* invalid ")).count(), 3, "{all}");
        let mac = Asked::of("web", &settings("x", "", &[], "y"), None).unwrap_err().message;
        assert_eq!(mac, "invalid MAC address y");
        let named = EndpointSettings { aliases: Some(vec!["a".into()]), ..settings("10.0.0.1", "", &[], "") };
        let both = Asked::of("bridge", &named, None).unwrap_err().message;
        assert!(
            both.contains("* user specified IP address is supported on") && both.contains("* network-scoped"),
            "{both}"
        );
    }

    #[test]
    fn interfaces_are_named_and_set() {
        let with = |options: &[(&str, &str)]| EndpointSettings {
            driver_opts: Some(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            ..EndpointSettings::default()
        };
        let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.disable_ipv6=1";
        let good = with(&[(INTERFACE, "foo0"), (SYSCTLS, both)]);
        let asked = Asked::of("web", &good, None).unwrap();
        assert_eq!((asked.interface.as_deref(), asked.sysctls.len()), (Some("foo0"), 2));
        assert!(asked.has_no_ipv6(&HostConfig::default()) && has_own_name(&good));
        assert!(!has_own_name(&with(&[(INTERFACE, "")])));
        let bad = with(&[(INTERFACE, "a/b"), (SYSCTLS, "net.ipv4.conf.IFNAME.forwarding=1,kernel.msgmax=1")]);
        let message = Asked::of("web", &bad, None).unwrap_err().message;
        assert!(message.contains("* error renaming interface: \"a/b\""), "{message}");
        assert!(message.contains("* unrecognised network interface sysctl 'kernel.msgmax=1'"), "{message}");
    }

    #[test]
    fn the_highest_priority_leads_out() {
        let with = |gw_priority, gateway: &str, six: &str| EndpointSettings {
            gw_priority,
            gateway: gateway.into(),
            ipv6_gateway: six.into(),
            ..EndpointSettings::default()
        };
        let all = BTreeMap::from([
            ("a".to_owned(), with(0, "10.0.0.1", "")),
            ("b".to_owned(), with(5, "", "fd00:b::1")),
            ("c".to_owned(), with(0, "10.0.2.1", "fd00:c::1")),
            ("d".to_owned(), with(-1, "10.0.3.1", "")),
        ]);
        assert_eq!(ranked(&all, Some("c")), ["b", "c", "a", "d"]);
        assert_eq!(ranked(&all, None), ["b", "a", "c", "d"]);
        let ways: Vec<String> = gateways(&all, &ranked(&all, None)).iter().map(ToString::to_string).collect();
        assert_eq!(ways, ["fd00:b::1", "10.0.0.1"]);
    }

    #[test]
    fn ipv6_is_turned_off_by_the_user() {
        let with = |key: &str, value: &str| HostConfig {
            sysctls: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            ..HostConfig::default()
        };
        assert!(has_no_ipv6(&with("net.ipv6.conf.all.disable_ipv6", "1")));
        assert!(!has_no_ipv6(&with("net.ipv6.conf.all.disable_ipv6", "0")));
        assert!(!has_no_ipv6(&with("net.ipv6.conf.eth0.disable_ipv6", "1")) && !has_no_ipv6(&HostConfig::default()));
    }
}
