//! The prepared process that forks monitors, and the daemon's connection to it.
//!
//! It is forked from the daemon while that has one thread and little memory, so a fork of it is quick and what a
//! monitor shares with it is small. Each launch brings the end of a socket of its own, on which the monitor answers:
//! the prepared process is free for the next one at once.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use wharf_sys::message;
use wharf_sys::process::{Namespaces, clone3};
use wharf_sys::signals::Signals;

use crate::error::{LaunchError, Result};
use crate::launch::Launch;
use crate::run;
use crate::wire::Reply;

/// The daemon's connection to the process that forks monitors. That process ends when this value is dropped; its
/// monitors do not.
#[derive(Debug)]
pub struct Spawner {
    /// Held while a request is written: it is small, and the answer comes by another way.
    socket: Mutex<OwnedFd>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    pub pid: i32,
    pub monitor_pid: i32,
    /// RFC 3339.
    pub started_at: String,
}

impl Spawner {
    /// Forks the prepared process.
    ///
    /// # Errors
    /// `Threads` when the caller has more than one: a copy of it could hang on a lock that another thread held.
    pub fn start() -> Result<Self> {
        match std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) {
            0 | 1 => {}
            threads => return Err(LaunchError::Threads(threads)),
        }
        let (ours, theirs) = pair()?;
        let child = clone3(Namespaces::default(), None, || {
            let done = prepare(&theirs).and_then(|()| serve());
            u8::from(done.is_err())
        });
        child.map_err(LaunchError::system("make the process that makes monitors"))?;
        Ok(Self { socket: Mutex::new(ours) })
    }

    /// Makes a container run. `netns` is the network namespace to be in, `streams` the clients' ends for
    /// [`Launch::attach`]. Returns when the user's program runs, or nothing of it is left. Several may be made at once.
    ///
    /// # Errors
    /// `Failed` with the code by which Docker's users know it.
    pub fn launch(
        &self,
        launch: &Launch,
        netns: Option<BorrowedFd<'_>>,
        streams: &[BorrowedFd<'_>],
    ) -> Result<Launched> {
        if streams.len() != launch.attach.len() {
            return Err(LaunchError::Streams { given: streams.len(), asked: launch.attach.len() });
        }
        let (ours, theirs) = pair()?;
        // A byte before the JSON says whether there is a namespace among the fds.
        let mut bytes = vec![u8::from(netns.is_some())];
        serde_json::to_writer(&mut bytes, launch).map_err(|e| LaunchError::BadAnswer(e.to_string()))?;
        let mut fds = vec![theirs.as_fd()];
        fds.extend(netns);
        fds.extend_from_slice(streams);
        {
            let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            message::send(&*socket, &bytes, &fds).map_err(|_| LaunchError::NoSpawner)?;
        }
        drop(theirs);
        let received = message::receive(&ours).map_err(|_| LaunchError::NoAnswer)?;
        let (bytes, _) = received.ok_or(LaunchError::NoAnswer)?;
        let reply: Reply = serde_json::from_slice(&bytes).map_err(|e| LaunchError::BadAnswer(e.to_string()))?;
        if let Some(message) = reply.error {
            return Err(LaunchError::Failed { message, code: reply.code.unwrap_or(125) });
        }
        match (reply.pid, reply.monitor_pid, reply.started_at) {
            (Some(pid), Some(monitor_pid), Some(started_at)) => Ok(Launched { pid, monitor_pid, started_at }),
            _ => Err(LaunchError::BadAnswer("no process number".into())),
        }
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(LaunchError::system("make a socket"))
}

/// Where the prepared process has its connection after [`prepare`].
const SOCKET: i32 = 3;

/// Lets go of all that is the daemon's: its session, its terminal, its fds (its lock above all), its directory.
fn prepare(socket: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    wharf_sys::process::set_name(c"wharf-spawner")?;
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Closed with all others by the next call; nobody may own it then.
    let _ = null.into_raw_fd();
    wharf_sys::fds::keep_only(socket.as_raw_fd(), SOCKET)
}

/// Forks a monitor for each launch, until the daemon's end closes.
fn serve() -> rustix::io::Result<()> {
    let mut socket = wharf_sys::fds::adopt(SOCKET)?;
    // What ends the daemon is no reason to end before it does.
    let signals = Signals::block(&[Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT])?;
    loop {
        let ready = {
            let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            !fds[0].revents().is_empty()
        };
        while signals.next()?.is_some() {}
        reap();
        if !ready {
            continue;
        }
        let Some((bytes, mut fds)) = message::receive(&socket)? else { return Ok(()) };
        if fds.is_empty() {
            continue;
        }
        let asker = fds.remove(0);
        let forked = clone3(Namespaces::default(), None, || {
            // With this end open in monitors, a daemon would not notice that the prepared process has gone.
            match rustix::io::dup2(rustix::stdio::stdin(), &mut socket) {
                Ok(()) => run::monitor(&bytes, fds, &asker),
                Err(_) => 1,
            }
        });
        if let Err(errno) = forked {
            let failed = Reply::error(format!("cannot make a monitor: {errno}"), 125);
            crate::exec::answer(&asker, &failed);
        }
    }
}

/// Monitors that have ended.
fn reap() {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while let Ok(Some(_)) = waitid(WaitId::All, options) {}
}
