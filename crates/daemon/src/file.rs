//! `daemon.json`: Docker's keys. A key that is not known is an error that names the nearest known one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::values::masked;

/// The keys that are understood; absent is absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct File {
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) tls: Option<bool>,
    pub(crate) tlsverify: Option<bool>,
    pub(crate) tlscacert: Option<PathBuf>,
    pub(crate) tlscert: Option<PathBuf>,
    pub(crate) tlskey: Option<PathBuf>,
    pub(crate) insecure_tcp: Option<bool>,
    pub(crate) tcp_names: Option<Vec<String>>,
    pub(crate) metrics_addr: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) data_root: Option<PathBuf>,
    pub(crate) exec_root: Option<PathBuf>,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) bip: Option<String>,
    pub(crate) bridge: Option<String>,
    pub(crate) ipv6: Option<bool>,
    pub(crate) fixed_cidr_v6: Option<String>,
    pub(crate) bip6: Option<String>,
    pub(crate) default_network_opts: Option<BTreeMap<String, BTreeMap<String, String>>>,
    pub(crate) host_gateway_ip: Option<String>,
    pub(crate) host_gateway_ips: Option<Vec<String>>,
    pub(crate) cdi_spec_dirs: Option<Vec<String>>,
    pub(crate) features: Option<BTreeMap<String, bool>>,
    pub(crate) mtu: Option<u32>,
    pub(crate) default_address_pools: Option<Vec<Pool>>,
    pub(crate) ip_forward: Option<bool>,
    pub(crate) userland_proxy: Option<bool>,
    pub(crate) publish_policy: Option<String>,
    pub(crate) dns: Option<Vec<String>>,
    pub(crate) dns_search: Option<Vec<String>>,
    pub(crate) dns_opts: Option<Vec<String>>,
    pub(crate) log_driver: Option<String>,
    pub(crate) log_opts: Option<BTreeMap<String, String>>,
    pub(crate) default_ulimits: Option<BTreeMap<String, Limit>>,
    pub(crate) labels: Option<Vec<String>>,
    pub(crate) insecure_registries: Option<Vec<String>>,
    pub(crate) registry_mirrors: Option<Vec<String>>,
    pub(crate) certs_dirs: Option<Vec<PathBuf>>,
    pub(crate) plugin_dirs: Option<Vec<PathBuf>>,
    pub(crate) proxies: Option<Proxies>,
    pub(crate) max_concurrent_downloads: Option<usize>,
    pub(crate) max_concurrent_uploads: Option<usize>,
    pub(crate) max_download_attempts: Option<usize>,
    pub(crate) init: Option<bool>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<String>,
    pub(crate) debug: Option<bool>,
    pub(crate) shutdown_timeout: Option<i64>,
    pub(crate) iptables: Option<bool>,
    pub(crate) ip6tables: Option<bool>,
    pub(crate) storage_driver: Option<String>,
    pub(crate) storage_layers: Option<String>,
    pub(crate) storage_max_bytes: Option<Bytes>,
    pub(crate) userns_remap: Option<String>,
    pub(crate) default_shm_size: Option<Bytes>,
    pub(crate) default_ipc_mode: Option<String>,
    pub(crate) default_cgroupns_mode: Option<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) seccomp_profile: Option<String>,
    pub(crate) icc: Option<bool>,
    pub(crate) ip_masq: Option<bool>,
    pub(crate) ip: Option<String>,
    pub(crate) fixed_cidr: Option<String>,
    pub(crate) default_gateway: Option<String>,
    pub(crate) default_gateway_v6: Option<String>,
    pub(crate) default_runtime: Option<String>,
    pub(crate) selinux_enabled: Option<bool>,
    pub(crate) storage_opts: Option<Vec<String>>,
    pub(crate) authorization_plugins: Option<Vec<String>>,
    /// As it was written.
    #[serde(skip)]
    given: Map<String, Value>,
}

