//! Moments at which something is to be looked at.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// One moment for each key.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: HashMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        self.cancel(key);
        self.by_key.insert(key, at);
        self.by_time.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes one whose moment has come.
    pub(crate) fn due(&mut self, now: Instant) -> Option<K> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_comes_once_and_in_order() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(1, now + Duration::from_secs(2));
        timers.set(2, now + Duration::from_secs(1));
        timers.set(3, now);
        timers.set(1, now + Duration::from_secs(3));
        timers.cancel(3);
        assert_eq!(timers.next(), Some(now + Duration::from_secs(1)));
        assert_eq!(timers.due(now), None);
        let late = now + Duration::from_secs(9);
        assert_eq!((timers.due(late), timers.due(late), timers.due(late)), (Some(2), Some(1), None));
        assert_eq!(timers.next(), None);
    }
}
