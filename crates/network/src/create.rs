//! From what is asked for to what a network is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::{CreateNetwork, Ipv4Net, NetworkError, NetworkRecord, PoolRequest, Result};

/// Options of the bridge driver that are understood; what else begins so is refused, as its effect would be missed.
const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";
/// What a container's interfaces are called, instead of `eth`.
pub(crate) const PREFIX: &str = "com.docker.network.container_iface_prefix";
const UNDONE: [&str; 4] = [
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
    "com.docker.network.bridge.trusted_host_interfaces",
];

/// Longest name of a link.
const MAX_LINK_NAME: usize = 15;

/// A new ID: 64 hex digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| NetworkError::Invalid(format!("no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Now, as records say it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// A network without addresses, of a driver that has none.
pub(crate) fn predefined(name: &str, driver: &str) -> Result<NetworkRecord> {
    Ok(NetworkRecord {
        id: random_id()?,
        name: name.to_owned(),
        driver: driver.to_owned(),
        created: now(),
        internal: false,
        attachable: false,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        ipam_driver: "default".into(),
        ipam_options: BTreeMap::new(),
        subnet: None,
        subnet_chosen: false,
        gateway: None,
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        bridge: None,
        mtu: 0,
        icc: true,
        masquerade: false,
        host_binding: None,
        predefined: true,
    })
}

/// Checks a request and makes a record of it; the subnet is still to be found when it names none.
pub(crate) fn record(request: &CreateNetwork, mtu: u32) -> Result<NetworkRecord> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(NetworkError::Invalid("invalid name: name is empty".into()));
    }
    if name.contains(|c: char| c.is_control() || c == '/') {
        return Err(NetworkError::Invalid(format!("invalid name: {name:?}")));
    }
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(NetworkError::Predefined(name.to_owned()));
    }
    match request.driver.as_str() {
        "" | "bridge" => {}
        "host" | "null" | "none" => {
            return Err(NetworkError::Forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                request.driver
            )));
        }
        driver @ ("macvlan" | "ipvlan" | "overlay") => {
            return Err(NetworkError::NotImplemented(format!("the network driver {driver} is not done yet")));
        }
        driver => return Err(NetworkError::NoDriver(driver.to_owned())),
    }
    if request.ipv6 {
        return Err(NetworkError::NotImplemented("IPv6 networks are not done yet: leave out --ipv6".into()));
    }
    if !matches!(request.ipam.driver.as_str(), "" | "default") {
        return Err(NetworkError::NoDriver(request.ipam.driver.clone()));
    }
    if request.ipam.config.len() > 1 {
        return Err(NetworkError::NotImplemented("a network with more than one subnet is not done".into()));
    }
    let mut record = predefined(name, "bridge")?;
    record.predefined = false;
    record.internal = request.internal;
    record.attachable = request.attachable;
    record.labels.clone_from(&request.labels);
    record.options.clone_from(&request.options);
    record.ipam_options.clone_from(&request.ipam.options);
    record.masquerade = true;
    record.mtu = mtu;
    record.bridge = Some(format!("br-{}", &record.id[..12]));
    options(&mut record)?;
    if let Some(pool) = request.ipam.config.first() {
        addresses(&mut record, pool)?;
    }
    Ok(record)
}

