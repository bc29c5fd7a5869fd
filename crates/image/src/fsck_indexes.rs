//! Indexes that do not fit what they list or are called, found and mended.

use std::collections::{BTreeMap, BTreeSet};

use wharf_reference::Digest;
use wharf_store::fsck::{Fsck, Problem};

use crate::Result;
use crate::images::Images;
use crate::index::{INDEX_NAMES, INDEXES, IndexRow, end};
use crate::rows::{NAMES, Row, change, familiar};

impl Images {
    /// Indexes that are lost or list images that are not here, and names and images that say otherwise than they do.
    pub(crate) fn broken_indexes(&self, fsck: &mut Fsck, damaged: &BTreeSet<Digest>) -> Result<()> {
        let _gate = self.gate();
        let images: BTreeSet<Digest> = self.rows()?.into_iter().map(|(id, _)| id).collect();
        let names: BTreeMap<String, Digest> = self.store().read(|tx| tx.list(NAMES))?.into_iter().collect();
        let mut kept: BTreeMap<Digest, IndexRow> = BTreeMap::new();
        for (digest, row) in self.index_rows()? {
            fsck.look(0);
            let called = row.names.iter().map(|key| familiar(key)).next().unwrap_or_else(|| digest.to_string());
            let mut mended = row.clone();
            mended.members.retain(|member| images.contains(&member.image));
            // A version that knew of no indexes may have given a name to another image.
            mended.names =
                row.names.iter().filter(|name| names.get(*name).is_some_and(|id| mended.has(id))).cloned().collect();
            // In a dry run what is damaged is still there.
            let lost = !self.store().blobs().contains(&digest) || (fsck.dry_run() && damaged.contains(&digest));
            if lost || mended.names.is_empty() || mended.members.is_empty() {
                let text = "forgotten: its names mean the image that they lead to; pull it again for other platforms";
                fsck.repair(Problem::Missing, format!("index of {called}"), 0, text, || {
                    self.store().write(|tx| end(tx, &digest, &row))
                });
                if fsck.dry_run() {
                    kept.insert(digest, row);
                }
                continue;
            }
            if mended.members.len() != row.members.len() || mended.names.len() != row.names.len() {
                let text = "it lists what is here";
                fsck.repair(Problem::Dangling, format!("index of {called}"), 0, text, || {
                    self.store().write(|tx| tx.put(INDEXES, digest.as_str(), &mended))
                });
            }
            kept.insert(digest, mended);
        }
        self.names_of_indexes(fsck, &kept)?;
        self.members_of_indexes(fsck, &kept)
    }

    /// Names that lead to other indexes than those say.
    fn names_of_indexes(&self, fsck: &mut Fsck, kept: &BTreeMap<Digest, IndexRow>) -> Result<()> {
        let found: Vec<(String, Digest)> = self.store().read(|tx| tx.list(INDEX_NAMES))?;
        let found: BTreeMap<String, Digest> = found.into_iter().collect();
        let said =
            kept.iter().flat_map(|(digest, row)| row.names.iter().map(move |name| (name.clone(), digest.clone())));
        let said: BTreeMap<String, Digest> = said.collect();
        if found == said {
            return Ok(());
        }
        let text = "they lead to the indexes that have them";
        fsck.repair(Problem::Dangling, "names of indexes", 0, text, || {
            self.store().write(|tx| {
                found.keys().try_for_each(|name| tx.delete(INDEX_NAMES, name).map(drop))?;
                said.iter().try_for_each(|(name, digest)| tx.put(INDEX_NAMES, name, digest))
            })
        });
        Ok(())
    }

    /// Images whose rows name other indexes than have them.
    fn members_of_indexes(&self, fsck: &mut Fsck, kept: &BTreeMap<Digest, IndexRow>) -> Result<()> {
        for (id, row) in self.rows()? {
            let own: BTreeSet<&Digest> =
                kept.iter().filter(|(_, index)| index.has(&id)).map(|(digest, _)| digest).collect();
            if own == row.indexes.iter().collect() {
                continue;
            }
            let own: Vec<Digest> = own.into_iter().cloned().collect();
            let text = "they are those that have it";
            fsck.repair(Problem::Dangling, format!("indexes of image {}", id.short()), 0, text, || {
                self.store().write(|tx| change(tx, &id, |row: &mut Row| row.indexes = own).map(drop))
            });
        }
        Ok(())
    }
}
