//! How many clients there are, so that the memory of many goes back when they have gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fewer are not worth it.
const MANY: usize = 256;

/// The clients of this daemon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    now: AtomicUsize,
    /// The most since memory was given back.
    most: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member(Crowd);

impl Crowd {
    pub(crate) fn enter(&self) -> Member {
        let now = self.0.now.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.most.fetch_max(now, Ordering::AcqRel);
        Member(self.clone())
    }

    /// One has gone. Whether so many have by now that their memory is to be given back, which is said once.
    fn leave(&self) -> bool {
        let now = self.0.now.fetch_sub(1, Ordering::AcqRel) - 1;
        let most = self.0.most.load(Ordering::Acquire);
        let thinned = most >= MANY && now <= most / 4;
        thinned && self.0.most.compare_exchange(most, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.0.leave()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Nobody waits for it.
            drop(runtime.spawn_blocking(wharf_sys::heap::trim));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_most_have_gone_it_is_said_once() {
        let crowd = Crowd::default();
        let enter = |count| (0..count).for_each(|_| std::mem::forget(crowd.enter()));
        let said = |count| (0..count).filter(|_| crowd.leave()).count();
        enter(MANY - 1);
        assert_eq!(said(MANY - 1), 0);
        enter(4 * MANY);
        assert_eq!(said(3 * MANY - 1), 0);
        assert_eq!(said(1), 1);
        // What is left is a crowd of its own, and that is all of it.
        assert_eq!(said(MANY), 1);
        assert_eq!(crowd.0.now.load(Ordering::Relaxed), 0);
    }
}
