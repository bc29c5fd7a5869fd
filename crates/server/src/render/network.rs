//! Networks and volumes, as `inspect` and `ls` show them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_engine::record::Container;
use wharf_engine::spec::EndpointSettings;
use wharf_network::{Ipv4Net, NetworkRecord};
use wharf_volume::Volume;

/// A network; with the containers that run on it where they are asked for.
pub(crate) fn network(record: &NetworkRecord, users: Option<&[(Arc<Container>, EndpointSettings)]>) -> Value {
    let mut pools = Vec::new();
    if let Some(subnet) = &record.subnet {
        let mut pool = json!({ "Subnet": subnet.to_string() });
        if let Some(range) = &record.ip_range {
            pool["IPRange"] = range.to_string().into();
        }
        if let Some(gateway) = &record.gateway {
            pool["Gateway"] = gateway.to_string().into();
        }
        if !record.aux_addresses.is_empty() {
            pool["AuxiliaryAddresses"] = json!(record.aux_addresses);
        }
        pools.push(pool);
    }
    let containers: BTreeMap<&str, Value> = users
        .into_iter()
        .flatten()
        .map(|(container, endpoint)| {
            let address = match endpoint.ip_address.as_str() {
                "" => String::new(),
                ip => format!("{ip}/{}", endpoint.ip_prefix_len),
            };
            let value = json!({
                "Name": container.name, "EndpointID": endpoint.endpoint_id, "MacAddress": endpoint.mac_address,
                "IPv4Address": address, "IPv6Address": "",
            });
            (container.id.as_str(), value)
        })
        .collect();
    let options = if record.ipam_options.is_empty() { Value::Null } else { json!(record.ipam_options) };
    json!({
        "Name": record.name,
        "Id": record.id,
        "Created": record.created,
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": record.ipam_driver, "Options": options, "Config": pools },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": record.options,
        "Labels": record.labels,
    })
}

/// How many of a network's addresses are taken, for `GET /networks/{id}` since API 1.52. `endpoints` are the addresses
/// of its containers.
pub(crate) fn status(record: &NetworkRecord, endpoints: &[Ipv4Addr]) -> Value {
    let Some(subnet) = &record.subnet else { return json!({ "IPAM": { "Subnets": {} } }) };
    let size = |net: &Ipv4Net| 1u64 << (32 - u32::from(net.prefix()));
    let mut taken: BTreeSet<Ipv4Addr> = endpoints.iter().chain(record.aux_addresses.values()).copied().collect();
    taken.extend(record.gateway);
    // The network's own and everybody's.
    taken.extend([subnet.first(), subnet.last()]);
    let range = record.ip_range.as_ref().unwrap_or(subnet);
    let inside = taken.iter().filter(|address| range.contains(**address)).count() as u64;
    json!({ "IPAM": { "Subnets": { subnet.to_string(): {
        "IPsInUse": taken.len(), "DynamicIPsAvailable": size(range).saturating_sub(inside),
    } } } })
}

pub(crate) fn volume(volume: &Volume, usage: Option<(u64, usize)>) -> Value {
    let map = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    let mut labels = volume.labels.clone();
    if volume.anonymous {
        labels.insert("com.docker.volume.anonymous".into(), String::new());
    }
    let mut value = json!({
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": map(&labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    });
    if let Some((size, users)) = usage {
        value["UsageData"] = json!({ "Size": size, "RefCount": users });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_taken_are_counted() {
        let record: NetworkRecord = serde_json::from_value(json!({
            "id": "a", "name": "n", "driver": "bridge", "created": "", "internal": false, "labels": {}, "options": {},
            "ipam_driver": "default", "ipam_options": {}, "subnet": "192.168.4.0/24", "subnet_chosen": true,
            "gateway": "192.168.4.1", "ip_range": "192.168.4.16/30", "aux_addresses": { "x": "192.168.4.17" },
            "bridge": "", "mtu": 1500, "icc": true, "masquerade": true, "host_binding": null, "predefined": false,
        }))
        .unwrap();
        let shown = status(&record, &["192.168.4.16".parse().unwrap()]);
        let subnet = &shown["IPAM"]["Subnets"]["192.168.4.0/24"];
        // Network, gateway, another, a container, broadcast; two of them in the range.
        assert_eq!(*subnet, json!({ "IPsInUse": 5, "DynamicIPsAvailable": 2 }));
    }
}
