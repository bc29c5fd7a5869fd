//! What a prune would remove, found without changing anything.
//!
//! The rows are copied into memory and go there one after another, as [`Images::prune`] and [`Images::collect`] remove
//! them from the store: an image that goes may be what kept its parent, and a layer goes with the last that needs it.

use std::collections::{BTreeMap, BTreeSet};

use wharf_reference::Digest;

use crate::Result;
use crate::images::Images;
use crate::index::IndexRow;
use crate::remove::Removed;
use crate::rows::{Row, familiar, is_digest, named_manifest};
use crate::summary::ImageSummary;

/// What would go.
#[derive(Clone, Debug, Default)]
pub struct PrunePlan {
    pub removed: Vec<Removed>,
    /// Bytes of the disk.
    pub freed: u64,
    /// The images that would stay, each with its layers.
    pub staying: BTreeMap<Digest, Vec<Digest>>,
}

impl PrunePlan {
    /// The layers of the images that would stay.
    pub fn layers(&self) -> BTreeSet<Digest> {
        self.staying.values().flatten().cloned().collect()
    }
}

impl Images {
    /// What [`Self::prune`] with the same words and the [`Self::collect`] after it would remove; `pinned` are the layers
    /// of containers and of a build's cache. Waits for the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn plan_prune(
        &self,
        dangling_only: bool,
        in_use: &dyn Fn(&Digest) -> bool,
        choose: &dyn Fn(&ImageSummary) -> bool,
        pinned: &BTreeSet<Digest>,
    ) -> Result<PrunePlan> {
        let in_use = &|id: &Digest| in_use(id) || self.is_kept(id);
        let mut rows =
            Rows { images: self.rows()?.into_iter().collect(), indexes: self.index_rows()?.into_iter().collect() };
        let mut removed = Vec::new();
        for image in self.summaries()? {
            let Some(row) = rows.images.get(&image.id) else { continue };
            if row.pinned
                || (dangling_only && rows.is_tagged(row))
                || in_use(&image.id)
                || !choose(&image)
                || (row.names.is_empty() && rows.has_children(&image.id))
                || rows.siblings(row, &image.id).any(|id| in_use(id) || rows.is_pinned(id))
            {
                continue;
            }
            rows.withdraw(&image.id);
            rows.delete(&image.id, in_use, &mut removed);
        }
        let freed = self.freed_without(&rows, pinned)?;
        let staying = rows.images.into_iter().map(|(id, row)| (id, row.diff_ids)).collect();
        Ok(PrunePlan { removed, freed, staying })
    }

    /// The bytes on the disk that nobody would need if there were but these rows.
    fn freed_without(&self, rows: &Rows, pinned: &BTreeSet<Digest>) -> Result<u64> {
        let needed: BTreeSet<&Digest> = rows.images.values().flat_map(|row| &row.diff_ids).chain(pinned).collect();
        let layers = self.layers().list()?;
        let stays = |id: &Digest| needed.contains(id) || self.layers().is_held(id);
        let (kept, gone): (Vec<_>, Vec<_>) = layers.iter().partition(|layer| stays(&layer.diff_id));
        let mut owned: BTreeSet<&Digest> =
            kept.iter().flat_map(|layer| &layer.blobs).map(|blob| &blob.digest).collect();
        owned.extend(rows.images.keys());
        owned.extend(rows.images.values().filter_map(|row| Some(&row.manifest.as_ref()?.digest)));
        for (digest, index) in &rows.indexes {
            owned.insert(digest);
            owned.extend(index.members.iter().map(|member| &member.manifest));
            owned.extend(&index.attestations);
        }
        let named: Vec<Digest> =
            rows.images.values().flat_map(|row| &row.names).filter_map(|name| named_manifest(name)).collect();
        owned.extend(&named);
        let blobs = self.store().blobs();
        let unowned =
            blobs.list()?.into_iter().filter(|digest| !owned.contains(digest) && !self.layers().is_held(digest));
        let of_blobs: u64 = unowned.map(|digest| blobs.size(&digest).unwrap_or(0)).sum();
        Ok(gone.iter().map(|layer| layer.disk).sum::<u64>() + of_blobs)
    }
}

/// The rows of images and indexes.
struct Rows {
    images: BTreeMap<Digest, Row>,
    indexes: BTreeMap<Digest, IndexRow>,
}

impl Rows {
    /// As [`Images::prune`] asks: also by the names of its indexes.
    fn is_tagged(&self, row: &Row) -> bool {
        let by_index = || row.indexes.iter().filter_map(|index| self.indexes.get(index)).flat_map(|index| &index.names);
        row.names.iter().chain(by_index()).any(|name| !is_digest(name))
    }

    fn is_pinned(&self, id: &Digest) -> bool {
        self.images.get(id).is_some_and(|row| row.pinned)
    }

    fn has_children(&self, id: &Digest) -> bool {
        self.images.values().any(|row| row.parent.as_ref() == Some(id))
    }

    fn siblings<'a>(&'a self, row: &'a Row, id: &'a Digest) -> impl Iterator<Item = &'a Digest> {
        let indexes = row.indexes.iter().filter_map(|index| self.indexes.get(index));
        indexes.flat_map(|index| &index.members).map(|member| &member.image).filter(move |image| *image != id)
    }

    /// As [`crate::remove::withdraw`]: it leaves its indexes, whose names go on to the next image.
    fn withdraw(&mut self, id: &Digest) {
        let Some(row) = self.images.get_mut(id) else { return };
        for digest in std::mem::take(&mut row.indexes) {
            let Some(index) = self.indexes.get_mut(&digest) else { continue };
            index.members.retain(|member| member.image != *id);
            if index.members.is_empty() || index.names.is_empty() {
                let index = self.indexes.remove(&digest).unwrap_or_default();
                for member in &index.members {
                    if let Some(row) = self.images.get_mut(&member.image) {
                        row.indexes.retain(|other| *other != digest);
                    }
                }
                continue;
            }
            let (names, next) = (index.names.clone(), index.primary().cloned());
            for row in self.images.values_mut() {
                row.names.retain(|name| !names.contains(name));
            }
            if let Some(row) = next.and_then(|next| self.images.get_mut(&next)) {
                row.names.extend(names);
            }
        }
    }

    /// The image with its names, and its parents that nothing else needs.
    fn delete(&mut self, id: &Digest, in_use: &dyn Fn(&Digest) -> bool, removed: &mut Vec<Removed>) {
        if let Some(row) = self.images.get_mut(id) {
            removed.extend(std::mem::take(&mut row.names).iter().map(|name| Removed::Untagged(familiar(name))));
        }
        let mut next = Some(id.clone());
        while let Some(id) = next {
            let Some(row) = self.images.get(&id) else { return };
            if row.pinned || !row.names.is_empty() || self.has_children(&id) || in_use(&id) {
                return;
            }
            removed.push(Removed::Deleted(id.to_string()));
            self.withdraw(&id);
            next = self.images.remove(&id).and_then(|row| row.parent);
        }
    }
}
