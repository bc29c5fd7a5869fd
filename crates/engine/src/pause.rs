//! Freezing a container's processes: because the user wants it, or for the time of a commit.

use std::sync::Arc;

use wharf_cgroup::Group;

use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, ErrorKind, Result};
use crate::freezer;
use crate::process::Process;
use crate::record::{Container, Status};
use crate::slot::Slot;

impl Engine {
    /// Freezes a container's processes.
    ///
    /// # Errors
    /// `Conflict` when it does not run or is paused already.
    pub async fn pause(&self, name: &str) -> Result<()> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move {
            let _turn = slot.turn.lock().await;
            let record = slot.record();
            match record.state.status {
                Status::Running => {}
                Status::Paused => {
                    return Err(EngineError::conflict(format!("Container {} is already paused", slot.id)));
                }
                Status::Restarting => {
                    let reason = "is restarting, wait until the container is running";
                    return Err(EngineError::conflict(format!("Container {} {reason}", slot.id)));
                }
                _ => return Err(not_running(&slot)),
            }
            engine.freeze_running(&slot, &record).await?;
            let record = slot.change(|record| {
                if record.state.status == Status::Running {
                    record.state.status = Status::Paused;
                }
            });
            // It has ended meanwhile: what its group has next is not to stand still.
            if record.state.status != Status::Paused {
                engine.thaw(&record).await;
                return Err(not_running(&slot));
            }
            // At once: an end that comes now is told after it.
            engine.tell(&record, "pause");
            engine.save(&record).await
        })
        .await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// `Conflict` when it is not paused.
    pub async fn unpause(&self, name: &str) -> Result<()> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move {
            let _turn = slot.turn.lock().await;
            if slot.record().state.status != Status::Paused {
                return Err(EngineError::conflict(format!("Container {} is not paused", slot.id)));
            }
            let record = engine.go_on(&slot).await?;
            engine.tell(&record, "unpause");
            engine.save(&record).await
        })
        .await
    }

    /// Freezes a container that runs while its files are read. False when it does not run, or is paused anyway.
    pub(crate) async fn pause_for_commit(&self, slot: &Arc<Slot>) -> Result<bool> {
        let _turn = slot.turn.lock().await;
        let record = slot.record();
        if record.state.status != Status::Running {
            return Ok(false);
        }
        match self.freeze_running(slot, &record).await {
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(false),
            done => done?,
        }
        let record = slot.change(|record| {
            if record.state.status == Status::Running {
                record.state.status = Status::Paused;
                // Not the user's wish: a daemon that finds it so after a crash lets it go on.
                record.state.paused_for_commit = true;
            }
        });
        if record.state.status != Status::Paused {
            self.thaw(&record).await;
            return Ok(false);
        }
        self.tell(&record, "pause");
        Ok(true)
    }

    /// The end of [`Self::pause_for_commit`], unless it has been killed, stopped or unpaused meanwhile.
    pub(crate) async fn unpause_after_commit(&self, slot: &Arc<Slot>) -> Result<()> {
        // A stop that has let it go on may have the turn for long.
        if !slot.record().state.paused_for_commit {
            return Ok(());
        }
        let _turn = slot.turn.lock().await;
        let state = slot.record().state.clone();
        if state.status == Status::Paused && state.paused_for_commit {
            let record = self.go_on(slot).await?;
            self.tell(&record, "unpause");
        }
        Ok(())
    }

    /// Thaws a container; the caller has its turn.
    pub(crate) async fn go_on(&self, slot: &Arc<Slot>) -> Result<Arc<Container>> {
        let record = slot.record();
        if let Err(error) = self.freeze(&record, false).await
            && Process::of(&record).is_ok()
        {
            return Err(error);
        }
        // One that has ended meanwhile has nothing that is frozen.
        Ok(slot.change(|record| {
            if record.state.status == Status::Paused {
                record.state.status = Status::Running;
            }
            record.state.paused_for_commit = false;
        }))
    }

    /// After a start of the daemon: what the freezer says holds, not the row. A container that is frozen and that
    /// nobody has acknowledged to be paused goes on: a daemon was killed in the middle of a pause or a commit.
    pub(crate) async fn find_paused(&self, slot: &Arc<Slot>) {
        let record = slot.record();
        let Ok(group) = self.group(&record) else { return };
        let wanted = record.state.status == Status::Paused && !record.state.paused_for_commit;
        let found = blocking(move || {
            let frozen = freezer::is_frozen(&group);
            if frozen && !wanted {
                freezer::thaw(&group);
            }
            Ok(frozen && wanted)
        })
        .await;
        let paused = found.unwrap_or(false);
        slot.change(|record| {
            record.state.paused_for_commit = false;
            if paused {
                record.state.status = Status::Paused;
            } else if record.state.status == Status::Paused {
                record.state.status = Status::Running;
            }
        });
    }

    /// Freezes a container that is to run; `Conflict` when it has ended just now, and nothing is there to freeze.
    async fn freeze_running(&self, slot: &Slot, record: &Container) -> Result<()> {
        self.freeze(record, true).await.map_err(|error| match Process::of(record) {
            Ok(_) => error,
            Err(_) => not_running(slot),
        })
    }

    async fn freeze(&self, record: &Container, freeze: bool) -> Result<()> {
        let group = self.group(record)?;
        blocking(move || {
            group.freeze(freeze).map_err(|e| EngineError::from_source("cannot pause or unpause the container", &e))
        })
        .await
    }

    /// A process that is frozen does not even end.
    pub(crate) async fn thaw(&self, record: &Container) {
        if let Ok(group) = self.group(record) {
            let _ = blocking(move || {
                freezer::thaw(&group);
                Ok(())
            })
            .await;
        }
    }

    pub(crate) fn group(&self, record: &Container) -> Result<Group> {
        Group::open(&self.inner.hierarchies, &self.cgroup(record))
            .map_err(|e| EngineError::from_source("cannot find the container's control group", &e))
    }
}

fn not_running(slot: &Slot) -> EngineError {
    EngineError::conflict(format!("container {} is not running", slot.id))
}
