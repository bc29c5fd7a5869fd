//! The engine's state: every container's record, and what its parts are made of.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::{Mutex as AsyncMutex, watch};
use wharf_image::Images;
use wharf_monitor::Nursery;
use wharf_network::Networks;
use wharf_snapshot::Snapshots;
use wharf_store::{Store, Table};
use wharf_volume::Volumes;

use crate::error::{EngineError, Result};
use crate::event::{Events, lock};
use crate::exec::ExecTable;
use crate::live::Live;
use crate::record::{Container, Status};
use crate::wait::Life;

/// Containers by ID.
pub(crate) const CONTAINERS: Table = Table::new("containers");

/// Where the engine keeps its things and how it presents itself.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Persistent: `containers/ID/` holds each container's log and its files under `/etc`.
    pub data_root: PathBuf,
    /// Volatile: `containers/ID/` holds each monitor's socket and exit status.
    pub exec_root: PathBuf,
    /// The host's name as `info` shows it.
    pub name: String,
    pub labels: Vec<String>,
    /// Distinguishes the control groups of several daemons on one host; empty for the default one.
    pub ident: String,
    /// Parent of the containers' control groups, `/wharf` when nothing else is said.
    pub cgroup_parent: String,
    pub default_ulimits: Vec<crate::spec::Ulimit>,
    pub log_driver: String,
    pub log_options: std::collections::BTreeMap<String, String>,
    pub init: bool,
    pub insecure_registries: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
}

/// The engine. Cheap to clone; every clone is the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) snapshots: Snapshots,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) nursery: Nursery,
    pub(crate) events: Events,
    pub(crate) execs: ExecTable,
    pub(crate) id: String,
    containers: RwLock<Index>,
}

/// Containers by ID and by name; both change under one lock, so a name is never taken twice.
#[derive(Default)]
struct Index {
    by_id: HashMap<String, Arc<Entry>>,
    by_name: HashMap<String, String>,
}

/// One container: its record and the locks that order what happens to it.
pub(crate) struct Entry {
    record: Mutex<Arc<Container>>,
    /// Held by an operation that changes the container's life, from its check to its effect.
    pub(crate) operation: AsyncMutex<()>,
    pub(crate) live: Mutex<Live>,
    pub(crate) life: watch::Sender<Life>,
}

impl Entry {
    fn new(record: Container) -> Self {
        Self {
            record: Mutex::new(Arc::new(record)),
            operation: AsyncMutex::new(()),
            live: Mutex::default(),
            life: watch::channel(Life::default()).0,
        }
    }

    /// The record as it is now.
    pub(crate) fn record(&self) -> Arc<Container> {
        lock(&self.record).clone()
    }
}

/// The parts an engine is made of, opened by the daemon.
pub struct Parts {
    pub store: Store,
    pub images: Images,
    pub snapshots: Snapshots,
    pub networks: Networks,
    pub volumes: Volumes,
    pub nursery: Nursery,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

impl Engine {
    /// Loads the containers' records and takes up those that still run.
    ///
    /// Must be called inside a tokio runtime: each running container gets a task that listens to its monitor.
    ///
    /// # Errors
    /// When the store cannot be read. A container whose monitor is gone is not an error: its record says so.
    pub async fn open(config: EngineConfig, parts: Parts) -> Result<Self> {
        let rows: Vec<(String, Container)> = parts
            .store
            .read(|tx| tx.list(CONTAINERS))
            .map_err(|e: wharf_store::StoreError| EngineError::from_source("cannot read the containers", &e))?;
        for dir in [config.data_root.join("containers"), config.exec_root.join("containers")] {
            std::fs::create_dir_all(&dir)
                .map_err(|e| EngineError::from_source(&format!("cannot create {}", dir.display()), &e))?;
        }
        let id = crate::names::engine_id(&config.data_root)?;
        let mut index = Index::default();
        for (id, record) in rows {
            index.by_name.insert(record.name.clone(), id.clone());
            index.by_id.insert(id, Arc::new(Entry::new(record)));
        }
        let engine = Self {
            inner: Arc::new(Inner {
                config,
                store: parts.store,
                images: parts.images,
                snapshots: parts.snapshots,
                networks: parts.networks,
                volumes: parts.volumes,
                nursery: parts.nursery,
                events: Events::default(),
                execs: ExecTable::default(),
                id,
                containers: RwLock::new(index),
            }),
        };
        engine.adopt().await;
        Ok(engine)
    }

