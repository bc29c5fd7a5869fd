//! A program on its way into the container. The monitor has others to serve, and those in the container can stop a
//! process that comes there: so nobody is waited for, and what takes too long is ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use oci_spec::runtime::{LinuxSeccomp, Process};
use rustix::event::PollFlags;
use rustix::process::Pid;
use wharf_runtime::{EXEC_PATIENCE, Entering, RuntimeError, Starting};

use crate::container::{Container, before_start, failed, owner};
use crate::error::Result;
use crate::exec::Surroundings;
use crate::launch::Attach;
use crate::ready::{Interest, Part, Source, Who};
use crate::streams::{Streams, plumb};

/// Dropping it ends the program's process.
#[derive(Debug)]
pub(crate) struct Coming {
    step: Step,
    /// When it is given up.
    due: Instant,
    process: Process,
    owner: u32,
    open_stdin: bool,
}

#[derive(Debug)]
enum Step {
    Entering(Entering),
    Starting(Starting),
}

/// Sends `process` into the container, which must not be paused.
///
/// # Errors
/// `Failed`.
pub(crate) fn send(
    container: &Container,
    surroundings: Surroundings<'_>,
    process: &Process,
    open_stdin: bool,
    client: Option<(OwnedFd, Attach)>,
) -> Result<(Coming, Streams)> {
    let tty = process.terminal().unwrap_or(false);
    let owner = owner(surroundings.spec, Some(process));
    let (stdio, mut streams) = plumb(tty, open_stdin, true, owner)?;
    if let Some((socket, attach)) = client {
        streams.add(socket, attach);
    }
    let seccomp: Option<&LinuxSeccomp> = surroundings.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let exec = wharf_runtime::Exec {
        pid: container.pid,
        pidfd: container.pidfd.as_fd(),
        process,
        seccomp,
        default_filter: surroundings.default_filter,
        stdio,
        group: Some(&surroundings.place.group),
        only_there: false,
        personality: None,
        memory_policy: None,
        state: None,
        inheritance: wharf_runtime::Inheritance::default(),
        sight: None,
    };
    let step = Step::Entering(wharf_runtime::begin_exec(exec).map_err(failed)?);
    let due = Instant::now() + EXEC_PATIENCE;
    Ok((Coming { step, due, process: process.clone(), owner, open_stdin }, streams))
}

impl Coming {
    pub(crate) fn interest<'a>(&'a self, who: Who, interest: &mut Interest<'a>) {
        interest.add(self, PollFlags::IN, Source::Program(who, Part::Process));
        interest.until(Some(self.due));
    }

    /// Goes on as far as it can; number and handle when the program runs, `None` while it does not.
    ///
    /// # Errors
    /// `Failed`, also when its time is over.
    pub(crate) fn advance(&mut self, now: Instant, streams: &mut Streams) -> Result<Option<(Pid, OwnedFd)>> {
        loop {
            match &mut self.step {
                Step::Entering(entering) => {
                    let Some(created) = entering.advance().map_err(failed)? else { break };
                    before_start(&created, self.owner, Some(&self.process))?;
                    self.step = Step::Starting(created.begin_start().map_err(failed)?);
                    self.due = now + EXEC_PATIENCE;
                }
                Step::Starting(starting) => {
                    let Some((pid, pidfd, master)) = starting.advance().map_err(failed)? else { break };
                    if let Some(master) = master {
                        streams.set_terminal(master, self.open_stdin)?;
                    }
                    return Ok(Some((pid, pidfd)));
                }
            }
        }
        if now >= self.due { Err(failed(RuntimeError::Silent)) } else { Ok(None) }
    }
}

/// Readable when there is something to do for it.
impl AsFd for Coming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.step {
            Step::Entering(entering) => entering.as_fd(),
            Step::Starting(starting) => starting.as_fd(),
        }
    }
}
