//! What parent and child say to each other between clone and exec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::Pid;
use wharf_sys::message::{self, Incoming};
use wharf_sys::process::Child;
use wharf_sys::socket::peer_user;

use crate::RuntimeError;
use crate::patience::{Patience, Stage};
use crate::sight::show;

/// Result of a step in the child.
pub(crate) type Step<T> = Result<T, Failure>;

const GO: u8 = b'G';
/// All is mounted: the parent's hooks may run.
const MOUNTED: u8 = b'M';
const READY: u8 = b'R';
const START: u8 = b'S';
/// Instead of [`START`], at a gate: what are its namespaces ([`crate::sight`])?
pub(crate) const LOOK: u8 = b'L';
const MADE: u8 = b'M';
/// The fd that a filter's decisions are made on.
const DECISIONS: u8 = b'D';
/// The master of a terminal.
const TERMINAL: u8 = b'T';
const FAILED: u8 = b'F';
const NOT_FOUND: u8 = b'N';
const NOT_EXECUTABLE: u8 = b'X';
const HOOK: u8 = b'K';

/// A step that failed in the child.
#[derive(Debug)]
pub(crate) enum Failure {
    Step(String, Errno),
    NotFound,
    NotExecutable(Errno),
    /// A hook that runs in the container.
    Hook(String),
}

impl Failure {
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        |errno| Self::Step(step.into(), errno)
    }

    /// Tells the parent. If it has gone there is nobody to tell.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) {
        let (tag, errno, text) = match self {
            Self::Step(step, errno) => (FAILED, *errno, step.as_str()),
            Self::NotFound => (NOT_FOUND, Errno::NOENT, ""),
            Self::NotExecutable(errno) => (NOT_EXECUTABLE, *errno, ""),
            Self::Hook(text) => (HOOK, Errno::IO, text.as_str()),
        };
        let mut bytes = vec![tag];
        bytes.extend(errno.raw_os_error().to_be_bytes());
        bytes.extend(text.as_bytes());
        let _ = message::send(socket, &bytes, &[]);
    }
}

/// A message: its bytes, and the fds that came with them.
type Heard = (Vec<u8>, Vec<OwnedFd>);

/// What the child has said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Nothing yet, or not all of it.
    Nothing,
    /// It has closed its end.
    Closed,
    Message(Heard),
}

/// What a go-between has done.
#[derive(Debug)]
pub(crate) enum Between {
    /// A terminal for the process; this is its master.
    Terminal(OwnedFd),
    /// It has a filter that somebody else decides for, on this fd.
    Decisions(OwnedFd),
    /// The process.
    Made(Child),
}

