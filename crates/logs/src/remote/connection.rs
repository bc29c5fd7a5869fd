//! A socket to a receiver: connected, lost, connected again, without ever waiting for it but at the start.

use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::error::{LogError, Result};

/// How long the first connection may take (Docker's drivers: ten seconds for GELF, no end for others).
const PATIENCE: Duration = Duration::from_secs(10);

/// Milliseconds without a word from a receiver that should have had one: it is not there any more.
const SILENCE: u32 = 30_000;

/// Where a receiver is. Names have been looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// A stream.
    Unix(PathBuf),
    Unixgram(PathBuf),
}

impl Target {
    /// Whether it takes a stream of bytes, and not datagrams.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Unixgram(path) => write!(f, "unixgram://{}", path.display()),
        }
    }
}

/// What is not waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Between two attempts to connect.
    pub(super) retry: Duration,
    /// How long a connection is used.
    pub(super) renew: Option<Duration>,
    /// How long a receiver may take nothing.
    pub(super) write: Option<Duration>,
}

#[derive(Debug)]
enum State {
    Up(OwnedFd),
    Coming(OwnedFd),
    Down(Instant),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    Later,
    Refused,
}

#[derive(Debug)]
pub(super) struct Connection {
    target: Target,
    /// It takes what is too large for a datagram as a file, as the journal does.
    files: bool,
    state: State,
    /// Bytes of the message that is being sent.
    sent: usize,
    times: Times,
    /// Attempts in a row that failed.
    failures: u32,
    /// Since when it is up.
    since: Instant,
    /// Since when the receiver takes nothing.
    stuck: Option<Instant>,
}

impl Connection {
    pub(super) fn open(target: &Target, files: bool, needed: bool, times: Times) -> Result<Self> {
        let (target, now) = (target.clone(), Instant::now());
        let mut connection =
            Self { target, files, state: State::Down(now), sent: 0, times, failures: 0, since: now, stuck: None };
        let name = connection.target.to_string();
        let failed = |errno: Errno| LogError::Remote { target: name.clone(), source: errno.into() };
        match connect(&connection.target) {
            Ok(state) => connection.state = state,
            Err(errno) if needed => return Err(failed(errno)),
            Err(_) => {}
        }
        let deadline = Instant::now() + PATIENCE;
        while let State::Coming(fd) = &connection.state
            && needed
        {
            if Instant::now() >= deadline {
                return Err(failed(Errno::TIMEDOUT));
            }
            wait((Some((fd.as_fd(), PollFlags::OUT)), None), deadline);
            match outcome(fd) {
                None => {}
                Some(Ok(())) => connection.come_up(),
                Some(Err(errno)) => return Err(failed(errno)),
            }
        }
        Ok(connection)
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether a message has been sent in part.
    pub(super) fn is_amid(&self) -> bool {
        self.sent > 0
    }

    /// How many attempts to connect have failed since the last that did not.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn forget_failures(&mut self) {
        self.failures = 0;
    }

    fn come_up(&mut self) {
        let now = Instant::now();
        (self.failures, self.since, self.stuck) = (0, now, None);
        self.state = match std::mem::replace(&mut self.state, State::Down(now)) {
            State::Coming(fd) => State::Up(fd),
            other => other,
        };
    }

    fn go_down(&mut self) {
        // Whoever comes back has not seen the first part.
        self.sent = 0;
        self.stuck = None;
        self.state = State::Down(Instant::now() + self.times.retry);
    }

