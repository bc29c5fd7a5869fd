//! `--network`, short and long, and the flags that belong to the first network.

use serde_json::{Map, Value, json};

use super::{bandwidth, checks};
use crate::failure::Outcome;
use crate::parse::{Matches, commas};

/// A network to connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) target: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) driver_options: Vec<(String, String)>,
    pub(crate) links: Vec<String>,
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
    pub(crate) link_local: Vec<String>,
    pub(crate) mac: String,
    pub(crate) gateway_priority: i64,
}

/// Refuses what is no network.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

/// Reads `name` or `name=…,alias=…,ip=…`.
pub(crate) fn parse(text: &str) -> Result<Attachment, String> {
    let mut network = Attachment::default();
    if !is_long(text) {
        text.clone_into(&mut network.target);
        return Ok(network);
    }
    for field in commas(text) {
        let lower = field.to_lowercase();
        let Some((key, value)) = lower.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!("invalid field {field}"));
        };
        let (key, value) = (key.trim(), value.trim().to_owned());
        match key {
            "name" => network.target = value,
            "alias" => network.aliases.push(value),
            "ip" => network.ipv4 = value,
            "ip6" => network.ipv6 = value,
            "mac-address" => network.mac = value,
            "link-local-ip" => network.link_local.push(value),
            "driver-opt" => {
                let (name, value) =
                    value.split_once('=').ok_or("invalid key value pair format in driver options".to_owned())?;
                network.driver_options.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            "gw-priority" => {
                network.gateway_priority =
                    value.parse().map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(network)
}

/// Whether `word=word` stands in it.
fn is_long(text: &str) -> bool {
    let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.match_indices('=').any(|(at, _)| text[..at].ends_with(word) && text[at + 1..].starts_with(word))
}

/// A network of the user's own: not one of the modes.
fn is_user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:") && !name.is_empty()
}

/// The network mode, and the endpoints' configuration.
pub(crate) fn endpoints(matches: &Matches) -> Outcome<(String, Map<String, Value>)> {
    let mut networks = Vec::new();
    for text in matches.all("network").iter().chain(matches.all("net")) {
        networks.push(parse(text)?);
    }
    let mode = networks.first().map_or("default", |network| &network.target).to_owned();
    let given = !networks.is_empty();
    if !given {
        networks.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    let only = networks.len() == 1;
    let own = networks.iter().filter(|network| is_user_defined(&network.target)).count();
    let mut endpoints = Map::new();
    for (at, mut network) in networks.iter().cloned().enumerate() {
        if at == 0 {
            apply(&mut network, matches)?;
        }
        if let Some(text) = matches.some("bandwidth") {
            network.driver_options.extend(bandwidth::options(text)?);
        }
        if network.target.trim().is_empty() {
            return Err("no name set for network".into());
        }
        if !is_user_defined(&network.target) && !network.aliases.is_empty() {
            return Err("network-scoped aliases are only supported for user-defined networks".into());
        }
        if !is_user_defined(&network.target) && given && !network.links.is_empty() {
            return Err("links are only supported for user-defined networks".into());
        }
        if !network.mac.is_empty() {
            checks::mac_address(network.mac.trim())
                .map_err(|_| format!("{} is not a valid mac address", network.mac))?;
        }
        if endpoints.contains_key(&network.target) {
            return Err(format!("network {:?} is specified multiple times", network.target).into());
        }
        let plain = Attachment { target: network.target.clone(), ..Attachment::default() };
        // The engine makes an endpoint without options by itself.
        if given && only && network == plain {
            continue;
        }
        endpoints.insert(network.target.clone(), settings(&network));
    }
    if own > 0 && own < networks.len() {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    Ok((mode, endpoints))
}

/// Puts the older flags on the first network.
fn apply(network: &mut Attachment, matches: &Matches) -> Outcome {
    let aliases: Vec<String> = matches.all("network-alias").iter().chain(matches.all("net-alias")).cloned().collect();
    let conflict = |what: &str| Err(format!("conflicting options: cannot specify both {what}").into());
    if !network.aliases.is_empty() && !aliases.is_empty() {
        return conflict("--network-alias and per-network alias");
    }
    if !network.ipv4.is_empty() && matches.changed("ip") {
        return conflict("--ip and per-network IPv4 address");
    }
    if !network.ipv6.is_empty() && matches.changed("ip6") {
        return conflict("--ip6 and per-network IPv6 address");
    }
    if !network.mac.is_empty() && matches.changed("mac-address") {
        return conflict("--mac-address and per-network MAC address");
    }
    if !network.link_local.is_empty() && matches.changed("link-local-ip") {
        return conflict("--link-local-ip and per-network link-local IP addresses");
    }
    if !aliases.is_empty() {
        network.aliases = aliases;
    }
    // Links of the default network are the host configuration's.
    if is_user_defined(&network.target) {
        network.links.extend_from_slice(matches.all("link"));
    }
    let set = |field: &mut String, flag: &str| {
        if let Some(value) = matches.some(flag) {
            value.clone_into(field);
        }
    };
    set(&mut network.ipv4, "ip");
    set(&mut network.ipv6, "ip6");
    set(&mut network.mac, "mac-address");
    network.link_local.extend_from_slice(matches.all("link-local-ip"));
    Ok(())
}

/// The API's `EndpointSettings`.
pub(crate) fn settings(network: &Attachment) -> Value {
    let mut ipam = Map::new();
    if !network.ipv4.is_empty() {
        ipam.insert("IPv4Address".to_owned(), json!(network.ipv4));
    }
    if !network.ipv6.is_empty() {
        ipam.insert("IPv6Address".to_owned(), json!(network.ipv6));
    }
    if !network.link_local.is_empty() {
        ipam.insert("LinkLocalIPs".to_owned(), json!(network.link_local));
    }
    let ipam = if ipam.is_empty() { Value::Null } else { Value::Object(ipam) };
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let options = match network.driver_options.as_slice() {
        [] => Value::Null,
        options => Value::Object(options.iter().map(|(key, value)| (key.clone(), json!(value))).collect()),
    };
    json!({
        "IPAMConfig": ipam,
        "Links": list(&network.links),
        "Aliases": list(&network.aliases),
        "MacAddress": network.mac,
        "DriverOpts": options,
        "GwPriority": network.gateway_priority,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long() {
        assert_eq!(parse("net").unwrap().target, "net");
        assert_eq!(parse("container:x").unwrap().target, "container:x");
        let long = parse("name=n,alias=a,alias=b,ip=1.2.3.4,gw-priority=2,driver-opt=k=v").unwrap();
        assert_eq!((long.target.as_str(), long.aliases.len(), long.gateway_priority), ("n", 2, 2));
        assert_eq!(long.driver_options, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(parse("a=b").unwrap_err(), "invalid field key a");
        assert_eq!(parse("alias=b").unwrap_err(), "network name/id is not specified");
    }
}
