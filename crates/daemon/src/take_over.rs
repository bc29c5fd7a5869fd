//! A live upgrade: a daemon that takes the place of the one that has its data root.
//!
//! It has the sockets that the other one listens on before that one is told to make way (see [`crate::early`]), so a
//! client that comes meanwhile waits for the new one and is not refused. Containers, their logs, probes and names are of
//! other processes anyway. What can fail is tried first; should the new one fail all the same, the program that ran before
//! is started again in its place, and so it is, by a guard, should the new one be killed.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid};
use wharf_sys::process::{Namespaces, clone3};

use crate::inherit::Inherited;

/// Tells a daemon to leave everything as it is for the next one.
pub(crate) const MAKE_WAY: Signal = Signal::USR2;
/// How long it may take for that. Then it is killed, which it outlives as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel may take to end one that was killed.
const END: Duration = Duration::from_secs(10);

/// Holds the turn of a data root: who begins to use it, whether it takes another's place or not, is alone until it does.
///
/// # Errors
/// The message for the user: also when another has it, who is about to be the daemon.
pub(crate) fn turn(root: &Path) -> Result<File, String> {
    let path = root.join("turn.lock");
    let failing = |error: std::io::Error| format!("cannot lock {}: {error}", path.display());
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failing)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(format!("another daemon is just starting with the data root {}", root.display())),
        Err(errno) => Err(failing(errno.into())),
    }
}

/// The program of a daemon that has ended, and what it was told.
#[derive(Debug)]
pub(crate) struct Predecessor {
    program: File,
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

/// What is of this process and not of the one before: sockets that were passed to it, and its launcher's.
const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", crate::rootless::VARIABLE];

impl Predecessor {
    /// Becomes it. Returns when that cannot be.
    pub(crate) fn start_again(&self) -> String {
        let mut words = self.words.iter().filter(|word| *word != "--take-over");
        let name = words.next().cloned().unwrap_or_else(|| "wharf".into());
        crate::activation::pass_on();
        crate::rootless::pass_on();
        let is_own = |name: &OsStr| OWN_VARIABLES.iter().any(|own| *own == name);
        // A guard is another process than the one that the sockets were passed to.
        let mine = |(name, value)| {
            let value = if name == "LISTEN_PID" { std::process::id().to_string().into() } else { value };
            (name, value)
        };
        let own = std::env::vars_os().filter(|(name, _)| is_own(name)).map(mine);
        let before = self.environment.iter().filter(|(name, _)| !is_own(name)).cloned();
        let variables: Vec<_> = before.chain(own).collect();
        if let Some(directory) = &self.directory {
            let _ = std::env::set_current_dir(directory);
        }
        let path = format!("/proc/self/fd/{}", self.program.as_raw_fd());
        let error = std::process::Command::new(path).arg0(name).args(words).env_clear().envs(variables).exec();
        format!("the one that was there before cannot be started again: {}", wharf_report::os(&error))
    }
}

/// A process that is there until a daemon has begun, and starts the one before again if that one is killed until then.
#[derive(Debug)]
pub(crate) struct Guard {
    begun: OwnedFd,
    process: OwnedFd,
}

impl Guard {
    /// Tells the one before to make way, too. This process must have one thread. `None` where the host gives no more processes or files: then the daemon goes without.
    fn new(before: &Predecessor, its_process: &OwnedFd) -> Option<Self> {
        let own = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
        let (hears, begun) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let guarding = || {
            // By it, so that no kill comes between the one's being told and the other's being there.
            let _ = pidfd_send_signal(its_process, MAKE_WAY);
            let mut fds = [PollFd::new(&hears, PollFlags::IN), PollFd::new(&own, PollFlags::IN)];
            let _ = retry_on_intr(|| poll(&mut fds, None));
            // A daemon that panics closes the pipe before it has ended.
            if !fds[0].revents().contains(PollFlags::IN) && ended(&own, PATIENCE) && ended(its_process, PATIENCE) {
                tracing::error!("the daemon that was starting was killed: starting the one that was there before");
                tracing::error!("{}", before.start_again());
            }
            0
        };
        let child = clone3(Namespaces::default(), None, guarding).ok()?;
        Some(Self { begun, process: child.pidfd })
    }

