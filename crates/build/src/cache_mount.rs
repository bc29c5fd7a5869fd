//! Directories of `RUN --mount=type=cache`: they outlive builds and are in no image.

pub(crate) mod travel;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wharf_dockerfile::Sharing;
use wharf_store::{Store, Table};

use crate::cache::{CacheRecord, Key};
use crate::cancel::Cancel;
use crate::error::{BuildError, Result};
use crate::scratch::random_id;

/// Keys of cache mounts among those of steps begin with it.
pub const CACHE_MOUNT: &str = "mount-";
const MOUNTS: Table = Table::new("build-cache-mounts");

/// All cache mounts of a data root.
#[derive(Clone, Debug)]
pub(crate) struct CacheMounts {
    dir: PathBuf,
    store: Store,
    uses: Arc<Uses>,
}

/// What is remembered of one, by the name of its directory. It may be lost in a crash: then the directory says when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    id: String,
    /// In seconds since the epoch, as the other.
    created: i64,
    last_used: i64,
    uses: u64,
}

#[derive(Debug, Default)]
struct Uses {
    /// How many use a directory now, and whether one wants it alone.
    now: Mutex<HashMap<PathBuf, Use>>,
    ended: Condvar,
    /// Bytes that they had, by their names, after the use at this time.
    sizes: Mutex<HashMap<String, (i64, u64)>>,
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
    pub(crate) fn new(dir: PathBuf, store: Store) -> Self {
        Self { dir, store, uses: Arc::default() }
    }

    /// What the cache of `id` and `origin` is called.
    pub(crate) fn name(id: &str, origin: &str) -> String {
        Key::new("cache-mount").text(id).text(origin).finish().hex().to_owned()
    }

    /// Takes the cache of `id` and `origin` (what it is filled from), and makes it if it is not there; `anew`: also if it is, and
    /// nobody uses it.
    ///
    /// # Errors
    /// When the disk refuses, or the build is cancelled while it waits.
    pub(crate) fn take(
        &self,
        id: &str,
        origin: &str,
        sharing: Sharing,
        owner: Owner,
        anew: bool,
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
        let gone = match anew && !now.contains_key(&path) {
            true => self.set_aside(&path)?,
            false => None,
        };
        let fresh = !path.exists();
        if fresh {
            make(&path, owner)?;
        }
        let entry = now.entry(path.clone()).or_default();
        entry.count += 1;
        entry.alone = sharing != Sharing::Shared;
        drop(now);
        let mount = CacheMount { path, fresh, uses: Arc::clone(&self.uses) };
        if let Some(gone) = gone {
            remove_all(&gone)?;
        }
        self.note_use(&mount.path, id)?;
        Ok(mount)
    }

    fn note_use(&self, path: &Path, id: &str) -> Result<()> {
        let (name, now) = (name_of(path), jiff::Timestamp::now().as_second());
        Ok(self.store.write_soon(|tx| {
            let known: Option<Remembered> = tx.get(MOUNTS, &name)?;
            let known = known.unwrap_or(Remembered { created: now, ..Remembered::default() });
            tx.put(MOUNTS, &name, &Remembered { id: id.to_owned(), last_used: now, uses: known.uses + 1, ..known })
        })?)
    }

