//! How long a process is waited for on its way to its program. Who waits for the outcome may call it off: a mount of a
//! server that is not there takes as long as it likes. And those in a container can keep whom they see from going on, by
//! a signal, for as long as they like: the time of such a process is counted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use crate::create::Launch;
use crate::entering::EXEC_PATIENCE;
use crate::hooks::Point;
use crate::plan::Plan;
use crate::{Result, RuntimeError};

/// A process that goes on is not called off: only one that has not been heard of for so long.
const STANDSTILL: Duration = Duration::from_secs(1);

/// What a process is waited for to come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// All is mounted, by a process that nobody in the container sees ([`crate::joining`]).
    Outside,
    /// All is mounted, by one that they see.
    SetUp,
    /// It is who it shall be, and may no more than it shall.
    Settled,
    /// It is its program.
    Started,
}

/// The default is an exec's, which is in a PID namespace of others.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Nobody in a container sees the process: it has the time that it takes.
    is_unseen: bool,
    /// [`crate::Lifecycle::caller`].
    caller: Option<OwnedFd>,
    /// Hooks that the process waits for may take as long as they like, or have limits of their own; and what is copied
    /// into a tmpfs takes as long as there is of it.
    set_up_takes_long: bool,
    started_by_hooks: bool,
}

impl Patience {
    /// `None` for a process that nobody in a container sees, and nobody can call off: it is waited for to its end.
    ///
    /// # Errors
    /// When there is no fd to spare.
    pub(crate) fn of(plan: &Plan, launch: &Launch<'_>) -> Result<Option<Self>> {
        let is_unseen = !plan.joins.iter().any(|join| join.kind == "pid");
        if is_unseen && launch.lifecycle.caller.is_none() {
            return Ok(None);
        }
        let caller = launch.lifecycle.caller.map(|caller| caller.try_clone_to_owned()).transpose();
        let caller = caller.map_err(|e| {
            RuntimeError::host("duplicate", "connection", Errno::from_io_error(&e).unwrap_or(Errno::MFILE))
        })?;
        let has = |point| launch.lifecycle.hooks.is_some_and(|hooks| !hooks.at(point).is_empty());
        Ok(Some(Self {
            is_unseen,
            caller,
            set_up_takes_long: has(Point::CreateContainer) || plan.mounts.iter().any(|step| step.options.copy_up),
            started_by_hooks: has(Point::StartContainer),
        }))
    }

    /// For one that waits at a gate, and at its start for these hooks.
    pub(crate) fn at_gate(started_by_hooks: bool) -> Self {
        Self { started_by_hooks, ..Self::default() }
    }

    fn limit(&self, stage: Stage) -> Option<Duration> {
        let endless = match stage {
            Stage::Outside => true,
            Stage::SetUp => self.set_up_takes_long,
            Stage::Settled => false,
            Stage::Started => self.started_by_hooks,
        };
        (!endless && !self.is_unseen).then_some(EXEC_PATIENCE)
    }

    /// Waits until `fd` is readable, since `begun`.
    ///
    /// # Errors
    /// `Silent` when the time is over, `CalledOff`.
    pub(crate) fn wait(&mut self, fd: BorrowedFd<'_>, begun: Instant, stage: Stage) -> Result<()> {
        let limit = self.limit(stage);
        loop {
            let waited = begun.elapsed();
            let left = limit.map(|limit| limit.saturating_sub(waited));
            let asked = self.caller.as_ref().filter(|_| waited >= STANDSTILL);
            let until = if self.caller.is_some() && asked.is_none() { Some(STANDSTILL - waited) } else { left };
            let mut fds = vec![PollFd::new(&fd, PollFlags::IN)];
            fds.extend(asked.map(|caller| PollFd::from_borrowed_fd(caller.as_fd(), PollFlags::RDHUP)));
            let timeout = until.and_then(|until| Timespec::try_from(until).ok());
            retry_on_intr(|| poll(&mut fds, timeout.as_ref())).map_err(|errno| RuntimeError::Setup {
                step: "hear from the process in the container".into(),
                errno,
            })?;
            let answers: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            match answers[..] {
                [own, ..] if !own.is_empty() => return Ok(()),
                // Who has gone has not called anything off, and is not asked again.
                [_, caller] if caller.contains(PollFlags::HUP) => self.caller = None,
                [_, caller] if !caller.is_empty() => return Err(RuntimeError::CalledOff),
                _ if limit.is_some_and(|limit| begun.elapsed() >= limit) => return Err(RuntimeError::Silent),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// It has been waited for this long already.
    fn long_ago() -> Instant {
        Instant::now().checked_sub(EXEC_PATIENCE).unwrap()
    }

    #[test]
    fn a_standstill_is_called_off_and_ends_with_the_time() {
        let (silent, _theirs) = UnixStream::pair().unwrap();
        let (caller, other) = UnixStream::pair().unwrap();
        let mut patience = Patience { caller: Some(caller.into()), started_by_hooks: true, ..Patience::default() };
        let mut wait = |stage| patience.wait(silent.as_fd(), long_ago(), stage);
        assert!(matches!(wait(Stage::Settled), Err(RuntimeError::Silent)));
        other.shutdown(Shutdown::Write).unwrap();
        for stage in [Stage::Outside, Stage::SetUp, Stage::Settled, Stage::Started] {
            assert!(matches!(wait(stage), Err(RuntimeError::CalledOff)), "{stage:?}");
        }
        drop(other);
        assert!(matches!(wait(Stage::Settled), Err(RuntimeError::Silent)), "an end calls nothing off");
    }

    #[test]
    fn what_nobody_sees_is_called_off_and_not_timed() {
        let (silent, _theirs) = UnixStream::pair().unwrap();
        let (caller, other) = UnixStream::pair().unwrap();
        let mut patience = Patience { is_unseen: true, caller: Some(caller.into()), ..Patience::default() };
        assert_eq!(patience.limit(Stage::Settled), None);
        other.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(patience.wait(silent.as_fd(), long_ago(), Stage::SetUp), Err(RuntimeError::CalledOff)));
    }

    #[test]
    fn a_set_up_that_copies_takes_as_long_as_it_does() {
        let patience = Patience { set_up_takes_long: true, ..Patience::default() };
        assert_eq!((patience.limit(Stage::SetUp), patience.limit(Stage::Settled)), (None, Some(EXEC_PATIENCE)));
        assert_eq!(Patience::default().limit(Stage::SetUp), Some(EXEC_PATIENCE));
    }

    #[test]
    fn what_is_heard_counts_before_all_else() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (caller, other) = UnixStream::pair().unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        drop(theirs);
        let mut patience = Patience { caller: Some(caller.into()), ..Patience::default() };
        assert!(patience.wait(ours.as_fd(), long_ago(), Stage::Started).is_ok());
        assert!(patience.wait(ours.as_fd(), Instant::now(), Stage::Started).is_ok());
    }
}
