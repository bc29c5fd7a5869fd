//! `system fsck`: what is on the disk and in no row, and the other way round, while the daemon goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_image::Images;
use wharf_reference::Digest;
use wharf_rooted_path::{disk_usage, remove_dir_all};
use wharf_store::Store;
use wharf_store::fsck::{Fsck, Problem};
use wharf_volume::Volumes;

use crate::engine::{CONTAINERS, Engine, blocking, make_places, make_private};
use crate::error::{EngineError, Result};
use crate::record::Container;
use crate::remove::has_left_files;

/// What a daemon has in its data root.
const KNOWN: &[&str] = &[
    "blobs",
    "build",
    "containers",
    "empty",
    "engine-id",
    "events.jsonl",
    "events.old.jsonl",
    "format",
    "ingest",
    "layers",
    "lock",
    "oci-layout",
    "places",
    "turn.lock",
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
            let parts = &engine.inner.parts;
            let needs = |layer: &Digest| needs(&engine.list(), layer);
            let knows = |id: &str| engine.inner.slots.knows(id);
            look(&engine.inner.options.data_root, &parts.images, &parts.volumes, &needs, &knows, &mut fsck)?;
            Ok(fsck)
        })
        .await?;
        self.missing_directories(fsck).await
    }

    /// Containers without their directories. Those that others just work on are left out.
    async fn missing_directories(&self, mut fsck: Fsck) -> Result<Fsck> {
        for slot in self.inner.slots.all() {
            let Some(_turn) = slot.turn.try_lock() else { continue };
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
}

/// As [`Engine::fsck`], for a data root that no daemon has. Containers may run all the same; what their rows say of that is
/// believed.
///
/// # Errors
/// When the store cannot be read.
pub fn fsck_without_engine(store: &Store, images: &Images, volumes: &Volumes, fsck: &mut Fsck) -> Result<()> {
    let rows: Vec<(String, Container)> =
        store.read(|tx| tx.list(CONTAINERS)).map_err(|e| EngineError::from_source("cannot read the containers", &e))?;
    // Those that are removed and whose rows have not gone yet are none.
    let rows =
        rows.into_iter().filter(|(id, record)| !has_left_files(&store.root().join("containers").join(id), record));
    let records: Vec<Arc<Container>> = rows.map(|(_, record)| Arc::new(record)).collect();
    let knows = |id: &str| records.iter().any(|record| record.id == id);
    look(store.root(), images, volumes, &|layer| needs(&records, layer), &knows, fsck)?;
    for record in &records {
        missing_directory(fsck, record, &store.root().join("containers").join(&record.id));
    }
    Ok(())
}

/// What can be looked at without a container's turn.
fn look(
    root: &Path,
    images: &Images,
    volumes: &Volumes,
    needs: &dyn Fn(&Digest) -> Option<String>,
    knows: &dyn Fn(&str) -> bool,
    fsck: &mut Fsck,
) -> Result<()> {
    images.fsck(fsck, needs)?;
    volumes.fsck(fsck)?;
    unowned_directories(root, knows, fsck)?;
    places(root, fsck);
    // What is in the data root and nothing of ours.
    for path in strangers_in(root) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fsck.note(name, disk_usage(&path), "nothing of this engine's: left alone");
    }
    Ok(())
}

/// The name of a container that has a layer.
fn needs(records: &[Arc<Container>], layer: &Digest) -> Option<String> {
    records.iter().find(|record| record.all_layers().any(|own| own == layer)).map(|record| record.name.clone())
}

/// Directories of no container.
fn unowned_directories(root: &Path, knows: &dyn Fn(&str) -> bool, fsck: &mut Fsck) -> Result<()> {
    let top = root.join("containers");
    let entries = match fs::read_dir(&top) {
        // No daemon has come so far yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| EngineError::from_source("cannot list the containers", &e))?,
    };
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        fsck.look(0);
        // It may have gone since it was listed.
        if knows(&id) || !entry.path().exists() {
            continue;
        }
        let (path, bytes) = (entry.path(), disk_usage(entry.path()));
        fsck.repair(Problem::Unowned, format!("containers/{id}"), bytes, "removed", || {
            if path.is_dir() { remove_dir_all(&path) } else { fs::remove_file(&path) }
        });
    }
    Ok(())
}

/// What every container has below its image.
fn places(root: &Path, fsck: &mut Fsck) {
    fsck.look(0);
    let whole = ["dev", "proc", "sys", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", ".dockerenv"]
        .iter()
        .all(|name| root.join("places").join(name).symlink_metadata().is_ok());
    if !whole {
        fsck.repair(Problem::Missing, "places", 0, "made again", || make_places(root).map(drop));
    }
}

/// What is in a data root and nothing of ours.
pub(crate) fn strangers_in(root: &Path) -> Vec<PathBuf> {
    let known = |name: &str| KNOWN.contains(&name) || name.starts_with(LOADING);
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|entry| !known(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
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
