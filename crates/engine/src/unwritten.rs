//! Rows that need not be on the disk at once: what they say can be found out again after a crash.
//!
//! They are written together, a moment later, so that a container that comes and goes meanwhile costs the disk nothing, and one
//! that changes often costs it one transaction a second.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use wharf_store::StoreError;

use crate::engine::{CONTAINERS, Engine, Inner, blocking};
use crate::error::{EngineError, Result};
use crate::record::{Container, Status};
use crate::slot::lock;

/// Between a change and its way to the disk.
const SOON: Duration = Duration::from_secs(1);
/// The same where the disk did not take the last ones.
const AGAIN: Duration = Duration::from_secs(10);

/// IDs of the containers whose rows are older than they are, or are there though they are not.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    ids: Mutex<BTreeSet<String>>,
    /// Held while they are written, as the store has one writer: who finds none left knows that they are on the disk.
    writing: Mutex<()>,
    changed: Notify,
}

impl Unwritten {
    fn note(&self, id: &str) {
        if lock(&self.ids).insert(id.to_owned()) {
            self.changed.notify_one();
        }
    }
}

impl Engine {
    /// Writes what can be found out again after a crash, a moment later.
    pub(crate) fn save_soon(&self, record: &Container) {
        self.inner.unwritten.note(&record.id);
    }

    /// Takes the row of a container that is not there any more away a moment later. Only of one that is known to be removed
    /// without that.
    pub(crate) fn forget_soon(&self, id: &str) {
        self.inner.unwritten.note(id);
    }

    /// Writes the row of a container that is to come or to go, and with it what is to be written soon: that has happened before.
    /// On the disk when this returns. Of all others only what they are now is written: whoever does not have the turn may come when
    /// it has been removed.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn write_record(&self, record: &Container) -> Result<()> {
        self.write(Some(record)).map_err(|e| EngineError::from_source("cannot write the container", &e))
    }

    /// Writes what is to be written soon. On the disk when this returns.
    ///
    /// # Errors
    /// When the disk fails; then it is tried again with the next.
    pub(crate) fn write_unwritten(&self) -> Result<()> {
        self.write(None).map_err(|e| EngineError::from_source("cannot write the state of containers", &e))
    }

    fn write(&self, record: Option<&Container>) -> std::result::Result<(), StoreError> {
        let _writing = lock(&self.inner.unwritten.writing);
        let ids = std::mem::take(&mut *lock(&self.inner.unwritten.ids));
        if ids.is_empty() && record.is_none() {
            return Ok(());
        }
        // Looked at within the transaction: whoever writes a row of one of these writes it before or after all of this.
        let written = self.store().write(|tx| {
            record.map_or(Ok(()), |record| tx.put(CONTAINERS, &record.id, record))?;
            // Afterwards: what was noted of the same container meanwhile is newer.
            ids.iter().try_for_each(|id| match self.inner.slots.find(id) {
                Ok(slot) if slot.id == *id => match &*slot.record() {
                    // Its row is being deleted.
                    newest if newest.state.status == Status::Removing => Ok(()),
                    newest => tx.put(CONTAINERS, id, newest),
                },
                _ => tx.delete(CONTAINERS, id).map(drop),
            })
        });
        if written.is_err() {
            lock(&self.inner.unwritten.ids).extend(ids);
            self.inner.unwritten.changed.notify_one();
        }
        written
    }

    /// Does so whenever there is something, until the engine is dropped.
    pub(crate) fn write_when_changed(&self) {
        let (unwritten, inner) = (Arc::clone(&self.inner.unwritten), Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            let mut pause = SOON;
            loop {
                unwritten.changed.notified().await;
                tokio::time::sleep(pause).await;
                let Some(is_written) = write(&inner).await else { return };
                pause = if is_written { SOON } else { AGAIN };
            }
        });
    }
}

/// Whether the disk took it; `None` when the engine has gone.
async fn write(inner: &Weak<Inner>) -> Option<bool> {
    let engine = Engine { inner: inner.upgrade()? };
    let written = blocking(move || engine.write_unwritten()).await;
    Some(written.map_err(|error| tracing::warn!("{error}")).is_ok())
}
