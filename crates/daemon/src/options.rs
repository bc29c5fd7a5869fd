//! What the daemon was told: flags and file joined.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::ArgMatches;

use wharf_engine::ContainerDefaults;
use wharf_image::registry::ProxyOptions;
use wharf_network::BridgeRules;
use wharf_snapshot::Storage;

use crate::defaults::Defaults;
use crate::file::{self, File};
use crate::flags::{SWITCHES_WITHOUT_EFFECT, WITHOUT_EFFECT, command};
use crate::group;
use crate::rootless;
use crate::tls::TlsFiles;
use crate::unsupported::Unsupported;
use crate::values::{
    address, bytes, cdi_dirs, check_log, check_pool, container_defaults, name_servers, network_option, pool,
};

/// What the daemon was told, by flags and file.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: Option<TlsFiles>,
    /// Where `/metrics` is served by TCP, and nothing else.
    pub(crate) metrics_addr: Option<String>,
    /// Everybody may come by TCP.
    pub(crate) insecure_tcp: bool,
    /// Names by which clients call this host.
    pub(crate) tcp_names: Vec<String>,
    pub(crate) group: String,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: PathBuf,
    pub(crate) cgroup_parent: String,
    pub(crate) bip: Option<String>,
    pub(crate) bridge: Option<String>,
    /// Whether the default bridge has IPv6.
    pub(crate) ipv6: bool,
    pub(crate) fixed_cidr_v6: Option<String>,
    pub(crate) bip6: Option<String>,
    /// Options of bridge networks that name no others.
    pub(crate) bridge_options: BTreeMap<String, String>,
    pub(crate) host_gateways: Vec<IpAddr>,
    pub(crate) cdi_dirs: Option<Vec<PathBuf>>,
    /// What `features` says, known here or not.
    pub(crate) features: BTreeMap<String, bool>,
    /// `None`: that of the host's way out.
    pub(crate) mtu: Option<u32>,
    pub(crate) pools: Vec<(String, u8)>,
    pub(crate) ip_forward: bool,
    pub(crate) userland_proxy: bool,
    pub(crate) publish_policy: String,
    /// Most bytes that the data root may take.
    pub(crate) storage_max: Option<u64>,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    pub(crate) log_driver: String,
    pub(crate) log_options: Vec<String>,
    pub(crate) ulimits: Vec<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) mirrors: Vec<String>,
    /// Folders with a folder for each registry.
    pub(crate) certs_dirs: Vec<PathBuf>,
    /// Folders with the sockets of volume plugins; empty means Docker's.
    pub(crate) plugin_dirs: Vec<PathBuf>,
    pub(crate) proxies: ProxyOptions,
    /// Layers that come and go at once.
    pub(crate) concurrent_downloads: Option<usize>,
    pub(crate) concurrent_uploads: Option<usize>,
    pub(crate) download_attempts: Option<u32>,
    pub(crate) init: bool,
    /// What containers get that do not say.
    pub(crate) containers: ContainerDefaults,
    /// Whether the daemon has rules in the host's firewall.
    pub(crate) rules: bool,
    pub(crate) bridge_rules: BridgeRules,
    /// Flags and keys that were given and do nothing.
    pub(crate) without_effect: Vec<String>,
    pub(crate) log_level: String,
    pub(crate) log_json: bool,
    pub(crate) shutdown_timeout: i64,
    pub(crate) remove_networks: bool,
    pub(crate) take_over: bool,
    /// `None`: images where the kernel mounts them from the data root, else directories.
    pub(crate) layers: Option<Storage>,
}

#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Box<Options>),
    /// Help, or the version.
    Say(String),
}

