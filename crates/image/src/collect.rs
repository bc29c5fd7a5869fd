//! Freeing what nobody owns any more.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use wharf_reference::Digest;
use wharf_snapshot::Layer;

use crate::Result;
use crate::images::Images;
use crate::rows::{LEFT, Row};

/// What came here and belongs to nobody is spared so long: its image may be on its way, and after a failed pull the
/// next one goes on with it.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// What a broken pull has fetched of a blob is kept so long.
const KEEP_PARTIAL: Duration = Duration::from_secs(7 * 24 * 3600);

impl Images {
    /// Removes the layers and blobs that neither an image nor `pinned` (the layers of containers, and of a build's
    /// cache) needs. Answers with the bytes that are free again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn collect(&self, pinned: &[Digest]) -> Result<u64> {
        self.collect_older_than(pinned, GRACE)
    }

    pub(crate) fn collect_older_than(&self, pinned: &[Digest], grace: Duration) -> Result<u64> {
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut freed = 0;
        let discarded = {
            let _gate = self.gate();
            let images = self.rows()?;
            let by_image: BTreeSet<&Digest> = images.iter().flat_map(|(_, row)| &row.diff_ids).collect();
            let pinned: BTreeSet<&Digest> = pinned.iter().collect();
            let left: Vec<(String, ())> = self.store().read(|tx| tx.list(LEFT))?;
            let left: BTreeSet<&str> = left.iter().map(|(key, ())| key.as_str()).collect();
            let (kept, gone): (Vec<Layer>, Vec<Layer>) = self.layers().list()?.into_iter().partition(|layer| {
                let id = &layer.diff_id;
                let needed = by_image.contains(id) || pinned.contains(id) || self.is_held(id);
                needed || !(left.contains(id.as_str()) || is_before(layer, before))
            });
            let gone_ids: Vec<Digest> = gone.iter().map(|layer| layer.diff_id.clone()).collect();
            let discarded = self.layers().discard(&gone_ids)?;
            freed += gone.iter().map(|layer| layer.disk).sum::<u64>();
            // Those of containers wait for the next time.
            let settled: Vec<&&str> = left
                .iter()
                .filter(|key| !kept.iter().any(|l| l.diff_id.as_str() == **key && !by_image.contains(&l.diff_id)))
                .collect();
            if !settled.is_empty() {
                self.store().write(|tx| settled.iter().try_for_each(|key| tx.delete(LEFT, key).map(drop)))?;
            }
            let unowned: BTreeSet<&Digest> = gone.iter().flat_map(|l| &l.blobs).map(|blob| &blob.digest).collect();
            freed += self.collect_blobs(&images, &kept, &unowned, before)?;
            discarded
        };
        // Outside of the gate: deleting many files takes its time.
        discarded.delete()?;
        freed += self.store().blobs().sweep_partial(KEEP_PARTIAL)?;
        Ok(freed)
    }

    /// Removes those of the layers that no image has and nobody counts on.
    pub(crate) fn discard_unused(&self, diff_ids: &[Digest]) -> Result<()> {
        let discarded = {
            let _gate = self.gate();
            let images = self.rows()?;
            let used = |id: &Digest| self.is_held(id) || images.iter().any(|(_, row)| row.diff_ids.contains(id));
            let unused: Vec<Digest> = diff_ids.iter().filter(|id| !used(id)).cloned().collect();
            self.layers().discard(&unused)?
        };
        Ok(discarded.delete()?)
    }

    fn collect_blobs(
        &self,
        images: &[(Digest, Row)],
        layers: &[Layer],
        unowned: &BTreeSet<&Digest>,
        before: SystemTime,
    ) -> Result<u64> {
        let mut owned: BTreeSet<&Digest> = images.iter().map(|(id, _)| id).collect();
        owned.extend(images.iter().filter_map(|(_, row)| Some(&row.manifest.as_ref()?.digest)));
        owned.extend(layers.iter().flat_map(|layer| &layer.blobs).map(|blob| &blob.digest));
        let blobs = self.store().blobs();
        let mut freed = 0;
        for digest in blobs.list()? {
            let old = || {
                let modified = std::fs::metadata(blobs.path(&digest)).and_then(|found| found.modified());
                modified.is_ok_and(|time| time < before)
            };
            if !owned.contains(&digest) && (unowned.contains(&digest) || old()) {
                freed += blobs.size(&digest).unwrap_or(0);
                blobs.delete(&digest)?;
            }
        }
        Ok(freed)
    }
}

fn is_before(layer: &Layer, time: SystemTime) -> bool {
    let created = u64::try_from(layer.created).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(created) < time
}
