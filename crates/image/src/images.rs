//! All images of a store.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Semaphore;
use wharf_reference::Digest;
use wharf_snapshot::{Hold, Layers};
use wharf_store::Store;

use crate::config::ImageConfig;
use crate::flight::Flights;
use crate::keep::Kept;
use crate::names::moment;
use crate::rows::{IMAGES, Row, familiar};
use crate::side_by_side::{Limit, waiting};
use crate::transfer::WAITING;
use crate::{ImageError, Result};

/// More than this is no configuration.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// Configurations that are remembered.
const KEPT_CONFIGS: usize = 256;
/// Layers that come, and go, at once, of all pulls and pushes together; Docker's numbers.
const PULLS_AT_ONCE: usize = 3;
const PUSHES_AT_ONCE: usize = 5;
/// Layers that are unpacked at once, of those whose bytes may have come already: each has a decoder with its window.
const UNPACKED_AT_ONCE: usize = 12;
/// Connections beside the first of each layer: ranges of large ones come at once.
const SPARE_CONNECTIONS: usize = 3;

/// An image, as it is now.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// The digest of the configuration.
    pub id: Digest,
    pub config: ImageConfig,
    /// Base first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of the files in all layers, as Docker counts them.
    pub size: u64,
    /// As users write them: `debian:bookworm`.
    pub tags: Vec<String>,
    /// `debian@sha256:…`.
    pub repo_digests: Vec<String>,
    /// When it was made (RFC 3339): as its configuration says, unless a build has made it here.
    pub created: String,
    /// When it last got a name here (RFC 3339).
    pub tagged: Option<String>,
    pub parent: Option<Digest>,
    /// Neither pruned nor evicted.
    pub pinned: bool,
    /// When it was last used, in seconds since the epoch, to the hour.
    pub used: i64,
}

impl ImageRecord {
    /// When it was made. What has no date comes before all others.
    pub fn created_at(&self) -> jiff::Timestamp {
        moment(&self.created)
    }
}

/// All images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    layers: Layers,
    /// Held while an image is made of layers that were found or gets a name, and while images or layers that nobody uses
    /// are found and taken away.
    gate: Mutex<()>,
    /// A prune was asked for: the next collection spares nothing for its age.
    pruned: AtomicBool,
    /// Bytes that removals have freed since the last collection, which tells of them.
    freed: AtomicU64,
    /// Configurations that were read: they never change.
    configs: Mutex<HashMap<Digest, Arc<ImageConfig>>>,
    flights: Flights,
    at_once: RwLock<AtOnce>,
    unpackings: Arc<Semaphore>,
    waiting: Limit,
    coming: Arc<Semaphore>,
    kept: Kept,
}

impl Images {
    /// Opens the images of a store.
    ///
    /// # Errors
    /// When what a crash has left cannot be removed.
    pub fn open(store: Store, layers: Layers) -> Result<Self> {
        Self::open_with(store, layers, None, None)
    }

