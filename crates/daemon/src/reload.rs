//! What a running daemon takes from its configuration again when it gets SIGHUP.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use wharf_engine::{ContainerDefaults, Engine};
use wharf_image::registry::Client;

use crate::listen::TcpPolicy;
use crate::options::{Options, Parsed};
use crate::run::{client_options, told};

/// Sets what is logged.
pub(crate) type SetLevel = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// The configuration as it counts now.
pub(crate) struct Reload {
    args: Vec<OsString>,
    options: Mutex<Options>,
    tcp: TcpPolicy,
    set_level: Option<SetLevel>,
}

impl Reload {
    pub(crate) fn new(args: &[OsString], options: &Options, tcp: &TcpPolicy, set_level: Option<SetLevel>) -> Self {
        Self { args: args.to_vec(), options: Mutex::new(options.clone()), tcp: tcp.clone(), set_level }
    }

    /// Reads flags and file again. What is wrong with them changes nothing; what can only be had with a new start is named.
    pub(crate) fn now(&self, engine: &Engine, registry: &Client) {
        let new = match Options::parse(&self.args) {
            Ok(Parsed::Run(new)) => new,
            Ok(Parsed::Say(_)) => return,
            Err(error) => return tracing::error!("the configuration counts as it was before: {error}"),
        };
        if let TcpPolicy::Tls(tls) = &self.tcp
            && let Err(error) = tls.reload()
        {
            return tracing::error!("the configuration counts as it was before: {error}");
        }
        if let Err(error) = registry.configure(client_options(&new)) {
            return tracing::error!("the configuration counts as it was before: {}", wharf_report::chain(&error));
        }
        engine.images().at_once(new.concurrent_downloads, new.concurrent_uploads);
        engine.store().budget().set_max(new.storage_max);
        engine.tell_from_now_on(told(&new));
        let mut old = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = &self.set_level {
            old.log_level.clone_from(&new.log_level);
            set(filter(&new.log_level));
        }
        // What counts from now on does not differ any more.
        old.labels.clone_from(&new.labels);
        old.insecure_registries.clone_from(&new.insecure_registries);
        old.mirrors.clone_from(&new.mirrors);
        old.certs_dirs.clone_from(&new.certs_dirs);
        old.proxies.clone_from(&new.proxies);
        old.download_attempts = new.download_attempts;
        (old.concurrent_downloads, old.concurrent_uploads) = (new.concurrent_downloads, new.concurrent_uploads);
        old.storage_max = new.storage_max;
        old.containers = ContainerDefaults {
            shm_size: new.containers.shm_size,
            ipc_mode: new.containers.ipc_mode.clone(),
            cgroupns_mode: new.containers.cgroupns_mode.clone(),
            // As with dockerd these are for containers of the next daemon.
            no_new_privileges: old.containers.no_new_privileges,
            seccomp: old.containers.seccomp.clone(),
        };
        engine.give_from_now_on(old.containers.clone());
        // It is for containers that end with their daemon, which none does.
        old.shutdown_timeout = new.shutdown_timeout;
        let left = old.differs(&new);
        if !left.is_empty() {
            tracing::warn!(
                "counts when the daemon is started again, which containers do not notice: {}",
                left.join(", ")
            );
        }
        tracing::info!("Reloaded configuration: {}", summary(&new));
        let attributes = attributes(&new);
        let attributes: Vec<(&str, &str)> = attributes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        engine.tell_of("daemon", "reload", engine.id(), &attributes);
    }
}

/// What Docker's event tells (moby's `daemon/reload.go`); lists are JSON, and what is not said is the usual.
fn attributes(options: &Options) -> Vec<(&'static str, String)> {
    let told = told(options);
    let list = |texts: &[String]| serde_json::json!(texts).to_string();
    let number = |given: Option<usize>, usual: usize| given.unwrap_or(usual).to_string();
    let features: Vec<String> = options.features.iter().map(|(name, on)| format!("{name}:{on}")).collect();
    vec![
        ("debug", told.debug.to_string()),
        ("default-cgroupns-mode", options.containers.cgroupns_mode.clone().unwrap_or_else(|| "private".into())),
        ("default-ipc-mode", options.containers.ipc_mode.clone()),
        ("default-runtime", "runc".into()),
        ("default-shm-size", options.containers.shm_size.to_string()),
        ("features", format!("map[{}]", features.join(" "))),
        ("insecure-registries", list(&options.insecure_registries)),
        ("labels", list(&options.labels)),
        // Containers always outlive their daemon.
        ("live-restore", "true".into()),
        ("max-concurrent-downloads", number(options.concurrent_downloads, 3)),
        ("max-concurrent-uploads", number(options.concurrent_uploads, 5)),
        ("max-download-attempts", options.download_attempts.unwrap_or(5).to_string()),
        ("name", rustix::system::uname().nodename().to_string_lossy().into_owned()),
        ("registry-mirrors", list(&options.mirrors)),
        ("runtimes", String::new()),
        ("shutdown-timeout", options.shutdown_timeout.to_string()),
    ]
}