/// A process that was made for the parent.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) child: Child,
    /// The master of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// What somebody else decides for its filter on.
    pub(crate) decisions: Option<OwnedFd>,
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd {
    socket: OwnedFd,
    incoming: Incoming,
    /// Without it the child is waited for to its end.
    patience: Option<Patience>,
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ParentEnd {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Incoming::default(), patience: None }
    }

    /// From now on the child is waited for in this way.
    pub(crate) fn be_patient(&mut self, patience: Option<Patience>) {
        self.patience = patience;
    }

    /// Whether the child can be kept from going on, and from its end too: by others, or by what it waits for.
    pub(crate) fn is_at_mercy(&self) -> bool {
        self.patience.is_some()
    }

    /// What the child has said by now; nobody is waited for.
    pub(crate) fn listen(&mut self) -> Result<Said, RuntimeError> {
        match self.incoming.receive_now(&self.socket) {
            Ok(None) => Ok(Said::Closed),
            Ok(Some(heard)) => Ok(Said::Message(heard)),
            Err(Errno::AGAIN) => Ok(Said::Nothing),
            Err(_) => Err(RuntimeError::Vanished),
        }
    }

    /// Waits for what the child says.
    fn hear(&mut self, stage: Stage) -> Result<Said, RuntimeError> {
        let begun = Instant::now();
        while let Some(patience) = &mut self.patience {
            patience.wait(self.socket.as_fd(), begun, stage)?;
            match self.listen()? {
                Said::Nothing => {}
                said => return Ok(said),
            }
        }
        match message::receive(&self.socket).map_err(|_| RuntimeError::Vanished)? {
            None => Ok(Said::Closed),
            Some(heard) => Ok(Said::Message(heard)),
        }
    }

    /// Waits for the end of what is about to end.
    pub(crate) fn outlast(&mut self, pidfd: BorrowedFd<'_>) -> Result<(), RuntimeError> {
        self.patience.as_mut().map_or(Ok(()), |patience| patience.wait(pidfd, Instant::now(), Stage::Settled))
    }

    /// Everything that only the parent can do is done; `rootfs` if it could be made only now. `pid` is the child's own
    /// number, which it cannot know from inside.
    pub(crate) fn go(&mut self, pid: i32, rootfs: Option<BorrowedFd<'_>>) -> Result<(), RuntimeError> {
        let fds: Vec<BorrowedFd<'_>> = rootfs.into_iter().collect();
        let [a, b, c, d] = pid.to_be_bytes();
        self.tell(&[GO, a, b, c, d], &fds, "")
    }

    fn tell(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>], command: &str) -> Result<(), RuntimeError> {
        if message::send(&self.socket, bytes, fds).is_ok() {
            return Ok(());
        }
        // It has ended, and may have said why.
        match self.listen()? {
            Said::Message((bytes, _)) => Err(told(&bytes, command)),
            Said::Closed | Said::Nothing => Err(RuntimeError::Vanished),
        }
    }

    /// What the go-between of an exec tells.
    pub(crate) fn between(said: Said, command: &str) -> Result<Between, RuntimeError> {
        let Said::Message((bytes, fds)) = said else { return Err(RuntimeError::Vanished) };
        let mut fds = fds.into_iter();
        let pid = match bytes.as_slice() {
            [MADE, pid @ ..] => <[u8; 4]>::try_from(pid).ok().and_then(|pid| Pid::from_raw(i32::from_be_bytes(pid))),
            [TERMINAL] => return fds.next().map(Between::Terminal).ok_or(RuntimeError::Vanished),
            [DECISIONS] => return fds.next().map(Between::Decisions).ok_or(RuntimeError::Vanished),
            _ => return Err(told(&bytes, command)),
        };
        match (pid, fds.next()) {
            (Some(pid), Some(pidfd)) => Ok(Between::Made(Child { pid, pidfd })),
            _ => Err(RuntimeError::Vanished),
        }
    }

    /// Waits for the process that a go-between makes ([`crate::joining`]); `hooks` run when it has mounted all.
    pub(crate) fn made(
        &mut self,
        command: &str,
        hooks: impl FnOnce() -> Result<(), RuntimeError>,
    ) -> Result<Joined, RuntimeError> {
        let (mut hooks, mut terminal, mut decisions) = (Some(hooks), None, None);
        loop {
            let said = self.hear(Stage::Outside)?;
            if matches!(&said, Said::Message((bytes, _)) if bytes == &[MOUNTED]) {
                hooks.take().map_or(Ok(()), |hooks| hooks())?;
                self.go(0, None)?;
                continue;
            }
            match Self::between(said, command)? {
                Between::Terminal(fd) => terminal = Some(fd),
                Between::Decisions(fd) => decisions = Some(fd),
                Between::Made(child) => return Ok(Joined { child, terminal, decisions }),
            }
        }
    }

    /// Waits until the process that a go-between has made is ready.
    pub(crate) fn settle(&mut self, command: &str) -> Result<(), RuntimeError> {
        Self::settled(self.hear(Stage::Settled)?, command)
    }

    /// Whether the child of an exec is ready.
    pub(crate) fn settled(said: Said, command: &str) -> Result<(), RuntimeError> {
        step(said, command)?.ok_or(RuntimeError::Vanished).map(drop)
    }

    pub(crate) fn start(&mut self, command: &str) -> Result<(), RuntimeError> {
        self.tell(&[START], &[], command)
    }

    /// Waits until the child is ready; the terminal's master comes with it. `hooks` run when it has mounted all.
    pub(crate) fn ready(
        &mut self,
        command: &str,
        hooks: impl FnOnce() -> Result<(), RuntimeError>,
    ) -> Result<Option<OwnedFd>, RuntimeError> {
        let mut hooks = Some(hooks);
        loop {
            match step(self.hear(Stage::SetUp)?, command)?.ok_or(RuntimeError::Vanished)? {
                (MOUNTED, _) => {
                    if let Some(hooks) = hooks.take() {
                        hooks()?;
                    }
                    self.go(0, None)?;
                }
                (_, mut fds) => return Ok(fds.pop()),
            }
        }
    }

    /// Waits for the exec: the socket closes with it.
    pub(crate) fn wait_for_exec(&mut self, command: &str) -> Result<(), RuntimeError> {
        Self::executed(self.hear(Stage::Started)?, command)
    }

    /// Whether what was said is that the program runs.
    pub(crate) fn executed(said: Said, command: &str) -> Result<(), RuntimeError> {
        step(said, command).map(drop)
    }
}