    /// As [`Self::open`], with so many layers that come and go at once. Those that come have no more connections together
    /// than that, either.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_with(store: Store, layers: Layers, pulls: Option<usize>, pushes: Option<usize>) -> Result<Self> {
        crate::aside::sweep(store.root())?;
        Ok(Self::unswept(store, layers, pulls, pushes))
    }

    /// As [`Self::open`], to look at what a crash has left.
    pub fn open_to_check(store: Store, layers: Layers) -> Self {
        Self::unswept(store, layers, None, None)
    }

    fn unswept(store: Store, layers: Layers, pulls: Option<usize>, pushes: Option<usize>) -> Self {
        let inner = Inner {
            store,
            layers,
            gate: Mutex::default(),
            pruned: AtomicBool::new(false),
            freed: AtomicU64::new(0),
            configs: Mutex::default(),
            flights: Flights::default(),
            at_once: RwLock::new(AtOnce::of(pulls, pushes)),
            unpackings: Arc::new(Semaphore::new(UNPACKED_AT_ONCE)),
            waiting: waiting(),
            coming: Arc::new(Semaphore::new(WAITING)),
            kept: Kept::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn layers(&self) -> &Layers {
        &self.inner.layers
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn gate(&self) -> MutexGuard<'_, ()> {
        lock(&self.inner.gate)
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.inner.kept
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.inner.flights
    }

    /// Sets how many layers come and go at once, as with [`Self::open_with`]. Those on their way are not counted anew.
    pub fn at_once(&self, pulls: Option<usize>, pushes: Option<usize>) {
        let mut now = self.inner.at_once.write().unwrap_or_else(PoisonError::into_inner);
        if (now.pulls, now.pushes) != (pulls, pushes) {
            *now = AtOnce::of(pulls, pushes);
        }
    }

    fn now(&self) -> RwLockReadGuard<'_, AtOnce> {
        self.inner.at_once.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.now().slots)
    }

    pub(crate) fn push_slots(&self) -> Arc<Semaphore> {
        Arc::clone(&self.now().push_slots)
    }

    /// Layers that are unpacked while they come.
    pub(crate) fn unpackings(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.unpackings)
    }

    pub(crate) fn spare_connections(&self) -> Arc<Semaphore> {
        Arc::clone(&self.now().spare)
    }

    /// Room for bytes of pulls in memory, beside what each layer has of its own.
    pub(crate) fn coming(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.coming)
    }

    /// Bytes of archives that wait in memory.
    pub(crate) fn waiting(&self) -> Limit {
        self.inner.waiting.clone()
    }

    pub(crate) fn pruned(&self) -> &AtomicBool {
        &self.inner.pruned
    }

    pub(crate) fn freed(&self) -> &AtomicU64 {
        &self.inner.freed
    }

    /// Keeps layers and blobs from being collected, those here and those to come, until the answer is dropped.
    pub(crate) fn hold(&self, digests: &[Digest]) -> Hold {
        self.layers().hold(digests)
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let mut all = Vec::new();
        for (id, row) in self.rows()? {
            match self.record(id.clone(), row) {
                Ok(record) => all.push(record),
                // One image that cannot be read hides no other.
                Err(error) => tracing::warn!("image {id} cannot be read: {error}"),
            }
        }
        all.sort_by_cached_key(|image| Reverse((image.created_at(), image.id.clone())));
        Ok(all)
    }

    pub(crate) fn rows(&self) -> Result<Vec<(Digest, Row)>> {
        let rows: Vec<(String, Row)> = self.store().read(|tx| tx.list(IMAGES))?;
        Ok(rows.into_iter().filter_map(|(id, row)| Some((Digest::parse(&id).ok()?, row))).collect())
    }

    /// The image of an ID.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &Digest) -> Result<ImageRecord> {
        self.record(id.clone(), self.row(id)?)
    }

    pub(crate) fn row(&self, id: &Digest) -> Result<Row> {
        let row: Option<Row> = self.store().read(|tx| tx.get(IMAGES, id.as_str()))?;
        row.ok_or_else(|| ImageError::NotFound(id.to_string()))
    }

    fn record(&self, id: Digest, mut row: Row) -> Result<ImageRecord> {
        let config = self.config(&id)?;
        // For another platform than this host's it has the names of its indexes.
        if let Some(names) = self.names_as_part(&row)? {
            row.names = names;
        }
        Ok(ImageRecord {
            tags: row.tags().map(|key| familiar(key)).collect(),
            repo_digests: row.digests().map(|key| familiar(key)).collect(),
            created: row.made.or_else(|| config.created.clone()).unwrap_or_else(|| "0001-01-01T00:00:00Z".into()),
            config: (*config).clone(),
            diff_ids: row.diff_ids,
            size: row.size,
            tagged: row.tagged,
            parent: row.parent,
            pinned: row.pinned,
            used: row.used,
            id,
        })
    }

    fn config(&self, id: &Digest) -> Result<Arc<ImageConfig>> {
        if let Some(config) = lock(&self.inner.configs).get(id) {
            return Ok(Arc::clone(config));
        }
        let bytes = self.config_bytes(id)?;
        let config: Arc<ImageConfig> = Arc::new(serde_json::from_slice(&bytes).map_err(ImageError::Config)?);
        let mut kept = lock(&self.inner.configs);
        if kept.len() >= KEPT_CONFIGS {
            kept.clear();
        }
        kept.insert(id.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// The configuration's own bytes.
    pub(crate) fn config_bytes(&self, id: &Digest) -> Result<Vec<u8>> {
        Ok(self.store().blobs().read(id, MAX_CONFIG)?)
    }
}

/// What comes and goes at once.
#[derive(Debug)]
struct AtOnce {
    /// As they were asked for.
    pulls: Option<usize>,
    pushes: Option<usize>,
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    push_slots: Arc<Semaphore>,
}

impl AtOnce {
    fn of(pulls: Option<usize>, pushes: Option<usize>) -> Self {
        let pull_slots = slots(pulls, PULLS_AT_ONCE);
        let spare = match pulls {
            // Whoever bounds what comes at once means connections.
            Some(_) => Arc::clone(&pull_slots),
            None => Arc::new(Semaphore::new(SPARE_CONNECTIONS)),
        };
        Self { pulls, pushes, slots: pull_slots, spare, push_slots: slots(pushes, PUSHES_AT_ONCE) }
    }
}

fn slots(asked: Option<usize>, usual: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(asked.unwrap_or(usual).clamp(1, Semaphore::MAX_PERMITS)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_on_what_comes_is_one_on_connections() {
        let permits = |now: &AtOnce| [&now.slots, &now.spare, &now.push_slots].map(|slots| slots.available_permits());
        assert_eq!(permits(&AtOnce::of(None, None)), [PULLS_AT_ONCE, SPARE_CONNECTIONS, PUSHES_AT_ONCE]);
        let bound = AtOnce::of(Some(2), Some(7));
        assert_eq!(permits(&bound), [2, 2, 7]);
        assert!(Arc::ptr_eq(&bound.slots, &bound.spare));
    }
}