fn options(record: &mut NetworkRecord) -> Result<()> {
    let invalid = |key: &str, value: &str| NetworkError::Invalid(format!("invalid value for option {key}: {value}"));
    for (key, value) in record.options.clone() {
        match key.as_str() {
            NAME if value.is_empty() => {}
            NAME => {
                let fits = value.len() <= MAX_LINK_NAME && !value.contains(|c: char| c.is_whitespace() || c == '/');
                if !fits || value == "." || value == ".." {
                    return Err(invalid(&key, &value));
                }
                record.bridge = Some(value);
            }
            ICC => record.icc = boolean(&value).ok_or_else(|| invalid(&key, &value))?,
            MASQUERADE => record.masquerade = boolean(&value).ok_or_else(|| invalid(&key, &value))?,
            DEFAULT_BRIDGE if boolean(&value) != Some(false) => return Err(invalid(&key, &value)),
            MTU => {
                let mtu = value.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
                record.mtu = mtu.ok_or_else(|| invalid(&key, &value))?;
            }
            HOST_BINDING => record.host_binding = Some(value.parse().map_err(|_| invalid(&key, &value))?),
            // With three digits behind it.
            PREFIX if value.is_empty() || value.len() > MAX_LINK_NAME - 3 => return Err(invalid(&key, &value)),
            undone if UNDONE.contains(&undone) => {
                return Err(NetworkError::NotImplemented(format!("the network option {key} is not done yet")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn addresses(record: &mut NetworkRecord, pool: &PoolRequest) -> Result<()> {
    let net = |text: &str| {
        if text.contains(':') {
            return Err(NetworkError::NotImplemented(format!("IPv6 networks are not done yet: {text}")));
        }
        text.parse::<Ipv4Net>().map_err(|error| NetworkError::Invalid(error.to_string()))
    };
    if pool.subnet.is_empty() {
        if !pool.gateway.is_empty() || !pool.ip_range.is_empty() || !pool.aux_addresses.is_empty() {
            return Err(NetworkError::Invalid(
                "invalid network config: a gateway, an ip-range or an auxiliary address needs a subnet".into(),
            ));
        }
        return Ok(());
    }
    let subnet = net(&pool.subnet)?.network();
    if subnet.prefix() > 30 || subnet.prefix() == 0 {
        return Err(NetworkError::Invalid(format!("invalid network config: subnet {subnet} has no room for hosts")));
    }
    let inside = |what: &str, text: &str| {
        let bare = text.split_once('/').map_or(text, |(address, _)| address);
        let address: Ipv4Addr =
            bare.parse().map_err(|_| NetworkError::Invalid(format!("invalid {what} address: {text}")))?;
        if subnet.contains(address) {
            return Ok(address);
        }
        Err(NetworkError::Invalid(format!("invalid network config: {what} {text} is not in subnet {subnet}")))
    };
    record.subnet = Some(subnet);
    record.subnet_chosen = true;
    if !pool.gateway.is_empty() {
        record.gateway = Some(inside("gateway", &pool.gateway)?);
    }
    if !pool.ip_range.is_empty() {
        let range = net(&pool.ip_range)?;
        if !subnet.covers(range) {
            let message = format!("invalid network config: ip-range {range} is not in subnet {subnet}");
            return Err(NetworkError::Invalid(message));
        }
        record.ip_range = Some(range.network());
    }
    for (name, text) in &pool.aux_addresses {
        record.aux_addresses.insert(name.clone(), inside("auxiliary", text)?);
    }
    Ok(())
}

/// Completes a record with its subnet: a gateway that was not named is the first address that is not taken.
pub(crate) fn settle(record: &mut NetworkRecord, subnet: Ipv4Net) {
    record.subnet = Some(subnet.network());
    if record.gateway.is_none() {
        let taken = record.aux_addresses.values().copied().collect();
        // As Docker: of the range that the user chose, if any.
        record.gateway = crate::ipam::lowest_free(record, &taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(options: &[(&str, &str)], pool: Option<PoolRequest>) -> CreateNetwork {
        let mut request = CreateNetwork { name: "web".into(), ..CreateNetwork::default() };
        request.options = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        request.ipam.config.extend(pool);
        request
    }

    fn pool(subnet: &str, ip_range: &str, gateway: &str) -> Option<PoolRequest> {
        let aux_addresses = BTreeMap::new();
        Some(PoolRequest { subnet: subnet.into(), ip_range: ip_range.into(), gateway: gateway.into(), aux_addresses })
    }

    #[test]
    fn options_make_a_record() {
        let options = [(ICC, "false"), (MTU, "1400"), (NAME, "lan0"), (HOST_BINDING, "127.0.0.1"), ("else", "x")];
        let record = record(&request(&options, None), 1500).unwrap();
        assert_eq!((record.icc, record.mtu, record.bridge.as_deref()), (false, 1400, Some("lan0")));
        assert_eq!((record.host_binding, record.masquerade), (Some(Ipv4Addr::LOCALHOST), true));
        for bad in [(ICC, "maybe"), (MTU, "1"), (NAME, "a/b"), (NAME, "sixteen-letters-"), (UNDONE[0], "true")] {
            assert!(super::record(&request(&[bad], None), 1500).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_must_fit_one_another() {
        let mut made = record(&request(&[], pool("10.1.2.3/16", "10.1.5.0/24", "")), 1500).unwrap();
        let subnet = made.subnet.unwrap();
        assert_eq!(subnet.to_string(), "10.1.0.0/16");
        settle(&mut made, subnet);
        assert_eq!(made.gateway, Some(Ipv4Addr::new(10, 1, 5, 0)));
        let bad = [
            pool("10.1.0.0/16", "", "10.2.0.1"),
            pool("10.1.0.0/16", "10.0.0.0/8", ""),
            pool("", "", "10.1.0.1"),
            pool("10.1.0.0/31", "", ""),
            pool("fd00::/64", "", ""),
            pool("10.1.0.0", "", ""),
        ];
        for pool in bad {
            assert!(record(&request(&[], pool.clone()), 1500).is_err(), "{pool:?}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for driver in ["host", "null", "macvlan", "overlay", "weave"] {
            let request = CreateNetwork { driver: driver.into(), ..request(&[], None) };
            assert!(record(&request, 1500).is_err(), "{driver}");
        }
        assert!(record(&CreateNetwork { ipv6: true, ..request(&[], None) }, 1500).is_err());
        for name in ["", " ", "bridge", "host", "none", "a/b", "a\nb"] {
            assert!(record(&CreateNetwork { name: name.into(), ..request(&[], None) }, 1500).is_err(), "{name:?}");
        }
    }
}
