//! Creating a container: checked whole before anything of it exists.

use wharf_reference::Reference;

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::merge;
use crate::mounts;
use crate::names;
use crate::record::{Container, State};
use crate::resources;
use crate::spec::{Config, EndpointSettings, HostConfig, NetworkingConfig};

/// What `POST /containers/create` asks.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    pub config: Config,
    pub host: HostConfig,
    pub networking: NetworkingConfig,
    pub platform: Option<String>,
}

/// The new container's ID, and what was asked but left out.
#[derive(Clone, Debug, Default)]
pub struct CreateResponse {
    pub id: String,
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a container; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` for the image, `Conflict` for the name, `InvalidParameter` for anything that cannot hold.
    pub async fn create(&self, name: Option<&str>, request: CreateRequest) -> Result<CreateResponse> {
        let engine = self.clone();
        let name = name.map(|n| names::check_name(n).map(str::to_owned)).transpose()?;
        let (id, warnings) = blocking(move || engine.create_blocking(name, request)).await?;
        Ok(CreateResponse { id, warnings })
    }

    fn create_blocking(&self, name: Option<String>, request: CreateRequest) -> Result<(String, Vec<String>)> {
        let CreateRequest { mut config, mut host, networking, platform } = request;
        let image = self.inner.images.resolve(&config.image).map_err(|_| no_such_image(&config.image))?;
        merge::merge_image(&mut config, &image.config.config)?;
        merge::host_defaults(&mut host, wharf_cgroup::is_v2());
        self.engine_defaults(&mut host);
        check(&config, &host)?;
        let id = names::random_id()?;
        if config.hostname.is_empty() && host.uts_mode != "host" && !host.network_mode.starts_with("container:") {
            config.hostname = match host.network_mode.as_str() {
                "host" => self.inner.config.name.clone(),
                _ => id[..12].to_owned(),
            };
        }
        // A bad capability, device, ulimit or sysctl is refused now, not at the start.
        crate::bundle::capabilities(&host, u64::MAX)?;
        resources::limits(&host)?;
        resources::devices(&host)?;
        resources::rlimits(&host)?;
        let points = mounts::resolve(self, &id, &config, &host)?;
        let (path, args) = command_line(&config);
        let mut record = Container {
            name: String::new(),
            created: now(),
            path,
            args,
            image: image.id.clone(),
            layers: image.layers.clone(),
            state: State::default(),
            restart_count: 0,
            mounts: points,
            networks: endpoints(&host, networking)?,
            ports: std::collections::BTreeMap::default(),
            log_path: log_path(&self.container_dir(&id), &id, &host),
            platform: platform.unwrap_or_else(|| "linux".into()),
            stopped_by_user: false,
            exec_ids: Vec::new(),
            id: id.clone(),
            config,
            host,
        };
        let undo = |engine: &Self| {
            // Best effort: what stays is swept at the next start, as no row owns it.
            let _ = engine.inner.snapshots.discard(&id);
            let _ = std::fs::remove_dir_all(engine.container_dir(&id));
        };
        let dir = self.container_dir(&id);
        let made = std::fs::create_dir_all(&dir)
            .map_err(|e| EngineError::from_source(&format!("cannot create {}", dir.display()), &e))
            .and_then(|()| {
                self.inner
                    .snapshots
                    .prepare(&id)
                    .map(drop)
                    .map_err(|e| EngineError::from_source("cannot prepare the container's file system", &e))
            })
            .and_then(|()| crate::volumes::populate(self, &record));
        if let Err(error) = made {
            undo(self);
            return Err(error);
        }
        let inserted = match name {
            Some(name) => {
                record.name = name;
                self.insert(record)
            }
            None => self.insert_with_made_name(record),
        };
        match inserted {
            Ok(entry) => {
                self.tell(&entry.record(), "create", &[]);
                Ok((id.clone(), Vec::new()))
            }
            Err(error) => {
                undo(self);
                Err(error)
            }
        }
    }

    fn insert_with_made_name(&self, mut record: Container) -> Result<std::sync::Arc<crate::engine::Entry>> {
        for attempt in 0.. {
            record.name = names::random_name(attempt)?;
            match self.insert(record.clone()) {
                Err(error) if error.kind == crate::error::ErrorKind::Conflict && attempt < 8 => {}
                done => return done,
            }
        }
        Err(EngineError::system("no free name was found; give one with --name"))
    }

    fn engine_defaults(&self, host: &mut HostConfig) {
        let config = &self.inner.config;
        if host.log_config.driver.is_empty() {
            host.log_config.driver.clone_from(&config.log_driver);
            for (key, value) in &config.log_options {
                host.log_config.options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let mine = host.resources.ulimits.get_or_insert_default();
        for limit in &config.default_ulimits {
            if !mine.iter().any(|have| have.name == limit.name) {
                mine.push(limit.clone());
            }
        }
        if host.init.is_none() && config.init {
            host.init = Some(true);
        }
    }
}

/// The answer by which every client knows that it must pull first.
pub(crate) fn no_such_image(name: &str) -> EngineError {
    let shown = Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.tag_or_latest().familiar());
    EngineError::not_found(format!("No such image: {shown}"))
}

/// Now, as every record has its times: RFC 3339 with nanoseconds, UTC.
pub(crate) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

fn command_line(config: &Config) -> (String, Vec<String>) {
    let mut words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned();
    (words.next().unwrap_or_default(), words.collect())
}

fn log_path(dir: &std::path::Path, id: &str, host: &HostConfig) -> String {
    match host.log_config.driver.as_str() {
        "json-file" => dir.join(format!("{id}-json.log")).to_string_lossy().into_owned(),
        _ => String::new(),
    }
}

/// The endpoint of `--network`, with what the networking configuration says of it and of further ones.
fn endpoints(
    host: &HostConfig,
    networking: NetworkingConfig,
) -> Result<std::collections::BTreeMap<String, EndpointSettings>> {
    let mode = &host.network_mode;
    let mut all = networking.endpoints_config.unwrap_or_default();
    if mode.starts_with("container:") {
        if !all.is_empty() {
            return Err(EngineError::invalid(
                "conflicting options: a container that shares a network stack has no endpoints of its own",
            ));
        }
        return Ok(all);
    }
    if let Some(settings) = all.remove("default") {
        all.entry("bridge".into()).or_insert(settings);
    }
    all.entry(mode.clone()).or_default();
    if (mode == "host" || mode == "none") && all.len() > 1 {
        return Err(EngineError::invalid(format!(
            "container cannot be connected to network {mode} and to another one"
        )));
    }
    Ok(all)
}

/// Refuses what contradicts itself or what this engine does not do, by name.
fn check(config: &Config, host: &HostConfig) -> Result<()> {
    resources::check(host)?;
    let bad = |text: String| Err(EngineError::invalid(text));
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return bad(format!("the working directory '{}' is invalid, it needs to be an absolute path", config.working_dir));
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return bad(format!("invalid environment variable: {variable}"));
        }
        if variable.contains('\0') {
            return bad("an environment variable has a NUL in it".into());
        }
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|s| !s.is_empty()) {
        crate::signal::parse(signal)?;
    }
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            return bad(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure', not '{}'",
                policy.name
            ));
        }
        "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if host.auto_remove && policy.name != "no" {
        return bad("can't create 'AutoRemove' container with restart policy".into());
    }
    match host.runtime.as_str() {
        "wharf" | "runc" | "io.containerd.runc.v2" => {}
        other => return bad(format!("unknown or invalid runtime name: {other}")),
    }
    match host.log_config.driver.as_str() {
        "json-file" | "local" | "none" => {}
        other => return bad(format!("logger: no log driver named '{other}' is registered")),
    }
    match host.userns_mode.as_str() {
        "" | "host" | "auto" | "private" => {}
        other => return bad(format!("invalid userns mode: {other}; use host, auto or private")),
    }
    for option in host.security_opt.iter().flatten() {
        let key = option.split(['=', ':']).next().unwrap_or_default();
        if !matches!(key, "seccomp" | "apparmor" | "no-new-privileges" | "label" | "systempaths" | "writable-cgroups") {
            return bad(format!("invalid --security-opt 2: \"{option}\""));
        }
    }
    let modes = [("pid", &host.pid_mode), ("uts", &host.uts_mode), ("ipc", &host.ipc_mode)];
    for (kind, mode) in modes {
        let known = matches!(mode.as_str(), "" | "host" | "private") || mode.starts_with("container:");
        let ipc = kind == "ipc" && matches!(mode.as_str(), "shareable" | "none");
        if !known && !ipc {
            return bad(format!("invalid {} mode: {mode}", kind.to_uppercase()));
        }
    }
    for line in host.extra_hosts.iter().flatten() {
        if line.split_once(':').is_none() || line.chars().any(char::is_control) {
            return bad(format!("bad format for add-host: \"{line}\""));
        }
    }
    if config.hostname.len() > 63 || config.hostname.chars().any(char::is_control) {
        return bad(format!("invalid hostname: {}", config.hostname));
    }
    if host.resources.device_requests.as_ref().is_some_and(|r| !r.is_empty()) {
        return bad("could not select device driver: this engine has no GPU support".into());
    }
    Ok(())
}
