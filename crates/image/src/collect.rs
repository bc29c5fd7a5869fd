//! Freeing what nobody owns any more.
//!
//! All of it happens behind the gate, where no image is made, and leaves what somebody holds.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use wharf_reference::Digest;
use wharf_snapshot::Layer;

use crate::Result;
use crate::images::Images;
use crate::index::MANIFESTS_LEFT;
use crate::rows::{LEFT, Row, named_manifest};

/// What came here and belongs to nobody is spared so long: after a failed pull the next one goes on with it. Not when
/// somebody asks for images to be pruned.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);
/// What a broken pull has fetched of a blob is kept so long.
pub(crate) const KEEP_PARTIAL: Duration = Duration::from_secs(7 * 24 * 3600);

impl Images {
    /// Removes the layers and blobs that neither an image nor `pinned` (the layers of containers, and of a build's
    /// cache) needs; that is asked behind the gate, where no image is made. After a [`Self::prune`] it spares nothing for its age. Answers with the bytes that are free again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn collect(&self, pinned: &dyn Fn() -> Vec<Digest>) -> Result<u64> {
        match self.pruned().swap(false, Ordering::AcqRel) {
            true => self.collect_older_than(pinned, Duration::ZERO, Duration::ZERO),
            false => self.collect_older_than(pinned, GRACE, KEEP_PARTIAL),
        }
    }

    fn collect_older_than(&self, pinned: &dyn Fn() -> Vec<Digest>, grace: Duration, partial: Duration) -> Result<u64> {
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut freed = self.freed().swap(0, Ordering::AcqRel);
        let discarded = {
            let _gate = self.gate();
            let images = self.rows()?;
            let by_image: BTreeSet<&Digest> = images.iter().flat_map(|(_, row)| &row.diff_ids).collect();
            let pinned: BTreeSet<Digest> = pinned().into_iter().collect();
            let left: Vec<(String, ())> = self.store().read(|tx| tx.list(LEFT))?;
            let left: BTreeSet<&str> = left.iter().map(|(key, ())| key.as_str()).collect();
            let all = self.layers().list()?;
            let unneeded = all.iter().filter(|layer| {
                let id = &layer.diff_id;
                let needed = by_image.contains(id) || pinned.contains(id);
                !needed && (left.contains(id.as_str()) || is_before(layer, before))
            });
            let unneeded: Vec<Digest> = unneeded.map(|layer| layer.diff_id.clone()).collect();
            let discarded = self.layers().discard(&unneeded)?;
            let went: BTreeSet<&Digest> = discarded.diff_ids().iter().collect();
            let (gone, kept): (Vec<Layer>, Vec<Layer>) =
                all.into_iter().partition(|layer| went.contains(&layer.diff_id));
            freed += gone.iter().map(|layer| layer.disk).sum::<u64>();
            // Those of containers, and those that are held, wait for the next time.
            let settled: Vec<&&str> = left
                .iter()
                .filter(|key| !kept.iter().any(|l| l.diff_id.as_str() == **key && !by_image.contains(&l.diff_id)))
                .collect();
            if !settled.is_empty() {
                self.store().write(|tx| settled.iter().try_for_each(|key| tx.delete(LEFT, key).map(drop)))?;
            }
            freed += self.collect_manifests(&images)?;
            freed += self.collect_blobs(&images, &gone, before)?;
            discarded
        };
        // Outside of the gate: deleting many files takes its time.
        discarded.delete()?;
        freed += self.store().blobs().sweep_partial(partial)?;
        Ok(freed)
    }

    /// The blobs that the images and indexes here are made of beside their layers: configurations, manifests, indexes.
    /// Whoever deletes others asks behind the gate, where no image is made.
    pub(crate) fn owned_blobs(&self) -> Result<BTreeSet<Digest>> {
        self.owned_by(&self.rows()?)
    }

    fn owned_by(&self, images: &[(Digest, Row)]) -> Result<BTreeSet<Digest>> {
        let manifests = images.iter().filter_map(|(_, row)| Some(row.manifest.as_ref()?.digest.clone()));
        let mut owned: BTreeSet<Digest> = images.iter().map(|(id, _)| id.clone()).chain(manifests).collect();
        // An image may have come by several manifests; each stays with the name that it has.
        owned.extend(images.iter().flat_map(|(_, row)| &row.names).filter_map(|name| named_manifest(name)));
        for (digest, row) in self.index_rows()? {
            // An image has one manifest in its row; indexes may name others of the same image.
            owned.extend(row.members.into_iter().map(|member| member.manifest));
            owned.extend(row.attestations);
            owned.insert(digest);
        }
        Ok(owned)
    }

    /// Deletes indexes and manifests that nothing names any more.
    fn collect_manifests(&self, images: &[(Digest, Row)]) -> Result<u64> {
        let mut freed = 0;
        let owned = self.owned_by(images)?;
        let left: Vec<(String, ())> = self.store().read(|tx| tx.list(MANIFESTS_LEFT))?;
        if left.is_empty() {
            return Ok(0);
        }
        for (key, ()) in &left {
            if let Some(digest) = Digest::parse(key).ok().filter(|digest| !owned.contains(digest)) {
                let size = self.store().blobs().size(&digest).unwrap_or(0);
                if self.layers().forget_blob(&digest, || !self.layers().is_held(&digest))? {
                    freed += size;
                }
            }
        }
        self.store().write(|tx| left.iter().try_for_each(|(key, ())| tx.delete(MANIFESTS_LEFT, key).map(drop)))?;
        Ok(freed)
    }

    /// Removes those of the layers that no image has and nobody counts on.
    pub(crate) fn discard_unused(&self, diff_ids: &[Digest]) -> Result<()> {
        self.free(diff_ids, &Vec::new).map(drop)
    }

    /// Removes those of the layers that neither an image has, nor `needed` names, nor anybody holds, and answers with
    /// them. `needed` is asked behind the gate, where no image is made.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn free(&self, diff_ids: &[Digest], needed: &dyn Fn() -> Vec<Digest>) -> Result<Vec<Layer>> {
        let (discarded, gone) = {
            let _gate = self.gate();
            let images = self.rows()?;
            let mut needed: BTreeSet<Digest> = needed().into_iter().collect();
            needed.extend(images.iter().flat_map(|(_, row)| row.diff_ids.clone()));
            let unneeded: Vec<Digest> = diff_ids.iter().filter(|id| !needed.contains(id)).cloned().collect();
            let all = self.layers().list()?;
            let discarded = self.layers().discard(&unneeded)?;
            let went: BTreeSet<&Digest> = discarded.diff_ids().iter().collect();
            let held: Vec<&Digest> = unneeded.iter().filter(|id| !went.contains(id)).collect();
            let known: Vec<(String, ())> = self.store().read(|tx| tx.list(LEFT))?;
            let settled: Vec<&String> =
                known.iter().map(|(key, ())| key).filter(|key| went.iter().any(|id| id.as_str() == **key)).collect();
            if !held.is_empty() || !settled.is_empty() {
                self.store().write(|tx| {
                    // Whoever holds them may come to need them no more.
                    held.iter().try_for_each(|id| tx.put(LEFT, id.as_str(), &()))?;
                    settled.iter().try_for_each(|key| tx.delete(LEFT, key).map(drop))
                })?;
            }
            let gone: Vec<Layer> = all.into_iter().filter(|layer| went.contains(&layer.diff_id)).collect();
            self.collect_blobs(&images, &gone, SystemTime::UNIX_EPOCH)?;
            (discarded, gone)
        };
        discarded.delete()?;
        Ok(gone)
    }

    /// Deletes the blobs that nobody has any more: those of layers that are gone, and others from before a time.
    fn collect_blobs(&self, images: &[(Digest, Row)], gone: &[Layer], before: SystemTime) -> Result<u64> {
        let owned = self.owned_by(images)?;
        let unowned: BTreeSet<&Digest> = gone.iter().flat_map(|l| &l.blobs).map(|blob| &blob.digest).collect();
        let layers = self.layers().list()?;
        let kept: BTreeSet<&Digest> = layers.iter().flat_map(|layer| &layer.blobs).map(|blob| &blob.digest).collect();
        let blobs = self.store().blobs();
        let mut freed = 0;
        for digest in blobs.list()? {
            let old = || {
                let modified = std::fs::metadata(blobs.path(&digest)).and_then(|found| found.modified());
                modified.is_ok_and(|time| time < before)
            };
            if owned.contains(&digest) || kept.contains(&digest) || !(unowned.contains(&digest) || old()) {
                continue;
            }
            let size = blobs.size(&digest).unwrap_or(0);
            if self.layers().forget_blob(&digest, || !self.layers().is_held(&digest))? {
                freed += size;
            }
        }
        Ok(freed)
    }
}

fn is_before(layer: &Layer, time: SystemTime) -> bool {
    let created = u64::try_from(layer.created).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(created) < time
}
