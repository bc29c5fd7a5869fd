//! Calling off a launch that another thread waits for.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::net::{Shutdown, shutdown};

/// By it a launch is called off that makes no progress: what is joined of another container can be used by those there
/// to keep it from any. One that goes on is not touched.
#[derive(Debug, Default)]
pub struct CallOff(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    called: bool,
    /// The connection to the monitor, while its answer is waited for.
    connection: Option<OwnedFd>,
}

impl CallOff {
    /// Calls it off: now, or as soon as it has come so far.
    pub fn call(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.called = true;
        if let Some(connection) = &state.connection {
            tell(connection);
        }
    }

    /// The answer is waited for on `connection` until the value is dropped.
    pub(crate) fn wait_on(&self, connection: BorrowedFd<'_>) -> Waits<'_> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Without an fd to spare it goes its way to the end.
        state.connection = connection.try_clone_to_owned().ok();
        if let (true, Some(connection)) = (state.called, &state.connection) {
            tell(connection);
        }
        Waits(self)
    }
}

/// A launch's answer is waited for.
#[derive(Debug)]
pub(crate) struct Waits<'a>(&'a CallOff);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).connection = None;
    }
}

/// There is nothing more to be sent, and so no other meaning (`wharf_runtime::Lifecycle::caller`).
fn tell(connection: &OwnedFd) {
    let _ = shutdown(connection, Shutdown::Write);
}
