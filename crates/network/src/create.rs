//! From what is asked for to what a network is.

use std::collections::{BTreeMap, BTreeSet};

use crate::NetworkOptions;
use crate::{
    Bandwidth, CreateNetwork, GatewayMode, Ipv4Net, NetworkError, NetworkRecord, Pool4, Pool6, PoolRequest, Result,
    ipam_request, parent,
};

/// Options of the bridge driver that are understood; what else begins so is refused, as its effect would be missed.
const NAME: &str = "com.docker.network.bridge.name";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const MTU: &str = "com.docker.network.driver.mtu";
/// What a container's interfaces are called, instead of `eth`.
pub(crate) const PREFIX: &str = "com.docker.network.container_iface_prefix";
const GATEWAY_MODE4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT4: &str = "com.docker.network.bridge.inhibit_ipv4";
/// Names of links, with colons between them.
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// The address that containers have outside, instead of that of the link by which they go out.
const HOST4: &str = "com.docker.network.host_ipv4";
const HOST6: &str = "com.docker.network.host_ipv6";
/// Stand for the fields of the request; for the daemon's `default-network-opts`.
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

/// What Docker says of networks of a swarm where there is none.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                        node to swarm and try again.";

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
        ipv4: true,
        subnet: None,
        subnet_chosen: false,
        gateway: None,
        gateway_chosen: false,
        ip_range: None,
        aux_addresses: BTreeMap::new(),
        pool6: None,
        further4: Vec::new(),
        further6: Vec::new(),
        unused_pools: Vec::new(),
        bridge: None,
        parent: None,
        mtu: 0,
        icc: true,
        masquerade: false,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        inhibit4: false,
        trusted: Vec::new(),
        host_binding: None,
        host4: None,
        host6: None,
        predefined: true,
        configuration: None,
        config_from: String::new(),
    })
}

/// A record whose subnets are still to be found where the request named none.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) record: NetworkRecord,
    pub(crate) ipv6: bool,
}

/// Checks what can be checked without the driver, in Docker's order: a client may go by which of two faults it is told.
pub(crate) fn review(request: &CreateNetwork, defaults: &NetworkOptions) -> Result<()> {
    let name = request.name.as_str();
    if matches!(name, "bridge" | "host" | "none" | "default") {
        return Err(NetworkError::Predefined(name.to_owned()));
    }
    if request.driver == "overlay" {
        return Err(NetworkError::Forbidden(NO_SWARM.into()));
    }
    let Families { ipv4, ipv6 } = families(request, &options_of(request, defaults))?;
    ipam_request::check_each(&request.ipam.config, ipv4, ipv6)?;
    if name.trim().is_empty() {
        return Err(NetworkError::Invalid("invalid name: name is empty".into()));
    }
    if name.contains(char::is_control) {
        return Err(NetworkError::Invalid(format!("invalid name: {name:?}")));
    }
    Ok(())
}

/// Which families a network has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Families {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

/// What a request and its options say of families.
pub(crate) fn families(request: &CreateNetwork, options: &BTreeMap<String, String>) -> Result<Families> {
    let ipv4 = match request.ipv4 {
        Some(wanted) => wanted,
        None => enabled(options, ENABLE_IPV4)?.unwrap_or(true),
    };
    let ipv6 = match request.ipv6 {
        Some(wanted) => wanted,
        None => enabled(options, ENABLE_IPV6)?.unwrap_or(false),
    };
    Ok(Families { ipv4, ipv6 })
}

/// The options that count: what the request says itself comes first, and what a configuration says has been completed when
/// that was made.
pub(crate) fn options_of(request: &CreateNetwork, defaults: &NetworkOptions) -> BTreeMap<String, String> {
    let mut options = match request.driver.as_str() {
        "" | "bridge" if request.config_from.is_empty() => defaults.default_bridge_options.clone(),
        _ => BTreeMap::new(),
    };
    options.extend(request.options.clone());
    for (key, field) in [(ENABLE_IPV4, request.ipv4), (ENABLE_IPV6, request.ipv6)] {
        if field.is_some() {
            options.remove(key);
        }
    }
    options
}