    pub fn images(&self) -> &Images {
        &self.inner.images
    }
    pub fn networks(&self) -> &Networks {
        &self.inner.networks
    }
    pub fn volumes(&self) -> &Volumes {
        &self.inner.volumes
    }
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }
    pub fn events(&self) -> &Events {
        &self.inner.events
    }
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// All containers, the newest first.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.index().by_id.values().map(|entry| entry.record()).collect();
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        all
    }

    /// The container that `name` means: a name, an ID, or the beginning of one ID only.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidParameter` when a prefix fits several.
    pub fn get(&self, name: &str) -> Result<Arc<Container>> {
        Ok(self.entry(name)?.record())
    }

    pub(crate) fn entry(&self, name: &str) -> Result<Arc<Entry>> {
        let index = self.index();
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Some(entry) = index.by_id.get(bare) {
            return Ok(entry.clone());
        }
        if let Some(entry) = index.by_name.get(bare).and_then(|id| index.by_id.get(id)) {
            return Ok(entry.clone());
        }
        if wharf_reference::is_id_prefix(bare) {
            let mut fits = index.by_id.iter().filter(|(id, _)| id.starts_with(bare));
            if let Some((_, entry)) = fits.next() {
                return match fits.next() {
                    None => Ok(entry.clone()),
                    Some(_) => Err(EngineError::invalid(format!(
                        "multiple IDs found with provided prefix: {bare}; give more digits"
                    ))),
                };
            }
        }
        Err(EngineError::not_found(format!("No such container: {bare}")))
    }

    fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.inner.containers.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.inner.containers.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes a new container visible: its name is taken and its row is on the disk, or neither.
    pub(crate) fn insert(&self, record: Container) -> Result<Arc<Entry>> {
        let entry = Arc::new(Entry::new(record));
        let record = entry.record();
        {
            let mut index = self.index_mut();
            if let Some(owner) = index.by_name.get(&record.name) {
                return Err(name_taken(&record.name, owner));
            }
            index.by_name.insert(record.name.clone(), record.id.clone());
            index.by_id.insert(record.id.clone(), entry.clone());
        }
        // Outside of the index's lock: nobody else waits for this disk.
        if let Err(error) = self.persist(&record, true) {
            self.forget(&record);
            return Err(error);
        }
        Ok(entry)
    }

    /// Takes a container out of the index; the caller has deleted its row or never wrote it.
    pub(crate) fn forget(&self, record: &Container) {
        let mut index = self.index_mut();
        index.by_id.remove(&record.id);
        if index.by_name.get(&record.name) == Some(&record.id) {
            index.by_name.remove(&record.name);
        }
    }

    pub(crate) fn reindex_name(&self, id: &str, from: &str, to: &str) -> Result<()> {
        let mut index = self.index_mut();
        if let Some(owner) = index.by_name.get(to) {
            return Err(name_taken(to, owner));
        }
        index.by_name.remove(from);
        index.by_name.insert(to.into(), id.into());
        Ok(())
    }

    /// Changes a record and writes it. `durable` is for what a user was promised; what the running
    /// processes themselves can tell again after a crash goes out with the next durable write.
    pub(crate) fn change(&self, entry: &Entry, durable: bool, f: impl FnOnce(&mut Container)) -> Result<Arc<Container>> {
        let record = {
            let mut slot = lock(&entry.record);
            let mut next = Container::clone(&slot);
            f(&mut next);
            *slot = Arc::new(next);
            slot.clone()
        };
        self.persist(&record, durable)?;
        Ok(record)
    }

    fn persist(&self, record: &Container, durable: bool) -> Result<()> {
        let put = |tx: &mut wharf_store::WriteTx| tx.put(CONTAINERS, &record.id, record);
        let done = if durable { self.inner.store.write(put) } else { self.inner.store.write_soon(put) };
        done.map_err(|e: wharf_store::StoreError| EngineError::from_source("cannot write the container's record", &e))
    }

    pub(crate) fn delete_row(&self, id: &str) -> Result<()> {
        self.inner
            .store
            .write_soon(|tx| tx.delete(CONTAINERS, id).map(drop))
            .map_err(|e: wharf_store::StoreError| EngineError::from_source("cannot delete the container's record", &e))
    }

    /// The container's persistent directory.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.inner.config.data_root.join("containers").join(id)
    }

    /// The directory of the container's monitor.
    pub(crate) fn run_dir(&self, id: &str) -> PathBuf {
        self.inner.config.exec_root.join("containers").join(id)
    }

    /// Publishes an event about a container with the attributes that Docker gives it.
    pub(crate) fn tell(&self, record: &Container, action: &str, extra: &[(&str, &str)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".into(), record.config.image.clone());
        attributes.insert("name".into(), record.name.clone());
        for (key, value) in extra {
            attributes.insert((*key).into(), (*value).into());
        }
        self.inner.events.publish("container", action, &record.id, attributes);
    }

    pub(crate) fn require_running(&self, record: &Container) -> Result<()> {
        match record.state.status {
            Status::Running => Ok(()),
            Status::Paused => Err(EngineError::conflict(format!(
                "Container {} is paused, unpause the container before exec",
                record.name
            ))),
            Status::Restarting => Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                record.id
            ))),
            _ => Err(EngineError::conflict(format!("container {} is not running", record.id))),
        }
    }
}

fn name_taken(name: &str, owner: &str) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// Runs blocking work (disk, netlink) where it stalls no other request.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|_| Err(EngineError::system("the engine failed inside; its log says where")))
}

/// Whether a path exists, without following a last link.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
