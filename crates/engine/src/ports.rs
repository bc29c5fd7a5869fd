//! Ports that a container publishes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharf_network::{PortRequest, Protocol, Published};

use crate::error::{EngineError, Result};
use crate::spec::{Config, HostConfig, PortBinding};

/// What the request publishes: each binding, and with `--publish-all` each exposed port that has none.
///
/// # Errors
/// `InvalidParameter` for a port or an address that is none.
pub(crate) fn requests(config: &Config, host: &HostConfig) -> Result<Vec<PortRequest>> {
    let mut all = Vec::new();
    let bindings = host.port_bindings.clone().unwrap_or_default();
    for (key, list) in &bindings {
        let (container_port, protocol) = parse_port(key)?;
        for binding in list.iter().flatten() {
            let host_ip =
                match binding.host_ip.as_str() {
                    "" => None,
                    text => Some(text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(
                        |_| EngineError::invalid(format!("invalid host IP address for port {key}: \"{text}\"")),
                    )?),
                };
            let host_port = match binding.host_port.as_str() {
                "" | "0" => None,
                text => Some(range(text)?),
            };
            all.push(PortRequest { container_port, protocol, host_ip, host_port });
        }
    }
    if host.publish_all_ports {
        for key in config.exposed_ports.iter().flatten().map(|(key, _)| key) {
            let (container_port, protocol) = parse_port(key)?;
            if !all.iter().any(|r| r.container_port == container_port && r.protocol == protocol) {
                all.push(PortRequest { container_port, protocol, host_ip: None, host_port: None });
            }
        }
    }
    Ok(all)
}

/// Notes what is published beside what is only exposed.
pub(crate) fn note(ports: &mut BTreeMap<String, Option<Vec<PortBinding>>>, published: &[Published]) {
    for one in published {
        // Where a network routes, the container's own port is open and the host has none for it.
        let number = if one.host_port == 0 { String::new() } else { one.host_port.to_string() };
        let binding = PortBinding { host_ip: one.host_ip.to_string(), host_port: number };
        let key = format!("{}/{}", one.container_port, one.protocol);
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
}

/// What is exposed, by the key that all ports have; what is no port keeps its own.
pub(crate) fn exposed(config: &Config) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let key = |text: &String| {
        parse_port(text).map_or_else(|_| text.clone(), |(number, protocol)| format!("{number}/{protocol}"))
    };
    config.exposed_ports.iter().flatten().map(|(port, _)| (key(port), None)).collect()
}

/// `80`, `80/tcp`, `53/udp`.
pub(crate) fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || EngineError::invalid(format!("invalid port specification: \"{number}\""));
    let parsed: u16 = number.parse().map_err(|_| bad())?;
    let protocol: Protocol = protocol.parse().map_err(EngineError::invalid)?;
    if parsed == 0 { Err(bad()) } else { Ok((parsed, protocol)) }
}

/// `8080` or `8000-8010`: any free one of these.
fn range(text: &str) -> Result<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => Ok((first, last)),
        _ => Err(EngineError::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Empty;

    fn bind(ip: &str, port: &str) -> Option<Vec<PortBinding>> {
        Some(vec![PortBinding { host_ip: ip.into(), host_port: port.into() }])
    }

    #[test]
    fn bindings_and_exposed_ports() {
        let mut host = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        host.port_bindings = Some([("80/tcp".to_owned(), bind("127.0.0.1", "8000-8010"))].into());
        let exposed = ["80/tcp", "53/udp"].map(|port| (port.to_owned(), Empty {}));
        let config = Config { exposed_ports: Some(exposed.into()), ..Config::default() };
        let all = requests(&config, &host).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].host_port, all[1].host_port), (Some((8000, 8010)), None));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "0", "x/tcp", "80/icmp", "70000", "-1"] {
            assert!(parse_port(text).is_err(), "{text}");
        }
        for text in ["9-8", "0", "a"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
