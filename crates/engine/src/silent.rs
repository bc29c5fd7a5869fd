//! What is done about a monitor that does not answer.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_cgroup::Group;
use wharf_monitor::{Silent, client};

use crate::engine::{Engine, blocking};
use crate::freezer;
use crate::slot::{Slot, TurnGuard};

/// How long what a killed monitor has left may take to go.
const GROUP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a start that was called off may take to end.
const CALLED_OFF: Duration = Duration::from_secs(5);

impl Engine {
    /// The turn, for who wants the container's end: a start that makes no progress is not waited for.
    pub(crate) async fn turn_to_end<'a>(&self, slot: &'a Arc<Slot>) -> TurnGuard<'a> {
        if slot.call_off() {
            if let Ok(turn) = tokio::time::timeout(CALLED_OFF, slot.turn.lock()).await {
                return turn;
            }
            // Another one may have begun meanwhile, which is at its own beginning then.
            if slot.call_off() {
                self.end_monitor(slot).await;
            }
        }
        slot.turn.lock().await
    }

    /// Whether who listens there has not come to the end of the container's first start.
    pub(crate) fn is_starting(connection: impl AsFd) -> bool {
        Silent::behind(connection).is_some_and(|monitor| monitor.is_starting())
    }

    /// Kills a container's monitor, and all that is in the container's group.
    pub(crate) async fn end_monitor(&self, slot: &Slot) {
        let (dir, id, group) = (self.exec_dir(&slot.id), slot.id.clone(), self.group(&slot.record()));
        let _ = blocking(move || {
            let monitor = match client::connect(&dir) {
                Ok(stream) => Silent::behind(stream),
                Err(error) if error.is_gone() => None,
                Err(_) => Silent::of(&id),
            };
            let Some(monitor) = monitor else { return Ok(()) };
            if let Err(error) = monitor.end() {
                tracing::warn!("cannot end the monitor of container {id}: {error}");
            }
            if let Ok(group) = group {
                end_group(&group, &id);
            }
            Ok(())
        })
        .await;
    }
}

/// Ends all that is in a group, and removes it.
pub(crate) fn end_group(group: &Group, id: &str) {
    let deadline = Instant::now() + GROUP_PATIENCE;
    loop {
        let _ = group.kill();
        // What is frozen does not end.
        freezer::thaw(group);
        match group.remove() {
            Ok(()) => return,
            // Its processes are init's now, which takes its time to reap them.
            Err(_) if Instant::now() < deadline => {}
            Err(error) => {
                tracing::warn!("cannot remove the group of container {id}: {}", wharf_report::chain(&error));
                return;
            }
        }
    }
}