/// What counts from now on, in the words of `daemon.json`.
fn summary(options: &Options) -> serde_json::Value {
    let told = told(options);
    serde_json::json!({
        "debug": told.debug,
        "labels": told.labels,
        "insecure-registries": told.insecure_registries,
        "registry-mirrors": told.registry_mirrors,
        "http-proxy": told.http_proxy,
        "https-proxy": told.https_proxy,
        "no-proxy": told.no_proxy,
        "max-concurrent-downloads": options.concurrent_downloads,
        "max-concurrent-uploads": options.concurrent_uploads,
    })
}

/// Our own crates at the level that was asked for; others' at `warn`.
pub(crate) fn filter(level: &str) -> EnvFilter {
    const OWN: [&str; 9] =
        ["engine", "server", "image", "network", "distribution", "build", "daemon", "snapshot", "registry"];
    let own = OWN.map(|name| format!("wharf_{name}={level}")).join(",");
    EnvFilter::try_new(format!("warn,wharf={level},{own}")).unwrap_or_else(|_| EnvFilter::new("info"))
}

impl Options {
    /// The flags that say something else in `other`.
    pub(crate) fn differs(&self, other: &Self) -> Vec<&'static str> {
        let same = [
            ("host", self.hosts == other.hosts),
            ("tls", self.tls == other.tls),
            ("metrics-addr", self.metrics_addr == other.metrics_addr),
            ("insecure-tcp", self.insecure_tcp == other.insecure_tcp),
            ("tcp-name", self.tcp_names == other.tcp_names),
            ("group", self.group == other.group),
            ("data-root", self.data_root == other.data_root),
            ("exec-root", self.exec_root == other.exec_root),
            ("pidfile", self.pidfile == other.pidfile),
            ("cgroup-parent", self.cgroup_parent == other.cgroup_parent),
            ("bip", self.bip == other.bip),
            ("bridge", self.bridge == other.bridge),
            ("ipv6", self.ipv6 == other.ipv6),
            ("fixed-cidr-v6", self.fixed_cidr_v6 == other.fixed_cidr_v6),
            ("bip6", self.bip6 == other.bip6),
            ("default-network-opt", self.bridge_options == other.bridge_options),
            ("host-gateway-ip", self.host_gateways == other.host_gateways),
            ("cdi-spec-dir", self.cdi_dirs == other.cdi_dirs),
            ("mtu", self.mtu == other.mtu),
            ("default-address-pool", self.pools == other.pools),
            ("ip-forward", self.ip_forward == other.ip_forward),
            ("userland-proxy", self.userland_proxy == other.userland_proxy),
            ("publish-policy", self.publish_policy == other.publish_policy),
            ("storage-max-bytes", self.storage_max == other.storage_max),
            ("dns", self.dns == other.dns),
            ("dns-search", self.dns_search == other.dns_search),
            ("dns-opt", self.dns_options == other.dns_options),
            ("log-driver", self.log_driver == other.log_driver),
            ("log-opt", self.log_options == other.log_options),
            ("default-ulimit", self.ulimits == other.ulimits),
            ("label", self.labels == other.labels),
            ("insecure-registry", self.insecure_registries == other.insecure_registries),
            ("registry-mirror", self.mirrors == other.mirrors),
            ("certs-dir", self.certs_dirs == other.certs_dirs),
            ("plugin-dir", self.plugin_dirs == other.plugin_dirs),
            ("proxies", self.proxies == other.proxies),
            ("max-concurrent-downloads", self.concurrent_downloads == other.concurrent_downloads),
            ("max-concurrent-uploads", self.concurrent_uploads == other.concurrent_uploads),
            ("init", self.init == other.init),
            ("default-shm-size", self.containers.shm_size == other.containers.shm_size),
            ("default-ipc-mode", self.containers.ipc_mode == other.containers.ipc_mode),
            ("default-cgroupns-mode", self.containers.cgroupns_mode == other.containers.cgroupns_mode),
            ("no-new-privileges", self.containers.no_new_privileges == other.containers.no_new_privileges),
            ("seccomp-profile", self.containers.seccomp == other.containers.seccomp),
            ("iptables", self.rules == other.rules),
            ("icc, ip-masq, ip, fixed-cidr or default-gateway", self.bridge_rules == other.bridge_rules),
            ("log-level", self.log_level == other.log_level),
            ("log-format", self.log_json == other.log_json),
            ("shutdown-timeout", self.shutdown_timeout == other.shutdown_timeout),
            ("remove-networks-on-exit", self.remove_networks == other.remove_networks),
            ("storage-layers", self.layers == other.layers),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}