/// The step that the child has come to; `None` when it has closed its end.
fn step(said: Said, command: &str) -> Result<Option<(u8, Vec<OwnedFd>)>, RuntimeError> {
    match said {
        Said::Message((bytes, fds)) => match bytes.first() {
            Some(&tag @ (READY | MOUNTED)) => Ok(Some((tag, fds))),
            _ => Err(told(&bytes, command)),
        },
        Said::Closed | Said::Nothing => Ok(None),
    }
}

/// The failure that the child has told.
fn told(bytes: &[u8], command: &str) -> RuntimeError {
    let errno = bytes
        .get(1..5)
        .and_then(|b| <[u8; 4]>::try_from(b).ok())
        .map_or(Errno::IO, |b| Errno::from_raw_os_error(i32::from_be_bytes(b)));
    let text = || String::from_utf8_lossy(bytes.get(5..).unwrap_or_default()).into_owned();
    match bytes.first() {
        Some(&NOT_FOUND) => RuntimeError::CommandNotFound(command.into()),
        Some(&NOT_EXECUTABLE) => RuntimeError::NotExecutable { command: command.into(), errno },
        Some(&HOOK) => RuntimeError::ContainerHook(text()),
        _ => RuntimeError::Setup { step: text(), errno },
    }
}

/// Waits for [`GO`]; an early end of the parent ends the child. The number is that by which the parent knows it.
pub(crate) fn wait_for_go(socket: BorrowedFd<'_>) -> Result<(i32, Option<OwnedFd>), Failure> {
    if let Ok(Some((bytes, mut fds))) = message::receive(socket)
        && let [GO, a, b, c, d] = bytes[..]
    {
        return Ok((i32::from_be_bytes([a, b, c, d]), fds.pop()));
    }
    Err(Failure::Step("hear from the parent".into(), Errno::PIPE))
}

pub(crate) fn wait_for_start(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    match message::receive(socket) {
        Ok(Some((bytes, _))) if bytes == [START] => Ok(()),
        _ => Err(Failure::Step("hear from the parent".into(), Errno::PIPE)),
    }
}

/// Tells that all is mounted, and waits until the parent's hooks have run.
pub(crate) fn wait_for_hooks(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    message::send(socket, &[MOUNTED], &[]).map_err(Failure::at("report to the parent"))?;
    wait_for_go(socket).map(drop)
}

/// How long a visitor of the gate may say nothing, while others wait behind.
const VISITOR_PATIENCE: Duration = Duration::from_secs(1);
/// Who has no number in this user namespace (user_namespaces(7), "Unmapped user and group IDs").
const NOBODY: u32 = 65_534;

/// Whether a visitor with this user ID may be answered: the gate's maker, or root. `mapped`: the numbers are those of
/// another user namespace than the maker's, where the host's root has none; there what keeps others out is that the
/// socket is its owner's alone.
const fn may_come(visitor: u32, maker: u32, mapped: bool) -> bool {
    visitor == 0 || visitor == maker || mapped && visitor == NOBODY
}

