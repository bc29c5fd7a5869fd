//! How many bytes a data root may take: asked before they are written.

use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Result, StoreError};

/// A stream asks for its bytes in steps of so many.
const STEP: u64 = 1 << 20;

/// Who knows what is there, and makes room.
pub trait Keeper: Send + Sync {
    /// Bytes that the data root takes now.
    fn used(&self) -> u64;

    /// Removes what nobody needs until so many bytes are free; nothing of worth when all that may go would not be enough.
    fn evict(&self, bytes: u64);
}

/// The bytes that may be written. Without a limit all may.
pub struct Budget {
    keeper: OnceLock<Box<dyn Keeper>>,
    /// The limit; [`NO_LIMIT`] is none.
    max: AtomicU64,
    /// Given away, and not yet part of what a keeper sees, or given back.
    promised: AtomicU64,
    /// What may still be given away before the keeper is asked again.
    credit: Mutex<u64>,
}

const NO_LIMIT: u64 = u64::MAX;

impl Default for Budget {
    fn default() -> Self {
        let (keeper, max) = (OnceLock::new(), AtomicU64::new(NO_LIMIT));
        Self { keeper, max, promised: AtomicU64::default(), credit: Mutex::default() }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max() {
            Some(max) => write!(f, "{max} bytes"),
            None => f.write_str("no limit"),
        }
    }
}

impl Budget {
    /// Sets the limit, and who keeps it: the first caller's. Without one nothing is counted.
    pub fn limit(&self, max: Option<u64>, keeper: impl Keeper + 'static) {
        let _ = self.keeper.set(Box::new(keeper));
        self.set_max(max);
    }

    /// Sets the limit anew, from the next bytes on; `None` takes it away.
    pub fn set_max(&self, max: Option<u64>) {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        // Given by the limit of before.
        *credit = 0;
        self.max.store(max.unwrap_or(NO_LIMIT), Ordering::Release);
    }

    /// The limit, if there is one.
    pub fn max(&self) -> Option<u64> {
        Some(self.max.load(Ordering::Acquire)).filter(|max| *max != NO_LIMIT)
    }

    /// Asks for room for so many bytes. What nobody needs goes for it, the oldest first. Not to be called with a lock that
    /// removing takes.
    ///
    /// # Errors
    /// `OverBudget` with how many bytes are missing.
    pub fn reserve(&self, bytes: u64) -> Result<Reserved<'_>> {
        let mut reserved = Reserved { budget: self, bytes: 0 };
        reserved.add(bytes)?;
        Ok(reserved)
    }

    /// Makes sure that there is room for so many bytes now, which are asked for again when they are written.
    ///
    /// # Errors
    /// `OverBudget` with how many bytes are missing.
    pub fn require(&self, bytes: u64) -> Result<()> {
        let reserved = self.reserve(bytes)?;
        if self.max().is_some() {
            *self.credit.lock().unwrap_or_else(PoisonError::into_inner) += reserved.bytes;
        }
        Ok(())
    }

    fn take(&self, bytes: u64) -> Result<()> {
        let Some(keeper) = self.keeper.get() else { return Ok(()) };
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(max) = self.max() else {
            // Counted all the same, for a limit that comes while this is written.
            self.promised.fetch_add(bytes, Ordering::AcqRel);
            return Ok(());
        };
        if *credit < bytes {
            // Nothing goes for what could never fit.
            if bytes > max {
                return Err(StoreError::OverBudget { max, missing: bytes - max });
            }
            let taken = || keeper.used().saturating_add(self.promised.load(Ordering::Acquire));
            // With what the root has too much already.
            let over = |taken: u64| taken.saturating_add(bytes).saturating_sub(max);
            let mut now = taken();
            if over(now) > 0 {
                keeper.evict(over(now));
                now = taken();
            }
            *credit = max.saturating_sub(now);
            if over(now) > 0 {
                return Err(StoreError::OverBudget { max, missing: over(now) });
            }
        }
        *credit -= bytes;
        self.promised.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }

    /// A stream whose bytes are asked for before they are read; it ends with `StorageFull`.
    pub fn metered<'a>(&'a self, input: &'a mut dyn Read) -> Metered<'a> {
        Metered { input, reserved: Reserved { budget: self, bytes: 0 }, left: 0 }
    }
}

