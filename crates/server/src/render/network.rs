//! Networks and volumes, as `inspect` and `ls` show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_engine::record::Container;
use wharf_engine::spec::EndpointSettings;
use wharf_network::NetworkRecord;
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
