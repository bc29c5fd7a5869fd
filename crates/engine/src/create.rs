//! Making a container: the request checked and joined with its image, then a directory, a row and a name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wharf_image::{ImageRecord, Keep};
use wharf_runtime::docker_defaults;

use crate::check::check;
use crate::discarded::{self, Kernel};
use crate::engine::{Engine, blocking, make_private, now, to_its_end};
use crate::error::{EngineError, Result};
use crate::mounts::Missing;
use crate::profile::Filter;
use crate::record::{Container, Link, State};
use crate::secrets::SecretContents;
use crate::slot::Slot;
use crate::spec::{Config, EndpointSettings, HostConfig, LogConfig, NetworkingConfig};
use crate::{bundle, image_defaults, log_options, mounts, names, ports, resources, secrets, sysctl};

/// The body of `POST /containers/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateRequest {
    #[serde(flatten)]
    pub config: Config,
    pub host_config: HostConfig,
    pub networking_config: NetworkingConfig,
    /// Of the secrets that the host's configuration names.
    #[serde(skip)]
    pub secrets: SecretContents,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

/// A request that nothing speaks against.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) image: ImageRecord,
    pub(crate) config: Config,
    pub(crate) host: HostConfig,
    /// By name.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    pub(crate) links: Vec<Link>,
    pub(crate) contents: SecretContents,
    pub(crate) warnings: Vec<String>,
    /// Keeps the image.
    _keep: Keep,
    /// Keeps those that it mounts.
    mounted: Option<Keep>,
}

/// Names that are tried before the engine gives up.
const NAME_TRIES: u32 = 20;