    /// Those that nobody uses now, as records of the cache, by [`CACHE_MOUNT`] and their names. What has not been measured by
    /// `until` has the size that it had before.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn unused(&self, until: Option<Instant>) -> Result<Vec<(String, CacheRecord)>> {
        let failing = |e: std::io::Error| BuildError::system("the cache mounts cannot be listed", &e);
        let mut all = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            entries => entries.map_err(failing)?,
        };
        for entry in entries {
            let path = entry.map_err(failing)?.path();
            if self.uses.now.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&path) {
                continue;
            }
            // One that goes at the same moment is none.
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            let name = name_of(&path);
            let known: Option<Remembered> = self.store.read(|tx| tx.get(MOUNTS, &name))?;
            let made = || Remembered { created: found.ctime(), last_used: found.ctime(), ..Remembered::default() };
            let Remembered { id, created, last_used, uses } = known.unwrap_or_else(made);
            let record = CacheRecord {
                layer: None,
                size: self.size_of(&path, last_used, until),
                description: format!("cached mount {id}"),
                created,
                nanoseconds: 0,
                date: None,
                last_used,
                uses,
                secrets: Vec::new(),
                again: None,
            };
            all.push((format!("{CACHE_MOUNT}{name}"), record));
        }
        Ok(all)
    }

    /// Measured once after each use: it may have very many files. Who does not wait for it finds it the next time.
    fn size_of(&self, path: &Path, last_used: i64, until: Option<Instant>) -> u64 {
        let name = name_of(path);
        let before = match self.sizes().get(&name) {
            Some((measured, known)) if *measured == last_used => return *known,
            other => other.map_or(0, |(_, known)| *known),
        };
        let (own, path) = (self.clone(), path.to_owned());
        let measure = move || {
            let measured = size(&path).unwrap_or(0);
            own.sizes().insert(name, (last_used, measured));
            measured
        };
        let Some(until) = until else { return measure() };
        let (sender, measured) = mpsc::channel();
        // Without a thread it is measured another time.
        let _ = thread::Builder::new().name("measure".into()).spawn(move || sender.send(measure()));
        measured.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(before)
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<String, (i64, u64)>> {
        self.uses.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes those of these names that nobody uses; the names, and the bytes that have become free.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn remove(&self, ids: &[String]) -> Result<(Vec<String>, u64)> {
        let failing = |e: std::io::Error| BuildError::system("the cache mounts cannot be pruned", &e);
        let (mut removed, mut freed) = (Vec::new(), 0);
        for id in ids {
            let Some(name) = id.strip_prefix(CACHE_MOUNT).filter(|name| !name.contains('/')) else { continue };
            let path = self.dir.join(name);
            let now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = match now.contains_key(&path) {
                true => None,
                false => self.set_aside(&path)?,
            };
            drop(now);
            let Some(gone) = gone else { continue };
            freed += size(&gone).map_err(failing)?;
            remove_all(&gone)?;
            self.store.write_soon(|tx| tx.delete(MOUNTS, name))?;
            self.sizes().remove(name);
            removed.push(id.clone());
        }
        Ok((removed, freed))
    }

    /// Gives one that nobody uses another name, under which it can take its time to go. What a kill leaves of it is listed, and
    /// goes with the next prune.
    fn set_aside(&self, path: &Path) -> Result<Option<PathBuf>> {
        let gone = self.dir.join(format!("gone-{}", &random_id()?[..16]));
        match fs::rename(path, &gone) {
            Ok(()) => Ok(Some(gone)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BuildError::system("a cache mount cannot be removed", &error)),
        }
    }
}

fn remove_all(path: &Path) -> Result<()> {
    wharf_rooted_path::remove_dir_all(path).map_err(|e| BuildError::system("a cache mount cannot be removed", &e))
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
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
        let mounts = CacheMounts::new(dir.path().join("cache"), Store::open(dir.path()).unwrap());
        let prune = || {
            let ids: Vec<String> = mounts.unused(None).unwrap().into_iter().map(|(id, _)| id).collect();
            mounts.remove(&ids).unwrap().0.len()
        };
        let cancel = Cancel::new().unwrap();
        let take = |sharing| mounts.take("id", "", sharing, Owner::default(), false, &cancel);
        let first = take(Sharing::Shared).unwrap();
        let second = take(Sharing::Shared).unwrap();
        assert_eq!((first.path == second.path, first.fresh, second.fresh), (true, true, false));
        let private = take(Sharing::Private).unwrap();
        assert_ne!(private.path, first.path);
        assert_eq!(prune(), 0);
        let path = first.path.clone();
        drop((first, second));
        let locked = take(Sharing::Locked).unwrap();
        assert_eq!(locked.path, path);
        cancel.cancel();
        assert!(take(Sharing::Locked).is_err());
        drop((locked, private));
        let mut all = mounts.unused(None).unwrap();
        all.sort_by_key(|(_, record)| record.uses);
        assert_eq!(all.iter().map(|(_, record)| record.uses).collect::<Vec<_>>(), [1, 3]);
        assert!(all[0].0.starts_with(CACHE_MOUNT) && all[0].1.description == "cached mount id", "{all:?}");
        assert_eq!(prune(), 2);
        assert!(!path.exists());
        let cancel = Cancel::new().unwrap();
        let take = |anew| mounts.take("id", "", Sharing::Shared, Owner::default(), anew, &cancel).unwrap();
        let first = take(true);
        fs::write(first.path.join("f"), "").unwrap();
        // Of one in use nothing is taken away.
        assert!(!take(true).fresh && first.path.join("f").exists());
        drop(first);
        assert!(!take(false).fresh);
        assert!(take(true).fresh && !path.join("f").exists() && prune() == 1);
    }
}
