//! An exec in steps, for a caller that has others to serve: none of them waits.
//!
//! ```text
//! begin ──► Entering ──advance──► Created ──begin_start──► Starting ──advance──► the program runs
//!            fd: readable when there is more to do            fd
//! ```
//!
//! Whoever makes one counts the time ([`crate::patience`]), and drops the value when it has had enough of it: that ends
//! the process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_send_signal, waitid};
use wharf_sys::process::Child;

use crate::create::Created;
use crate::filter::SystemCalls;
use crate::patience::Patience;
use crate::process::ProcessPlan;
use crate::report::{Between, ParentEnd, Said};
use crate::scheduling::Schedule;
use crate::{Result, RuntimeError};

/// How long a process in a container may take to come to its next step.
pub const EXEC_PATIENCE: Duration = Duration::from_secs(10);
/// How long the end of a killed process may take that nobody has to wait for. One in a frozen group does not end; it is
/// left to whoever reaps the caller's children, which is a caller that stays.
const REAPING: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A process on its way into a container. Dropping it ends it.
#[derive(Debug)]
pub struct Entering {
    stage: Stage,
    command: String,
    left_out: Vec<&'static str>,
    schedule: Option<Schedule>,
    filter: Option<Box<SystemCalls>>,
    /// Where somebody decides what the filter leaves open: the one who does is told when the process has a number.
    decisions: Option<OwnedFd>,
    /// The master of the process's terminal.
    terminal: Option<OwnedFd>,
}

#[derive(Debug)]
enum Stage {
    /// The go-between joins the container, and makes the process there.
    Going {
        between: GoBetween,
        parent: ParentEnd,
    },
    /// It has, and ends.
    Leaving {
        between: GoBetween,
        created: Created,
    },
    /// The process sets itself up.
    Settling(Created),
    Over,
}

/// Is ended and reaped with this value, and what it has made unless somebody else has that.
#[derive(Debug)]
pub(crate) struct GoBetween(Child);

impl Drop for GoBetween {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        reap_soon(self.0.pidfd.as_fd());
    }
}

impl AsFd for GoBetween {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }
}

impl GoBetween {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Ends it together with a process that it has made and that nobody has heard of: both are in the process group of
    /// its own ([`crate::enter`]), whose number nobody else gets as long as one of them is there.
    fn end_with_what_it_has_made(self) {
        let group = self.0.pid;
        // It may not have come to its group yet; then it has made nobody.
        let _ = kill_process_group(group, Signal::KILL);
        drop(self);
        let deadline = Instant::now() + Duration::from_nanos(REAPING.tv_nsec.unsigned_abs());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(found) = waitid(WaitId::Pgid(Some(group)), options) {
            if found.is_none() {
                if Instant::now() >= deadline {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        if let Stage::Going { between, .. } = std::mem::replace(&mut self.stage, Stage::Over) {
            between.end_with_what_it_has_made();
        }
    }
}

/// Reaps a killed child, if it ends within [`REAPING`].
pub(crate) fn reap_soon(pidfd: BorrowedFd<'_>) {
    let _ = retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&REAPING)));
    let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

impl Entering {
    pub(crate) fn new(between: Child, parent: ParentEnd, plan: ProcessPlan, left_out: Vec<&'static str>) -> Self {
        let stage = Stage::Going { between: GoBetween(between), parent };
        let schedule = plan.scheduling.schedule();
        Self {
            stage,
            command: plan.command,
            left_out,
            schedule,
            filter: plan.filter.map(Box::new),
            decisions: None,
            terminal: None,
        }
    }

    /// Lets the go-between go.
    pub(crate) fn go(&mut self, number: i32) -> Result<()> {
        match &mut self.stage {
            Stage::Going { parent, .. } => parent.go(number, None),
            _ => Err(RuntimeError::Vanished),
        }
    }

