//! What of all answers waits in memory for clients to read it: bounded for all of them together, however many there are.
//!
//! Where there is no room, answers that are made while they are sent wait for some, and who has read nothing for a while
//! loses the connection: the room is of those that do not read, and those that do must not wait for them for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Five hundred clients have all that one may have.
const MOST: usize = 32 << 20;
/// So long a client may read nothing where others need the room.
pub(crate) const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// The memory is the process's, and so is this.
pub(crate) static ALL: Backlog = Backlog::new(MOST);

/// Bytes that have been made and not been read.
#[derive(Debug)]
pub(crate) struct Backlog {
    most: usize,
    bytes: AtomicUsize,
    /// Answers that wait for room.
    waiting: Mutex<Vec<Waker>>,
}

impl Backlog {
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, bytes: AtomicUsize::new(0), waiting: Mutex::new(Vec::new()) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= self.most
    }

    /// Ready when there is room for more.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_full() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        drop(waiting);
        // What has left meanwhile has woken nobody yet.
        if self.is_full() { Poll::Pending } else { Poll::Ready(()) }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn take(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.most && before - bytes < self.most {
            std::mem::take(&mut *self.waiting()).into_iter().for_each(Waker::wake);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
