//! Layers that somebody counts on, before anything on the disk says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_reference::Digest;

/// What is held, with how many count on it.
#[derive(Debug, Default)]
pub struct Holds {
    counts: Mutex<BTreeMap<Digest, usize>>,
}

impl Holds {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<Digest, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody counts on it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.counts().contains_key(digest)
    }

    /// Whether others than `own` hold it.
    pub(crate) fn contains_beside(&self, digest: &Digest, own: &Hold) -> bool {
        let ours = own.digests.iter().filter(|held| *held == digest).count();
        self.counts().get(digest).is_some_and(|count| *count > ours)
    }
}

/// Layers that stay until this is dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    digests: Vec<Digest>,
}

impl Hold {
    /// That holds nothing yet.
    pub fn new(holds: Arc<Holds>) -> Self {
        Self { holds, digests: Vec::new() }
    }

    /// Holds these too, until it is dropped.
    pub fn add(&mut self, digests: &[Digest]) {
        let mut counts = self.holds.counts();
        for digest in digests {
            *counts.entry(digest.clone()).or_default() += 1;
            self.digests.push(digest.clone());
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.holds.counts();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

/// The hold on a layer that was just made; it is no part of what the layer is.
#[derive(Clone, Default)]
pub(crate) struct Held(Option<Arc<Hold>>);

impl From<Hold> for Held {
    fn from(hold: Hold) -> Self {
        Self(Some(Arc::new(hold)))
    }
}

impl PartialEq for Held {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Held {}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "held" } else { "free" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_hold_stays_until_both_let_go() {
        let holds = Arc::new(Holds::default());
        let digest = Digest::sha256(b"x");
        let (mut one, mut two) = (Hold::new(Arc::clone(&holds)), Hold::new(Arc::clone(&holds)));
        one.add(std::slice::from_ref(&digest));
        one.add(std::slice::from_ref(&digest));
        assert!(!holds.contains_beside(&digest, &one));
        two.add(std::slice::from_ref(&digest));
        assert!(holds.contains_beside(&digest, &one) && holds.contains_beside(&digest, &two));
        drop(one);
        assert!(holds.contains(&digest));
        drop(two);
        assert!(!holds.contains(&digest));
    }
}