    /// As [`Self::go_down`], after an attempt.
    fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.go_down();
    }

    pub(super) fn interest(&self, unsent: bool) -> (Option<(BorrowedFd<'_>, PollFlags)>, Option<Instant>) {
        match &self.state {
            State::Up(fd) => {
                let out = if unsent { PollFlags::OUT } else { PollFlags::empty() };
                let patience = self.stuck.zip(self.times.write).map(|(since, most)| since + most);
                (Some((fd.as_fd(), PollFlags::IN | out)), patience)
            }
            State::Coming(fd) => (Some((fd.as_fd(), PollFlags::OUT)), None),
            // Whoever has nothing to say need not be connected.
            State::Down(due) => (None, unsent.then_some(*due)),
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        match &self.state {
            State::Coming(fd) => match outcome(fd) {
                None => {}
                Some(Ok(())) => self.come_up(),
                Some(Err(_)) => self.fail(),
            },
            State::Down(due) if now >= *due => match connect(&self.target) {
                Ok(state) => {
                    self.state = state;
                    if self.is_up() {
                        self.come_up();
                    }
                }
                Err(_) => self.fail(),
            },
            State::Down(_) => {}
            State::Up(_) if self.is_stuck(now) => self.go_down(),
            State::Up(fd) => {
                // Nothing is expected; the end is what matters.
                let mut buffer = [0u8; 4096];
                match rustix::net::recv(fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                    Ok((_, 0)) if self.target.is_stream() => self.go_down(),
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(_) if self.target.is_stream() => self.go_down(),
                    // A datagram was refused: whoever is to take them may come later.
                    Err(_) => {}
                }
            }
        }
    }

    fn is_stuck(&self, now: Instant) -> bool {
        self.stuck.zip(self.times.write).is_some_and(|(since, most)| now >= since + most)
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Sent {
        // Between two messages, and one of a receiver that takes them.
        if self.is_up() && self.sent == 0 && self.times.renew.is_some_and(|most| self.since.elapsed() >= most) {
            self.state = State::Down(Instant::now());
            self.advance(Instant::now());
        }
        loop {
            let State::Up(fd) = &self.state else { return Sent::Later };
            match rustix::net::send(fd, &message[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.stuck = None;
                    self.sent += count;
                    if self.sent >= message.len() || !self.target.is_stream() {
                        self.sent = 0;
                        return Sent::Whole;
                    }
                }
                Err(Errno::INTR) => {}
                // The kernel tells of the datagram before; told, it sends this one.
                Err(Errno::CONNREFUSED) if matches!(self.target, Target::Udp(_)) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return Sent::Later;
                }
                Err(Errno::MSGSIZE) if self.files => match send_file(fd, message) {
                    Ok(()) => {
                        self.stuck = None;
                        return Sent::Whole;
                    }
                    Err(Errno::AGAIN | Errno::NOBUFS) => {
                        self.stuck.get_or_insert_with(Instant::now);
                        return Sent::Later;
                    }
                    Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => {
                        self.go_down();
                        return Sent::Later;
                    }
                    Err(_) => return Sent::Refused,
                },
                Err(Errno::MSGSIZE) => return Sent::Refused,
                Err(_) => {
                    self.go_down();
                    return Sent::Later;
                }
            }
        }
    }
}

/// Sends a message as a file in memory that nobody can change any more (systemd, "Native Journal Protocol").
fn send_file(socket: &OwnedFd, message: &[u8]) -> std::result::Result<(), Errno> {
    // Some hosts give none that could be executed (vm.memfd_noexec); before Linux 6.3 the flag is not known.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(c"entry", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(c"entry", flags)?,
        made => made?,
    };
    let mut file = File::from(file);
    file.write_all(message).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

/// Begins a connection.
fn connect(target: &Target) -> std::result::Result<State, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, connected) = match target {
        Target::Udp(address) | Target::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let kind = if target.is_stream() { SocketType::STREAM } else { SocketType::DGRAM };
            let fd = rustix::net::socket_with(family, kind, flags, None)?;
            if target.is_stream() {
                // Without it what is sent to a host that has vanished is tried again for a quarter of an hour.
                sockopt::set_tcp_user_timeout(&fd, SILENCE)?;
            }
            let connected = rustix::net::connect(&fd, address);
            (fd, connected)
        }
        Target::Unix(path) | Target::Unixgram(path) => {
            let kind = if target.is_stream() { SocketType::STREAM } else { SocketType::DGRAM };
            let fd = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
            let connected = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
            (fd, connected)
        }
    };
    match connected {
        Ok(()) => Ok(State::Up(fd)),
        Err(Errno::INPROGRESS) => Ok(State::Coming(fd)),
        Err(errno) => Err(errno),
    }
}

/// What has become of a connection that was begun; `None` while it has not been decided.
fn outcome(fd: &OwnedFd) -> Option<std::result::Result<(), Errno>> {
    let mut fds = [PollFd::new(fd, PollFlags::OUT)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) | Err(_) => None,
        Ok(_) => match sockopt::socket_error(fd) {
            Ok(Ok(())) => Some(Ok(())),
            Ok(Err(errno)) | Err(errno) => Some(Err(errno)),
        },
    }
}

/// Waits for what a connection waits for.
pub(super) fn wait(interest: (Option<(BorrowedFd<'_>, PollFlags)>, Option<Instant>), deadline: Instant) {
    let (fd, due) = interest;
    let until = due.map_or(deadline, |due| due.min(deadline));
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(50);
    let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    let mut fds: Vec<PollFd<'_>> = fd.iter().map(|(fd, flags)| PollFd::new(fd, *flags)).collect();
    // Interrupted or not: who waits looks again.
    let _ = poll(&mut fds, Some(&timeout));
}
