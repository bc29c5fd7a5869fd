//! A monitor that does not answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
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

    /// That of a container that has run, found by its title; for one that takes no connections. `None` when there is none.
    pub fn of(id: &str) -> Option<Self> {
        let title = format!("wharf-monitor {id}");
        let is = |process: &Path| {
            let name = std::fs::read(process.join("comm")).unwrap_or_default();
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            name.trim_ascii_end() == SETTLED.to_bytes()
                && line.split(|byte| *byte == 0).next() == Some(title.as_bytes())
        };
        let own_namespace = std::fs::read_link("/proc/self/ns/pid").ok();
        std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
            let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok().filter(|_| is(&path))?)?;
            let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // After the opening: the number may be somebody else's by now, and a container's processes call themselves
            // what they like.
            let same = is(&path) && std::fs::read_link(path.join("ns/pid")).ok() == own_namespace;
            same.then_some(Self { process, is_starting: false })
        })
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