/// A number of bytes, or one with a unit: `20GB`.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(pub(crate) String);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("a size is a number of bytes, or a text such as \"20GB\"")),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pool {
    pub(crate) base: String,
    pub(crate) size: u8,
}

/// The daemon's own way to registries; what is said here goes before the environment's variables.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub(crate) struct Proxies {
    pub(crate) http_proxy: Option<String>,
    pub(crate) https_proxy: Option<String>,
    pub(crate) no_proxy: Option<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // There may be passwords in the others.
        f.debug_struct("Proxies").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Limit {
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no such file")]
    Missing(PathBuf),
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    #[error("{0}")]
    Json(serde_json::Error),
    #[error("it is no JSON object")]
    Object,
    #[error("the following directives don't match any configuration option: {key}{}", hint(.key))]
    Unknown { key: String },
}

/// Keys that are understood, and those that change nothing here.
const KEYS: &[&str] = &[
    "hosts",
    "tls",
    "tlsverify",
    "tlscacert",
    "tlscert",
    "tlskey",
    "insecure-tcp",
    "tcp-names",
    "metrics-addr",
    "group",
    "data-root",
    "exec-root",
    "pidfile",
    "cgroup-parent",
    "bip",
    "bridge",
    "ipv6",
    "fixed-cidr-v6",
    "bip6",
    "default-network-opts",
    "host-gateway-ip",
    "host-gateway-ips",
    "cdi-spec-dirs",
    "features",
    "mtu",
    "default-address-pools",
    "ip-forward",
    "userland-proxy",
    "publish-policy",
    "dns",
    "dns-search",
    "dns-opts",
    "log-driver",
    "log-opts",
    "default-ulimits",
    "labels",
    "insecure-registries",
    "registry-mirrors",
    "certs-dirs",
    "plugin-dirs",
    "proxies",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "init",
    "log-level",
    "log-format",
    "debug",
    "shutdown-timeout",
    "iptables",
    "ip6tables",
    "storage-driver",
    "storage-layers",
    "storage-max-bytes",
    "userns-remap",
    "default-shm-size",
    "default-ipc-mode",
    "default-cgroupns-mode",
    "no-new-privileges",
    "seccomp-profile",
    "icc",
    "ip-masq",
    "ip",
    "fixed-cidr",
    "default-gateway",
    "default-gateway-v6",
    "storage-opts",
    "authorization-plugins",
    "default-runtime",
    "selinux-enabled",
];

/// Keys of dockerd's that do nothing: what they ask for is always so, or is about programs that Wharf does without.
const WITHOUT_EFFECT: &[&str] = &[
    "allow-direct-routing",
    "allow-nondistributable-artifacts",
    "builder",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cri-containerd",
    "exec-opts",
    "experimental",
    "init-path",
    "ip-forward-no-drop",
    "live-restore",
    "min-api-version",
    "network-control-plane-mtu",
    "node-generic-resources",
    "raw-logs",
    "runtimes",
    "swarm-default-advertise-addr",
    "userland-proxy-path",
];

impl File {
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
            _ => FileError::Read(error),
        })?;
        // Some editors write a byte order mark, which dockerd takes, too.
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value = serde_json::from_str(text).map_err(FileError::Json)?;
        let object = value.as_object().ok_or(FileError::Object)?;
        let given = object.clone();
        let known = |key: &str| KEYS.contains(&key) || WITHOUT_EFFECT.contains(&key);
        if let Some(key) = given.keys().find(|key| !known(key)) {
            return Err(FileError::Unknown { key: key.clone() });
        }
        let mut file: Self = serde_json::from_value(value).map_err(FileError::Json)?;
        file.given = given;
        Ok(file)
    }

    /// Those of its keys that do nothing, but those that ask for what is so.
    pub(crate) fn without_effect(&self) -> impl Iterator<Item = &str> {
        self.keys().filter(|key| WITHOUT_EFFECT.contains(key) && !matches!(*key, "live-restore" | "builder"))
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.given.keys().map(String::as_str)
    }

    /// What the file says of what; the proxies one by one, as their flags are.
    fn directives(&self) -> impl Iterator<Item = (&str, &Value)> {
        let inner = |key: &str, value| if key == "proxies" { Value::as_object(value) } else { None };
        let own = self.given.iter();
        own.flat_map(move |(key, value)| match inner(key, value) {
            Some(proxies) => proxies.iter().collect::<Vec<_>>(),
            None => vec![(key, value)],
        })
        .map(|(key, value)| (key.as_str(), value))
    }
}

