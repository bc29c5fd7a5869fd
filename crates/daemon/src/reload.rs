//! What a running daemon takes from its configuration again when it gets SIGHUP.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use wharf_engine::Engine;
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
        // It is for containers that end with their daemon, which none does.
        old.shutdown_timeout = new.shutdown_timeout;
        let left = old.differs(&new);
        if !left.is_empty() {
            tracing::warn!(
                "counts when the daemon is started again, which containers do not notice: {}",
                left.join(", ")
            );
        }
        tracing::info!("configuration reloaded");
        engine.tell_of(
            "daemon",
            "reload",
            engine.id(),
            &[("name", &rustix::system::uname().nodename().to_string_lossy())],
        );
    }
}

/// Our own crates at the level that was asked for; others' at `warn`.
pub(crate) fn filter(level: &str) -> EnvFilter {
    const OWN: [&str; 9] =
        ["engine", "server", "image", "network", "distribution", "build", "daemon", "snapshot", "registry"];
    let own = OWN.map(|name| format!("wharf_{name}={level}")).join(",");
    EnvFilter::try_new(format!("warn,wharf={level},{own}")).unwrap_or_else(|_| EnvFilter::new("info"))
}
