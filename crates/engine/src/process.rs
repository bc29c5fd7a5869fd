//! The first process of a container that runs: for its namespaces, which others join, and its root.
//!
//! A process number means another process once its own has ended. So the process is held by a pidfd, it is looked at
//! whether it is in its container's group (or, where there is none, its monitor's child), and what was opened by its number
//! counts only if it still lives afterwards.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_cgroup::is_rootless;

use crate::error::{EngineError, Result};
use crate::record::{Container, Status};
use crate::ungrouped;

/// A container's first process, not to be taken for another.
#[derive(Debug)]
pub(crate) struct Process {
    container: String,
    pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    /// That of a container that runs.
    ///
    /// # Errors
    /// `Conflict` when it does not.
    pub(crate) fn of(record: &Container) -> Result<Self> {
        let gone = || not_running(&record.id);
        if !matches!(record.state.status, Status::Running | Status::Paused) {
            return Err(gone());
        }
        let pid = record.state.pid;
        let number = Pid::from_raw(pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|_| gone())?;
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| gone())?;
        let is_its_own = is_in_group(&groups, &record.id) || (is_rootless() && ungrouped::has_monitor(pid, &record.id));
        if !is_its_own {
            return Err(gone());
        }
        let process = Self { container: record.id.clone(), pid, pidfd };
        process.lives()?;
        Ok(process)
    }

    /// Its namespace, `net` or another name in `/proc/PID/ns`.
    pub(crate) fn namespace(&self, kind: &str) -> Result<OwnedFd> {
        let opened =
            rustix::fs::open(self.path(&format!("ns/{kind}")), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        self.lives()?;
        opened.map_err(|e| EngineError::from_source("cannot reach the container's namespace", &e))
    }

    /// What is below its directory in `/proc`, for who can only be given a path; [`Self::lives`] tells afterwards
    /// whether it meant this process.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    /// # Errors
    /// `Conflict` when it has ended.
    pub(crate) fn lives(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => Ok(()),
            _ => Err(not_running(&self.container)),
        }
    }
}

fn not_running(id: &str) -> EngineError {
    EngineError::conflict(format!("container {id} is not running"))
}

/// Whether one of the groups of `/proc/PID/cgroup` is the container's, or below it.
fn is_in_group(groups: &str, id: &str) -> bool {
    groups.lines().any(|line| line.rsplit(':').next().is_some_and(|path| path.split('/').any(|part| part == id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_group() {
        let groups = "3:pids:/wharf/abc\n2:memory:/wharf/abc/inner\n0::/wharf/abc\n";
        assert!(is_in_group(groups, "abc"));
        assert!(!is_in_group(groups, "ab") && !is_in_group("0::/\n", "abc") && !is_in_group("", "abc"));
    }
}