/// dockerd's rule: what is said twice is said wrong.
pub(crate) fn twice(given: &ArgMatches, file: &File, path: &Path) -> Result<(), String> {
    let mut both = Vec::new();
    for (key, value) in file.directives() {
        let flag = flag_of(key);
        let by_flag = given.try_contains_id(flag).unwrap_or(false)
            && given.value_source(flag) == Some(clap::parser::ValueSource::CommandLine);
        if by_flag {
            let words = given.get_raw(flag).into_iter().flatten().map(|word| word.to_string_lossy());
            let words: Vec<String> = words.map(|word| masked(&word)).collect();
            let said = if value.is_array() { format!("[{}]", words.join(" ")) } else { words.join(" ") };
            both.push(format!("{key}: (from flag: {said}, from file: {})", shown(value)));
        }
    }
    if both.is_empty() {
        return Ok(());
    }
    Err(format!(
        "unable to configure the Docker daemon with file {}: the following directives are specified both as a flag and in \
         the configuration file: {}",
        path.display(),
        both.join(", ")
    ))
}

/// A value as Go prints it, without passwords.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => masked(text),
        Value::Array(all) => format!("[{}]", all.iter().map(shown).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// The flag that says the same as a key: the singular, where the key is a list.
fn flag_of(key: &str) -> &str {
    match key {
        "hosts" => "host",
        "labels" => "label",
        "dns-opts" => "dns-opt",
        "log-opts" => "log-opt",
        "insecure-registries" => "insecure-registry",
        "tcp-names" => "tcp-name",
        "registry-mirrors" => "registry-mirror",
        "certs-dirs" => "certs-dir",
        "plugin-dirs" => "plugin-dir",
        "default-ulimits" => "default-ulimit",
        "default-address-pools" => "default-address-pool",
        "default-network-opts" => "default-network-opt",
        "host-gateway-ips" => "host-gateway-ip",
        "storage-opts" => "storage-opt",
        "authorization-plugins" => "authorization-plugin",
        "exec-opts" => "exec-opt",
        "features" => "feature",
        "runtimes" => "add-runtime",
        "cdi-spec-dirs" => "cdi-spec-dir",
        "node-generic-resources" => "node-generic-resource",
        "containerd-plugin-namespace" => "containerd-plugins-namespace",
        other => other,
    }
}

fn hint(key: &str) -> String {
    let nearest = KEYS.iter().chain(WITHOUT_EFFECT).map(|known| (distance(key, known), known)).min();
    match nearest {
        Some((far, known)) if far <= 3 => format!(" (did you mean {known}?)"),
        _ => String::new(),
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(&path, r#"{"data-rot": "/x"}"#).unwrap();
        let text = File::read(&path).unwrap_err().to_string();
        assert!(text.contains("data-rot") && text.contains("did you mean data-root?"), "{text}");
        std::fs::write(&path, "\u{feff}{\"mtu\": 1400}").unwrap();
        assert_eq!(File::read(&path).unwrap().mtu, Some(1400));
        std::fs::write(&path, "[1]").unwrap();
        assert!(matches!(File::read(&path), Err(FileError::Object)));
        assert!(matches!(File::read(&dir.path().join("none")), Err(FileError::Missing(_))));
    }

    #[test]
    fn distances() {
        assert_eq!((distance("dns", "dns"), distance("dsn", "dns"), distance("", "abc")), (0, 2, 3));
    }
}