    /// Goes on as far as that is possible without waiting; `None` when there is something to wait for.
    ///
    /// # Errors
    /// When the container has ended, or a step has failed. The process has ended then.
    pub fn advance(&mut self) -> Result<Option<Created>> {
        loop {
            match std::mem::replace(&mut self.stage, Stage::Over) {
                Stage::Going { between, mut parent } => match parent.listen() {
                    Ok(Said::Nothing) => {
                        self.stage = Stage::Going { between, parent };
                        return Ok(None);
                    }
                    heard => match heard.and_then(|said| ParentEnd::between(said, &self.command)) {
                        Err(error) => {
                            between.end_with_what_it_has_made();
                            return Err(error);
                        }
                        Ok(Between::Decisions(fd)) => {
                            self.decisions = Some(fd);
                            self.stage = Stage::Going { between, parent };
                        }
                        Ok(Between::Terminal(fd)) => {
                            self.terminal = Some(fd);
                            self.stage = Stage::Going { between, parent };
                        }
                        Ok(Between::Made(child)) => {
                            let mut created = Created::new(child, self.command.clone(), parent);
                            created.parent.be_patient(Some(Patience::default()));
                            created.terminal = self.terminal.take();
                            created.left_out = std::mem::take(&mut self.left_out);
                            self.stage = Stage::Leaving { between, created };
                        }
                    },
                },
                Stage::Leaving { between, mut created } => {
                    let id = WaitId::PidFd(between.0.pidfd.as_fd());
                    if matches!(waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG), Ok(None)) {
                        self.stage = Stage::Leaving { between, created };
                        return Ok(None);
                    }
                    let number = created.pid.as_raw_nonzero().get();
                    self.schedule.map_or(Ok(()), |schedule| schedule.set(created.pid))?;
                    if let (Some(filter), Some(decisions)) = (&self.filter, self.decisions.take()) {
                        filter.hand_over(number, "running", &decisions)?;
                    }
                    created.parent.go(number, None)?;
                    self.stage = Stage::Settling(created);
                }
                Stage::Settling(mut created) => match created.parent.listen()? {
                    Said::Nothing => {
                        self.stage = Stage::Settling(created);
                        return Ok(None);
                    }
                    said => {
                        ParentEnd::settled(said, &self.command)?;
                        return Ok(Some(created));
                    }
                },
                Stage::Over => return Err(RuntimeError::Vanished),
            }
        }
    }
}

/// Readable when [`Entering::advance`] has something to do.
impl AsFd for Entering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stage {
            Stage::Going { parent, .. } => parent.as_fd(),
            Stage::Leaving { between, .. } => between.0.pidfd.as_fd(),
            Stage::Settling(created) => created.parent.as_fd(),
            // It has said why, and is not asked again: an fd that is always there.
            Stage::Over => rustix::stdio::stderr(),
        }
    }
}

/// A process that is to become its program. Dropping it ends it.
#[derive(Debug)]
pub struct Starting {
    created: Created,
}

impl Starting {
    pub(crate) fn new(mut created: Created) -> Result<Self> {
        created.parent.start(&created.command)?;
        Ok(Self { created })
    }

    /// Whether it has become the program: its number, a handle on it, and its terminal's master. `None` when that has
    /// to be waited for.
    ///
    /// # Errors
    /// As [`Created::start`].
    pub fn advance(&mut self) -> Result<Option<(Pid, OwnedFd, Option<OwnedFd>)>> {
        match self.created.parent.listen()? {
            Said::Nothing => Ok(None),
            said => {
                ParentEnd::executed(said, &self.created.command)?;
                self.created.run().map(Some)
            }
        }
    }
}

/// Readable when [`Starting::advance`] has something to do.
impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.created.parent.as_fd()
    }
}

/// Waits until there is more to be done, but not for longer than [`EXEC_PATIENCE`].
pub(crate) fn wait(fd: impl AsFd) -> Result<()> {
    let limit = Timespec { tv_sec: EXEC_PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    match retry_on_intr(|| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit))) {
        Ok(0) => Err(RuntimeError::Silent),
        Ok(_) => Ok(()),
        Err(errno) => Err(RuntimeError::Setup { step: "hear from the process in the container".into(), errno }),
    }
}

impl Created {
    /// What [`Entering`] is to the making of the process, this is to its start.
    ///
    /// # Errors
    /// `Vanished`.
    pub fn begin_start(self) -> Result<Starting> {
        Starting::new(self)
    }
}