impl Options {
    /// # Errors
    /// The message for the user: a flag that is not there, a file that cannot be read, a value that makes no sense.
    pub(crate) fn parse(args: &[OsString]) -> Result<Parsed, String> {
        let words = std::iter::once(OsString::from("wharf daemon")).chain(args.iter().cloned());
        let given = match command().try_get_matches_from(words) {
            Ok(given) => given,
            Err(error) if !error.use_stderr() => return Ok(Parsed::Say(error.to_string())),
            Err(error) => return Err(error.to_string()),
        };
        let named = given.get_one::<PathBuf>("config-file");
        if given.get_one::<bool>("rootless") == Some(&true) {
            rootless::check()?;
        }
        let defaults = Defaults::of_this_user();
        let path = named.cloned().unwrap_or_else(|| defaults.file.clone());
        let file = match File::read(&path) {
            Ok(file) => file,
            Err(file::FileError::Missing(_)) if named.is_none() => File::default(),
            Err(error) => {
                return Err(format!("unable to configure the Docker daemon with file {}: {error}", path.display()));
            }
        };
        file::twice(&given, &file, &path)?;
        let options = join(&given, file, defaults)?;
        if given.get_flag("validate") {
            return Ok(Parsed::Say("configuration OK\n".into()));
        }
        Ok(Parsed::Run(Box::new(options)))
    }
}

