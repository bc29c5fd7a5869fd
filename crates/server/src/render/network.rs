//! Networks and volumes, as `inspect` and `ls` show them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_engine::record::Container;
use wharf_engine::spec::EndpointSettings;
use wharf_network::NetworkRecord;
use wharf_volume::Volume;

/// A network; with the containers that run on it where they are asked for.
pub(crate) fn network(record: &NetworkRecord, users: Option<&[(Arc<Container>, EndpointSettings)]>) -> Value {
    let pools = pools(record);
    let pools = if pools.is_empty() { Value::Null } else { Value::Array(pools) };
    let containers: BTreeMap<&str, Value> = users
        .into_iter()
        .flatten()
        .map(|(container, endpoint)| {
            let with = |ip: &str, prefix: u8| if ip.is_empty() { String::new() } else { format!("{ip}/{prefix}") };
            let four = with(&endpoint.ip_address, endpoint.ip_prefix_len);
            let six = with(&endpoint.global_ipv6_address, endpoint.global_ipv6_prefix_len);
            let value = json!({
                "Name": container.name, "EndpointID": endpoint.endpoint_id, "MacAddress": endpoint.mac_address,
                "IPv4Address": four, "IPv6Address": six,
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
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.has_ipv6(),
        "IPAM": { "Driver": record.ipam_driver, "Options": options, "Config": pools },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": record.config_from },
        "ConfigOnly": record.configuration.is_some(),
        "Containers": containers,
        "Options": record.options,
        "Labels": record.labels,
    })
}

/// A network's subnets: first what was asked for, as it was, and then what a family got without being asked about, each
/// with IPv4 first. That of a subnet which was asked for has the gateway alone that was, too, or a client that compares
/// what it wants with what is there would find them different.
fn pools(record: &NetworkRecord) -> Vec<Value> {
    let mut pools = Vec::new();
    // Of the default bridge it is the daemon that was asked, for the one or the other.
    let is_shown = |subnet_chosen: bool, chosen: bool| chosen || !(subnet_chosen || record.predefined);
    for four in record.pools4() {
        let gateway = four.gateway.filter(|_| is_shown(record.subnet_chosen, four.gateway_chosen));
        let mut pool = json!({ "Subnet": four.subnet.to_string() });
        describe(&mut pool, four.ip_range, gateway, &four.aux_addresses);
        pools.push((!record.subnet_chosen, false, pool));
    }
    for six in record.pools6() {
        let gateway = six.gateway.filter(|_| is_shown(six.chosen, six.gateway_chosen));
        let mut pool = json!({ "Subnet": six.subnet.to_string() });
        describe(&mut pool, six.ip_range, gateway, &six.aux_addresses);
        pools.push((!six.chosen, true, pool));
    }
    for unused in &record.unused_pools {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let mut pool = json!({ "Subnet": unused.subnet });
        describe(&mut pool, given(&unused.ip_range), given(&unused.gateway), &unused.aux_addresses);
        pools.push((false, unused.subnet.contains(':'), pool));
    }
    pools.sort_by_key(|(is_own, is_six, _)| (*is_own, *is_six));
    pools.into_iter().map(|(_, _, pool)| pool).collect()
}

fn describe(
    pool: &mut Value,
    range: Option<impl ToString>,
    gateway: Option<impl ToString>,
    aux: &BTreeMap<String, impl ToString>,
) {
    if let Some(range) = range {
        pool["IPRange"] = range.to_string().into();
    }
    if let Some(gateway) = gateway {
        pool["Gateway"] = gateway.to_string().into();
    }
    if !aux.is_empty() {
        let aux: BTreeMap<&String, String> = aux.iter().map(|(name, address)| (name, address.to_string())).collect();
        pool["AuxiliaryAddresses"] = json!(aux);
    }
}

/// How many of a network's addresses are taken, for `GET /networks/{id}` since API 1.52. `endpoints` are the addresses
/// of its containers.
pub(crate) fn status(record: &NetworkRecord, endpoints: &[IpAddr]) -> Value {
    let mut subnets = serde_json::Map::new();
    // How many addresses of a range are free: a network of IPv6 may have more than fit into a number of JSON.
    let free = |bits: u8, prefix: u8, inside: usize| {
        let size = 1u128.checked_shl(u32::from(bits - prefix)).unwrap_or(u128::MAX);
        u64::try_from(size.saturating_sub(inside as u128)).unwrap_or(u64::MAX)
    };
    for pool in record.pools4() {
        let subnet = pool.subnet;
        let mut taken: BTreeSet<_> =
            endpoints.iter().filter_map(four).filter(|address| subnet.contains(*address)).collect();
        taken.extend(pool.aux_addresses.values().copied());
        taken.extend(pool.gateway);
        // The network's own and everybody's.
        if subnet.prefix() < 31 {
            taken.extend([subnet.first(), subnet.last()]);
        }
        let range = pool.ip_range.unwrap_or(subnet);
        let inside = taken.iter().filter(|address| range.contains(**address)).count();
        let count = json!({ "IPsInUse": taken.len(), "DynamicIPsAvailable": free(32, range.prefix(), inside) });
        subnets.insert(subnet.to_string(), count);
    }
    for pool in record.pools6() {
        let own = |address: &Ipv6Addr| pool.subnet.contains(*address);
        let mut taken: BTreeSet<_> = endpoints.iter().filter_map(six).filter(own).collect();
        taken.extend(pool.aux_addresses.values().copied());
        taken.extend(pool.gateway);
        // Any router's.
        taken.insert(pool.subnet.first());
        let range = pool.ip_range.unwrap_or(pool.subnet);
        let inside = taken.iter().filter(|address| range.contains(**address)).count();
        let count = json!({ "IPsInUse": taken.len(), "DynamicIPsAvailable": free(128, range.prefix(), inside) });
        subnets.insert(pool.subnet.to_string(), count);
    }
    json!({ "IPAM": { "Subnets": subnets } })
}

fn four(address: &IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(*address) } else { None }
}

fn six(address: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(address) = address { Some(*address) } else { None }
}

/// The labels of a volume, with the one that says that nobody has named it.
pub(crate) fn labels_of(volume: &Volume) -> BTreeMap<String, String> {
    let mut labels = volume.labels.clone();
    if volume.anonymous {
        labels.insert("com.docker.volume.anonymous".into(), String::new());
    }
    labels
}

pub(crate) fn volume(volume: &Volume, usage: Option<(u64, usize)>) -> Value {
    let map = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    let labels = labels_of(volume);
    let mut value = json!({
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": map(&labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": volume.scope,
    });
    // Ours: Docker has none.
    if !volume.snapshots.is_empty() {
        value["Snapshots"] = json!(volume.snapshots);
    }
    if !volume.status.is_empty() {
        value["Status"] = json!(volume.status);
    }
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
            "pool6": { "subnet": "fd00:4::/64", "chosen": false, "gateway": "fd00:4::1", "ip_range": null, "aux_addresses": {} },
            "bridge": "", "mtu": 1500, "icc": true, "masquerade": true, "host_binding": null, "predefined": false,
        }))
        .unwrap();
        let shown = status(&record, &["192.168.4.16".parse().unwrap(), "fd00:4::2".parse().unwrap()]);
        let subnet = &shown["IPAM"]["Subnets"]["192.168.4.0/24"];
        // Network, gateway, another, a container, broadcast; two of them in the range.
        assert_eq!(*subnet, json!({ "IPsInUse": 5, "DynamicIPsAvailable": 2 }));
        // Any router's, gateway, a container.
        let six = &shown["IPAM"]["Subnets"]["fd00:4::/64"];
        assert_eq!(*six, json!({ "IPsInUse": 3, "DynamicIPsAvailable": u64::MAX - 2 }));
    }
}
