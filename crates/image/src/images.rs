//! All images of a store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::Layers;
use wharf_store::{ReadTx, Store, Table};

use crate::config::ImageConfig;
use crate::{ImageError, Result};

/// Rows of images by ID; of tags by `DOMAIN/PATH:TAG`; of the manifests that names were pulled and pushed with, by
/// `DOMAIN/PATH@DIGEST`.
pub(crate) const IMAGES: Table = Table::new("image");
pub(crate) const TAGS: Table = Table::new("image-tag");
pub(crate) const DIGESTS: Table = Table::new("image-digest");
/// Layers that an image has left, until it is known whether another needs them.
pub(crate) const GARBAGE: Table = Table::new("layer-garbage");

/// More than this is no configuration.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// An image, as it is now.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// The digest of the configuration.
    pub id: Digest,
    pub config: ImageConfig,
    /// Base first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of all layers, uncompressed.
    pub size: u64,
    /// As users write them: `debian:bookworm`.
    pub tags: Vec<String>,
    /// `debian@sha256:…`.
    pub repo_digests: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// When it last got a name here (RFC 3339).
    pub tagged: Option<String>,
    pub parent: Option<Digest>,
}

/// An image as it is persisted. Its configuration is a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) tagged: Option<String>,
    pub(crate) parent: Option<Digest>,
    /// The manifest that it came with, or that was made for a push; a blob.
    pub(crate) manifest: Option<StoredManifest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
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
    /// Held while an image is made of layers that were found, and while layers that nobody uses are removed.
    gate: Mutex<()>,
    /// Configurations that were read: they never change.
    configs: Mutex<BTreeMap<Digest, Arc<ImageConfig>>>,
}

/// Configurations that are remembered.
const KEPT_CONFIGS: usize = 256;

impl Images {
    /// Opens the images of a store.
    ///
    /// # Errors
    /// When what a crash has left cannot be removed.
    pub fn open(store: Store, layers: Layers) -> Result<Self> {
        crate::load::sweep(store.root())?;
        let inner = Inner { store, layers, gate: Mutex::default(), configs: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn layers(&self) -> &Layers {
        &self.inner.layers
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn gate(&self) -> MutexGuard<'_, ()> {
        self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let (rows, names) = self.store().read(|tx| {
            let rows: Vec<(String, Row)> = tx.list(IMAGES)?;
            Ok::<_, ImageError>((rows, Names::read(tx)?))
        })?;
        let mut all = Vec::new();
        for (id, row) in rows {
            let Ok(id) = Digest::parse(&id) else { continue };
            match self.record(id.clone(), row, &names) {
                Ok(record) => all.push(record),
                // One image that cannot be read hides no other.
                Err(error) => tracing::warn!("image {id} cannot be read: {error}"),
            }
        }
        all.sort_by(|a, b| (&b.created, &b.id).cmp(&(&a.created, &a.id)));
        Ok(all)
    }

    /// The image of an ID.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, id: &Digest) -> Result<ImageRecord> {
        let (row, names) = self.store().read(|tx| {
            let row: Option<Row> = tx.get(IMAGES, id.as_str())?;
            Ok::<_, ImageError>((row, Names::read(tx)?))
        })?;
        let row = row.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
        self.record(id.clone(), row, &names)
    }

    pub(crate) fn row(&self, id: &Digest) -> Result<Row> {
        let row: Option<Row> = self.store().read(|tx| tx.get(IMAGES, id.as_str()))?;
        row.ok_or_else(|| ImageError::NotFound(id.to_string()))
    }

    fn record(&self, id: Digest, row: Row, names: &Names) -> Result<ImageRecord> {
        let config = self.config(&id)?;
        Ok(ImageRecord {
            tags: names.tags.get(&id).cloned().unwrap_or_default(),
            repo_digests: names.digests.get(&id).cloned().unwrap_or_default(),
            created: config.created.clone().unwrap_or_else(|| "0001-01-01T00:00:00Z".into()),
            config: (*config).clone(),
            diff_ids: row.diff_ids,
            size: row.size,
            tagged: row.tagged,
            parent: row.parent,
            id,
        })
    }

    fn config(&self, id: &Digest) -> Result<Arc<ImageConfig>> {
        let lock = || self.inner.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = lock().get(id) {
            return Ok(Arc::clone(config));
        }
        let bytes = self.store().blobs().read(id, MAX_CONFIG)?;
        let config: Arc<ImageConfig> = Arc::new(serde_json::from_slice(&bytes).map_err(ImageError::Config)?);
        let mut kept = lock();
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

/// Names of images, by their IDs.
pub(crate) struct Names {
    pub(crate) tags: BTreeMap<Digest, Vec<String>>,
    pub(crate) digests: BTreeMap<Digest, Vec<String>>,
}

impl Names {
    pub(crate) fn read(tx: &ReadTx) -> Result<Self> {
        let by_image = |table: Table| -> Result<BTreeMap<Digest, Vec<String>>> {
            let mut all: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
            let rows: Vec<(String, Digest)> = tx.list(table)?;
            for (name, id) in rows {
                let familiar = Reference::parse(&name).map_or(name, |reference| reference.familiar());
                all.entry(id).or_default().push(familiar);
            }
            Ok(all)
        };
        Ok(Self { tags: by_image(TAGS)?, digests: by_image(DIGESTS)? })
    }
}
