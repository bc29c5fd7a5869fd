//! Directories of `RUN --mount=type=cache`: they outlive builds and are in no image.

pub(crate) mod travel;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wharf_dockerfile::Sharing;

use crate::cache::Key;
use crate::cancel::Cancel;
use crate::error::{BuildError, Result};

/// All cache mounts of a data root.
#[derive(Clone, Debug)]
pub(crate) struct CacheMounts {
    dir: PathBuf,
    uses: Arc<Uses>,
}

#[derive(Debug, Default)]
struct Uses {
    /// How many use a directory now, and whether one wants it alone.
    now: Mutex<HashMap<PathBuf, Use>>,
    ended: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Use {
    count: usize,
    alone: bool,
}

/// A cache in use; let go of when it is dropped.
#[derive(Debug)]
pub(crate) struct CacheMount {
    pub(crate) path: PathBuf,
    /// Nobody has used it before.
    pub(crate) fresh: bool,
    uses: Arc<Uses>,
}

impl Drop for CacheMount {
    fn drop(&mut self) {
        let mut now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = now.get_mut(&self.path) {
            entry.count -= 1;
            if entry.count == 0 {
                now.remove(&self.path);
            }
        }
        self.uses.ended.notify_all();
    }
}

/// Who owns a new cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Default for Owner {
    fn default() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0 }
    }
}

impl CacheMounts {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, uses: Arc::default() }
    }

    /// What the cache of `id` and `origin` is called.
    pub(crate) fn name(id: &str, origin: &str) -> String {
        Key::new("cache-mount").text(id).text(origin).finish().hex().to_owned()
    }

    /// Takes the cache of `id` and `origin` (what it is filled from), and makes it if it is not there.
    ///
    /// # Errors
    /// When the disk refuses, or the build is cancelled while it waits.
    pub(crate) fn take(
        &self,
        id: &str,
        origin: &str,
        sharing: Sharing,
        owner: Owner,
        cancel: &Cancel,
    ) -> Result<CacheMount> {
        let name = Self::name(id, origin);
        let mut now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut copy = 0;
        let path = loop {
            let path = self.dir.join(format!("{name}-{copy}"));
            let held = now.get(&path).copied().unwrap_or_default();
            let free = match sharing {
                Sharing::Shared => !held.alone,
                Sharing::Private | Sharing::Locked => held.count == 0,
            };
            if free {
                break path;
            }
            if sharing == Sharing::Private {
                copy += 1;
                continue;
            }
            // Cancellation does not wake this up; nobody sees a tenth of a second.
            let waited = self.uses.ended.wait_timeout(now, Duration::from_millis(100));
            now = waited.unwrap_or_else(PoisonError::into_inner).0;
            cancel.check()?;
        };
        let fresh = !path.exists();
        if fresh {
            make(&path, owner)?;
        }
        let entry = now.entry(path.clone()).or_default();
        entry.count += 1;
        entry.alone = sharing != Sharing::Shared;
        Ok(CacheMount { path, fresh, uses: Arc::clone(&self.uses) })
    }

    /// Removes those that nobody uses; their names, and the bytes that have become free.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn prune(&self) -> Result<(Vec<String>, u64)> {
        self.each_unused(&|path| wharf_rooted_path::remove_dir_all(path))
    }

    /// What [`Self::prune`] would remove now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn unused(&self) -> Result<(Vec<String>, u64)> {
        self.each_unused(&|_| Ok(()))
    }

    fn each_unused(&self, act: &dyn Fn(&Path) -> std::io::Result<()>) -> Result<(Vec<String>, u64)> {
        let failing = |e: std::io::Error| BuildError::system("the cache mounts cannot be pruned", &e);
        let now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut names, mut freed) = (Vec::new(), 0);
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((names, freed)),
            entries => entries.map_err(failing)?,
        };
        for entry in entries {
            let path = entry.map_err(failing)?.path();
            if now.contains_key(&path) {
                continue;
            }
            freed += size(&path).map_err(failing)?;
            act(&path).map_err(failing)?;
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        Ok((names, freed))
    }
}

fn make(path: &Path, owner: Owner) -> Result<()> {
    let failing = |e: std::io::Error| BuildError::system(format_args!("cannot make {}", path.display()), &e);
    if let Some(above) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o710).create(above).map_err(failing)?;
    }
    fs::create_dir(path).map_err(failing)?;
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).map_err(failing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode & 0o7777)).map_err(failing)
}

/// Bytes on the disk of all that is below `path`.
fn size(path: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    let mut stack = vec![path.to_owned()];
    while let Some(path) = stack.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        total += metadata.blocks() * 512;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                stack.push(entry?.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_shared_private_or_locked() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = CacheMounts::new(dir.path().join("cache"));
        let cancel = Cancel::new().unwrap();
        let take = |sharing| mounts.take("id", "", sharing, Owner::default(), &cancel);
        let first = take(Sharing::Shared).unwrap();
        let second = take(Sharing::Shared).unwrap();
        assert_eq!((first.path == second.path, first.fresh, second.fresh), (true, true, false));
        let private = take(Sharing::Private).unwrap();
        assert_ne!(private.path, first.path);
        assert_eq!(mounts.prune().unwrap().0.len(), 0);
        let path = first.path.clone();
        drop((first, second));
        let locked = take(Sharing::Locked).unwrap();
        assert_eq!(locked.path, path);
        cancel.cancel();
        assert!(take(Sharing::Locked).is_err());
        drop((locked, private));
        assert_eq!(mounts.prune().unwrap().0.len(), 2);
        assert!(!path.exists());
    }
}
