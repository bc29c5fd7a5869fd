//! Our mark on links: an alias that says whose a link is, so that a crash leaves nothing that we do not recognise.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::Endpoint;

/// What an alias says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The bridge of a network, by its ID.
    Bridge(String),
    /// The parent of a network of macvlan or ipvlan, by its ID.
    Parent(String),
    /// The host's end of a container's link. Of the network's ID the beginning.
    Endpoint {
        network: String,
        container: String,
        endpoint: String,
        ip: Option<Ipv4Addr>,
        interface: String,
        ip6: Option<Ipv6Addr>,
    },
}

/// Name of what is ours in the kernel: the nft table, and the first word of aliases.
pub(crate) fn instance_name(instance: &str) -> String {
    format!("wharf-{instance}")
}

pub(crate) fn bridge(instance: &str, network: &str) -> String {
    format!("{} bridge {network}", instance_name(instance))
}

pub(crate) fn parent(instance: &str, network: &str) -> String {
    format!("{} parent {network}", instance_name(instance))
}

/// Digits of a network's ID, which the store has whole.
const NETWORK_DIGITS: usize = 24;

/// At most 250 bytes of the 255 that an alias may have: two IDs of 64 and a part of one, two addresses, short words.
pub(crate) fn endpoint(instance: &str, endpoint: &Endpoint) -> String {
    let Endpoint { network_id, container, endpoint_id, ip, interface, ip6, .. } = endpoint;
    let network = network_id.get(..NETWORK_DIGITS).unwrap_or(network_id);
    let word = |address: Option<String>| address.unwrap_or_else(|| "-".into());
    let (ip, ip6) = (word(ip.map(|ip| ip.to_string())), word(ip6.map(|ip| ip.to_string())));
    format!("{} endpoint {network} {container} {endpoint_id} {ip} {interface} {ip6}", instance_name(instance))
}

/// Reads an alias; `None` when it is not of this instance.
pub(crate) fn read(instance: &str, alias: &str) -> Option<Mark> {
    let mut words = alias.split(' ');
    if words.next()? != instance_name(instance) {
        return None;
    }
    let kind = words.next()?;
    let mut word = || words.next().map(str::to_owned);
    match kind {
        "bridge" => Some(Mark::Bridge(word()?)),
        "parent" => Some(Mark::Parent(word()?)),
        "endpoint" => Some(Mark::Endpoint {
            network: word()?,
            container: word()?,
            endpoint: word()?,
            ip: word()?.parse().ok(),
            interface: word()?,
            // Earlier versions knew of none.
            ip6: word().and_then(|ip6| ip6.parse().ok()),
        }),
        _ => None,
    }
}

/// Whether a link is of another daemon of ours.
pub(crate) fn is_of_another(instance: &str, alias: &str) -> bool {
    alias.starts_with("wharf-") && read(instance, alias).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_read_as_it_was_written() {
        let id = "0123456789abcdef".repeat(4);
        let mut sample = Endpoint {
            network_id: id.clone(),
            endpoint_id: id.clone(),
            container: id.clone(),
            name: "web".into(),
            aliases: Vec::new(),
            ip: Some(Ipv4Addr::new(192, 168, 100, 100)),
            prefix: 16,
            gateway: None,
            ip6: Some("fd00:1111:2222:3333:4444:5555:6666:7777".parse().unwrap()),
            prefix6: 64,
            gateway6: None,
            mac: crate::ipam::mac_of(Ipv4Addr::LOCALHOST.into()),
            parents_mac: false,
            leads_out: false,
            host_interface: "veth01234567".into(),
            interface: "eth0".into(),
        };
        let alias = endpoint("01234567", &sample);
        assert!(alias.len() < 240, "an interface may have fifteen letters: {}", alias.len());
        let expected = |sample: &Endpoint| Mark::Endpoint {
            network: id[..NETWORK_DIGITS].to_owned(),
            container: id.clone(),
            endpoint: id.clone(),
            ip: sample.ip,
            interface: "eth0".into(),
            ip6: sample.ip6,
        };
        assert_eq!(read("01234567", &alias), Some(expected(&sample)));
        let earlier = format!("wharf-01234567 endpoint {id} {id} {id} 192.168.100.100 eth0");
        assert!(matches!(read("01234567", &earlier), Some(Mark::Endpoint { ip6: None, ip: Some(_), .. })));
        sample.ip = None;
        assert_eq!(read("01234567", &endpoint("01234567", &sample)), Some(expected(&sample)));
        assert_eq!(read("01234567", &bridge("01234567", &id)), Some(Mark::Bridge(id.clone())));
        assert_eq!(read("76543210", &alias), None);
        assert!(is_of_another("76543210", &alias) && !is_of_another("01234567", &alias) && !is_of_another("0", "lan"));
        for other in ["", "wharf-01234567", "wharf-01234567 endpoint a b", "lan"] {
            assert_eq!(read("01234567", other), None);
        }
    }
}