/// Room that somebody has; given back when it is dropped, by when what was written there is seen by all.
#[derive(Debug)]
pub struct Reserved<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Reserved<'_> {
    /// Asks for more.
    ///
    /// # Errors
    /// `OverBudget`.
    pub fn add(&mut self, bytes: u64) -> Result<()> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.budget.keeper.get().is_some() {
            self.budget.promised.fetch_sub(self.bytes, Ordering::AcqRel);
        }
    }
}

/// A stream for whose bytes there is room.
pub struct Metered<'a> {
    input: &'a mut dyn Read,
    reserved: Reserved<'a>,
    left: u64,
}

impl fmt::Debug for Metered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("reserved", &self.reserved).finish_non_exhaustive()
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let room = self.reserved.add(STEP);
            room.map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
            self.left = STEP;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.input.read(&mut bytes[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A root with so many bytes, of which some may go.
    struct Root(Arc<[AtomicU64; 2]>);

    impl Keeper for Root {
        fn used(&self) -> u64 {
            self.0[0].load(Ordering::Relaxed)
        }
        fn evict(&self, bytes: u64) {
            let going = bytes.min(self.0[1].load(Ordering::Relaxed));
            self.0[0].fetch_sub(going, Ordering::Relaxed);
            self.0[1].fetch_sub(going, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_may_go_goes_and_then_the_missing_bytes_are_named() {
        let root = Arc::new([AtomicU64::new(60), AtomicU64::new(30)]);
        let budget = Budget::default();
        budget.reserve(u64::MAX).unwrap();
        budget.limit(Some(100), Root(Arc::clone(&root)));
        let first = budget.reserve(40).unwrap();
        assert_eq!(root[0].load(Ordering::Relaxed), 60, "there was room");
        let second = budget.reserve(20).unwrap();
        assert_eq!(root[0].load(Ordering::Relaxed), 40, "and then there was not");
        match budget.reserve(15) {
            Err(error @ StoreError::OverBudget { max: 100, missing: 5 }) => assert!(error.is_full()),
            other => panic!("{other:?}"),
        }
        // What was written meanwhile is seen, what was not is room again.
        root[0].fetch_add(40, Ordering::Relaxed);
        drop((first, second));
        assert!(matches!(budget.reserve(80), Err(StoreError::OverBudget { missing: 50, .. })));
        budget.reserve(10).unwrap();
    }

    #[test]
    fn a_limit_may_come_go_and_change() {
        let root = Arc::new([AtomicU64::new(60), AtomicU64::new(0)]);
        let budget = Budget::default();
        budget.limit(None, Root(root));
        assert_eq!((budget.max(), format!("{budget:?}").as_str()), (None, "no limit"));
        let held = budget.reserve(30).unwrap();
        budget.set_max(Some(100));
        // With what was given before there was a limit.
        assert!(matches!(budget.reserve(20), Err(StoreError::OverBudget { max: 100, missing: 10 })));
        budget.set_max(Some(200));
        budget.reserve(20).unwrap();
        budget.set_max(Some(50));
        drop(held);
        assert!(matches!(budget.reserve(1), Err(StoreError::OverBudget { missing: 11, .. })));
        budget.set_max(None);
        budget.reserve(u64::MAX >> 1).unwrap();
    }

    #[test]
    fn a_stream_ends_where_the_room_does() {
        let budget = Budget::default();
        budget.limit(Some(3 << 20), Root(Arc::new([AtomicU64::new(0), AtomicU64::new(0)])));
        let copied = io::copy(&mut budget.metered(&mut io::repeat(1)), &mut io::sink());
        let error = copied.unwrap_err();
        assert!(
            error.kind() == io::ErrorKind::StorageFull && error.to_string().contains("storage-max-bytes"),
            "{error}"
        );
        assert_eq!(io::copy(&mut budget.metered(&mut io::repeat(1).take(2 << 20)), &mut io::sink()).unwrap(), 2 << 20);
    }
}
