//! Our mark on links: an alias that says whose a link is, so that a crash leaves nothing that we do not recognise.

use std::net::Ipv4Addr;

use crate::Endpoint;

/// What an alias says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The bridge of a network, by its ID.
    Bridge(String),
    /// The host's end of a container's link.
    Endpoint { network: String, container: String, endpoint: String, ip: Ipv4Addr, interface: String },
}

/// Name of what is ours in the kernel: the nft table, and the first word of aliases.
pub(crate) fn instance_name(instance: &str) -> String {
    format!("wharf-{instance}")
}

pub(crate) fn bridge(instance: &str, network: &str) -> String {
    format!("{} bridge {network}", instance_name(instance))
}

/// At most 250 bytes of the 255 that an alias may have: three IDs of 64, and short words.
pub(crate) fn endpoint(instance: &str, endpoint: &Endpoint) -> String {
    let Endpoint { network_id, container, endpoint_id, ip, interface, .. } = endpoint;
    format!("{} endpoint {network_id} {container} {endpoint_id} {ip} {interface}", instance_name(instance))
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
        "endpoint" => Some(Mark::Endpoint {
            network: word()?,
            container: word()?,
            endpoint: word()?,
            ip: word()?.parse().ok()?,
            interface: word()?,
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
        let sample = Endpoint {
            network_id: id.clone(),
            endpoint_id: id.clone(),
            container: id.clone(),
            name: "web".into(),
            aliases: Vec::new(),
            ip: Ipv4Addr::new(192, 168, 100, 100),
            prefix: 16,
            gateway: None,
            mac: crate::ipam::mac_of(Ipv4Addr::LOCALHOST),
            host_interface: "veth01234567".into(),
            interface: "eth0".into(),
        };
        let alias = endpoint("01234567", &sample);
        assert!(alias.len() < 256, "{}", alias.len());
        assert_eq!(
            read("01234567", &alias),
            Some(Mark::Endpoint {
                network: id.clone(),
                container: id.clone(),
                endpoint: id.clone(),
                ip: sample.ip,
                interface: "eth0".into()
            })
        );
        assert_eq!(read("01234567", &bridge("01234567", &id)), Some(Mark::Bridge(id.clone())));
        assert_eq!(read("76543210", &alias), None);
        assert!(is_of_another("76543210", &alias) && !is_of_another("01234567", &alias) && !is_of_another("0", "lan"));
        for other in ["", "wharf-01234567", "wharf-01234567 endpoint a b", "lan"] {
            assert_eq!(read("01234567", other), None);
        }
    }
}
