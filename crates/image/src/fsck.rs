//! Images, blobs and layers that are not what they are said to be, found and mended while others work.
//!
//! Whatever changes what an image is made of happens behind the gate, where no image is made; what somebody holds stays.
//! Each repair takes the row first that leads to what is wrong: cut off there, the rest is found by the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use wharf_reference::Digest;
use wharf_rooted_path::disk_usage;
use wharf_store::fsck::{Fsck, Problem, words};

use crate::aside::TEMPORARY;
use crate::collect::{GRACE, KEEP_PARTIAL};
use crate::images::Images;
use crate::index::unpoint;
use crate::remove::{forget, withdraw};
use crate::rows::{IMAGES, LEFT, NAMES, Row, change, familiar, is_digest};
use crate::{ImageError, Result};

/// Who needs a layer, for people.
type Needed<'a> = &'a dyn Fn(&Digest) -> Option<String>;

impl Images {
    /// Looks for blobs that have not their digest, for what an image, a name or a layer lacks, and for what nobody has.
    /// `needed` names the container that has a layer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fsck(&self, fsck: &mut Fsck, needed: Needed<'_>) -> Result<()> {
        let damaged = self.damaged_blobs(fsck)?;
        let lost: BTreeSet<Digest> = self.layers().fsck(fsck, needed)?.into_iter().collect();
        self.incomplete_images(fsck, &damaged, &lost)?;
        self.broken_indexes(fsck, &damaged)?;
        self.dangling_names(fsck)?;
        self.dangling_leases(fsck)?;
        self.unowned_blobs(fsck)?;
        self.ingests(fsck)?;
        self.folders(fsck)
    }

    /// Blobs whose bytes do not have their digest. What they were of an image is for the caller to say. One that the disk
    /// does not give stays: that may be the disk's weather, and nobody else has the bytes for sure.
    fn damaged_blobs(&self, fsck: &mut Fsck) -> Result<BTreeSet<Digest>> {
        let blobs = self.store().blobs();
        let mut damaged = BTreeSet::new();
        for digest in blobs.list()? {
            match blobs.verify(&digest) {
                Ok(Some((so, bytes))) => {
                    fsck.look(bytes);
                    if !so {
                        damaged.insert(digest);
                    }
                }
                // It has gone meanwhile.
                Ok(None) => {}
                Err(error) => {
                    fsck.look(0);
                    let why = words(&error);
                    let text = format!("left ({why}): when the disk is past help, delete that file, and look again");
                    fsck.leave(Problem::Unreadable, format!("blob {digest}"), blobs.size(&digest).unwrap_or(0), text);
                }
            }
        }
        for digest in &damaged {
            let _gate = self.gate();
            // A whole one may have come in its place.
            let Ok(Some((false, _))) = blobs.verify(digest) else { continue };
            let bytes = blobs.size(digest).unwrap_or(0);
            fsck.repair(Problem::Damaged, format!("blob {digest}"), bytes, "deleted", || {
                self.layers().disown_blob(digest)?;
                blobs.delete(digest).map(drop).map_err(ImageError::from)
            });
        }
        Ok(damaged)
    }

    /// Images that lack something. A lost manifest can be made again for a push; without its configuration, or one of
    /// its layers, an image is none.
    fn incomplete_images(&self, fsck: &mut Fsck, damaged: &BTreeSet<Digest>, lost: &BTreeSet<Digest>) -> Result<()> {
        let blobs = self.store().blobs();
        // In a dry run what is damaged is still there.
        let dry = fsck.dry_run();
        let there = |digest: &Digest| blobs.contains(digest) && !(dry && damaged.contains(digest));
        // And what would be made again is not there yet.
        let absent = |layer: &Digest| match dry {
            true => lost.contains(layer) || matches!(self.layers().get(layer), Ok(None)),
            false => !self.layers().contains(layer),
        };
        let mut broken = Vec::new();
        let mut bare = Vec::new();
        let _gate = self.gate();
        for (id, row) in self.rows()? {
            let layer = row.diff_ids.iter().find(|layer| absent(layer)).cloned();
            match (there(&id), layer) {
                (false, _) => broken.push((id, row, "its configuration".to_owned())),
                (true, Some(layer)) => broken.push((id, row, format!("layer {layer}"))),
                (true, None) => {
                    let manifest = row.manifest.as_ref().map(|manifest| manifest.digest.clone());
                    if let Some(digest) = manifest.filter(|digest| !there(digest)) {
                        bare.push((id, digest));
                    }
                }
            }
        }
        for (id, row, part) in broken {
            fsck.look(0);
            let name =
                row.tags().next().map_or_else(|| id.to_string(), |key| format!("{} ({})", familiar(key), id.short()));
            let text = format!("{part} is lost: forgotten; pull or build it again");
            fsck.repair(Problem::Missing, format!("image {name}"), 0, text, || {
                let row = self.store().write(|tx| {
                    // Its other platforms are whole: they keep the names.
                    withdraw(tx, &id)?;
                    let row = forget(tx, &id)?;
                    // Nobody waits for a layer that is lost.
                    let gone = row.diff_ids.iter().filter(|layer| matches!(self.layers().get(layer), Ok(None)));
                    gone.clone().try_for_each(|layer| tx.delete(LEFT, layer.as_str()).map(drop))?;
                    Ok::<_, ImageError>(row)
                })?;
                for blob in row.manifest.iter().map(|manifest| &manifest.digest).chain([&id]) {
                    blobs.delete(blob)?;
                }
                Ok::<_, ImageError>(())
            });
        }
        for (id, digest) in bare {
            let what = format!("manifest {digest} of image {}", id.short());
            fsck.repair(Problem::Missing, what, 0, "forgotten: a push makes another", || {
                self.store().write(|tx| {
                    let end = format!("@{digest}");
                    let row: Row = tx.get(IMAGES, id.as_str())?.unwrap_or_default();
                    for name in row.names.iter().filter(|name| is_digest(name) && name.ends_with(&end)) {
                        unpoint(tx, name)?;
                    }
                    change(tx, &id, |row| row.manifest = None).map(drop)
                })
            });
        }
        Ok(())
    }

    /// Names that lead to no image, and images whose row has other names than lead to it.
    fn dangling_names(&self, fsck: &mut Fsck) -> Result<()> {
        let _gate = self.gate();
        let names: Vec<(String, Digest)> = self.store().read(|tx| tx.list(NAMES))?;
        let rows: BTreeMap<Digest, Row> = self.rows()?.into_iter().collect();
        for (key, id) in &names {
            fsck.look(0);
            if !rows.contains_key(id) {
                let what = format!("name {}", familiar(key));
                fsck.repair(Problem::Dangling, what, 0, "deleted, as it leads to no image", || {
                    self.store().write(|tx| unpoint(tx, key))
                });
            }
        }
        for (id, row) in &rows {
            let own: BTreeSet<&String> = names.iter().filter(|(_, of)| of == id).map(|(key, _)| key).collect();
            let said: BTreeSet<&String> = row.names.iter().collect();
            if own != said {
                let own: Vec<String> = own.into_iter().cloned().collect();
                let text = "its names are those that lead to it now";
                fsck.repair(Problem::Dangling, format!("names of image {}", id.short()), 0, text, || {
                    self.store().write(|tx| change(tx, id, |row| row.names = own).map(drop))
                });
            }
        }
        Ok(())
    }

    /// Leases on layers that are not here.
    fn dangling_leases(&self, fsck: &mut Fsck) -> Result<()> {
        let _gate = self.gate();
        let left: Vec<(String, ())> = self.store().read(|tx| tx.list(LEFT))?;
        for (key, ()) in left {
            fsck.look(0);
            let known = Digest::parse(&key).ok().map(|id| self.layers().get(&id)).transpose()?.flatten().is_some();
            if !known {
                fsck.repair(Problem::Dangling, format!("lease on layer {key}"), 0, "ended", || {
                    self.store().write(|tx| tx.delete(LEFT, &key).map(drop))
                });
            }
        }
        Ok(())
    }

    /// Blobs that neither an image nor a layer has. The next attempt of a pull that was cut off may want them; they have
    /// their time.
    fn unowned_blobs(&self, fsck: &mut Fsck) -> Result<()> {
        let _gate = self.gate();
        let mut owned = self.owned_blobs()?;
        owned.extend(self.layers().list()?.into_iter().flat_map(|layer| layer.blobs).map(|blob| blob.digest));
        let blobs = self.store().blobs();
        for digest in blobs.list()? {
            if owned.contains(&digest) {
                continue;
            }
            // One that somebody holds is just coming, one that is not there any more has gone.
            let Ok(found) = fs::metadata(blobs.path(&digest)) else { continue };
            if self.layers().is_held(&digest) {
                continue;
            }
            let age = found.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            let (what, bytes) = (format!("blob {digest}"), found.len());
            if age.unwrap_or_default() < GRACE {
                fsck.note(what, bytes, format!("kept for the next attempt, at most {}", hours(GRACE)));
                continue;
            }
            fsck.repair(Problem::Unowned, what, bytes, "deleted", || {
                self.layers().forget_blob(&digest, || !self.layers().is_held(&digest)).map(drop)
            });
        }
        Ok(())
    }

    /// Parts of blobs: those that somebody may go on with have their time.
    fn ingests(&self, fsck: &mut Fsck) -> Result<()> {
        let blobs = self.store().blobs();
        for file in blobs.ingests()? {
            fsck.look(0);
            let what = format!("ingest/{}", file.name);
            if file.unwritten {
                fsck.repair(Problem::Unowned, what, file.bytes, "deleted", || blobs.forget_ingest(&file.name));
            } else if file.partial && file.idle >= KEEP_PARTIAL {
                fsck.repair(Problem::Unowned, what, file.bytes, "deleted, as nobody has gone on with it", || {
                    blobs.sweep_partial(KEEP_PARTIAL).map(drop)
                });
            } else if file.partial {
                let text = format!("part of a download: kept for the next attempt, at most {}", hours(KEEP_PARTIAL));
                fsck.note(what, file.bytes, text);
            }
        }
        Ok(())
    }

    /// Folders of archives on their way in, of other processes than this: none can be at work here.
    fn folders(&self, fsck: &mut Fsck) -> Result<()> {
        let root = self.store().root();
        let own = format!("{TEMPORARY}{}-", std::process::id());
        let fail = |e| ImageError::Io("cannot list the data root", e);
        for entry in fs::read_dir(root).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) && !name.starts_with(&own) {
                let path = root.join(&name);
                fsck.look(0);
                fsck.repair(Problem::Unowned, &name, disk_usage(&path), "removed", || {
                    wharf_rooted_path::remove_dir_all(&path)
                });
            }
        }
        Ok(())
    }
}

fn hours(time: Duration) -> String {
    format!("{} hours", time.as_secs() / 3600)
}