    /// It is not needed any more.
    fn dismiss(self) {
        let _ = rustix::io::write(&self.begun, b"b");
        let _ = retry_on_intr(|| waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED));
    }
}

/// The time in which what was there before a daemon is started again if that one comes to nothing.
pub(crate) struct Beginning {
    is_over: Cell<bool>,
    guard: Cell<Option<Guard>>,
}

impl Beginning {
    pub(crate) fn new(guard: Option<Guard>) -> Self {
        Self { is_over: Cell::new(false), guard: Cell::new(guard) }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub(crate) fn end(&self) {
        self.is_over.set(true);
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}

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

    /// What it listens on.
    ///
    /// # Errors
    /// The message for the user.
    pub(crate) fn sockets(&self) -> Result<Inherited, String> {
        Inherited::of(self.pid, &self.process).map_err(|e| {
            let pid = self.pid.as_raw_pid();
            format!("cannot have the sockets of process {pid}: {}. Stop it and start this one", wharf_report::os(&e))
        })
    }

    /// Its containers have to be found where it has left them.
    ///
    /// # Errors
    /// The message for the user, when it has another exec root.
    pub(crate) fn has_exec_root(&self, root: &Path) -> Result<(), String> {
        if crate::exec_root::is_of(root, self.pid) {
            return Ok(());
        }
        Err(format!(
            "the daemon that is process {} has another exec root than {}: give its --exec-root to take its place",
            self.pid.as_raw_pid(),
            root.display()
        ))
    }

    /// Has it make way, and waits for that. From then on a guard is there, where one can be.
    ///
    /// # Errors
    /// The message for the user, when it does not even end by being killed.
    pub(crate) fn make_way(self) -> Result<Option<(Predecessor, Option<Guard>)>, String> {
        // A file that was replaced meanwhile is found there, too.
        let of = |name: &str| format!("/proc/{}/{name}", self.pid.as_raw_pid());
        let predecessor = File::open(of("exe")).ok().zip(std::fs::read(of("cmdline")).ok()).map(|(program, words)| {
            let words = words.strip_suffix(b"\0").unwrap_or(&words).split(|byte| *byte == 0);
            let environment = std::fs::read(of("environ")).unwrap_or_default();
            let pair = |pair: &[u8]| {
                let at = pair.iter().position(|byte| *byte == b'=')?;
                Some((OsStr::from_bytes(&pair[..at]).to_owned(), OsStr::from_bytes(&pair[at + 1..]).to_owned()))
            };
            Predecessor {
                program,
                words: words.map(|word| OsStr::from_bytes(word).to_owned()).collect(),
                environment: environment.split(|byte| *byte == 0).filter_map(pair).collect(),
                directory: std::fs::read_link(of("cwd")).ok(),
            }
        });
        let pid = self.pid.as_raw_pid();
        tracing::info!("taking the place of the daemon that is process {pid}");
        let guard = predecessor.as_ref().and_then(|before| Guard::new(before, &self.process));
        for (signal, patience) in [(MAKE_WAY, PATIENCE), (Signal::KILL, END)] {
            match pidfd_send_signal(&self.process, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    return Err(format!("cannot tell process {pid} to make way: {}", wharf_report::os(&errno.into())));
                }
            }
            if ended(&self.process, patience) {
                return Ok(predecessor.map(|before| (before, guard)));
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
    fn a_root_has_one_that_starts() {
        let dir = tempfile::tempdir().unwrap();
        let first = turn(dir.path()).unwrap();
        assert!(turn(dir.path()).unwrap_err().contains("another daemon is just starting"));
        drop(first);
        turn(dir.path()).unwrap();
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
        let (predecessor, guard) = running.make_way().unwrap().unwrap();
        guard.unwrap().dismiss();
        assert_eq!(predecessor.words, ["sh", "-c", "sleep 100; :", "daemon"]);
        assert!(!other.wait().unwrap().success());
    }
}
