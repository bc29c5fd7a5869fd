//! Waiting for a container's end: registered before the start, answered once.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::{Engine, Entry};
use crate::error::Result;

/// What a waiter can wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// No process is there; holds at once for a container that does not run.
    #[default]
    NotRunning,
    /// The next time that it exits, also when its policy starts it again.
    NextExit,
    /// It has been removed.
    Removed,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitStatus {
    pub code: i64,
    pub error: Option<String>,
}

/// Counters of a container's ends; a waiter compares them with what it saw first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) exits: u64,
    pub(crate) stops: u64,
    pub(crate) removed: bool,
    pub(crate) last: ExitStatus,
}

/// A wait that has been registered.
#[derive(Debug)]
pub struct WaitHandle {
    condition: WaitCondition,
    seen: Life,
    life: watch::Receiver<Life>,
    /// Answer that is known already.
    ready: Option<ExitStatus>,
}

impl WaitHandle {
    /// Waits until the condition holds. Never fails: a container that vanishes counts as ended.
    pub async fn finish(mut self) -> ExitStatus {
        if let Some(status) = self.ready {
            return status;
        }
        let (condition, seen) = (self.condition, self.seen);
        let done = self
            .life
            .wait_for(|now| match condition {
                WaitCondition::NotRunning => now.stops > seen.stops || now.removed,
                WaitCondition::NextExit => now.exits > seen.exits || now.removed,
                WaitCondition::Removed => now.removed,
            })
            .await
            .map(|now| now.last.clone());
        done.unwrap_or_default()
    }
}

impl Engine {
    /// Registers a wait. What happens after this returns is not missed.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn wait(&self, name: &str, condition: WaitCondition) -> Result<WaitHandle> {
        let entry = self.entry(name)?;
        let life = entry.life.subscribe();
        let seen = life.borrow().clone();
        let record = entry.record();
        let idle = condition == WaitCondition::NotRunning && !record.state.status.is_active();
        let ready = idle.then(|| ExitStatus {
            code: i64::from(record.state.exit_code),
            error: (!record.state.error.is_empty()).then(|| record.state.error.clone()),
        });
        Ok(WaitHandle { condition, seen, life, ready })
    }
}

pub(crate) fn exited(entry: &Arc<Entry>, status: ExitStatus, stopped: bool) {
    entry.life.send_modify(|life| {
        life.exits += 1;
        life.stops += u64::from(stopped);
        life.last = status;
    });
}

pub(crate) fn removed(entry: &Arc<Entry>) {
    entry.life.send_modify(|life| life.removed = true);
}
