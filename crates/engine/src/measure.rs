//! What trees take on the disk that somebody may write to at any moment: containers' upper directories, volumes, builds.
//!
//! Nothing tells how large such a tree is but a walk, which takes as long as there are files in it. So whoever asks gets an
//! answer in bounded time: the trees are walked by threads of their own, what is known by then is new, and of the others
//! the last known size is told, while their walk goes on for the next who asks. Sizes are kept in rows, so that a daemon
//! that starts knows the last ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use wharf_rooted_path::disk_usage;
use wharf_store::{Store, Table};

use crate::slot::lock;

/// Bytes by the tree's path below the data root.
const SIZES: Table = Table::new("tree-size");
/// Threads that walk. Two are enough for one to go on while the other waits for the disk.
const WALKERS: usize = 2;

/// Sizes of trees.
#[derive(Debug, Default)]
pub(crate) struct Measures {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sizes: BTreeMap<PathBuf, u64>,
    /// To be walked, the next one last.
    waiting: Vec<PathBuf>,
    /// That a walker is in.
    walking: Vec<PathBuf>,
    walkers: usize,
    /// Not yet in a row.
    unwritten: BTreeMap<PathBuf, u64>,
}

impl Measures {
    /// Bytes of each tree, and whether all of them were walked just now. Waits no longer than `patience`.
    pub(crate) fn of(self: &Arc<Self>, store: &Store, trees: &[PathBuf], patience: Duration) -> (Vec<u64>, bool) {
        let deadline = Instant::now().checked_add(patience);
        let mut state = lock(&self.state);
        let mut open: Vec<PathBuf> = Vec::new();
        for tree in trees {
            // One that is walked just now is walked once more: it may have changed since its walk began.
            if !state.waiting.contains(tree) {
                state.waiting.push(tree.clone());
            }
            open.push(tree.clone());
        }
        while state.walkers < WALKERS.min(state.waiting.len()) {
            state.walkers += 1;
            let (measures, store) = (Arc::clone(self), store.clone());
            std::thread::spawn(move || measures.walk(&store));
        }
        loop {
            open.retain(|tree| state.waiting.contains(tree) || state.walking.contains(tree));
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if open.is_empty() || left.is_some_and(|left| left.is_zero()) {
                break;
            }
            state = match left {
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0,
                None => self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
            };
        }
        let fresh = open.is_empty();
        let known: Vec<Option<u64>> = trees.iter().map(|tree| state.sizes.get(tree).copied()).collect();
        drop(state);
        let last = |(tree, known): (&PathBuf, Option<u64>)| known.unwrap_or_else(|| remembered(store, tree));
        (trees.iter().zip(known).map(last).collect(), fresh)
    }

    fn walk(&self, store: &Store) {
        loop {
            let tree = {
                let mut state = lock(&self.state);
                let Some(tree) = state.waiting.pop() else {
                    state.walkers -= 1;
                    let unwritten =
                        if state.walkers == 0 { std::mem::take(&mut state.unwritten) } else { BTreeMap::new() };
                    drop(state);
                    remember(store, &unwritten);
                    return;
                };
                state.walking.push(tree.clone());
                tree
            };
            let bytes = disk_usage(&tree);
            let mut state = lock(&self.state);
            if let Some(at) = state.walking.iter().position(|walking| *walking == tree) {
                state.walking.swap_remove(at);
            }
            if state.sizes.insert(tree.clone(), bytes) != Some(bytes) {
                state.unwritten.insert(tree, bytes);
            }
            self.changed.notify_all();
        }
    }
}

/// The key of a tree's row.
fn key(store: &Store, tree: &Path) -> String {
    tree.strip_prefix(store.root()).unwrap_or(tree).to_string_lossy().into_owned()
}

fn remembered(store: &Store, tree: &Path) -> u64 {
    store.read(|tx| tx.get::<u64>(SIZES, &key(store, tree))).ok().flatten().unwrap_or(0)
}

/// A size that is lost in a crash is found again by the next walk. Rows of trees that have gone go, too.
fn remember(store: &Store, sizes: &BTreeMap<PathBuf, u64>) {
    if sizes.is_empty() {
        return;
    }
    let written = store.write_soon(|tx| {
        for (key, _) in tx.list::<u64>(SIZES)? {
            if !store.root().join(&key).exists() {
                tx.delete(SIZES, &key)?;
            }
        }
        sizes.iter().try_for_each(|(tree, bytes)| {
            if *bytes == 0 {
                tx.delete(SIZES, &key(store, tree)).map(drop)
            } else {
                tx.put(SIZES, &key(store, tree), bytes)
            }
        })
    });
    if let Err(error) = written {
        tracing::debug!("sizes cannot be remembered: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_new_when_there_is_time_and_the_last_known_when_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("a"), vec![1; 100_000]).unwrap();
        let long = Duration::from_secs(60);
        let measures = Arc::new(Measures::default());
        let (sizes, fresh) = measures.of(&store, std::slice::from_ref(&tree), long);
        assert!(fresh && sizes[0] >= 100_000);
        std::fs::write(tree.join("b"), vec![1; 100_000]).unwrap();
        let (sizes, _) = measures.of(&store, std::slice::from_ref(&tree), Duration::ZERO);
        assert!(sizes[0] >= 100_000);
        let (sizes, fresh) = measures.of(&store, std::slice::from_ref(&tree), long);
        assert!(fresh && sizes[0] >= 200_000);
        // What walkers write when they end.
        while lock(&measures.state).walkers > 0 || remembered(&store, &tree) != sizes[0] {
            std::thread::yield_now();
        }
        let next = Arc::new(Measures::default());
        let (known, _) = next.of(&store, std::slice::from_ref(&tree), Duration::ZERO);
        assert_eq!(known, sizes);
    }
}