impl Engine {
    /// Makes a container; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` for an image, network or volume that is not here, `Conflict` for a name in use,
    /// `InvalidParameter` for a request that makes no sense; then nothing has been made.
    pub async fn create(&self, name: Option<&str>, platform: Option<&str>, request: CreateRequest) -> Result<Created> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (engine, name, platform) = (self.clone(), own(name), own(platform));
        to_its_end(async move {
            let own = engine.clone();
            // All that waits goes together: each hop to another thread and back wakes three.
            let made = blocking(move || own.make(name.as_deref(), platform.as_deref(), request));
            let (slot, created) = made.await?;
            engine.tell(&slot.record(), "create");
            Ok(created)
        })
        .await
    }

    /// What is asked, checked and joined with the image and the daemon's defaults; nothing is made. Waits for the disk.
    pub(crate) fn prepare(&self, platform: Option<&str>, request: CreateRequest, missing: Missing) -> Result<Prepared> {
        let has_command = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        if request.config.image.is_empty()
            && !has_command(&request.config.cmd)
            && !has_command(&request.config.entrypoint)
        {
            return Err(EngineError::invalid("no command specified"));
        }
        if request.config.image.is_empty() {
            return Err(EngineError::invalid("config cannot be empty in order to create a container"));
        }
        let (images, reference) = (self.images(), &request.config.image);
        let image = images.resolve_for(reference, platform)?;
        if missing == Missing::Make {
            images.touch(&image.id)?;
        }
        // Until the container's row names it: it may be removed in between.
        let mut keep = images.keep();
        let gone = |_| EngineError::not_found(format!("No such image: {reference}"));
        images.keep_also(&mut keep, &image).map_err(gone)?;
        let CreateRequest { mut config, host_config: mut host, mut networking_config, secrets: contents } = request;
        let publishes = host.publish_all_ports || host.port_bindings.as_ref().is_some_and(|all| !all.is_empty());
        // A published port is exposed by the client, and what is said is of the publishing.
        if host.network_mode.starts_with("container:")
            && !publishes
            && config.exposed_ports.as_ref().is_some_and(|all| !all.is_empty())
        {
            return Err(EngineError::invalid("conflicting options: port exposing and the container type network mode"));
        }
        crate::check::working_dir(&config)?;
        image_defaults::merge(&mut config, &image)?;
        if !config.working_dir.is_empty() {
            config.working_dir = mounts::clean(&config.working_dir);
        }
        let mut warnings = Vec::new();
        self.fill_in(&mut config, &mut host)?;
        if config.network_disabled == Some(true) {
            networking_config = NetworkingConfig::default();
        }
        check(&config, &host)?;
        self.resolve_shared(&mut host)?;
        secrets::check(&host, &contents)?;
        resources::check(&host)?;
        if host.network_mode == "host" && host.port_bindings.as_ref().is_some_and(|all| !all.is_empty()) {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        let id = names::random_id()?;
        let group = self.group_path(&host, &id);
        let kernel = Kernel::of(&self.inner.hierarchies, &host.resources, &group)?;
        warnings.extend(discarded::discard(&mut host.resources, kernel));
        // Refused now rather than at the start.
        let capabilities = bundle::capabilities(&host, self.inner.bounding)?;
        Filter::of(&host, &self.defaults().seccomp, &image.config.architecture, &capabilities)?;
        sysctl::of(&host, host.network_mode != "host")?;
        let (path, args) = image_defaults::command(&config)?;
        let endpoints = self.endpoints(&host, networking_config)?;
        ports::requests(&config, &host)?;
        let links = self.resolve_links(&mut host)?;
        if config.hostname.is_empty() && host.uts_mode != "host" && !host.network_mode.starts_with("container:") {
            config.hostname = if host.network_mode == "host" { host_name() } else { id[..12].to_owned() };
        }
        if let Some(of) = host.network_mode.strip_prefix("container:")
            && let Ok(other) = self.inspect(of)
        {
            // Who has another's network has its name there.
            config.hostname.clone_from(&other.config.hostname);
            config.domainname.clone_from(&other.config.domainname);
        }
        Ok(Prepared {
            id,
            path,
            args,
            image,
            config,
            host,
            networks: endpoints,
            links,
            contents,
            warnings,
            _keep: keep,
            mounted: None,
        })
    }

    fn make(&self, name: Option<&str>, platform: Option<&str>, request: CreateRequest) -> Result<(Arc<Slot>, Created)> {
        let name = name.map(names::check_name).transpose()?.map(str::to_owned);
        let mut prepared = self.prepare(platform, request, Missing::Make)?;
        let id = prepared.id.clone();
        let name = self.take_name(name, &id)?;
        let dir = self.dir(&id);
        let undo = Draft { engine: self, name: &name, id: &id, dir: &dir, done: false };
        for part in ["upper", "work"] {
            make_private(&dir.join(part))?;
        }
        // The container's processes look at its root through this directory.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join("upper"), open)
            .map_err(|e| EngineError::from_source("cannot make the container's directory", &e))?;
        let files = prepared.host.secrets.as_deref().unwrap_or_default();
        self.inner.secrets.keep(&id, files, &std::mem::take(&mut prepared.contents))?;
        let made = self.finish_create(&name, &mut prepared)?;
        undo.keep();
        let slot = Slot::new(made);
        self.inner.slots.insert(&slot);
        Ok((slot, Created { id, warnings: prepared.warnings }))
    }

    fn finish_create(&self, name: &str, prepared: &mut Prepared) -> Result<Container> {
        let mut record = self.record_of(name, prepared);
        let mut keep = self.images().keep();
        self.make_working_dir(&record)?;
        record.mounts = mounts::resolve(self, &record, Missing::Make, &mut keep)?;
        prepared.mounted = Some(keep);
        if let Err(error) = secrets::check_mounts(&record).and_then(|()| self.write_record(&record)) {
            // The volumes of a container that does not come to be.
            mounts::give_back(self, record.mounts.iter());
            return Err(error);
        }
        self.keep_new_volumes(&record.id);
        Ok(record)
    }

    /// The container as it is before it has mounts.
    pub(crate) fn record_of(&self, name: &str, prepared: &Prepared) -> Container {
        let Prepared { id, image, host, .. } = prepared;
        let log_path = match log_options::kept(&host.log_config) {
            "none" => String::new(),
            _ => self.dir(id).join(format!("{id}-json.log")).to_string_lossy().into_owned(),
        };
        Container {
            id: id.clone(),
            name: name.into(),
            created: now(),
            path: prepared.path.clone(),
            args: prepared.args.clone(),
            image: image.id.clone(),
            layers: image.diff_ids.clone(),
            config: prepared.config.clone(),
            host: host.clone(),
            state: State::default(),
            restart_count: 0,
            mounts: Vec::new(),
            networks: prepared.networks.clone(),
            asked_macs: crate::endpoint::asked_macs(&prepared.networks),
            ports: BTreeMap::new(),
            log_path,
            platform: image.config.os.clone(),
            architecture: image.config.architecture.clone(),
            stopped_by_user: false,
            exec_ids: Vec::new(),
            first_id: None,
            links: prepared.links.clone(),
        }
    }

    fn take_name(&self, asked: Option<String>, id: &str) -> Result<String> {
        if let Some(name) = asked {
            self.inner.slots.take_name(&name, id)?;
            return Ok(name);
        }
        for attempt in 0..NAME_TRIES {
            let name = names::random_name(attempt)?;
            if self.inner.slots.take_name(&name, id).is_ok() {
                return Ok(name);
            }
        }
        Err(EngineError::conflict("no free name was found for the container; give it one with --name"))
    }

    /// What the daemon decides where the request does not say.
    fn fill_in(&self, config: &mut Config, host: &mut HostConfig) -> Result<()> {
        let set = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        if matches!(host.network_mode.as_str(), "" | "default") {
            host.network_mode = "bridge".into();
        }
        if host.network_mode == "bridge" && self.networks().resolve("bridge").is_err() {
            // The daemon has no default bridge (`--bridge none`).
            config.network_disabled = Some(true);
        }
        if config.network_disabled == Some(true) {
            host.network_mode = "none".into();
        }
        let defaults = self.defaults();
        set(&mut host.ipc_mode, &defaults.ipc_mode);
        // With v1 too, where Docker has the host's: it hides how the host has sorted its processes. Who is privileged
        // may make groups there, by the paths that it sees; and who has the host's groups mounted looks there for its own.
        let is_v1 = !self.inner.hierarchies.is_v2();
        let mode = match &defaults.cgroupns_mode {
            _ if is_v1 && host.privileged => "host",
            Some(mode) => mode,
            None if is_v1 && mounts::shows_groups(host) => "host",
            None => "private",
        };
        set(&mut host.cgroupns_mode, mode);
        set(&mut host.restart_policy.name, "no");
        // Docker's name for what runs containers by default; here it is this engine's own runtime.
        set(&mut host.runtime, "runc");
        if host.shm_size == 0 {
            host.shm_size = defaults.shm_size;
        }
        let resources = &mut host.resources;
        if resources.memory > 0 && resources.memory_swap == 0 && self.inner.hierarchies.counts_swap() {
            // As much swap as memory; written down, as an update is measured by it.
            resources.memory_swap = resources.memory.saturating_mul(2);
        }
        // Clients send 0 where the user has said nothing.
        resources.pids_limit = resources.pids_limit.filter(|limit| *limit != 0);
        if resources.memory_swappiness == Some(-1) {
            resources.memory_swappiness = None;
        }
        if host.log_config.driver.is_empty() {
            let asked = std::mem::take(&mut host.log_config.options);
            host.log_config = LogConfig { ..self.inner.options.log.clone() };
            host.log_config.options.extend(asked);
        }
        if host.init.is_none() && self.inner.options.init {
            host.init = Some(true);
        }
        let own: Vec<String> = host.resources.ulimits.iter().flatten().map(|u| u.name.clone()).collect();
        let defaults = self.inner.options.ulimits.iter().filter(|u| !own.contains(&u.name)).cloned();
        let mut ulimits = host.resources.ulimits.take().unwrap_or_default();
        ulimits.extend(defaults);
        if !ulimits.is_empty() {
            host.resources.ulimits = Some(ulimits);
        }
        // From who is privileged nothing is hidden but what is asked for.
        if host.masked_paths.is_none() && !host.privileged {
            host.masked_paths = Some(docker_defaults::masked());
        }
        if host.readonly_paths.is_none() && !host.privileged {
            host.readonly_paths = Some(docker_defaults::READ_ONLY.iter().map(|path| (*path).to_owned()).collect());
        }
        if config.stop_signal.as_deref() == Some("") {
            config.stop_signal = None;
        }
        Ok(())
    }

    /// A network's name, whatever it is called by: two keys for one network would be two endpoints. One that is not
    /// there fails the start, as in Docker: clients take "not found" from a creation for the image.
    fn network_name(&self, text: &str) -> String {
        self.networks().resolve(text).map_or_else(|_| text.to_owned(), |network| network.name)
    }

    /// Puts IDs in place of the names of containers whose namespaces it shares: names change. One whose network it shares
    /// may come to be until the start.
    fn resolve_shared(&self, host: &mut HostConfig) -> Result<()> {
        if host.pid_mode == "container:" {
            return Err(EngineError::invalid("invalid PID mode: container:"));
        }
        let id = |mode: &str| mode.strip_prefix("container:").map(|of| self.inspect(of).map(|other| other.id.clone()));
        if let Some(Ok(id)) = id(&host.network_mode) {
            host.network_mode = format!("container:{id}");
        }
        for mode in [&mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(id) = id(mode) {
                *mode = format!("container:{}", id.map_err(|error| EngineError::invalid(error.message))?);
            }
        }
        Ok(())
    }

    /// The networks that it will be on, by name.
    fn endpoints(&self, host: &HostConfig, asked: NetworkingConfig) -> Result<BTreeMap<String, EndpointSettings>> {
        let mode = host.network_mode.as_str();
        let mut endpoints = BTreeMap::new();
        let asked = asked.endpoints_config.unwrap_or_default();
        if mode.starts_with("container:") {
            if asked.values().any(|settings| !settings.mac_address.is_empty()) {
                return Err(EngineError::invalid("conflicting options: mac-address and the network mode"));
            }
            if !asked.is_empty() {
                return Err(EngineError::invalid(
                    "conflicting options: a container that shares another's network cannot be on networks of its own",
                ));
            }
            return Ok(endpoints);
        }
        for (name, settings) in asked {
            let name = if name == "default" { "bridge".to_owned() } else { name };
            endpoints.insert(self.network_name(&name), settings);
        }
        // Who names networks is on those alone, whatever the mode is.
        if endpoints.is_empty() {
            endpoints.insert(self.network_name(mode), EndpointSettings::default());
        }
        let is_apart = |name: &String| name == "host" || name == "none";
        let hosts = mode == "host" && !endpoints.contains_key("host");
        if hosts || (endpoints.len() > 1 && endpoints.keys().any(is_apart)) {
            return Err(EngineError::invalid(
                "conflicting options: the networks \"host\" and \"none\" cannot be joined with others",
            ));
        }
        for (name, settings) in &mut endpoints {
            let network = self.networks().resolve(name).ok();
            crate::endpoint::Asked::of(name, settings, network.as_ref()).map_err(|error| in_config_of(name, error))?;
            settings.driver_opts.as_ref().map_or(Ok(()), |options| crate::bandwidth::check(name, options))?;
            settings.network_id = network.map(|network| network.id).unwrap_or_default();
        }
        Ok(endpoints)
    }
}

fn in_config_of(network: &str, error: EngineError) -> EngineError {
    EngineError::new(error.kind, format!("invalid config for network {network}: {}", error.message))
}

/// A container that is being made: gives its name back and removes its directory unless it came to be.
struct Draft<'a> {
    engine: &'a Engine,
    name: &'a str,
    id: &'a str,
    dir: &'a Path,
    done: bool,
}

impl Draft<'_> {
    fn keep(mut self) {
        self.done = true;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.engine.inner.slots.free_name(self.name, self.id);
            self.engine.inner.secrets.forget(self.id);
            let _ = wharf_rooted_path::remove_dir_all(self.dir);
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
