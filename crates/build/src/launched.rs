//! The end of a command, as its monitor tells it.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wharf_monitor::{Exit, Launch, client};

use crate::error::{BuildError, Result};
use crate::together::Running;

/// How long a killed command has to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that has been launched. Dropped before its end, it is killed.
pub(crate) struct Launched<'a> {
    dir: &'a Path,
    state_dir: &'a Path,
    ended: bool,
}

impl Drop for Launched<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            let _ = self.wait_killed();
        }
    }
}

impl<'a> Launched<'a> {
    pub(crate) fn new(launch: &'a Launch) -> Self {
        Self { dir: &launch.dir, state_dir: &launch.state_dir, ended: false }
    }

    pub(crate) fn kill(&self) {
        if let Err(error) = client::signal(self.dir, Signal::KILL.as_raw(), true)
            && !error.is_gone()
        {
            tracing::warn!("a cancelled command cannot be killed: {error}");
        }
    }

    /// Waits for the end, as long as it takes.
    pub(crate) fn wait(&mut self, running: &Running<'_>) -> Result<Exit> {
        let exit = self.exit(Some(running), None)?;
        self.ended = true;
        Ok(exit)
    }

    /// Waits for the end of a command that was killed, but not for ever.
    pub(crate) fn wait_killed(&mut self) -> Result<Exit> {
        self.ended = true;
        self.exit(None, Some(Instant::now() + PATIENCE))
    }

    fn exit(&self, running: Option<&Running<'_>>, until: Option<Instant>) -> Result<Exit> {
        if let Ok(mut watch) = client::watch(self.dir) {
            while let Some(frame) = frame(&mut watch, running, until)? {
                if let Some(client::Event::Exited { exit, restarting: false }) = client::decode(&frame) {
                    return Ok(exit);
                }
            }
        }
        // It has ended before it could be watched.
        let text = fs::read(self.state_dir.join("exit.json"))
            .map_err(|e| BuildError::system("the command has ended without a word", &e))?;
        serde_json::from_slice(&text).map_err(|e| BuildError::system("the command's end is not understood", &e))
    }
}

/// One frame of a watch: its length (32 bits, big endian) and its bytes. `None` at the end.
fn frame(stream: &mut UnixStream, running: Option<&Running<'_>>, until: Option<Instant>) -> Result<Option<Vec<u8>>> {
    /// More is no event.
    const MAX: usize = 16 << 20;
    match (running, until) {
        (Some(running), _) => drop(running.wait_readable(stream.as_fd(), None)?),
        (None, Some(until)) => {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream
                .set_read_timeout(Some(left))
                .map_err(|e| BuildError::system("the command cannot be waited for", &e))?;
        }
        (None, None) => {}
    }
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length) as usize;
    let mut bytes = vec![0; length.min(MAX)];
    Ok(stream.read_exact(&mut bytes).is_ok().then_some(bytes))
}
