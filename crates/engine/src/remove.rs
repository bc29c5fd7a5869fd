//! Removing containers.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{CONTAINERS, Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::record::{Container, Status};
use crate::slot::Slot;
use crate::stop::SIGKILL;

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Ends it first.
    pub force: bool,
    /// Removes its anonymous volumes too.
    pub volumes: bool,
    /// Removes a link, not the container.
    pub link: bool,
}

/// What a prune has removed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrunedContainers {
    pub containers_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}

impl Engine {
    /// Removes a container and what is its own.
    ///
    /// # Errors
    /// `Conflict` when it runs and `force` is not given.
    pub async fn remove(&self, name: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(name).await;
        }
        let (engine, slot, name) = (self.clone(), self.inner.slots.find(name)?, name.to_owned());
        to_its_end(async move { engine.remove_now(&slot, &name, options).await }).await
    }

    async fn remove_now(&self, slot: &Arc<Slot>, name: &str, options: RemoveOptions) -> Result<()> {
        // A stop that waits for a process that takes its time has no more to wait for.
        if options.force && slot.turn.try_lock().is_none() && slot.record().state.status.is_active() {
            let _ = self.kill_now(slot, SIGKILL).await;
        }
        let _turn = if options.force { self.turn_to_end(slot).await } else { slot.turn.lock().await };
        // Somebody else may have removed it while this request waited for its turn.
        self.inner.slots.find(&slot.id)?;
        let record = slot.record();
        if record.state.status.is_active() {
            if !options.force {
                return Err(Self::still_active(name, &record));
            }
            self.stop_now(slot, Some(9), Some(0)).await?;
        }
        self.remove_ended(slot, options.volumes).await
    }

    /// What is said where a container that has not ended should be removed without force.
    pub(crate) fn still_active(name: &str, record: &Container) -> EngineError {
        let (state, advice) = match record.state.status {
            Status::Paused => ("paused", " and must be unpaused first"),
            Status::Restarting => ("restarting", ": stop the container before removing or force remove"),
            _ => ("running", ": stop the container before removing or force remove"),
        };
        EngineError::conflict(format!("cannot remove container \"{name}\": container is {state}{advice}"))
    }

    /// Removes a container that does not run; the caller has its turn.
    pub(crate) async fn remove_ended(&self, slot: &Arc<Slot>, volumes: bool) -> Result<()> {
        let record = slot.change(|record| record.state.status = Status::Removing);
        if volumes && record.mounts.iter().any(|point| point.kind == "volume" && point.anonymous) {
            // In the row first: a crash from here on ends in a removed container, not in half of one.
            let (engine, own) = (self.clone(), record.clone());
            blocking(move || engine.write_record(&own)).await?;
            self.remove_volumes(&record).await;
        }
        self.finish_removal(slot, &record).await
    }

    pub(crate) async fn finish_removal(&self, slot: &Arc<Slot>, record: &Arc<Container>) -> Result<()> {
        let (dir, exec_dir) = (self.dir(&slot.id), self.exec_dir(&slot.id));
        let (engine, own) = (self.clone(), Arc::clone(record));
        let row_is_left = blocking(move || {
            // A kill may have come between its row and this: nobody may take volumes that stay for new ones.
            engine.keep_new_volumes(&own.id);
            // The row goes first, and with it the container: a directory without a row is swept at the next start.
            let row_is_left = own.host.auto_remove && engine.leave_files(&own.id);
            if !row_is_left {
                let deleted = engine.store().write(|tx| tx.delete(CONTAINERS, &own.id));
                deleted.map_err(|e| EngineError::from_source("cannot forget the container", &e))?;
            }
            // Who hears that the container is removed may count on that.
            if engine.inner.secrets.of(&own.id).is_some() {
                engine.inner.secrets.forget(&own.id);
            }
            Ok(row_is_left)
        })
        .await?;
        self.inner.execs.forget(&slot.id);
        self.inner.slots.remove(&slot.id);
        self.inner.slots.free_name(&record.name, &slot.id);
        if row_is_left {
            self.forget_soon(&slot.id);
        }
        self.tell(record, "destroy");
        slot.set_life(|life| {
            life.active = false;
            life.removed = true;
        });
        let (engine, id, image) = (self.clone(), slot.id.clone(), record.image.clone());
        blocking(move || {
            crate::shm::unmount(&exec_dir);
            for dir in [dir, exec_dir] {
                match wharf_rooted_path::remove_dir_all(&dir) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!("cannot remove {}: {error}; it is swept at the next start", dir.display());
                    }
                    _ => {}
                }
            }
            engine.inner.slots.left(&id);
            // Until now it was in use.
            Ok(engine.images().touch(&image)?)
        })
        .await
    }

    /// Takes a container's files from it. A row that has none is that of a container that is removed, so that no command with
    /// `--rm` waits for the disk at its end. False where they cannot be taken.
    fn leave_files(&self, id: &str) -> bool {
        let dir = self.dir(id);
        std::fs::rename(dir.join("upper"), dir.join("removed")).is_ok()
    }

    /// Removes the volumes of a container that nobody has named and nobody else has.
    pub(crate) async fn remove_volumes(&self, record: &Container) {
        for point in record.mounts.iter().filter(|point| point.kind == "volume" && point.anonymous) {
            let (volumes, name) = (self.volumes().clone(), point.name.clone());
            let (engine, own) = (self.clone(), record.id.clone());
            let users = move |name: &str| -> Vec<String> {
                // Others that are being removed ask the same, and one of them would have to be the last.
                let stays = |record: &Container| record.id != own && record.state.status != Status::Removing;
                let users = engine.records_with_volume(name).into_iter().filter(|record| stays(record));
                users.map(|record| record.id.clone()).collect()
            };
            // Of what somebody has taken a snapshot of, somebody takes care.
            let kept = |name: &str| volumes.get(name).is_ok_and(|volume| !volume.snapshots.is_empty());
            if !users(&name).is_empty() || kept(&name) {
                continue;
            }
            let done = blocking(move || Ok(volumes.remove(&name, true, &users)?)).await;
            if let Err(error) = done {
                tracing::warn!("cannot remove volume {}: {error}", point.name);
            }
        }
    }

    /// IDs of the containers that have a volume mounted.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        self.records_with_volume(name).into_iter().map(|record| record.id.clone()).collect()
    }

    fn records_with_volume(&self, name: &str) -> Vec<Arc<Container>> {
        let uses = |record: &Container| record.mounts.iter().any(|m| m.kind == "volume" && m.name == name);
        self.list().into_iter().filter(|record| uses(record)).collect()
    }

    /// Removes all containers that do not run and that `choose` wants removed, but those that others just work on. `told` hears
    /// of each.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn prune_containers(
        &self,
        choose: impl Fn(&Container) -> bool,
        told: impl Fn(&str),
    ) -> Result<PrunedContainers> {
        let mut pruned = PrunedContainers::default();
        for slot in self.inner.slots.all() {
            let Some(_turn) = slot.turn.try_lock() else { continue };
            let record = slot.record();
            if record.state.status.is_active() || !choose(&record) || self.inner.slots.find(&slot.id).is_err() {
                continue;
            }
            let dir = self.dir(&slot.id);
            pruned.space_reclaimed += blocking(move || Ok(wharf_rooted_path::disk_usage(&dir))).await?;
            self.remove_ended(&slot, false).await?;
            told(&slot.id);
            pruned.containers_deleted.get_or_insert_default().push(slot.id.clone());
        }
        Ok(pruned)
    }
}

/// Whether a container's files were taken from it (`Engine::leave_files`); a crash may have brought its row back.
pub(crate) fn has_left_files(dir: &Path, record: &Container) -> bool {
    let missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    record.host.auto_remove && dir.join("upper").symlink_metadata().is_err_and(missing)
}
