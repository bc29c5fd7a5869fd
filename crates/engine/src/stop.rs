//! Ending and signalling.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wharf_monitor::client::{self, ClientError};

use crate::engine::{Engine, blocking, now, to_its_end};
use crate::error::{EngineError, ErrorKind, Result};
use crate::record::{Container, KillAt, SentSignal, Status};
use crate::slot::{Slot, lock};
use crate::{caller, freezer, signal};

/// Seconds between the stop signal and SIGKILL when nobody says.
const STOP_TIMEOUT: i64 = 10;
/// After a SIGKILL a process is gone at once, unless the kernel itself hangs in it (an uninterruptible wait).
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Longer than anything runs, and no time that cannot be told.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
const THAW_AGAIN: Duration = Duration::from_millis(200);

pub(crate) const SIGKILL: i32 = 9;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGTERM: i32 = 15;

impl Engine {
    /// Asks a container to stop, and ends it when it does not in time. It is not started again by its policy.
    ///
    /// # Errors
    /// `NotModified` when it does not run.
    pub async fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        // What does not run is stopped already, by whatever signal.
        let signal = signal.filter(|s| !s.is_empty()).map(signal::parse).transpose();
        to_its_end(async move {
            // Another stop that is under way does not make this one wait for longer than it was told.
            if let Some(patience) = patience_of(&slot.record(), timeout) {
                slot.kill_sooner(after(patience));
            }
            let _turn = engine.turn_to_end(&slot).await;
            if !slot.record().state.status.is_active() {
                return Err(EngineError::not_modified());
            }
            engine.stop_now(&slot, signal?, timeout).await?;
            engine.tell(&slot.record(), "stop");
            Ok(())
        })
        .await
    }

    /// [`Self::stop`] for one who has the container's turn.
    pub(crate) async fn stop_now(&self, slot: &Arc<Slot>, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
        let record = slot.record();
        let own = record.config.stop_signal.as_deref().map(signal::parse).transpose()?;
        let signal = signal.or(own).unwrap_or(SIGTERM);
        let patience = patience_of(&record, timeout);
        let record = self.note_wish(slot, signal, patience).await;
        let begun = async {
            if record.state.status == Status::Paused {
                // A frozen process takes no signal.
                self.go_on(slot).await?;
            }
            self.tell_with(&record, "kill", &[("signal", &signal.to_string())]);
            self.send_signal(slot, signal, true).await
        };
        if let Err(error) = begun.await {
            // What has not begun is not ended by a daemon that comes later.
            let record = slot.change(|record| record.state.kill_at = None);
            let _ = self.save(&record).await;
            return Err(error);
        }
        self.end_within(slot, patience, signal).await
    }

    /// Waits for the end that a signal brings, and brings it when it does not come in time.
    async fn end_within(&self, slot: &Arc<Slot>, patience: Option<Duration>, signal: i32) -> Result<()> {
        let has_ended = self.ends_within(slot, patience.unwrap_or(FOR_EVER)).await;
        slot.kill_no_more();
        if has_ended {
            return Ok(());
        }
        let record = slot.record();
        if signal != SIGKILL {
            self.tell_with(&record, "kill", &[("signal", &SIGKILL.to_string())]);
        }
        slot.change(|record| record.state.last_signal.iter_mut().for_each(|sent| sent.then_killed = true));
        self.send_signal(slot, SIGKILL, true).await?;
        self.await_end(slot).await
    }

    /// Whether it ends within the time, which others may make shorter.
    async fn ends_within(&self, slot: &Slot, patience: Duration) -> bool {
        let mut life = slot.life();
        let ended = async {
            // The engine's own end is no reason to kill anybody.
            let _ = life.wait_for(|life| !life.active).await;
        };
        tokio::pin!(ended);
        let mut time = after(patience);
        let mut sooner = slot.kill_by(time);
        loop {
            tokio::select! {
                () = &mut ended => return true,
                // The longest that tokio sleeps is shorter than for ever.
                () = tokio::time::sleep_until(time) => if Instant::now() >= time { return false },
                Ok(()) = sooner.changed() => time = sooner.borrow_and_update().unwrap_or(time),
            }
        }
    }

    /// What a daemon before this one had begun to stop is ended when its time is over.
    pub(crate) fn go_on_stopping(&self, slot: &Arc<Slot>) {
        let state = slot.record().state.clone();
        let is_this_run = |kill: &KillAt| state.status.is_active() && kill.started_at == state.started_at;
        let Some(kill_at) = state.kill_at.clone().filter(is_this_run) else { return };
        let left = kill_at.at.saturating_sub(jiff::Timestamp::now().as_millisecond());
        let signal = state.last_signal.map_or(SIGTERM, |sent| sent.signal);
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            let _turn = engine.turn_to_end(&slot).await;
            let state = slot.record().state.clone();
            if state.kill_at.as_ref() != Some(&kill_at) || state.started_at != kill_at.started_at {
                return;
            }
            let patience = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            match engine.end_within(&slot, Some(patience), signal).await {
                Ok(()) => engine.tell(&slot.record(), "stop"),
                Err(error) => tracing::warn!("{error}"),
            }
        });
    }

    /// Writes down that the user wants it to be ended, and not started again by a daemon that comes later. A disk that
    /// fails does not keep what runs from being ended.
    async fn note_wish(&self, slot: &Slot, signal: i32, kills_in: Option<Duration>) -> Arc<Container> {
        let sent = sent(signal);
        let kill_at = kills_in
            .and_then(|patience| jiff::Timestamp::now().checked_add(patience).ok())
            .map(jiff::Timestamp::as_millisecond);
        let record = slot.change(|record| {
            record.stopped_by_user = true;
            if let Some(at) = kill_at {
                record.state.kill_at = Some(KillAt { started_at: record.state.started_at.clone(), at });
            }
            record.state.last_signal = Some(sent);
        });
        if let Err(error) = self.save(&record).await {
            tracing::warn!("cannot write that container {} was stopped: {error}", slot.id);
        }
        record
    }

    /// Waits for the end that a SIGKILL brings.
    pub(crate) async fn await_end(&self, slot: &Slot) -> Result<()> {
        let mut life = slot.life();
        let deadline = Instant::now() + KILL_PATIENCE;
        while Instant::now() < deadline {
            if tokio::time::timeout(THAW_AGAIN, life.wait_for(|life| !life.active)).await.is_ok() {
                return Ok(());
            }
            // A commit or a pause that had begun before may have frozen it after the signal.
            self.thaw(&slot.record()).await;
        }
        Err(EngineError::system(format!(
            "container {} did not end after SIGKILL: a process of it hangs in the kernel",
            slot.id
        )))
    }

    /// Sends a signal (SIGKILL when none is named).
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn kill(&self, name: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal.filter(|s| !s.is_empty()).map_or(Ok(SIGKILL), signal::parse)?;
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move { engine.kill_now(&slot, signal).await }).await
    }

    pub(crate) async fn kill_now(&self, slot: &Arc<Slot>, signal: i32) -> Result<()> {
        let record = slot.record();
        if !record.state.status.is_active() {
            return Err(EngineError::conflict(format!("container {} is not running", slot.id)));
        }
        let stop = record.config.stop_signal.as_deref().map(signal::parse).transpose()?;
        // A signal that is meant to end it is the user's wish that it stays ended, also after a start of the daemon. To Docker that
        // is any signal, where none is said: a reload by SIGHUP would be the last start of a container that always starts again.
        let ends =
            signal == SIGKILL || stop.map_or(matches!(signal, SIGTERM | SIGINT | SIGQUIT), |stop| signal == stop);
        if ends {
            self.note_wish(slot, signal, None).await;
        } else {
            let sent = sent(signal);
            slot.change(|record| record.state.last_signal = Some(sent));
        }
        if record.state.status == Status::Paused && ends && signal != SIGKILL {
            self.go_on(slot).await?;
        }
        // Before the end that it may bring.
        let number = signal.to_string();
        self.tell_with(&record, "kill", &[("signal", &number)]);
        self.send_signal(slot, signal, ends).await?;
        if signal == SIGKILL {
            self.await_end(slot).await?;
        } else if !ends {
            // Who sent it is known to nobody else. It was not kept waiting for a disk.
            if let Err(error) = self.save(&slot.record()).await {
                tracing::warn!("cannot write that a signal was sent to container {}: {error}", slot.id);
            }
        }
        Ok(())
    }

    /// Stops and starts.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start`].
    pub async fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let (engine, name, signal) = (self.clone(), name.to_owned(), signal.map(str::to_owned));
        to_its_end(async move { engine.restart_now(&name, signal.as_deref(), timeout).await }).await
    }

    async fn restart_now(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let slot = self.inner.slots.find(name)?;
        let restarting = slot.restarting();
        let stopped = self.stop(name, signal, timeout).await;
        if stopped.as_ref().err().is_none_or(|error| error.kind == ErrorKind::NotModified) {
            self.settle(name).await;
        }
        drop(restarting);
        match stopped {
            Err(error) if error.kind != ErrorKind::NotModified => return Err(error),
            _ => {}
        }
        match self.start(name).await {
            Err(mut error) if error.kind != ErrorKind::NotModified => {
                error.message = format!("Cannot restart container {name}: {}", error.message);
                return Err(error);
            }
            _ => {}
        }
        let record = self.inspect(name)?;
        self.tell(&record, "restart");
        Ok(())
    }

    pub(crate) async fn send_signal(&self, slot: &Slot, signal: i32, no_restart: bool) -> Result<()> {
        let dir = self.exec_dir(&slot.id);
        let id = slot.id.clone();
        let group = self.group(&slot.record());
        let is_silent = blocking(move || {
            let sent = client::signal(&dir, signal, no_restart);
            // After the signal, so that nothing of it runs on; whatever the record says of its being paused.
            if let (SIGKILL, Ok(group)) = (signal, &group) {
                freezer::thaw(group);
            }
            match sent {
                Ok(()) => Ok(false),
                // It has ended meanwhile: that is what was wanted, or the caller sees it.
                Err(error) if error.is_gone() => Ok(false),
                // Who waits for an end comes with a SIGKILL in the end.
                Err(ClientError::Silent) if no_restart => Ok(true),
                Err(error) => Err(EngineError::from_source(&format!("cannot signal container {id}"), &error)),
            }
        })
        .await?;
        if is_silent && signal == SIGKILL {
            self.end_monitor(slot).await;
        }
        Ok(())
    }

    /// Tells a container's terminal its size; without a terminal it is an event all the same.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let slot = self.inner.slots.find(name)?;
        if !slot.record().state.status.is_active() {
            return Err(EngineError::conflict(format!("container {} is not running", slot.id)));
        }
        let (dir, has_terminal) = (self.exec_dir(&slot.id), slot.record().config.tty);
        blocking(move || match has_terminal {
            true => client::resize(&dir, rows, columns)
                .map_err(|e| EngineError::from_source("cannot resize the terminal", &e)),
            false => Ok(()),
        })
        .await?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.tell_with(&slot.record(), "resize", &size.each_ref().map(|(key, value)| (*key, value.as_str())));
        Ok(())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `Conflict` when it is in use.
    pub async fn rename(&self, name: &str, new: &str) -> Result<()> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        // In messages it is with its slash.
        let new = format!("/{}", new.strip_prefix('/').unwrap_or(new));
        let new = crate::names::check_name(&new).map_err(allocating)?.to_owned();
        to_its_end(async move { engine.rename_now(&slot, new).await }).await
    }

    async fn rename_now(&self, slot: &Arc<Slot>, new: String) -> Result<()> {
        let _turn = slot.turn.lock().await;
        self.inner.slots.find(&slot.id)?;
        let old = slot.record().name.clone();
        if old == new {
            return Err(EngineError::invalid("Renaming a container with the same name as its current name"));
        }
        self.inner.slots.take_name(&new, &slot.id).map_err(allocating)?;
        let record = slot.change(|record| {
            for settings in record.networks.values_mut() {
                let names = settings.dns_names.iter_mut().flatten();
                names.filter(|name| **name == old).for_each(|name| name.clone_from(&new));
            }
            record.name.clone_from(&new);
        });
        if let Err(error) = self.save(&record).await {
            slot.change(|record| record.name.clone_from(&old));
            self.inner.slots.free_name(&new, &slot.id);
            return Err(error);
        }
        self.inner.slots.free_name(&old, &slot.id);
        let (engine, renamed) = (self.clone(), record.clone());
        blocking(move || {
            engine.networks().rename(&renamed.id, &renamed.name)?;
            engine.rename_names(&renamed);
            Ok(())
        })
        .await?;
        self.tell_with(&record, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    /// Waits until the end of a container's last run has been worked off, so that it can be started again.
    pub(crate) async fn settle(&self, name: &str) {
        if let Ok(slot) = self.inner.slots.find(name) {
            let mut life = slot.life();
            let _ = life.wait_for(|life| !life.active).await;
            drop(lock(&slot.pending));
        }
    }
}

/// What asks a container to end. Who made it saw that it is a signal.
pub(crate) fn stop_signal(record: &Container) -> i32 {
    record.config.stop_signal.as_deref().and_then(|text| signal::parse(text).ok()).unwrap_or(SIGTERM)
}

/// What a stop waits for before it kills; `None`: for ever.
pub(crate) fn patience_of(record: &Container, timeout: Option<i64>) -> Option<Duration> {
    let seconds = timeout.or(record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn after(patience: Duration) -> Instant {
    Instant::now() + patience.min(FOR_EVER)
}

/// moby's words for a name that a container cannot have.
fn allocating(error: EngineError) -> EngineError {
    EngineError::new(error.kind, format!("Error when allocating new name: {}", error.message))
}

fn sent(signal: i32) -> SentSignal {
    SentSignal { signal, at: now(), by: caller::described(), then_killed: false }
}
