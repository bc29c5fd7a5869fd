//! Layers that are not what they are said to be, found and mended while others work.

use std::fs;
use std::io;

use wharf_archive::decompressed;
use wharf_reference::Digest;
use wharf_rooted_path::disk_usage;
use wharf_store::fsck::{Fsck, Problem};

use crate::layers::{LAYERS, Layer, Layers, TEMPORARY};
use crate::{Result, SnapshotError};

/// Who needs a layer, for people: a container's name. Its files must stay where they are.
type Needed<'a> = &'a dyn Fn(&Digest) -> Option<String>;

impl Layers {
    /// Looks for layers without their files, files without a layer, and with a deep look for layers whose files do not
    /// give their diff ID any more. A layer whose compressed form is here is made again from it. Answers with those that
    /// are lost, or would be: whoever has them has to be told.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fsck(&self, fsck: &mut Fsck, needed: Needed<'_>) -> Result<Vec<Digest>> {
        let mut lost = Vec::new();
        for layer in self.list()? {
            let id = layer.diff_id.clone();
            // It may go at any moment; then it has no row either.
            let missing = {
                let _placing = self.placing();
                self.get(&id)?.is_some() && !self.contains(&id)
            };
            if missing {
                fsck.look(0);
                if !self.mend(fsck, &layer, Problem::Missing, "its files", &|_| None) {
                    lost.push(id);
                }
                continue;
            }
            if !fsck.deep() {
                fsck.look(0);
                continue;
            }
            fsck.look(layer.tar_size);
            match self.verify(&id) {
                Ok(()) => {}
                Err(SnapshotError::Store(error)) => return Err(error.into()),
                // It has gone, or has gone and come again, while it was read.
                Err(_) if !self.contains(&id) || self.verify(&id).is_ok() => {}
                Err(error) => {
                    let why = format!("its files ({})", short(&error));
                    if !self.mend(fsck, &layer, Problem::Damaged, &why, needed) {
                        lost.push(id);
                    }
                }
            }
        }
        self.unowned(fsck)?;
        Ok(lost)
    }

    /// Makes a layer again of its compressed form; false when it cannot be had back.
    fn mend(&self, fsck: &mut Fsck, layer: &Layer, problem: Problem, part: &str, needed: Needed<'_>) -> bool {
        let id = &layer.diff_id;
        let what = format!("layer {id}");
        let bytes = disk_usage(self.place(id));
        if let Some(who) = needed(id) {
            fsck.leave(problem, what, bytes, format!("left, as container {who} has it: remove that, and look again"));
            return true;
        }
        let whole =
            |digest: &Digest| self.store().blobs().verify(digest).is_ok_and(|found| found.is_some_and(|(so, _)| so));
        if let Some(blob) = layer.blobs.iter().find(|blob| whole(&blob.digest)) {
            let text = format!("{part} made again from blob {}", blob.digest);
            fsck.repair(problem, what, bytes, text, || {
                let tar = self.store().blobs().reader(&blob.digest)?;
                let mut tar = decompressed(io::BufReader::new(tar)).map_err(SnapshotError::Input)?;
                let damaged = self.remake(layer, &mut tar, || self.unheld(id, needed))?;
                damaged.map_or(Ok(()), |path| remove(&path))
            });
            return true;
        }
        fsck.repair(problem, what, bytes, "forgotten, as nothing here gives it again", || {
            let moved = {
                let _placing = self.placing();
                self.unheld(id, needed)?;
                self.store().write(|tx| tx.delete(LAYERS, id.as_str()).map(drop))?;
                self.move_away(id)?
            };
            moved.map_or(Ok(()), |path| remove(&path))
        });
        false
    }

    /// The caller has the lock that holds are taken under.
    fn unheld(&self, id: &Digest, needed: Needed<'_>) -> Result<()> {
        if self.is_held(id) || needed(id).is_some() { Err(SnapshotError::Busy(id.clone())) } else { Ok(()) }
    }

    /// Files of no layer. Those that come or go just now are named by this process, which sweeps them when it begins.
    fn unowned(&self, fsck: &mut Fsck) -> Result<()> {
        let dir = self.dir();
        for entry in fs::read_dir(dir).map_err(SnapshotError::file("list", dir))? {
            let name = entry.map_err(SnapshotError::file("list", dir))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let digest = Digest::parse(&format!("sha256:{name}")).ok();
            // A tree comes before its row and goes after it, both under this lock.
            let placing = self.placing();
            let owned = digest.as_ref().map(|id| self.get(id)).transpose()?.flatten().is_some();
            let path = dir.join(&*name);
            if owned || !path.exists() {
                continue;
            }
            let bytes = disk_usage(&path);
            fsck.look(0);
            fsck.repair(Problem::Unowned, format!("layers/{name}"), bytes, "removed", || {
                let going = dir.join(format!("{TEMPORARY}gone-{}", self.number()));
                fs::rename(&path, &going).map_err(SnapshotError::file("rename", &path))?;
                drop(placing);
                remove(&going)
            });
        }
        Ok(())
    }

    /// A compressed form of a layer is no longer one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn disown_blob(&self, digest: &Digest) -> Result<()> {
        let _placing = self.placing();
        self.store().write(|tx| {
            for (key, mut layer) in tx.list::<Layer>(LAYERS)? {
                if layer.blobs.iter().any(|blob| blob.digest == *digest) {
                    layer.blobs.retain(|blob| blob.digest != *digest);
                    tx.put(LAYERS, &key, &layer)?;
                }
            }
            Ok(())
        })
    }
}

fn remove(path: &std::path::Path) -> Result<()> {
    let directory = path.is_dir() && !path.is_symlink();
    let removed = if directory { wharf_rooted_path::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(SnapshotError::file("remove", path))
}

/// Why a layer is not what it was, without its name once more.
fn short(error: &SnapshotError) -> String {
    match error {
        SnapshotError::Damaged { why, .. } => (*why).to_owned(),
        SnapshotError::WrongDiffId { .. } => "they give another diff ID".to_owned(),
        SnapshotError::File { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
