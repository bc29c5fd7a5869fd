//! After a start of the daemon: what runs is taken up, what ended is written down, what shall run is started.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use wharf_monitor::client::Event;

use crate::engine::{Engine, blocking, may_fail_again};
use crate::error::{EngineError, Result};
use crate::record::Status;
use crate::remove::RemoveOptions;
use crate::slot::Slot;
use crate::supervise::next;

/// How long the first words of all monitors together are waited for. Each has one at hand, unless it was stopped or
/// hangs in a start; what runs under such a one is not seen more closely then.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// A monitor that is there, with what it has said first.
type Found = (UnixStream, Option<Event>);

impl Engine {
    /// Takes up the containers that run, and closes the records of those that ended.
    ///
    /// A row may be older than what happened last: a daemon that was killed has not written everything. What runs has a
    /// monitor, and what ended has left its `exit.json`.
    pub(crate) async fn recover(&self) -> Result<()> {
        let mut found = self.find_monitors().await;
        let mut alive = Vec::new();
        for slot in self.inner.slots.all() {
            let record = slot.record();
            let monitor = found.remove(&slot.id);
            if record.state.status == Status::Removing {
                self.finish_removal(&slot, &record).await?;
            } else if self.take_up_found(&slot, monitor).await {
                alive.push(slot.id.clone());
            } else if record.state.status.is_active() || self.has_ended_since(&record).await {
                slot.change(|record| record.state.status = Status::Running);
                self.note_lost(&slot).await;
            } else {
                self.drop_shm(&record);
            }
        }
        let networks = self.networks().clone();
        let kept = alive.clone();
        let volumes = self.volumes().clone();
        blocking(move || {
            volumes.unmount_unused();
            networks.recover(&kept).map_err(|e| EngineError::from_source("cannot take up the networks", &e))
        })
        .await?;
        // Only now: the networks know who lives.
        for slot in self.inner.slots.all() {
            let record = slot.record();
            if record.host.auto_remove && record.state.status == Status::Exited {
                let _ = self.remove(&slot.id, RemoveOptions { volumes: true, ..RemoveOptions::default() }).await;
            }
        }
        Ok(())
    }

    /// The monitors that are there, all asked at once: none keeps the daemon from its start.
    async fn find_monitors(&self) -> BTreeMap<String, Found> {
        let mut asked = JoinSet::new();
        for slot in self.inner.slots.all() {
            let Some(mut stream) = self.connect(&slot).await else { continue };
            asked.spawn(async move {
                match tokio::time::timeout(FIRST_WORDS, next(&mut stream)).await {
                    // It has ended meanwhile, and its word is on the disk.
                    Ok(None) => None,
                    first => Some((slot.id.clone(), (stream, first.ok().flatten()))),
                }
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// False when nothing runs.
    async fn take_up_found(&self, slot: &Arc<Slot>, monitor: Option<Found>) -> bool {
        let Some((stream, first)) = monitor else { return false };
        if first.is_none() && Self::is_starting(&stream) {
            // Nobody waits for this start any more, and nobody else would ever end it.
            tracing::warn!("the start of container {} makes no progress since the daemon was ended: given up", slot.id);
            self.end_monitor(slot).await;
            return false;
        }
        if first.is_none() {
            tracing::warn!("the monitor of container {} does not answer: taken for one that runs", slot.id);
        }
        self.take_up(slot, stream, first).await
    }

    /// Starts what its restart policy wants to run and does not: after a start of the host.
    pub fn start_wanted(&self) {
        for slot in self.inner.slots.all() {
            let record = slot.record();
            let wanted = match record.host.restart_policy.name.as_str() {
                "always" => true,
                "unless-stopped" => !record.stopped_by_user,
                "on-failure" => !record.stopped_by_user && may_fail_again(&record),
                _ => false,
            };
            if wanted && record.state.status == Status::Exited {
                let engine = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = engine.start(&slot.id).await {
                        tracing::warn!("cannot start container {}: {error}", slot.id);
                    }
                });
            }
        }
    }
}
