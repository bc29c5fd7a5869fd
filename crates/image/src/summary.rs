//! Images in short: what lists of them need, from their rows alone. Configurations are files; a thousand of them are not
//! read for a list.

use std::collections::BTreeMap;

use wharf_reference::Digest;

use crate::Result;
use crate::images::Images;
use crate::rows::{Row, familiar};

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
    /// RFC 3339.
    pub created: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub parent: Option<Digest>,
    /// Neither pruned nor evicted.
    pub pinned: bool,
    /// When it was last made a container or a build of, or came here; seconds since the epoch.
    pub used: i64,
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
        all.sort_by(|a, b| (&b.created, &b.id).cmp(&(&a.created, &a.id)));
        Ok(all)
    }

    fn summary(&self, id: Digest, row: Row) -> Option<ImageSummary> {
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
        Some(ImageSummary {
            tags: row.tags().map(|key| familiar(key)).collect(),
            repo_digests: row.digests().map(|key| familiar(key)).collect(),
            created: short.created.unwrap_or_else(|| "0001-01-01T00:00:00Z".into()),
            labels: short.labels,
            diff_ids: row.diff_ids,
            size: row.size,
            parent: row.parent,
            pinned: row.pinned,
            used: row.used,
            id,
        })
    }
}
