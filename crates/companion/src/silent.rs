//! A process that does not answer: stopped, or one that hangs in the kernel.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::role::Role;

/// How long a killed process may take to go.
const ENDING: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

impl Role {
    /// Kills the process in `exec_root`, which is found by its name and by what it was started with: nothing can be asked
    /// of it, not even its number. Its containers are without it until a daemon starts another and tells it everything.
    pub(crate) fn end_silent(&self, exec_root: &Path) {
        let own_namespace = fs::read_link("/proc/self/ns/pid").ok();
        let mut ended = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let Some(pid) = number.filter(|_| self.is_at(&entry.path(), exec_root)) else { continue };
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // After the opening: the number may be somebody else's by now, and a container's processes call themselves
            // what they like.
            let namespace = fs::read_link(entry.path().join("ns/pid")).ok();
            if self.is_at(&entry.path(), exec_root) && namespace == own_namespace {
                let _ = pidfd_send_signal(&process, Signal::KILL);
                ended.push(process);
            }
        }
        for process in ended {
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&ENDING));
        }
    }

    /// Whether a directory of `/proc` is that of this process in `exec_root`.
    fn is_at(&self, process: &Path, exec_root: &Path) -> bool {
        let name = fs::read(process.join("comm")).unwrap_or_default();
        if name.trim_ascii_end() != self.name.to_bytes() {
            return false;
        }
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next() == Some(self.name.to_bytes()) && words.next().map(OsStr::from_bytes) == Some(exec_root.as_os_str())
    }
}
