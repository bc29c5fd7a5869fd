//! How much of one connection's messages may be in memory at once, over all of its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Code, MAX_MESSAGE, Status};

/// Bytes. A few of the longest messages: a client has one of them at a time.
const MOST: usize = 4 * MAX_MESSAGE;

/// What a connection has here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget(Arc<AtomicUsize>);

/// What one call has of it. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    pub(super) fn of(budget: &Budget) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// # Errors
    /// When the connection has too much here.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes;
        match self.budget.0.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST {
            false => Ok(()),
            true => Err(Status::new(
                Code::ResourceExhausted,
                format!("the calls of one connection have more than {MOST} bytes under way: make fewer at once"),
            )),
        }
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}
