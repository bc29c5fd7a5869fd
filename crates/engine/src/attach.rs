//! A client's connection to a container's streams.

use std::os::fd::AsFd;
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::UnixStream;
use wharf_monitor::{Attach, client};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::record::Status;
use crate::slot::{Pending, Slot, lock};

/// How long the end of a container may take to be known when its monitor has gone.
const ENDING: Duration = Duration::from_secs(2);

/// And when its streams have ended.
const DETACHED: Duration = Duration::from_millis(100);

/// What a client wants of the streams.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The streams as they go on; without it only what is in the log.
    pub stream: bool,
    /// What is in the log, first.
    pub logs: bool,
    pub detach_keys: Option<String>,
}

/// A connection to a container's streams, in the form in which it goes to the client: frames of
/// `application/vnd.docker.multiplexed-stream`, or plain bytes where the container has a terminal.
#[derive(Debug)]
pub struct Attached {
    pub tty: bool,
    /// `None` when only the log was asked for.
    pub stream: Option<UnixStream>,
    /// What was written until then is in the log, and what is written later comes by the stream.
    pub since: Option<Timestamp>,
}

impl Engine {
    /// Attaches. A container that has not been started yet takes its clients along when it is.
    ///
    /// # Errors
    /// `Conflict` when it is paused or being removed.
    pub async fn attach(&self, name: &str, options: AttachOptions) -> Result<Attached> {
        let slot = self.inner.slots.find(name)?;
        let record = slot.record();
        match record.state.status {
            Status::Paused => {
                return Err(EngineError::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(EngineError::conflict(format!(
                    "container {} is restarting, wait until the container is running",
                    slot.id
                )));
            }
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict(format!("container {} is marked for removal", slot.id)));
            }
            _ => {}
        }
        let tty = record.config.tty;
        if !options.stream {
            return Ok(Attached { tty, stream: None, since: None });
        }
        let (ours, theirs) = pair()?;
        let attach = Attach {
            stdin: options.stdin && record.config.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            detach_keys: Some(options.detach_keys.unwrap_or_default()).filter(|keys| !keys.is_empty()),
        };
        let (dir, is_running) = (self.exec_dir(&slot.id), record.state.status == Status::Running);
        let mut waiting = Pending { attach, stream: theirs };
        let mut attached = None;
        if is_running {
            (attached, waiting) = blocking(move || {
                let attached = client::attach(&dir, &waiting.attach, waiting.stream.as_fd());
                Ok((Some(attached), waiting))
            })
            .await?;
        }
        // One that waits has what the next start writes.
        let mut since = Some(Timestamp::now());
        match attached {
            Some(Ok(at)) => since = at.and_then(|at| at.parse().ok()),
            Some(Err(error)) if !has_ended(&slot).await => {
                return Err(EngineError::from_source("cannot attach to the container", &error));
            }
            // It has not been started yet, or has ended just now: it is with the next start.
            _ => lock(&slot.pending).push(waiting),
        }
        self.tell(&record, "attach");
        Ok(Attached { tty, stream: Some(ours), since })
    }
}

impl Engine {
    /// Waits a moment for the end of a container whose streams have ended. A client that has only detached has them ended, too.
    pub async fn end_is_known(&self, id: &str) {
        if let Ok(slot) = self.inner.slots.find(id) {
            let mut life = slot.life();
            // An error is its removal.
            let _ = tokio::time::timeout(DETACHED, life.wait_for(|life| !life.active)).await;
        }
    }
}

/// Whether a container whose monitor takes nobody any more is soon known to have ended.
async fn has_ended(slot: &Slot) -> bool {
    let mut life = slot.life();
    tokio::time::timeout(ENDING, life.wait_for(|life| !life.active)).await.is_ok_and(|ended| ended.is_ok())
}

/// Two ends of a stream: the client's, and the monitor's.
pub(crate) fn pair() -> Result<(UnixStream, std::os::unix::net::UnixStream)> {
    let fail = |e: std::io::Error| EngineError::from_source("cannot make a stream", &e);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(fail)?;
    ours.set_nonblocking(true).map_err(fail)?;
    Ok((UnixStream::from_std(ours).map_err(fail)?, theirs))
}
