//! What steps made, by everything that went into them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wharf_reference::{Digest, Hasher};
use wharf_snapshot::Layers;
use wharf_store::{Store, Table};

use crate::cache_mount::CACHE_MOUNT;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::kept::KEPT_CONTEXT;

const CACHE: Table = Table::new("build-cache");
/// Keys of steps by their definitions.
const DEFINED: Table = Table::new("build-definitions");
/// Part of every key: raised when a step comes to make something else of the same input.
const VERSION: &str = "1";

/// One step's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// The layer that it added; none when it changed the configuration only, or no file.
    pub layer: Option<Digest>,
    /// Bytes of the layer's content.
    pub size: u64,
    /// The instruction, for people.
    pub description: String,
    /// When it was made, in seconds since the epoch.
    pub created: i64,
    /// And nanoseconds. Records of earlier versions have none.
    #[serde(default)]
    pub nanoseconds: i32,
    /// The step's time in every image that it is part of, in seconds since the epoch. Of earlier versions' it is when it was
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<i64>,
    pub last_used: i64,
    /// How often it saved the step.
    pub uses: u64,
    /// IDs of secrets that are in the layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// When the classic builder has last made it though nothing was to come from the cache, in seconds since the epoch: what it makes
    /// has that time in its configuration, and so has what it makes of it later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<i64>,
}

/// What a step has made, for [`Cache::keep`].
#[derive(Debug, Default)]
pub(crate) struct Kept<'a> {
    /// With the bytes of its content.
    pub(crate) layer: Option<(Digest, u64)>,
    pub(crate) description: &'a str,
    pub(crate) date: i64,
    pub(crate) secrets: Vec<String>,
    pub(crate) again: Option<i64>,
}

/// A step that has a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Defined {
    pub(crate) key: Digest,
    /// The newest time of the stages that it takes from, in seconds since the epoch.
    pub(crate) newest: i64,
}

/// The cache of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    store: Store,
    layers: Layers,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Keys of steps that are being made now.
    running: Mutex<BTreeSet<String>>,
    ended: Condvar,
}

/// What goes into a key, field by field.
#[derive(Debug)]
pub(crate) struct Key {
    hasher: Hasher,
}

impl Key {
    pub(crate) fn new(kind: &str) -> Self {
        Self { hasher: Hasher::new() }.text(VERSION).text(kind)
    }

    /// With its length before it, so that no two lists of fields give the same bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        // Hashing does not fail.
        let _ = write!(self.hasher, "{}:", bytes.len());
        self.hasher.update(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn list<T: AsRef<str>>(self, list: impl IntoIterator<Item = T>) -> Self {
        let list: Vec<T> = list.into_iter().collect();
        let counted = self.text(&list.len().to_string());
        list.iter().fold(counted, |key, text| key.text(text.as_ref()))
    }

    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// Held while a step is made; others who want the same wait for it.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    cache: &'a Cache,
    key: String,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        lock(&self.cache.shared.running).remove(&self.key);
        self.cache.shared.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    pub(crate) fn new(store: Store, layers: Layers) -> Self {
        Self { store, layers, shared: Arc::default() }
    }

    /// Claims a step. Waits while another build makes the same.
    pub(crate) fn claim(&self, key: &Digest, cancel: &Cancel) -> Result<Making<'_>> {
        let mut running = lock(&self.shared.running);
        while !running.insert(key.to_string()) {
            // Cancellation does not wake this up; nobody sees a tenth of a second.
            let waited = self.shared.ended.wait_timeout(running, Duration::from_millis(100));
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
            cancel.check()?;
        }
        Ok(Making { cache: self, key: key.to_string() })
    }

    /// What a step made, if its layer is still here.
    pub(crate) fn find(&self, key: &Digest) -> Result<Option<CacheRecord>> {
        let record: Option<CacheRecord> = self.store.read(|tx| tx.get(CACHE, key.as_str()))?;
        Ok(record.filter(|record| record.layer.as_ref().is_none_or(|layer| self.layers.contains(layer))))
    }

    /// Keeps what a step made, with its time in images. Without a layer it may be lost in a crash and is
    /// made again; a layer must have an owner.
    pub(crate) fn keep(&self, key: &Digest, kept: Kept<'_>) -> Result<()> {
        let Kept { layer, description, date, secrets, again } = kept;
        let now = Timestamp::now();
        let again = match again {
            Some(again) => Some(again),
            // Of another builder's that makes it anew it stays.
            None => self.find(key)?.and_then(|record| record.again),
        };
        let record = CacheRecord {
            size: layer.as_ref().map_or(0, |(_, size)| *size),
            layer: layer.map(|(diff_id, _)| diff_id),
            description: description.chars().take(300).collect(),
            created: now.as_second(),
            nanoseconds: now.subsec_nanosecond(),
            date: Some(date),
            last_used: now.as_second(),
            uses: 0,
            secrets,
            again,
        };
        if record.layer.is_some() {
            self.store.write(|tx| tx.put(CACHE, key.as_str(), &record))?;
        } else {
            self.store.write_soon(|tx| tx.put(CACHE, key.as_str(), &record))?;
        }
        Ok(())
    }

