//! The engine: what it is made of, how it opens, and how it finds again what ran without it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use wharf_reference::Digest;

use wharf_cgroup::Hierarchies;
use wharf_image::Images;
use wharf_image::registry::Client as Registry;
use wharf_monitor::Spawner;
use wharf_network::Networks;
use wharf_store::{Store, Table};
use wharf_volume::Volumes;

use crate::bundle::Rights;
use crate::caller;
use crate::container_defaults::ContainerDefaults;
use crate::dns::Dns;
use crate::error::{EngineError, Result};
use crate::etc::ResolvConf;
use crate::event::Events;
use crate::exec::Execs;
use crate::log_watch::LogWatch;
use crate::measure::Measures;
use crate::names;
use crate::record::Container;
use crate::remove::has_left_files;
use crate::secrets::Secrets;
use crate::slot::{Slot, Slots};
use crate::spec::{HostConfig, LogConfig, Ulimit};
use crate::unwritten::Unwritten;
use crate::user::Identity;

/// The rows of containers, by ID.
pub(crate) const CONTAINERS: Table = Table::new("container");

/// What the daemon decides for all containers.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    pub data_root: PathBuf,
    /// Volatile: sockets of monitors.
    pub exec_root: PathBuf,
    /// The group above all containers', e.g. `/wharf`.
    pub cgroup_parent: String,
    /// Servers, search domains and options that replace the host's in each container.
    pub dns: ResolvConf,
    /// What `host-gateway` stands for; empty means the host's addresses on the default network.
    pub host_gateways: Vec<IpAddr>,
    /// Where files of the Container Device Interface are; `None` where there is to be no such thing.
    pub cdi_dirs: Option<Vec<PathBuf>>,
    pub log: LogConfig,
    pub ulimits: Vec<Ulimit>,
    /// Run an init in every container whose request does not say.
    pub init: bool,
    /// First host ID and the number of IDs of all user namespaces together.
    pub id_range: (u32, u32),
    pub told: Told,
    pub defaults: ContainerDefaults,
    /// Seconds between the stop signal and SIGKILL when a container does not say, used when the host goes down.
    pub shutdown_timeout: i64,
}

/// What `info` tells of the daemon's configuration. It may change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Where the API listens.
    pub hosts: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    /// Proxies on the way to registries, without their passwords.
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub debug: bool,
    /// Whether it is an ordinary user's, in a user namespace.
    pub rootless: bool,
    /// The seccomp profile of containers that name none: `builtin`, `unconfined` or a file.
    pub seccomp_profile: String,
    pub no_new_privileges: bool,
    /// Whether containers have their own view of control groups by default.
    pub own_cgroupns: bool,
}

/// The parts that the engine works with; the daemon makes them.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub images: Images,
    pub networks: Networks,
    pub volumes: Volumes,
    pub spawner: Arc<Spawner>,
    pub registry: Registry,
}

/// The engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: EngineOptions,
    told: RwLock<Arc<Told>>,
    defaults: RwLock<Arc<ContainerDefaults>>,
    pub(crate) parts: Parts,
    pub(crate) id: String,
    pub(crate) hierarchies: Hierarchies,
    /// Capabilities that this process can give away.
    pub(crate) bounding: u64,
    pub(crate) slots: Slots,
    pub(crate) execs: Execs,
    pub(crate) events: Events,
    pub(crate) log_watch: LogWatch,
    /// The tree that lies below every image: places for the mounts that every container has, so that they are nothing
    /// that a container has changed.
    pub(crate) places: PathBuf,
    /// Layers that others than containers need, beside images.
    pub(crate) pins: OnceLock<Pins>,
    /// Who `root` is in an image: the same for each of its containers.
    pub(crate) roots: Mutex<Vec<(Digest, Identity)>>,
    pub(crate) dns: Dns,
    pub(crate) secrets: Secrets,
    /// Sizes of what is written to.
    pub(crate) measures: Arc<Measures>,
    /// Held while containers are frozen for a copy of a volume.
    pub(crate) volume_copies: tokio::sync::Mutex<()>,
    /// Held while a container gets its range of IDs.
    pub(crate) ids: Mutex<()>,
    pub(crate) unwritten: Arc<Unwritten>,
}

/// Names layers.
pub(crate) struct Pins(pub(crate) Box<dyn Fn() -> Vec<Digest> + Send + Sync>);

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pins")
    }
}

impl Engine {
    /// Opens the engine: reads its containers, finds those that run, and brings the record of the others up to
    /// date. Containers that their policy wants to run are started by [`Self::start_wanted`].
    ///
    /// # Errors
    /// When the store cannot be read or the host has no control groups.
    pub fn open(options: EngineOptions, parts: Parts) -> Pin<Box<dyn Future<Output = Result<Self>> + Send>> {
        // Boxed here, or all that follows from it would be compiled once more with its caller.
        Box::pin(Self::open_now(options, parts))
    }

