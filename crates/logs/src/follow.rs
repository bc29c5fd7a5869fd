//! Waiting for a log to grow.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::error::{LogError, Result};

/// How long nothing may happen before the caller looks at its flag again.
const PATIENCE: Duration = Duration::from_millis(250);
/// The same after the log was closed: the container has ended, and the flag is about to be set.
const SHORT: Duration = Duration::from_millis(4);
const ENDING: Duration = Duration::from_secs(2);

/// Watches the directory that a log is in: its growing, its being renamed, a new one in its place.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: OwnedFd,
    closed: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(log: &Path) -> Result<Self> {
        let dir = log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags).map_err(LogError::file("watch", log))?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, dir, what).map_err(LogError::file("watch", dir))?;
        Ok(Self { inotify, closed: None })
    }

    /// Waits until something has happened, or a while.
    pub(crate) fn wait(&mut self) -> std::result::Result<(), Errno> {
        let ending = self.closed.is_some_and(|at| at.elapsed() < ENDING);
        let patience = if ending { SHORT } else { PATIENCE };
        let timeout = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            ready => drop(ready?),
        }
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) => {
                    if event.events().contains(inotify::ReadFlags::CLOSE_WRITE) {
                        self.closed = Some(Instant::now());
                    }
                    if events.is_buffer_empty() {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}