    /// Keeps what another engine has made, with its own time.
    pub(crate) fn adopt(&self, key: &Digest, record: &CacheRecord) -> Result<()> {
        Ok(self.store.write(|tx| tx.put(CACHE, key.as_str(), record))?)
    }

    /// A step by its definition (`build::definition`).
    pub(crate) fn defined(&self, definition: &Digest) -> Result<Option<Defined>> {
        Ok(self.store.read(|tx| tx.get(DEFINED, definition.as_str()))?)
    }

    /// Notes it. It is a shortcut: what a crash takes of it is found the longer way.
    pub(crate) fn define(&self, definition: &Digest, defined: &Defined) -> Result<()> {
        if self.defined(definition)?.as_ref() == Some(defined) {
            return Ok(());
        }
        Ok(self.store.write_soon(|tx| tx.put(DEFINED, definition.as_str(), defined))?)
    }

    /// The definitions of these steps.
    pub(crate) fn definitions(&self, keys: &BTreeSet<&Digest>) -> Result<BTreeMap<String, Defined>> {
        let all: Vec<(String, Defined)> = self.store.read(|tx| tx.list(DEFINED))?;
        Ok(all.into_iter().filter(|(_, defined)| keys.contains(&defined.key)).collect())
    }

    /// Notes which steps were not made again.
    pub(crate) fn used(&self, keys: &[Digest]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.store.write_soon(|tx| {
            for key in keys {
                if let Some(mut record) = tx.get::<CacheRecord>(CACHE, key.as_str())? {
                    record.last_used = Timestamp::now().as_second();
                    record.uses += 1;
                    tx.put(CACHE, key.as_str(), &record)?;
                }
            }
            Ok::<_, crate::BuildError>(())
        })
    }

    /// All records by key.
    pub(crate) fn list(&self) -> Result<Vec<(String, CacheRecord)>> {
        Ok(self.store.read(|tx| tx.list(CACHE))?)
    }

    /// Layers that a record names.
    pub(crate) fn layers(&self) -> Result<BTreeSet<Digest>> {
        Ok(self.list()?.into_iter().filter_map(|(_, record)| record.layer).collect())
    }

    /// Forgets records, and answers with the layers that they had.
    pub(crate) fn forget(&self, keys: &[String]) -> Result<BTreeSet<Digest>> {
        self.store.write(|tx| {
            let mut layers = BTreeSet::new();
            for key in keys {
                layers.extend(tx.get::<CacheRecord>(CACHE, key)?.and_then(|record| record.layer));
                tx.delete(CACHE, key)?;
            }
            for (definition, defined) in tx.list::<Defined>(DEFINED)? {
                if keys.iter().any(|gone| *gone == *defined.key.as_str()) {
                    tx.delete(DEFINED, &definition)?;
                }
            }
            Ok::<_, crate::BuildError>(layers)
        })
    }
}

impl CacheRecord {
    /// What BuildKit calls a record of this key (`client.UsageRecordType`).
    pub fn kind(key: &str) -> &'static str {
        match key {
            _ if key.starts_with(KEPT_CONTEXT) => "source.local",
            _ if key.starts_with(CACHE_MOUNT) => "exec.cachemount",
            _ => "regular",
        }
    }

    /// The step's time in images, in seconds since the epoch.
    pub(crate) fn date(&self) -> i64 {
        self.date.unwrap_or(self.created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |list: &[&str]| Key::new("x").list(list).finish();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }

    #[test]
    fn records_are_kept_used_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = Layers::open(store.clone()).unwrap();
        let cache = Cache::new(store, layers.clone());
        let upper = tempfile::tempdir().unwrap();
        std::fs::write(upper.path().join("f"), "x").unwrap();
        let layer = layers.commit(upper.path(), None, None).unwrap();
        let key = Key::new("x").finish();
        let layer_of = Some((layer.diff_id.clone(), layer.size));
        let kept = Kept { layer: layer_of, description: "RUN x", date: 7, ..Kept::default() };
        cache.keep(&key, kept).unwrap();
        cache.used(std::slice::from_ref(&key)).unwrap();
        assert_eq!(cache.find(&key).unwrap().unwrap().uses, 1);
        assert_eq!(cache.layers().unwrap(), BTreeSet::from([layer.diff_id.clone()]));
        assert_eq!(cache.forget(&[key.to_string()]).unwrap(), BTreeSet::from([layer.diff_id]));
        assert!(cache.find(&key).unwrap().is_none() && cache.layers().unwrap().is_empty());
    }

    #[test]
    fn the_same_step_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = Cache::new(store.clone(), Layers::open(store).unwrap());
        let key = Key::new("x").finish();
        let cancel = Cancel::new().unwrap();
        let making = cache.claim(&key, &cancel).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cache.claim(&key, &cancel).map(drop));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(making);
            waiting.join().unwrap().unwrap();
        });
        let _making = cache.claim(&key, &cancel).unwrap();
        cancel.cancel();
        assert!(cache.claim(&key, &cancel).is_err());
    }
}