/// Checks a request and makes a record of it, which has been looked at by [`review`].
pub(crate) fn record(request: &CreateNetwork, defaults: &NetworkOptions) -> Result<Draft> {
    match request.driver.as_str() {
        "" | "bridge" | parent::MACVLAN | parent::IPVLAN => {}
        "host" | "null" => {
            return Err(NetworkError::Forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                request.driver
            )));
        }
        driver => return Err(NetworkError::NoDriver(driver.to_owned())),
    }
    if !matches!(request.ipam.driver.as_str(), "" | "default") {
        return Err(NetworkError::NoDriver(request.ipam.driver.clone()));
    }
    if request.scope == "swarm" {
        let message = "cannot create a swarm scoped network when swarm is not active";
        return Err(NetworkError::Forbidden(message.into()));
    }
    if request.ingress {
        return Err(NetworkError::Forbidden("Ingress network can only be global scope network".into()));
    }
    let mut record = predefined(&request.name, "bridge")?;
    record.predefined = false;
    record.internal = request.internal;
    record.attachable = request.attachable;
    record.labels.clone_from(&request.labels);
    let is_on_a_link = matches!(request.driver.as_str(), parent::MACVLAN | parent::IPVLAN);
    record.options = options_of(request, defaults);
    record.config_from.clone_from(&request.config_from);
    record.ipam_options.clone_from(&request.ipam.options);
    record.masquerade = true;
    record.mtu = defaults.mtu;
    record.bridge = Some(format!("br-{}", &record.id[..12]));
    if is_on_a_link {
        parent::settle(&mut record, &request.driver)?;
        if defaults.host_ports.is_some() && !record.internal {
            return Err(NetworkError::NotImplemented(format!(
                "an ordinary user's daemon has no {} with a parent: the host's links are not in its namespace",
                request.driver
            )));
        }
    } else {
        options(&mut record)?
    }
    Bandwidth::of(&record.options).map_err(NetworkError::Invalid)?.check(&record)?;
    let Families { ipv4, ipv6 } = families(request, &record.options)?;
    record.ipv4 = ipv4;
    if !ipv4 && !ipv6 {
        return Err(NetworkError::Invalid("IPv4 or IPv6 must be enabled".into()));
    }
    addresses(&mut record, &request.ipam.config, ipv6)?;
    Ok(Draft { record, ipv6 })
}

/// What an option says that stands for a field of the request.
fn enabled(options: &BTreeMap<String, String>, key: &str) -> Result<Option<bool>> {
    let invalid = || NetworkError::Invalid(format!("driver-opt \"{key}\" is not a valid bool"));
    options.get(key).map(|value| boolean(value).ok_or_else(invalid)).transpose()
}

