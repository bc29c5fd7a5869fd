//! A live upgrade: a daemon that takes the place of the one that has its data root.
//!
//! Its unix sockets take the names of the other's before that one is told to make way, so a client that comes meanwhile
//! waits for the new one and is not refused. Containers, their logs, probes and names are of other processes anyway.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Tells a daemon to leave everything as it is for the next one.
pub(crate) const MAKE_WAY: Signal = Signal::USR2;
/// How long it may take for that. Then it is killed, which it outlives as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel may take to end one that was killed.
const END: Duration = Duration::from_secs(10);

/// The daemon that has a data root.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    process: OwnedFd,
}

impl Running {
    /// That of `root`; `None` when nobody has it, or who has it is no daemon.
    ///
    /// # Errors
    /// The message for the user.
    pub(crate) fn of(root: &Path) -> Result<Option<Self>, String> {
        let path = root.join("lock");
        let failing = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failing)?,
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(failing(errno.into())),
            Ok(()) => return Ok(None),
        }
        let Some(pid) = holder(&path).map_err(failing)? else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened
                .map_err(|e| format!("cannot reach process {}: {}", pid.as_raw_pid(), wharf_report::os(&e.into())))?,
        };
        // The number may have been another's by then: it still is who holds the lock, and what it runs is a daemon.
        let words = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
        let is_daemon = words.split(|byte| *byte == 0).any(|word| word == b"daemon" || word.ends_with(b"dockerd"));
        let same = holder(&path).map_err(failing)? == Some(pid) && !ended(&process, Duration::ZERO);
        Ok((is_daemon && same).then_some(Self { pid, process }))
    }

    /// Has it make way, and waits for that.
    ///
    /// # Errors
    /// The message for the user, when it does not even end by being killed.
    pub(crate) fn make_way(self) -> Result<(), String> {
        let pid = self.pid.as_raw_pid();
        tracing::info!("taking the place of the daemon that is process {pid}");
        for (signal, patience) in [(MAKE_WAY, PATIENCE), (Signal::KILL, END)] {
            match pidfd_send_signal(&self.process, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    return Err(format!("cannot tell process {pid} to make way: {}", wharf_report::os(&errno.into())));
                }
            }
            if ended(&self.process, patience) {
                return Ok(());
            }
            tracing::warn!("the daemon that is process {pid} does not make way");
        }
        Err(format!("the daemon that is process {pid} was killed and has not ended: it waits for a disk or a network"))
    }
}

/// The process that the lock's file names.
fn holder(path: &Path) -> std::io::Result<Option<Pid>> {
    let mut text = String::new();
    File::open(path)?.take(32).read_to_string(&mut text)?;
    Ok(text.trim().parse().ok().and_then(Pid::from_raw))
}

/// Whether a process ends within the time.
fn ended(process: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn locked(dir: &Path, pid: u32) -> File {
        let mut file = File::create(dir.join("lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        writeln!(file, "{pid}").unwrap();
        file
    }

    #[test]
    fn who_is_no_daemon_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Running::of(dir.path()).unwrap().is_none());
        // A check of the data root, for example.
        let mut other = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let held = locked(dir.path(), other.id());
        assert!(Running::of(dir.path()).unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(Running::of(dir.path()).unwrap().is_none());
        drop(held);
        assert!(Running::of(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_daemon_that_does_not_listen_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = std::process::Command::new("sh").args(["-c", "sleep 100; :", "daemon"]).spawn().unwrap();
        let _held = locked(dir.path(), other.id());
        // Until it is what was started.
        let running = loop {
            match Running::of(dir.path()).unwrap() {
                Some(running) => break running,
                None => std::thread::yield_now(),
            }
        };
        running.make_way().unwrap();
        assert!(!other.wait().unwrap().success());
    }
}