    async fn open_now(options: EngineOptions, parts: Parts) -> Result<Self> {
        let id = names::engine_id(&options.data_root)?;
        let parent = format!("/{}", options.cgroup_parent.trim_matches('/'));
        let hierarchies =
            Hierarchies::usable(&parent).map_err(|e| EngineError::from_source("cannot use control groups", &e))?;
        if hierarchies.is_empty() {
            tracing::warn!("containers have no control groups: none were delegated to this user");
        } else if let Err(error) = wharf_cgroup::leave_room(&hierarchies, &parent) {
            tracing::warn!("containers together may take all processes of the host: {}", wharf_report::chain(&error));
        }
        let secrets = Secrets::new(&options.exec_root);
        for dir in [options.data_root.join("containers"), options.exec_root.join("containers")] {
            make_private(&dir)?;
        }
        let places = make_places(&options.data_root)?;
        let rows: Vec<(String, Container)> = parts
            .store
            .read(|tx| tx.list(CONTAINERS))
            .map_err(|e| EngineError::from_source("cannot read the containers", &e))?;
        let engine = Self {
            inner: Arc::new(Inner {
                bounding: bounding_set(),
                dns: Dns::new(options.exec_root.clone()),
                secrets,
                measures: Arc::default(),
                volume_copies: tokio::sync::Mutex::new(()),
                ids: Mutex::new(()),
                unwritten: Arc::default(),
                events: Events::open(&options.data_root),
                log_watch: LogWatch::default(),
                told: RwLock::new(Arc::new(options.told.clone())),
                defaults: RwLock::new(Arc::new(options.defaults.clone())),
                options,
                parts,
                id,
                hierarchies,
                slots: Slots::default(),
                execs: Execs::default(),
                pins: OnceLock::new(),
                places,
                roots: Mutex::default(),
            }),
        };
        let (removed, rows): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(id, record)| has_left_files(&engine.dir(id), record));
        if !removed.is_empty() {
            let delete =
                |tx: &wharf_store::WriteTx| removed.iter().try_for_each(|(id, _)| tx.delete(CONTAINERS, id).map(drop));
            engine.store().write(delete).map_err(|e| EngineError::from_source("cannot forget the containers", &e))?;
        }
        for (id, mut record) in rows {
            if engine.inner.slots.take_name(&record.name, &id).is_err() {
                let own = format!("{}-{}", record.name, id.get(..12).unwrap_or(&id));
                tracing::warn!("two containers are called {}: {id} is {own} now", record.name);
                record.name = own;
                engine.inner.slots.take_name(&record.name, &id)?;
            }
            engine.inner.slots.insert(&Slot::new(record));
        }
        engine.sweep_directories();
        for (_, record) in &removed {
            engine.remove_volumes(record).await;
        }
        engine.write_when_changed();
        engine.recover().await?;
        let names = engine.clone();
        blocking(move || {
            names.take_up_names();
            Ok(())
        })
        .await?;
        Ok(engine)
    }

    /// Removes the group above all containers' where nothing is in it: the daemon's last act.
    pub fn leave_groups(&self) {
        let parent = format!("/{}", self.inner.options.cgroup_parent.trim_matches('/'));
        // That of builds is in it.
        for path in [format!("{parent}/build"), parent] {
            let Ok(group) = wharf_cgroup::Group::open(&self.inner.hierarchies, &path) else { continue };
            for dir in group.directories() {
                // With containers in it, it stays: rmdir(2) refuses.
                let _ = std::fs::remove_dir(dir);
            }
        }
    }

    /// The daemon stops, and containers run on: also those whose commit ends with it. What was written without waiting
    /// for the disk is on it afterwards.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn leave(&self) -> Result<()> {
        for record in self.list().iter().filter(|record| record.state.paused_for_commit) {
            self.thaw(record).await;
        }
        let (engine, store) = (self.clone(), self.store().clone());
        blocking(move || {
            engine.leave_names();
            engine.networks().leave();
            engine.write_unwritten()?;
            store.flush().map_err(|e| EngineError::from_source("cannot write the state of containers", &e))
        })
        .await
    }

    /// Layers that `also` names are kept, too. The first caller's word counts.
    pub fn pin_also(&self, also: impl Fn() -> Vec<Digest> + Send + Sync + 'static) {
        let _ = self.inner.pins.set(Pins(Box::new(also)));
    }

    /// What `host-gateway` stands for: what the daemon was told, or the host's addresses on the default network, which
    /// services of the host listen at and which are the same for all networks. None where there is no such network.
    pub(crate) fn host_gateways(&self) -> Vec<std::net::IpAddr> {
        let bridge = || self.networks().resolve("bridge").map(|bridge| bridge.gateways()).unwrap_or_default();
        match self.options().host_gateways.as_slice() {
            [] => bridge(),
            told => told.to_vec(),
        }
    }

    /// The first of them: for a build's commands.
    pub fn host_gateway(&self) -> Option<std::net::IpAddr> {
        self.host_gateways().first().copied()
    }

    pub fn id(&self) -> &str {
        &self.inner.id
    }
    pub fn options(&self) -> &EngineOptions {
        &self.inner.options
    }
    /// What `info` is to tell of the configuration now.
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.inner.told.read().unwrap_or_else(PoisonError::into_inner))
    }
    pub fn tell_from_now_on(&self, told: Told) {
        *self.inner.told.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(told);
    }
    /// What containers get that do not say.
    pub(crate) fn defaults(&self) -> Arc<ContainerDefaults> {
        Arc::clone(&self.inner.defaults.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// What containers that are made from now on get.
    pub fn give_from_now_on(&self, defaults: ContainerDefaults) {
        *self.inner.defaults.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(defaults);
    }
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
    pub fn images(&self) -> &Images {
        &self.inner.parts.images
    }
    pub fn networks(&self) -> &Networks {
        &self.inner.parts.networks
    }
    pub fn volumes(&self) -> &Volumes {
        &self.inner.parts.volumes
    }
    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn inspect(&self, name: &str) -> Result<Arc<Container>> {
        Ok(self.inner.slots.find(name)?.record())
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.inner.slots.all().iter().map(|slot| slot.record()).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created));
        all
    }

    /// The container's persistent directory.
    pub(crate) fn dir(&self, id: &str) -> PathBuf {
        self.inner.options.data_root.join("containers").join(id)
    }

    /// The container's volatile directory.
    pub(crate) fn exec_dir(&self, id: &str) -> PathBuf {
        self.inner.options.exec_root.join("containers").join(id)
    }

    /// The container's control group.
    pub(crate) fn cgroup(&self, record: &Container) -> String {
        self.group_path(&record.host, &record.id)
    }

    /// As [`Engine::cgroup`], of a container that is no record yet.
    pub(crate) fn group_path(&self, host: &HostConfig, id: &str) -> String {
        let parent = &host.resources.cgroup_parent;
        let parent = if parent.is_empty() { &self.inner.options.cgroup_parent } else { parent };
        format!("/{}/{id}", parent.trim_matches('/'))
    }

    /// Writes the record; on the disk when it returns.
    pub(crate) async fn save(&self, record: &Arc<Container>) -> Result<()> {
        self.save_soon(record);
        let engine = self.clone();
        blocking(move || engine.write_unwritten()).await
    }

    /// Removes directories that no container owns: what a crash between two steps has left.
    fn sweep_directories(&self) {
        self.inner.secrets.sweep(|name| self.inner.slots.find(name).is_ok_and(|slot| slot.id == name));
        for top in [self.inner.options.data_root.join("containers"), self.inner.options.exec_root.join("containers")] {
            for entry in std::fs::read_dir(&top).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if self.inner.slots.find(&name.to_string_lossy()).is_ok_and(|slot| slot.id == name.to_string_lossy()) {
                    continue;
                }
                crate::shm::unmount(&entry.path());
                self.sweep_new_volumes(&entry.path());
                if let Err(error) = wharf_rooted_path::remove_dir_all(entry.path()) {
                    tracing::warn!("cannot remove {}: {error}", entry.path().display());
                }
            }
        }
    }
}

