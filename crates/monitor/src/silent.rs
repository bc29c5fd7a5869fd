//! A monitor that does not answer.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wharf_sys::socket::peer_process;

use crate::spawner;

/// How long a killed process may take to go, before it is taken for one that hangs in the kernel.
const ENDING: Duration = Duration::from_secs(2);
/// The name of a monitor whose container runs, or has run.
pub(crate) const SETTLED: &std::ffi::CStr = c"wharf-monitor";

/// The process of a monitor that does not answer: stopped, or in the middle of a start that makes no progress.
#[derive(Debug)]
pub struct Silent {
    process: OwnedFd,
    is_starting: bool,
}

impl Silent {
    /// Who listens where this connection leads. `None` when it has gone.
    pub fn behind(connection: impl AsFd) -> Option<Self> {
        let pid = Pid::from_raw(peer_process(connection).ok()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // After the opening: the number may be somebody else's by now.
        let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
        let is = |expected: &std::ffi::CStr| name.trim_end().as_bytes() == expected.to_bytes();
        let is_starting = is(spawner::NAME);
        (is_starting || is(SETTLED)).then_some(Self { process, is_starting })
    }

    /// Whether the container has not come to its first start's end.
    pub fn is_starting(&self) -> bool {
        self.is_starting
    }

    /// Kills it, and waits a little for its end. What it has started is left.
    ///
    /// # Errors
    /// As pidfd_send_signal(2); `EBUSY` when it hangs in the kernel.
    pub fn end(&self) -> Result<(), Errno> {
        match pidfd_send_signal(&self.process, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno),
        }
        let limit = Timespec::try_from(ENDING).map_err(|_| Errno::INVAL)?;
        match retry_on_intr(|| poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&limit)))? {
            0 => Err(Errno::BUSY),
            _ => Ok(()),
        }
    }
}