/// Waits at a gate until somebody comes and says [`START`]; that one learns what becomes of the exec. `mapped`: in
/// another user namespace than who has made the gate.
pub(crate) fn wait_at_gate(gate: BorrowedFd<'_>, mapped: bool) -> Result<OwnedFd, Failure> {
    let maker = peer_user(gate).map_err(Failure::at("look at the gate"))?;
    loop {
        match rustix::net::accept_with(gate, rustix::net::SocketFlags::CLOEXEC) {
            Ok(visitor) if !peer_user(&visitor).is_ok_and(|user| may_come(user, maker, mapped)) => {}
            Ok(visitor) if set_socket_timeout(&visitor, Timeout::Recv, Some(VISITOR_PATIENCE)).is_err() => {}
            // Who went away without a word is no reason to end, nor who stays without one.
            Ok(visitor) => match message::receive(&visitor) {
                Ok(Some((bytes, _))) if bytes == [START] => return Ok(visitor),
                Ok(Some((bytes, _))) if bytes == [LOOK] => show(visitor.as_fd()),
                _ => {}
            },
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(errno) => return Err(Failure::Step("wait for the start".into(), errno)),
        }
    }
}

pub(crate) fn send_ready(socket: BorrowedFd<'_>, terminal: Option<&OwnedFd>) -> Result<(), Failure> {
    let fds: Vec<BorrowedFd<'_>> = terminal.into_iter().map(AsFd::as_fd).collect();
    message::send(socket, &[READY], &fds).map_err(Failure::at("report to the parent"))
}

/// Tells the parent of a process that was made for it.
pub(crate) fn send_made(socket: BorrowedFd<'_>, child: &Child) -> Result<(), Failure> {
    let mut bytes = vec![MADE];
    bytes.extend(child.pid.as_raw_nonzero().get().to_be_bytes());
    message::send(socket, &bytes, &[child.pidfd.as_fd()]).map_err(Failure::at("report to the parent"))
}

/// Gives the parent a terminal's master.
pub(crate) fn send_terminal(socket: BorrowedFd<'_>, master: OwnedFd) -> Result<(), Failure> {
    message::send(socket, &[TERMINAL], &[master.as_fd()]).map_err(Failure::at("report to the parent"))
}

/// Gives the parent the fd on which somebody decides what this process's filter leaves open.
pub(crate) fn send_decisions(socket: BorrowedFd<'_>, decisions: OwnedFd) -> Result<(), Failure> {
    message::send(socket, &[DECISIONS], &[decisions.as_fd()]).map_err(Failure::at("report to the parent"))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn only_the_maker_and_root_come_to_a_gate() {
        assert!(may_come(0, 1000, false) && may_come(1000, 1000, false));
        assert!(!may_come(1001, 1000, false) && !may_come(NOBODY, 0, false));
        // Root without a mapping, of a container of root's and of a user's.
        assert!(may_come(NOBODY, NOBODY, true) && may_come(NOBODY, 0, true));
        assert!(!may_come(1, 0, true) && !may_come(1, NOBODY, true));
    }

    #[test]
    fn what_a_child_says_before_it_is_told_to_go_is_heard() {
        let pair = || {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            (ParentEnd::new(ours), theirs)
        };
        let (mut parent, child) = pair();
        Failure::Step("join the control group".into(), Errno::NOSPC).send(child.as_fd());
        drop(child);
        let error = parent.go(1, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot join the control group"), "{error}");
        let (mut parent, child) = pair();
        Failure::NotFound.send(child.as_fd());
        drop(child);
        assert!(matches!(parent.start("x"), Err(RuntimeError::CommandNotFound(command)) if command == "x"));
        let (mut parent, child) = pair();
        drop(child);
        assert!(matches!(parent.go(1, None), Err(RuntimeError::Vanished)));
    }
}
