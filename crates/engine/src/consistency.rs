//! `system fsck`: what is on the disk and in no row, and the other way round, while the daemon goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_reference::Digest;
use wharf_rooted_path::{disk_usage, remove_dir_all};
use wharf_store::fsck::{Fsck, Problem};

use crate::engine::{Engine, blocking, make_places, make_private};
use crate::error::{EngineError, Result};
use crate::record::Container;

/// What a daemon has in its data root.
const KNOWN: &[&str] = &[
    "blobs",
    "build",
    "containers",
    "empty",
    "engine-id",
    "ingest",
    "layers",
    "lock",
    "oci-layout",
    "places",
    "volumes",
    "wharf.redb",
    "wharf.reserve",
];
/// Names of archives' folders on their way in begin so.
const LOADING: &str = "load-";

impl Engine {
    /// Looks for what does not fit: images and layers, volumes, containers' directories, and what is nobody's. Goes on
    /// beside all other work.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn fsck(&self, fsck: Fsck) -> Result<Fsck> {
        let engine = self.clone();
        let fsck = blocking(move || {
            let mut fsck = fsck;
            engine.images().fsck(&mut fsck, &|layer| engine.needs(layer))?;
            engine.volumes().fsck(&mut fsck)?;
            engine.unowned_directories(&mut fsck)?;
            engine.places(&mut fsck);
            engine.strangers(&mut fsck);
            Ok(fsck)
        })
        .await?;
        self.missing_directories(fsck).await
    }

    /// The name of a container that has a layer.
    fn needs(&self, layer: &Digest) -> Option<String> {
        self.list().iter().find(|record| record.all_layers().any(|own| own == layer)).map(|record| record.name.clone())
    }

    /// Directories of no container.
    fn unowned_directories(&self, fsck: &mut Fsck) -> Result<()> {
        let top = self.inner.options.data_root.join("containers");
        let entries = fs::read_dir(&top).map_err(|e| EngineError::from_source("cannot list the containers", &e))?;
        for entry in entries.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            fsck.look(0);
            // It may have gone since it was listed.
            if self.inner.slots.knows(&id) || !entry.path().exists() {
                continue;
            }
            let (path, bytes) = (entry.path(), disk_usage(entry.path()));
            fsck.repair(Problem::Unowned, format!("containers/{id}"), bytes, "removed", || {
                if path.is_dir() { remove_dir_all(&path) } else { fs::remove_file(&path) }
            });
        }
        Ok(())
    }

    /// Containers without their directories.
    async fn missing_directories(&self, mut fsck: Fsck) -> Result<Fsck> {
        for slot in self.inner.slots.all() {
            let _turn = slot.turn.lock().await;
            let record = slot.record();
            if self.inner.slots.find(&slot.id).is_err() {
                continue;
            }
            let dir = self.dir(&slot.id);
            fsck = blocking(move || {
                missing_directory(&mut fsck, &record, &dir);
                Ok(fsck)
            })
            .await?;
        }
        Ok(fsck)
    }

    /// What every container has below its image.
    fn places(&self, fsck: &mut Fsck) {
        let root = &self.inner.places;
        fsck.look(0);
        let whole = ["dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", ".dockerenv"]
            .iter()
            .all(|name| root.join(name).symlink_metadata().is_ok());
        if !whole {
            fsck.repair(Problem::Missing, "places", 0, "made again", || {
                make_places(&self.inner.options.data_root).map(drop)
            });
        }
    }

    /// What is in the data root and nothing of ours.
    fn strangers(&self, fsck: &mut Fsck) {
        for path in self.strangers_in(&self.inner.options.data_root) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            fsck.note(name, disk_usage(&path), "nothing of this engine's: left alone");
        }
    }

    pub(crate) fn strangers_in(&self, root: &Path) -> Vec<PathBuf> {
        let known = |name: &str| KNOWN.contains(&name) || name.starts_with(LOADING);
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries.filter(|entry| !known(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
    }
}

/// The caller has the container's turn.
fn missing_directory(fsck: &mut Fsck, record: &Arc<Container>, dir: &Path) {
    fsck.look(0);
    let lacks: Vec<&str> = ["upper", "work"].into_iter().filter(|part| !dir.join(part).is_dir()).collect();
    if lacks.is_empty() {
        return;
    }
    let what = format!("{} of container {}", lacks.join(" and "), record.name);
    if record.state.status.is_active() {
        fsck.leave(Problem::Missing, what, 0, "left, as it runs: stop it, and look again");
        return;
    }
    let text = if lacks.contains(&"upper") { "made again, empty: what it had written is lost" } else { "made again" };
    fsck.repair(Problem::Missing, what, 0, text, || {
        for part in &lacks {
            make_private(&dir.join(part))?;
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.join("upper"), open)
            .map_err(|e| EngineError::from_source("cannot make the container's directory", &e))
    });
}
