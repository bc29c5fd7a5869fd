//! What the loop waits for, and what of it has happened.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Which fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Listener,
    Oom,
    /// Some of this process's have ended.
    Children,
    /// The connection to the log's receiver.
    Log,
    /// By place in the list; lists are not shortened between the waiting and the end of the round.
    Connection(usize),
    /// A client that gets the rest after the end.
    Late(usize),
    Program(Who, Part),
}

/// Whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Container,
    Exec(usize),
    Probe,
}

/// Of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Process,
    Output(usize),
    Input,
    Client(usize),
    /// Who asked for an exec.
    Asker,
}

/// Collects fds and times.
#[derive(Debug, Default)]
pub(crate) struct Interest<'a> {
    fds: Vec<PollFd<'a>>,
    sources: Vec<Source>,
    due: Option<Instant>,
}

impl<'a> Interest<'a> {
    pub(crate) fn add(&mut self, fd: &'a impl AsFd, flags: PollFlags, source: Source) {
        self.add_borrowed(fd.as_fd(), flags, source);
    }

    pub(crate) fn add_borrowed(&mut self, fd: BorrowedFd<'a>, flags: PollFlags, source: Source) {
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
        self.sources.push(source);
    }

    /// Waits no longer than this.
    pub(crate) fn until(&mut self, due: Option<Instant>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Waits; what is ready afterwards.
    pub(crate) fn wait(mut self) -> Vec<(Source, PollFlags)> {
        let timeout = self.due.map(|due| {
            // Rounded up, or the last part of a millisecond would be spent in turning round.
            let left = due.saturating_duration_since(Instant::now()) + Duration::from_micros(50);
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        match poll(&mut self.fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Vec::new(),
            Ok(_) => {}
            // Without memory for the list there is nothing to do but to try again, slowly.
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10));
                return Vec::new();
            }
        }
        let ready = self.fds.iter().map(PollFd::revents).zip(self.sources);
        ready.filter(|(flags, _)| !flags.is_empty()).map(|(flags, source)| (source, flags)).collect()
    }
}
