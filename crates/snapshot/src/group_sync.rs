//! One syncfs(2) for all who wait for one.

use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::io::Errno;

/// Brings a file system to the disk. Whoever asks while another sync runs shares the next one: several layers that
/// are ready together cost one.
#[derive(Debug, Default)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who has asked, and up to whom it is done.
    asked: u64,
    done: u64,
    running: bool,
}

impl GroupSync {
    /// Returns when all that was written before the call is on the disk.
    pub(crate) fn sync(&self, file: impl AsFd) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let own = state.asked;
        while state.done < own {
            if state.running {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            // Whoever asks from here on may have written after this sync has begun.
            let covered = state.asked;
            drop(state);
            let synced = rustix::fs::syncfs(file.as_fd());
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            if synced.is_ok() {
                state.done = state.done.max(covered);
            }
            self.ended.notify_all();
            // The others try for themselves, and hear it too.
            synced?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_served() {
        let sync = GroupSync::default();
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| sync.sync(std::fs::File::open(dir.path()).unwrap()).unwrap());
            }
        });
        let state = sync.state.lock().unwrap();
        assert_eq!((state.asked, state.done, state.running), (8, 8, false));
    }
}