fn options(record: &mut NetworkRecord) -> Result<()> {
    let invalid = |key: &str, value: &str| NetworkError::Invalid(format!("invalid value for option {key}: {value}"));
    // Docker's words, those of Go's parsers among them.
    let unread = |key: &str, value: &str, why: &str| {
        NetworkError::Invalid(format!("failed to parse {key} value: {value} ({why})"))
    };
    let flag = |key: &str, value: &str| {
        let why = || format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
        boolean(value).ok_or_else(|| unread(key, value, &why()))
    };
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
            ICC => record.icc = flag(&key, &value)?,
            MASQUERADE => record.masquerade = flag(&key, &value)?,
            DEFAULT_BRIDGE if flag(&key, &value)? => return Err(invalid(&key, &value)),
            MTU => {
                let why = || format!("strconv.Atoi: parsing {value:?}: invalid syntax");
                let mtu: i64 = value.parse().map_err(|_| unread(&key, &value, &why()))?;
                match u32::try_from(mtu) {
                    Err(_) => return Err(NetworkError::Invalid(format!("invalid MTU number: {mtu}"))),
                    // That of any network.
                    Ok(0) => {}
                    Ok(mtu) if (68..=65535).contains(&mtu) => record.mtu = mtu,
                    Ok(_) => return Err(invalid(&key, &value)),
                }
            }
            HOST_BINDING => record.host_binding = Some(value.parse().map_err(|_| unread(&key, &value, "nil ip"))?),
            HOST4 => record.host4 = Some(value.parse().map_err(|_| unread(&key, &value, "nil ip"))?),
            HOST6 => record.host6 = Some(value.parse().map_err(|_| unread(&key, &value, "nil ip"))?),
            // With three digits behind it.
            PREFIX if value.is_empty() || value.len() > MAX_LINK_NAME - 3 => return Err(invalid(&key, &value)),
            GATEWAY_MODE4 => record.mode4 = value.parse().map_err(|why: String| unread(&key, &value, &why))?,
            GATEWAY_MODE6 => record.mode6 = value.parse().map_err(|why: String| unread(&key, &value, &why))?,
            INHIBIT4 => record.inhibit4 = flag(&key, &value)?,
            TRUSTED => {
                let is_name = |name: &str| (1..=MAX_LINK_NAME).contains(&name.len());
                if !value.split(':').all(is_name) {
                    return Err(invalid(&key, &value));
                }
                record.trusted = value.split(':').map(str::to_owned).collect();
            }
            _ => {}
        }
    }
    if !record.internal && [record.mode4, record.mode6].contains(&GatewayMode::Isolated) {
        let message = "gateway mode 'isolated' can only be used for an internal network";
        return Err(NetworkError::Invalid(message.into()));
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

fn addresses(record: &mut NetworkRecord, pools: &[PoolRequest], ipv6: bool) -> Result<()> {
    let subnets = ipam_request::check(pools, record.ipv4, ipv6, record.parent.is_some())?;
    record.unused_pools = subnets.unused;
    for four in subnets.v4 {
        let ends = (four.net.prefix() < 31).then(|| [four.net.network().first(), four.net.network().last()]);
        refuse_taken(four.gateway, &four.aux_addresses, ends.as_slice().as_flattened())?;
        let pool = Pool4 {
            subnet: four.net,
            gateway: four.gateway,
            gateway_chosen: four.gateway.is_some(),
            ip_range: four.ip_range,
            aux_addresses: four.aux_addresses,
        };
        if record.subnet.is_some() {
            record.further4.push(pool);
            continue;
        }
        record.subnet = Some(pool.subnet);
        record.subnet_chosen = true;
        record.gateway = pool.gateway;
        record.gateway_chosen = pool.gateway_chosen;
        record.ip_range = pool.ip_range;
        record.aux_addresses = pool.aux_addresses;
    }
    for six in subnets.v6 {
        let first = (six.net.prefix() != 127).then(|| six.net.network().first());
        refuse_taken(six.gateway, &six.aux_addresses, first.as_slice())?;
        let mut pool = Pool6 {
            subnet: six.net,
            chosen: true,
            gateway: six.gateway,
            gateway_chosen: six.gateway.is_some(),
            ip_range: six.ip_range,
            aux_addresses: six.aux_addresses,
        };
        if !record.is_without_gateway6() {
            pool.settle();
            pool.gateway.ok_or_else(no_gateway)?;
        }
        if record.pool6.is_some() { record.further6.push(pool) } else { record.pool6 = Some(pool) }
    }
    Ok(())
}

/// What Docker says of a subnet whose addresses are all reserved.
fn no_gateway() -> NetworkError {
    NetworkError::Invalid("failed to allocate gateway (): no available addresses on this pool".into())
}

/// Refuses addresses that nobody can have, and those that are given twice, in Docker's words.
fn refuse_taken<A: Copy + PartialEq + std::fmt::Display>(
    gateway: Option<A>,
    aux: &BTreeMap<String, A>,
    reserved: &[A],
) -> Result<()> {
    let mut taken = reserved.to_vec();
    if let Some(gateway) = gateway {
        if taken.contains(&gateway) {
            let message = format!("failed to allocate gateway ({gateway}): Address already in use");
            return Err(NetworkError::Invalid(message));
        }
        taken.push(gateway);
    }
    for (name, address) in aux {
        if taken.contains(address) {
            let message = format!("failed to allocate secondary ip address ({name}:{address}): Address already in use");
            return Err(NetworkError::Invalid(message));
        }
        taken.push(*address);
    }
    Ok(())
}

/// Completes a record with its IPv4 subnet: a gateway that was not named is the first address that is not taken, of the range
/// that the user chose, if any.
///
/// # Errors
/// When all addresses are taken.
pub(crate) fn settle(record: &mut NetworkRecord, subnet: Ipv4Net) -> Result<()> {
    record.subnet = Some(subnet.network());
    if record.is_without_gateway4() {
        return Ok(());
    }
    let gateways = record.pools4().into_iter().map(|pool| pool.gateway.or_else(|| pool.lowest_free(&BTreeSet::new())));
    let gateways = gateways.collect::<Option<Vec<_>>>().ok_or_else(no_gateway)?;
    record.gateway = gateways.first().copied();
    for (pool, gateway) in record.further4.iter_mut().zip(gateways.into_iter().skip(1)) {
        pool.gateway = Some(gateway);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn made(request: &CreateNetwork) -> Result<NetworkRecord> {
        review(request, &NetworkOptions::default())?;
        Ok(record(request, &NetworkOptions::default())?.record)
    }

    #[test]
    fn ipv6_is_asked_for_by_the_request_or_the_defaults() {
        let six = |options: &[(&str, &str)], ipv6, defaults: &[(&str, &str)]| {
            let request = CreateNetwork { ipv6, ..request(options, None) };
            let pairs = defaults.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let defaults = NetworkOptions { default_bridge_options: pairs.collect(), ..NetworkOptions::default() };
            record(&request, &defaults).map(|draft| draft.ipv6)
        };
        assert!(!six(&[], None, &[]).unwrap());
        assert!(six(&[], Some(true), &[]).unwrap());
        assert!(six(&[], None, &[(ENABLE_IPV6, "true")]).unwrap());
        assert!(!six(&[], Some(false), &[(ENABLE_IPV6, "true")]).unwrap());
        assert!(!six(&[(ENABLE_IPV6, "0")], None, &[(ENABLE_IPV6, "true")]).unwrap());
        assert!(six(&[(ENABLE_IPV6, "maybe")], None, &[]).is_err());
        let options = [("com.docker.network.bridge.host_binding_ipv4", "::1")];
        assert_eq!(made(&request(&options, None)).unwrap().host_binding, Some("::1".parse().unwrap()));
    }

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
        let record = made(&request(&options, None)).unwrap();
        assert_eq!((record.icc, record.mtu, record.bridge.as_deref()), (false, 1400, Some("lan0")));
        assert_eq!((record.host_binding, record.masquerade), (Some(Ipv4Addr::LOCALHOST.into()), true));
        for bad in [
            (ICC, "maybe"),
            (MTU, "1"),
            (NAME, "a/b"),
            (NAME, "sixteen-letters-"),
            (GATEWAY_MODE4, "isolated"),
            (GATEWAY_MODE6, "else"),
            (INHIBIT4, ""),
            (TRUSTED, ""),
        ] {
            assert!(made(&request(&[bad], None)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_must_fit_one_another() {
        let mut made = made(&request(&[], pool("10.1.0.0/16", "10.1.5.0/24", ""))).unwrap();
        let subnet = made.subnet.unwrap();
        assert_eq!(subnet.to_string(), "10.1.0.0/16");
        settle(&mut made, subnet).unwrap();
        assert_eq!(made.gateway, Some(Ipv4Addr::new(10, 1, 5, 0)));
        let bad = [
            pool("10.1.0.0/16", "", "10.2.0.1"),
            pool("10.1.0.0/16", "10.0.0.0/8", ""),
            pool("", "", "10.1.0.1"),
            pool("10.1.0.0", "", ""),
        ];
        for pool in bad {
            assert!(super::record(&request(&[], pool.clone()), &NetworkOptions::default()).is_err(), "{pool:?}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for driver in ["host", "null", "overlay", "weave"] {
            let request = CreateNetwork { driver: driver.into(), ..request(&[], None) };
            assert!(made(&request).is_err(), "{driver}");
        }
        let neither = CreateNetwork { ipv4: Some(false), ..request(&[], None) };
        assert_eq!(made(&neither).unwrap_err().to_string(), "IPv4 or IPv6 must be enabled");
        for name in ["", " ", "bridge", "host", "none", "a\nb"] {
            assert!(made(&CreateNetwork { name: name.into(), ..request(&[], None) }).is_err(), "{name:?}");
        }
    }
}
