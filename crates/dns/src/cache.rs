//! Answers of name servers, kept as long as they say.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Memory for what is kept, about.
const MAX_BYTES: usize = 4 << 20;
/// What a kept answer takes beside its bytes.
const OVERHEAD: usize = 256;
/// Larger answers are not worth their place.
const MAX_ANSWER: usize = 8 << 10;
/// Nothing is believed for longer, whatever it says.
const LONGEST: u32 = 24 * 60 * 60;
/// The same for that there is nothing.
const LONGEST_NOTHING: u32 = 15 * 60;

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    ttls: Box<[u16]>,
    kept: Instant,
    ends: Instant,
    used: u64,
}

/// Answers by their questions; those that were not used for longest make room.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Rc<[u8]>, Entry>,
    by_use: BTreeMap<u64, Rc<[u8]>>,
    uses: u64,
    bytes: usize,
    limit: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self { entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0, bytes: 0, limit: MAX_BYTES }
    }
}

/// What is kept, for a moment.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) ttls: &'a [u16],
    /// In seconds.
    pub(crate) age: u32,
}

impl Cache {
    pub(crate) fn get(&mut self, key: &[u8], now: Instant) -> Option<Kept<'_>> {
        if self.entries.get(key)?.ends <= now {
            self.forget(key);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        self.uses += 1;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.by_use.insert(self.uses, key);
        }
        entry.used = self.uses;
        let age = now.saturating_duration_since(entry.kept).as_secs();
        Some(Kept { message: &entry.message, ttls: &entry.ttls, age: u32::try_from(age).unwrap_or(u32::MAX) })
    }

    /// Keeps an answer for `lifetime` seconds, `nothing` when it says that there is none.
    pub(crate) fn put(&mut self, key: &[u8], message: &[u8], ttls: &[u16], lifetime: u32, nothing: bool, now: Instant) {
        self.forget(key);
        let lifetime = lifetime.min(if nothing { LONGEST_NOTHING } else { LONGEST });
        if lifetime == 0 || message.len() > MAX_ANSWER {
            return;
        }
        self.uses += 1;
        let key: Rc<[u8]> = key.into();
        let ends = now + Duration::from_secs(lifetime.into());
        let entry = Entry { message: message.into(), ttls: ttls.into(), kept: now, ends, used: self.uses };
        self.bytes += size(&key, &entry);
        self.by_use.insert(self.uses, Rc::clone(&key));
        self.entries.insert(key, entry);
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = Rc::clone(oldest);
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.by_use.remove(&entry.used);
            self.bytes -= size(&key, &entry);
        }
    }
}

fn size(key: &[u8], entry: &Entry) -> usize {
    key.len() + entry.message.len() + entry.ttls.len() * 2 + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_age_and_end() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut cache = Cache::default();
        cache.put(b"key", b"answer", &[3], 30, false, now);
        cache.put(b"none", b"answer", &[], 0, false, now);
        cache.put(b"nothing", b"answer", &[], u32::MAX, true, now);
        let kept = cache.get(b"key", at(29)).unwrap();
        assert_eq!((kept.message, kept.ttls, kept.age), (&b"answer"[..], &[3][..], 29));
        assert!(cache.get(b"key", at(30)).is_none());
        assert!(cache.get(b"none", now).is_none());
        assert!(cache.get(b"nothing", at(899)).is_some());
        assert!(cache.get(b"nothing", at(900)).is_none());
        assert_eq!((cache.bytes, cache.entries.len(), cache.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_not_used_makes_room() {
        let now = Instant::now();
        let mut cache = Cache { limit: 100 * (OVERHEAD + 4 + 100), ..Cache::default() };
        for number in 0..1000u32 {
            cache.put(&number.to_be_bytes(), &[0; 100], &[], 60, false, now);
            assert!(cache.get(&0u32.to_be_bytes(), now).is_some(), "{number}");
        }
        assert!(cache.bytes <= cache.limit);
        assert_eq!((cache.entries.len(), cache.by_use.len()), (100, 100));
        assert!(cache.get(&1u32.to_be_bytes(), now).is_none());
        assert!(cache.get(&999u32.to_be_bytes(), now).is_some());
        cache.put(b"large", &[0; MAX_ANSWER + 1], &[], 60, false, now);
        assert!(cache.get(b"large", now).is_none());
        // The same key again is no second entry.
        cache.put(&999u32.to_be_bytes(), &[0; 100], &[], 60, false, now);
        assert_eq!(cache.entries.len(), 100);
    }
}