impl Engine {
    pub(crate) fn rights(&self) -> Rights {
        let no_new_privileges = self.defaults().no_new_privileges;
        let processes = wharf_cgroup::fair_share(&self.inner.hierarchies);
        Rights { bounding: self.inner.bounding, no_new_privileges, processes }
    }
}

/// Whether `on-failure` starts it again.
pub(crate) fn may_fail_again(record: &Container) -> bool {
    let max = u64::try_from(record.host.restart_policy.maximum_retry_count).unwrap_or(0);
    record.state.exit_code != 0 && (max == 0 || record.restart_count < max)
}

/// Runs what waits for a disk, a process or the kernel where no other request waits for it.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => Err(EngineError::system(format!("a task of the engine failed: {error}"))),
    }
}

/// Goes on with what has begun also when the client that asked for it leaves: half done, nobody would end it.
pub(crate) async fn to_its_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let caller = caller::current();
    let work = async move {
        match caller {
            Some(caller) => caller.does(work).await,
            None => work.await,
        }
    };
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(EngineError::system(format!("a task of the engine failed: {error}"))),
    }
}

/// Nobody but root may reach what is in it (CVE-2021-41091).
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(dir)
        .map_err(|e| EngineError::from_source(&format!("cannot make {}", dir.display()), &e))
}

/// What every container has mounted in it, as empty directories and files (moby's `initlayer`).
pub(crate) fn make_places(data_root: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let root = data_root.join("places");
    let fail = |e: std::io::Error| EngineError::from_source("cannot make the places for mounts", &e);
    for dir in ["", "dev", "proc", "sys", "etc"] {
        let path = root.join(dir);
        std::fs::create_dir_all(&path).map_err(fail)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(fail)?;
    }
    for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf", ".dockerenv"] {
        std::fs::OpenOptions::new().create(true).append(true).open(root.join(file)).map_err(fail)?;
        std::fs::set_permissions(root.join(file), std::fs::Permissions::from_mode(0o755)).map_err(fail)?;
    }
    match std::os::unix::fs::symlink("/proc/mounts", root.join("etc/mtab")) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(fail)?,
    }
    Ok(root)
}

/// proc(5), `CapBnd` of `/proc/self/status`.
pub(crate) fn bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// Now, as the API writes times.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}
