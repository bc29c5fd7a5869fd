//! Images in short: what lists of them need, from their rows alone. Configurations are files; a thousand of them are not
//! read for a list.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use wharf_distribution::Descriptor;
use wharf_reference::Digest;

use crate::images::Images;
use crate::names::moment;
use crate::rows::{Row, familiar};
use crate::{ImageError, Result};

/// An image, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of the configuration.
    pub id: Digest,
    /// Base first.
    pub diff_ids: Vec<Digest>,
    /// Bytes of the files in all layers, as Docker counts them.
    pub size: u64,
    /// As users write them: `debian:bookworm`.
    pub tags: Vec<String>,
    /// `debian@sha256:…`.
    pub repo_digests: Vec<String>,
    /// As an [`crate::ImageRecord`] has it.
    pub created: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub parent: Option<Digest>,
    /// Neither pruned nor evicted.
    pub pinned: bool,
    /// When it was last made a container or a build of, or came here; seconds since the epoch.
    pub used: i64,
    /// Indexes that have it.
    pub indexes: Vec<Digest>,
    /// It is there for another platform than this host's: its names lead to another image, with which it is shown.
    pub part: bool,
}

impl ImageSummary {
    /// When it was made. What has no date comes before all others.
    pub fn created_at(&self) -> jiff::Timestamp {
        moment(&self.created)
    }
}

/// What a row has of a configuration.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Short {
    pub(crate) created: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
}

impl Images {
    /// All images, the newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn summaries(&self) -> Result<Vec<ImageSummary>> {
        let mut all: Vec<ImageSummary> =
            self.rows()?.into_iter().filter_map(|(id, row)| self.summary(id, row)).collect();
        all.sort_by_cached_key(|image| Reverse((image.created_at(), image.id.clone())));
        Ok(all)
    }

    /// Bytes of what is here of an image as it is in a registry: manifest, configuration, compressed layers.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn content_size(&self, id: &Digest) -> Result<u64> {
        let row = self.row(id)?;
        let blobs = self.store().blobs();
        let mut parts = vec![id.clone()];
        parts.extend(row.manifest.map(|manifest| manifest.digest));
        for diff_id in &row.diff_ids {
            let layer = self.layers().get(diff_id)?;
            parts.extend(layer.into_iter().flat_map(|layer| layer.blobs).map(|blob| blob.digest).next());
        }
        parts.sort();
        parts.dedup();
        Ok(parts.iter().filter_map(|digest| blobs.size(digest)).sum())
    }

    /// Bytes of an image's configuration.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn config_size(&self, id: &Digest) -> Result<u64> {
        self.store().blobs().size(id).ok_or_else(|| ImageError::NotFound(id.to_string()))
    }

    /// The manifest that an image came with, or was pushed with.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn manifest_of(&self, id: &Digest) -> Result<Option<Descriptor>> {
        let stored = self.row(id)?.manifest;
        Ok(stored.and_then(|stored| {
            let size = self.store().blobs().size(&stored.digest)?;
            Some(Descriptor::new(stored.media_type, stored.digest, size))
        }))
    }

    fn summary(&self, id: Digest, mut row: Row) -> Option<ImageSummary> {
        let short = match row.short.clone() {
            Some(short) => short,
            // A row of an earlier version.
            None => match self.get(&id) {
                Ok(image) => Short { created: image.config.created, labels: image.config.config.labels },
                // One image that cannot be read hides no other.
                Err(error) => {
                    tracing::warn!("image {id} cannot be read: {error}");
                    return None;
                }
            },
        };
        let names = self.names_as_part(&row).unwrap_or_default();
        let part = names.is_some();
        row.names = names.unwrap_or(row.names);
        Some(ImageSummary {
            part,
            tags: row.tags().map(|key| familiar(key)).collect(),
            repo_digests: row.digests().map(|key| familiar(key)).collect(),
            created: row.made.or(short.created).unwrap_or_else(|| "0001-01-01T00:00:00Z".into()),
            labels: short.labels,
            diff_ids: row.diff_ids,
            size: row.size,
            parent: row.parent,
            pinned: row.pinned,
            used: row.used,
            indexes: row.indexes,
            id,
        })
    }
}