fn join(given: &ArgMatches, file: File, defaults: Defaults) -> Result<Options, String> {
    let idle_keys: Vec<String> = file.without_effect().map(str::to_owned).collect();
    let text = |name: &str| given.get_one::<String>(name).cloned();
    let path = |name: &str| given.get_one::<PathBuf>(name).cloned();
    let list = |name: &str, own: Option<Vec<String>>| -> Vec<String> {
        let flags: Vec<String> = given.get_many::<String>(name).into_iter().flatten().cloned().collect();
        if flags.is_empty() { own.unwrap_or_default() } else { flags }
    };
    let switch =
        |name: &str, own: Option<bool>, default: bool| given.get_one::<bool>(name).copied().or(own).unwrap_or(default);
    let certs_dirs = match given.get_many::<PathBuf>("certs-dir") {
        Some(paths) => paths.cloned().collect(),
        None => file.certs_dirs.unwrap_or(defaults.certs_dirs),
    };
    let plugin_dirs = match given.get_many::<PathBuf>("plugin-dir") {
        Some(paths) => paths.cloned().collect(),
        None => file.plugin_dirs.unwrap_or_default(),
    };
    let proxies = file.proxies.unwrap_or_default();
    let proxies = ProxyOptions {
        http: text("http-proxy").or(proxies.http_proxy),
        https: text("https-proxy").or(proxies.https_proxy),
        no_proxy: text("no-proxy").or(proxies.no_proxy),
    };
    // As dockerd, which takes none that would never end.
    let at_once = |name: &str, own: Option<usize>| match given.get_one::<usize>(name).copied().or(own) {
        Some(0) => Err(format!("invalid {}: 0", name.replace('-', " "))),
        number => Ok(number),
    };
    let verify = switch("tlsverify", file.tlsverify, false);
    let tls = (verify || switch("tls", file.tls, false)).then(|| {
        let or = |given: Option<PathBuf>, name: &str| given.unwrap_or_else(|| certificates().join(name));
        TlsFiles {
            ca: verify.then(|| or(path("tlscacert").or(file.tlscacert), "ca.pem")),
            cert: or(path("tlscert").or(file.tlscert), "cert.pem"),
            key: or(path("tlskey").or(file.tlskey), "key.pem"),
        }
    });
    let mut hosts = list("host", file.hosts);
    if hosts.is_empty() {
        hosts.push(defaults.host);
    }
    let bridge_options = match given.get_many::<String>("default-network-opt") {
        Some(texts) => texts.map(|text| network_option(text)).collect::<Result<Vec<_>, _>>()?,
        None => {
            let all = file.default_network_opts.unwrap_or_default().into_iter();
            all.flat_map(|(driver, pairs)| pairs.into_iter().map(move |pair| (driver.clone(), pair))).collect()
        }
    };
    if let Some((driver, _)) = bridge_options.iter().find(|(driver, _)| driver != "bridge") {
        return Err(format!("default-network-opts for the driver {driver} are not supported: there is bridge"));
    }
    let host_gateways = list("host-gateway-ip", file.host_gateway_ips.or(file.host_gateway_ip.map(|ip| vec![ip])));
    let host_gateways = host_gateways
        .iter()
        .map(|text| text.parse().map_err(|_| format!("invalid host-gateway-ip '{text}': give an IP address")));
    let host_gateways: Vec<IpAddr> = host_gateways.collect::<Result<_, String>>()?;
    let own_dirs = file.cdi_spec_dirs.or_else(|| given.get_many("cdi-spec-dir").map(|dirs| dirs.cloned().collect()));
    let mut features = file.features.unwrap_or_default();
    for text in given.get_many::<String>("feature").into_iter().flatten() {
        let (name, on) = text.split_once('=').unwrap_or((text, "true"));
        features.insert(name.to_owned(), !matches!(on, "false" | "0"));
    }
    let cdi_dirs = features.get("cdi").is_none_or(|on| *on).then(|| cdi_dirs(own_dirs));
    let layers = match text("storage-layers").or(file.storage_layers).as_deref() {
        None | Some("auto" | "") => None,
        Some("erofs") => Some(Storage::Erofs),
        Some("dirs") => Some(Storage::Dirs),
        Some(other) => return Err(format!("invalid storage-layers '{other}': give auto, erofs or dirs")),
    };
    let containers = container_defaults(
        text("default-shm-size").or(file.default_shm_size.map(|bytes| bytes.0)),
        text("default-ipc-mode").or(file.default_ipc_mode),
        text("default-cgroupns-mode").or(file.default_cgroupns_mode),
        switch("no-new-privileges", file.no_new_privileges, false),
        text("seccomp-profile").or(file.seccomp_profile),
    )?;
    let bridge_rules = BridgeRules {
        icc: switch("icc", file.icc, true),
        masquerade: switch("ip-masq", file.ip_masq, true),
        host_binding: address("ip", text("ip").or(file.ip))?,
        fixed_cidr: text("fixed-cidr").or(file.fixed_cidr).filter(|text| !text.is_empty()),
        gateway: address("default-gateway", text("default-gateway").or(file.default_gateway))?,
        gateway6: address("default-gateway-v6", text("default-gateway-v6").or(file.default_gateway_v6))?,
    };
    let flags = WITHOUT_EFFECT.iter().chain(SWITCHES_WITHOUT_EFFECT).filter(|name| given.contains_id(name));
    let mut without_effect: Vec<String> = flags.map(|name| format!("--{name}")).collect();
    without_effect.extend(idle_keys);
    let rules = switch("iptables", file.iptables, true);
    let is_said = |text: &String| !text.is_empty();
    let (bridge, bip) = (text("bridge").or(file.bridge).filter(is_said), text("bip").or(file.bip).filter(is_said));
    Unsupported {
        bridge_twice: bridge.is_some() && bip.is_some(),
        no_neighbours_without_rules: !rules && !bridge_rules.icc,
        default_runtime: text("default-runtime").or(file.default_runtime),
        selinux: switch("selinux-enabled", file.selinux_enabled, false),
        no_rules_for_ipv6_alone: rules && !switch("ip6tables", file.ip6tables, true),
        storage_driver: text("storage-driver").or(file.storage_driver),
        storage_options: list("storage-opt", file.storage_opts),
        userns_remap: text("userns-remap").or(file.userns_remap),
        authorization_plugins: list("authorization-plugin", file.authorization_plugins),
    }
    .refuse()?;
    let exec_root = path("exec-root").or(file.exec_root).unwrap_or(defaults.exec_root);
    let pools = match given.get_many::<String>("default-address-pool") {
        Some(texts) => texts.map(|text| pool(text)).collect::<Result<Vec<_>, _>>()?,
        None => file.default_address_pools.unwrap_or_default().into_iter().map(|p| (p.base, p.size)).collect(),
    };
    pools.iter().try_for_each(check_pool)?;
    let level = if switch("debug", file.debug, false) {
        "debug".to_owned()
    } else {
        text("log-level").or(file.log_level).unwrap_or_else(|| "info".into())
    };
    let log_level = match level.as_str() {
        "debug" | "info" | "warn" | "error" | "trace" => level,
        "fatal" | "panic" => "error".into(),
        other => return Err(format!("invalid logging level: {other}")),
    };
    let log_json = match text("log-format").or(file.log_format).as_deref() {
        None | Some("text" | "") => false,
        Some("json") => true,
        Some(other) => return Err(format!("invalid log format: {other}")),
    };
    let publish_policy = text("publish-policy").or(file.publish_policy).unwrap_or_else(|| "docker".into());
    if !matches!(publish_policy.as_str(), "docker" | "host") {
        return Err(format!("invalid publish policy '{publish_policy}': give docker or host"));
    }
    let storage_max = text("storage-max-bytes").or(file.storage_max_bytes.map(|bytes| bytes.0));
    let storage_max =
        storage_max.filter(|text| !text.is_empty()).map(|text| bytes("storage-max-bytes", &text)).transpose()?;
    let log_options: Vec<String> = match given.get_many::<String>("log-opt") {
        Some(texts) => texts.cloned().collect(),
        None => file.log_opts.unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
    };
    let ulimits = match given.get_many::<String>("default-ulimit") {
        Some(texts) => texts.cloned().collect(),
        None => {
            let limits = file.default_ulimits.unwrap_or_default().into_iter();
            limits.map(|(key, limit)| format!("{key}={}:{}", limit.soft, limit.hard)).collect()
        }
    };
    let log_driver = text("log-driver").or(file.log_driver).unwrap_or_else(|| "json-file".into());
    check_log(&log_driver, &log_options)?;
    let cgroup_parent = text("cgroup-parent").or(file.cgroup_parent).unwrap_or_else(|| "/wharf".into());
    if cgroup_parent.split('/').any(|part| part == "..") || cgroup_parent.contains(char::is_control) {
        return Err(format!("invalid cgroup parent: {cgroup_parent:?}"));
    }
    Ok(Options {
        hosts,
        tls,
        metrics_addr: text("metrics-addr").or(file.metrics_addr).filter(|address| !address.is_empty()),
        insecure_tcp: switch("insecure-tcp", file.insecure_tcp, false),
        tcp_names: list("tcp-name", file.tcp_names),
        group: group::asked(text("group").or(file.group))?.unwrap_or(defaults.group),
        data_root: path("data-root").or(file.data_root).unwrap_or(defaults.data_root),
        pidfile: path("pidfile").or(file.pidfile).unwrap_or_else(|| exec_root.join("wharf.pid")),
        exec_root,
        cgroup_parent,
        bip,
        bridge,
        ipv6: switch("ipv6", file.ipv6, false),
        fixed_cidr_v6: text("fixed-cidr-v6").or(file.fixed_cidr_v6).filter(|text| !text.is_empty()),
        bip6: text("bip6").or(file.bip6).filter(|text| !text.is_empty()),
        bridge_options: bridge_options.into_iter().map(|(_, pair)| pair).collect(),
        host_gateways,
        cdi_dirs,
        features,
        mtu: given.get_one::<u32>("mtu").copied().or(file.mtu),
        pools,
        ip_forward: switch("ip-forward", file.ip_forward, true),
        userland_proxy: switch("userland-proxy", file.userland_proxy, true),
        publish_policy,
        storage_max,
        dns: name_servers(list("dns", file.dns))?,
        dns_search: list("dns-search", file.dns_search),
        dns_options: list("dns-opt", file.dns_opts),
        log_driver,
        log_options,
        ulimits,
        labels: list("label", file.labels),
        insecure_registries: list("insecure-registry", file.insecure_registries),
        mirrors: list("registry-mirror", file.registry_mirrors),
        certs_dirs,
        plugin_dirs,
        proxies,
        concurrent_downloads: at_once("max-concurrent-downloads", file.max_concurrent_downloads)?,
        concurrent_uploads: at_once("max-concurrent-uploads", file.max_concurrent_uploads)?,
        download_attempts: at_once("max-download-attempts", file.max_download_attempts)?
            .map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        init: switch("init", file.init, false),
        containers,
        rules,
        bridge_rules,
        without_effect,
        log_level,
        log_json,
        shutdown_timeout: given.get_one::<i64>("shutdown-timeout").copied().or(file.shutdown_timeout).unwrap_or(15),
        remove_networks: switch("remove-networks-on-exit", None, false),
        take_over: switch("take-over", None, false),
        layers,
    })
}

/// Where Docker has its own certificates.
fn certificates() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = variable("DOCKER_CERT_PATH").or_else(|| variable("DOCKER_CONFIG"));
    config.unwrap_or_else(|| variable("HOME").unwrap_or_else(|| "/root".into()).join(".docker"))
}

#[cfg(test)]
mod tests;
