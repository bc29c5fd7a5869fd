//! What the engine hears from a container's monitor, and what it does about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use wharf_monitor::client::{self, Event};
use wharf_monitor::{Exit, HealthState};
use wharf_network::{Endpoint, Published};

use crate::engine::{Engine, blocking, may_fail_again, now};
use crate::error::{EngineError, Result};
use crate::record::{Container, Health, HealthProbe, Status};
use crate::silent::end_group;
use crate::slot::Slot;

/// The exit code of a container whose end nobody saw: Docker's, too.
const LOST: i32 = 255;
/// Between the end of a container's monitor, or of the connection to it, and what is done about it.
const SECOND_LOOK: Duration = Duration::from_millis(100);
/// Between attempts to reach a monitor that cannot be reached.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// A frame of a monitor is small; the largest carries five probes' output.
const MAX_FRAME: u32 = 1 << 20;

impl Engine {
    /// Listens to the monitor of a container. With a connection that is there: what the monitor has told on it, it does not
    /// tell again.
    pub(crate) fn watch_on(&self, slot: &Arc<Slot>, stream: Option<UnixStream>) {
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            let stream = match stream {
                Some(stream) => Some(stream),
                None => engine.connect_at_last(&slot).await,
            };
            match stream {
                Some(stream) => engine.listen(&slot, stream).await,
                // It has ended already; its end is on the disk.
                None => engine.close(&slot).await,
            }
        });
    }

    /// After a start of the daemon: goes on with a monitor that was found again. `stream` is a connection to it, if there
    /// is one, and `first` its first word, if it has said it already. False when this cannot be done.
    pub(crate) async fn take_up(&self, slot: &Arc<Slot>, stream: Option<UnixStream>, first: Option<Event>) -> bool {
        let (networks, own) = (self.networks().clone(), slot.id.clone());
        let found = tokio::task::spawn_blocking(move || (networks.endpoints_of(&own), networks.published(&own))).await;
        let Ok((endpoints, published)) = found else { return false };
        let record = slot.change(|record| refill(record, &endpoints, &published));
        self.find_paused(slot).await;
        let engine = self.clone();
        let _ = blocking(move || {
            engine.keep_volumes(&record);
            Ok(())
        })
        .await;
        slot.set_life(|life| life.active = true);
        let has_spoken = first.is_some();
        match first {
            Some(first) => drop(self.hear(slot, first).await),
            None => drop(slot.change(|record| {
                if !record.state.status.is_active() {
                    record.state.status = Status::Running;
                }
            })),
        }
        self.watch_on(slot, stream);
        // Of one that says nothing it is not known which run it is.
        if has_spoken {
            self.go_on_stopping(slot);
        }
        true
    }

    /// `None` when the monitor has gone.
    ///
    /// # Errors
    /// When it cannot be told now: its queue is full, or this daemon has no fd to spare.
    pub(crate) async fn connect(&self, slot: &Slot) -> Result<Option<UnixStream>> {
        let (engine, id) = (self.clone(), slot.id.clone());
        blocking(move || engine.listen_to(&id)).await
    }

    /// As [`Self::connect`], for who may wait.
    pub(crate) fn listen_to(&self, id: &str) -> Result<Option<UnixStream>> {
        let fail = |e: std::io::Error| EngineError::from_source("cannot listen to the container's monitor", &e);
        match client::watch(&self.exec_dir(id)) {
            Ok(stream) => {
                stream.set_nonblocking(true).map_err(fail)?;
                UnixStream::from_std(stream).map(Some).map_err(fail)
            }
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(EngineError::from_source("cannot reach the container's monitor", &error)),
        }
    }

    /// Until it is known whether the monitor is there.
    async fn connect_at_last(&self, slot: &Slot) -> Option<UnixStream> {
        loop {
            match self.connect(slot).await {
                Ok(found) => return found,
                Err(error) => tracing::warn!("container {}: {error}: asked again", slot.id),
            }
            tokio::time::sleep(ASKED_AGAIN).await;
        }
    }

    async fn listen(&self, slot: &Arc<Slot>, mut stream: UnixStream) {
        while let Some(event) = next(&mut stream).await {
            if self.hear(slot, event).await {
                return;
            }
        }
        self.close(slot).await;
    }

    /// One event; true when it was the last.
    async fn hear(&self, slot: &Arc<Slot>, event: Event) -> bool {
        match event {
            Event::State(state) => {
                let started = (!state.restarting).then_some(state.started_at.as_str());
                self.tell_untold(slot, &state.untold, started);
                let before = slot.record().state.health.as_ref().map(|health| health.status.clone());
                let record = slot.change(|record| {
                    // Of a run that began right before a crash the row may know nothing.
                    if !state.restarting && record.state.started_at != state.started_at {
                        record.state.forget_run();
                    }
                    record.state.pid = state.pid;
                    record.state.started_at.clone_from(&state.started_at);
                    record.restart_count = state.restart_count.into();
                    if record.state.status != Status::Paused {
                        record.state.status = if state.restarting { Status::Restarting } else { Status::Running };
                    }
                    if let Some(health) = &state.health {
                        record.state.health = Some(health_record(health));
                    }
                });
                if state.oom_killed {
                    self.note_oom(slot, state.oom_group);
                }
                // What probes found while no daemon was there, or before this one listened.
                if let Some(health) = record.state.health.as_ref().filter(|health| health.status != "starting")
                    && before.as_ref() != Some(&health.status)
                {
                    self.tell(&record, &format!("health_status: {}", health.status));
                }
                self.adopt_execs(&record, state.execs);
                self.save_soon(&record);
            }
            Event::ExecEnded(exec) => self.adopt_execs(&slot.record(), vec![exec]),
            Event::Started { pid, started_at, restart_count } => {
                self.note_start(slot, pid, &started_at, restart_count.into());
            }
            Event::Exited { exit, restarting: true } => self.note_end_of_run(slot, &exit),
            Event::Exited { exit, restarting: false } => {
                self.ended(slot, exit).await;
                return true;
            }
            Event::Health(health) => {
                let before = slot.record().state.health.as_ref().map(|h| h.status.clone());
                let record = slot.change(|record| record.state.health = Some(health_record(&health)));
                if let Some(probe) = health.log.last() {
                    self.tell_probe(&record, probe);
                }
                if before.as_deref() != Some(&health.status) {
                    self.tell(&record, &format!("health_status: {}", health.status));
                    self.save_soon(&record);
                }
            }
            Event::Oom { group } => self.note_oom(slot, group),
        }
        false
    }

    /// The monitor has gone without a last word to us: its word is on the disk, or there is none.
    async fn close(&self, slot: &Arc<Slot>) {
        if !slot.record().state.status.is_active() {
            return;
        }
        match self.read_exit(slot).await {
            Some(exit) => self.ended(slot, exit).await,
            None => match self.still_there(slot).await {
                Some(stream) => self.watch_on(slot, Some(stream)),
                None => {
                    self.note_lost(slot).await;
                    self.start_lost(slot);
                }
            },
        }
    }

    /// A connection may end and its monitor live: what runs is not taken for lost because of that.
    async fn still_there(&self, slot: &Slot) -> Option<UnixStream> {
        tokio::time::sleep(SECOND_LOOK).await;
        self.connect_at_last(slot).await
    }

    /// Its monitor would have started it again, had it not been killed.
    pub(crate) fn start_lost(&self, slot: &Arc<Slot>) {
        let record = slot.record();
        let wanted = match record.host.restart_policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => may_fail_again(&record),
            _ => false,
        };
        if !wanted || record.stopped_by_user || record.state.status != Status::Exited {
            return;
        }
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            tokio::time::sleep(SECOND_LOOK).await;
            let record = slot.record();
            // Whoever came first has said otherwise, or has started it.
            if record.stopped_by_user || record.state.status != Status::Exited {
                return;
            }
            if let Err(error) = engine.start(&slot.id).await {
                tracing::warn!("cannot start container {} again: {error}", slot.id);
            }
        });
    }

    /// Closes the record of a container whose monitor is not there any more.
    pub(crate) async fn note_lost(&self, slot: &Arc<Slot>) {
        let exit = self.read_exit(slot).await;
        let exit = match exit {
            Some(exit) => exit,
            None => {
                // Without its monitor nobody serves what may be left of it.
                if let Ok(group) = self.group(&slot.record()) {
                    let id = slot.id.clone();
                    let _ = blocking(move || {
                        end_group(&group, &id);
                        Ok(())
                    })
                    .await;
                }
                Exit {
                    code: LOST,
                    oom_killed: false,
                    oom_group: None,
                    started_at: slot.record().state.started_at.clone(),
                    finished_at: now(),
                    lines_lost: 0,
                    restart_count: None,
                    untold: Vec::new(),
                    error: "the container's monitor has gone, with the host or by a kill: its exit code is not known"
                        .into(),
                }
            }
        };
        self.ended(slot, exit).await;
    }

    async fn read_exit(&self, slot: &Slot) -> Option<Exit> {
        let path = self.dir(&slot.id).join("exit.json");
        let bytes = tokio::fs::read(&path).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// A container has ended for good: gives back what it had, then tells those who wait.
    pub(crate) async fn ended(&self, slot: &Arc<Slot>, exit: Exit) {
        if !slot.record().state.status.is_active() {
            return;
        }
        self.tell_untold(slot, &exit.untold, Some(&exit.started_at));
        let before = slot.record();
        // Before anybody who waits for this end hears of it.
        let restarts = slot.restarts.load(Ordering::SeqCst) > 0;
        let goes = before.host.auto_remove && !restarts;
        let (engine, own) = (self.clone(), Arc::clone(&before));
        let _ = blocking(move || {
            engine.free_network(&own);
            engine.release_volumes(&own);
            engine.drop_shm(&own);
            Ok(())
        })
        .await;
        let record = slot.change(|record| {
            note(record, &exit);
            record.state.status = Status::Exited;
            record.ports.clear();
            for endpoint in record.networks.values_mut() {
                crate::endpoint::clear(endpoint);
            }
            record.exec_ids.clear();
        });
        if exit.lines_lost > 0 {
            tracing::warn!("container {}: {} lines of its log were lost", record.id, exit.lines_lost);
        }
        // The row of one that goes with its end goes now.
        if !goes {
            self.save_soon(&record);
        }
        if self.tell_exit(&before, &record) {
            self.tell_disconnected(&before);
            self.tell_unmounted(&record);
        }
        slot.set_life(|life| {
            life.active = false;
            life.exits += 1;
            life.code = exit.code;
        });
        self.inner.execs.forget_waiting(&slot.id);
        if goes {
            let (engine, slot) = (self.clone(), Arc::clone(slot));
            tokio::spawn(async move {
                let _turn = slot.turn.lock().await;
                let there = engine.inner.slots.find(&slot.id).is_ok();
                if there
                    && !slot.record().state.status.is_active()
                    && let Err(error) = engine.remove_ended(&slot, true).await
                {
                    tracing::warn!("cannot remove container {}: {error}", slot.id);
                }
            });
        }
    }
}

