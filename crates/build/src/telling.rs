//! What a command writes, on its way to the build that runs it.
//!
//! Others may hear the same command: a client that does not read, as behind a pager or in a terminal that was stopped, keeps none of
//! them waiting. It is told what was kept once it reads again, or when the command has ended.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{BuildError, Result};
use crate::frames::{Frames, Piece};
use crate::session::Session;
use crate::together::{OWN, Running};

/// How soon a client that reads again is told what it has missed.
const PAUSE: Duration = Duration::from_millis(50);

impl Session<'_> {
    /// Tells a piece of a command's output.
    pub(crate) fn say(&self, piece: Piece) -> Result<()> {
        if piece.stream != OWN
            && let Some(steps) = &self.output.steps
        {
            steps.said(piece.stream, &piece.bytes)?;
        }
        self.output.text(piece.classic())
    }

    /// Tells a command's output until it ends, to other builds by a file in `dir`.
    pub(crate) fn tell(&self, stream: &mut UnixStream, running: &Running<'_>, dir: &Path) -> Result<()> {
        let mut frames = Frames::default();
        let mut bytes = vec![0; 32 << 10];
        loop {
            let patience = running.is_behind().then_some(PAUSE);
            if running.wait_readable(stream.as_fd(), patience)? {
                match stream.read(&mut bytes) {
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        for piece in frames.pieces(&bytes[..count]) {
                            self.pass_on(piece, running, dir)?;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // The monitor has died with its end.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(BuildError::system("the command's output cannot be read", &error)),
                }
            }
            if running.is_behind() && running.is_heard() {
                self.catch_up(running, true).or_else(|error| deserted(running, error))?;
            }
        }
    }

    /// Tells, or keeps for its own build, where the command runs.
    pub(crate) fn tell_begin(&self, id: &str, running: &Running<'_>, dir: &Path) -> Result<()> {
        let text = format!(" ---> Running in {id}\n");
        self.pass_on(Piece { stream: OWN, bytes: text.into_bytes() }, running, dir)
    }

    fn pass_on(&self, piece: Piece, running: &Running<'_>, dir: &Path) -> Result<()> {
        let behind = running.is_behind();
        let kept = running.keep(&piece, dir);
        if !running.is_heard() || kept && behind {
            return Ok(());
        }
        let told = match kept {
            true => self.try_say(&piece).map(|told| {
                if told {
                    running.all_is_told()
                }
            }),
            // Enough is kept of it: what neither goes nor can be kept is lost to a client that does not read, and not to others.
            false if running.is_followed() => self
                .catch_up(running, true)
                .and_then(|()| if running.is_behind() { Ok(true) } else { self.try_say(&piece) })
                .map(drop),
            false => self.catch_up(running, false).and_then(|()| self.say(piece)),
        };
        told.or_else(|error| deserted(running, error))
    }

    /// Tells what was kept: all of it, or what goes without waiting.
    fn catch_up(&self, running: &Running<'_>, only_now: bool) -> Result<()> {
        while let Some((piece, next)) = running.untold()? {
            if !only_now {
                self.say(piece)?;
            } else if !self.try_say(&piece)? {
                return Ok(());
            }
            running.is_told(next);
        }
        Ok(())
    }

    /// As [`Self::say`], if nobody has to be waited for. False when somebody would have to be.
    fn try_say(&self, piece: &Piece) -> Result<bool> {
        let steps = self.output.steps.as_ref().filter(|_| piece.stream != OWN);
        let step = steps.and_then(|steps| steps.saying(piece.stream, &piece.bytes));
        self.output.try_say(Piece { stream: piece.stream, bytes: piece.bytes.clone() }.classic(), step)
    }

    /// Tells what is left, now that nobody waits for this build.
    pub(crate) fn tell_rest(&self, running: &Running<'_>) -> Result<()> {
        if running.is_heard() { self.catch_up(running, false) } else { Ok(()) }
    }
}

/// The build that runs a command hears it no more, for this reason: that is nobody else's who does.
fn deserted(running: &Running<'_>, error: BuildError) -> Result<()> {
    running.desert().map_err(|_| error)
}
