//! What builds have left, and steps whose layers have gone.

use std::path::Path;

use wharf_rooted_path::{disk_usage, remove_dir_all};
use wharf_snapshot::Layers;
use wharf_store::Store;
use wharf_store::fsck::{Fsck, Problem};

use crate::builder::Builder;
use crate::cache::Cache;
use crate::error::Result;
use crate::scratch;

impl Builder {
    /// Looks for directories of builds that are not under way, and for remembered steps whose layers are not here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn fsck(&self, fsck: &mut Fsck) -> Result<()> {
        look(&self.shared.builds(), &self.shared.cache, &self.shared.layers, fsck)
    }
}

/// The same for a data root that no daemon has.
///
/// # Errors
/// When the store cannot be read.
pub fn fsck(store: &Store, layers: &Layers, fsck: &mut Fsck) -> Result<()> {
    let cache = Cache::new(store.clone(), layers.clone());
    look(&scratch::builds(store.root()), &cache, layers, fsck)
}

fn look(builds: &Path, cache: &Cache, layers: &Layers, fsck: &mut Fsck) -> Result<()> {
    for path in scratch::list(builds) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fsck.look(0);
        // It may have gone since it was listed.
        if scratch::outlives(&path) || scratch::is_live(&path) || !path.exists() {
            continue;
        }
        let (what, bytes) = (format!("build/{name}"), disk_usage(&path));
        fsck.repair(Problem::Unowned, what, bytes, "removed", || {
            if path.is_dir() { remove_dir_all(&path) } else { std::fs::remove_file(&path) }
        });
    }
    for (key, record) in cache.list()? {
        fsck.look(0);
        let Some(layer) = record.layer.filter(|layer| !layers.contains(layer)) else { continue };
        let what = format!("build cache {}", key.trim_start_matches("sha256:").get(..12).unwrap_or(&key));
        let text = format!("forgotten, as layer {layer} is not here");
        fsck.repair(Problem::Dangling, what, 0, text, || cache.forget(std::slice::from_ref(&key)).map(drop));
    }
    Ok(())
}