/// What the network knows of a container that was started before this daemon was.
fn refill(record: &mut Container, endpoints: &[Endpoint], published: &[Published]) {
    for settings in record.networks.values_mut() {
        let Some(endpoint) = endpoints.iter().find(|e| e.network_id == settings.network_id) else { continue };
        crate::endpoint::fill(settings, endpoint);
    }
    let exposed = record.config.exposed_ports.iter().flatten().map(|(port, _)| (port.clone(), None));
    record.ports = exposed.collect();
    crate::ports::note(&mut record.ports, published);
}

pub(crate) fn note(record: &mut Container, exit: &Exit) {
    record.state.pid = 0;
    record.state.paused_for_commit = false;
    // A daemon that was killed right after the start has not written when it was.
    if !exit.started_at.is_empty() {
        record.state.started_at.clone_from(&exit.started_at);
    }
    // What the monitor has done while no daemon was there.
    record.restart_count = exit.restart_count.map_or(record.restart_count, u64::from);
    record.state.exit_code = exit.code;
    record.state.oom_killed = exit.oom_killed;
    record.state.oom_group.clone_from(&exit.oom_group);
    record.state.error.clone_from(&exit.error);
    record.state.lines_lost = exit.lines_lost;
    record.state.finished_at.clone_from(&exit.finished_at);
}

fn health_record(state: &HealthState) -> Health {
    Health {
        status: state.status.clone(),
        failing_streak: state.failing_streak.into(),
        log: state
            .log
            .iter()
            .map(|probe| HealthProbe {
                start: probe.start.clone(),
                end: probe.end.clone(),
                exit_code: probe.exit_code,
                output: probe.output.clone(),
            })
            .collect(),
    }
}

/// The next frame; `None` when the monitor has gone, or speaks what is no frame of ours.
pub(crate) async fn next(stream: &mut UnixStream) -> Option<Event> {
    loop {
        let length = stream.read_u32().await.ok()?;
        if length > MAX_FRAME {
            return None;
        }
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes).await.ok()?;
        // A later monitor may tell of things that this daemon does not know.
        if let Some(event) = client::decode(&bytes) {
            return Some(event);
        }
    }
}
