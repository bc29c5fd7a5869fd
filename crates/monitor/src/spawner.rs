//! The prepared process that forks monitors, and the daemon's connection to it.
//!
//! It is forked from the daemon while that has one thread and little memory, so a fork of it is quick and what a
//! monitor shares with it is small. Per launch it gets one fd; all else is between the daemon and the monitor.

use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use wharf_runtime::DefaultFilter;
use wharf_sys::process::{Child, Namespaces, clone3};
use wharf_sys::{disposition, fds, message};

use crate::call_off::CallOff;
use crate::error::{LaunchError, Result};
use crate::launch::Launch;
use crate::run;
use crate::wire::Reply;

/// Where a forked process has its one fd, behind the standard streams.
const ONLY_FD: i32 = 3;
/// Out of reach of the OOM killer, next to what must not be killed at all: without its monitor a container is lost.
const OOM_SCORE: &str = "-998";

/// Of the prepared process, and of a monitor until its container runs.
pub(crate) const NAME: &std::ffi::CStr = c"wharf-spawner";

/// The daemon's connection to the process that forks monitors. That process ends when this value is dropped; its
/// monitors do not.
#[derive(Debug)]
pub struct Spawner {
    /// `None` only while it is dropped.
    control: Option<OwnedFd>,
    process: Child,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    pub pid: i32,
    pub monitor_pid: i32,
    /// RFC 3339.
    pub started_at: String,
}

/// What a container is given as fds, for each of its starts.
#[derive(Clone, Debug, Default)]
pub struct Given<'a> {
    /// The network namespace to be in.
    pub netns: Option<BorrowedFd<'a>>,
    /// Mounts of images among the layers of [`Launch::rootfs`], as those count them. Those that do not fit in a message
    /// do not go; their files are mounted then.
    pub layers: Vec<BorrowedFd<'a>>,
    /// Calls the launch off.
    pub call_off: Option<&'a CallOff>,
}

/// What goes to a monitor; the fds go with it: the network namespace if there is one, then mounts of layers, then the
/// clients' streams.
#[derive(Serialize)]
struct Outgoing<'a> {
    netns: bool,
    layers: usize,
    launch: &'a Launch,
}

/// The same, where it arrives.
#[derive(Deserialize)]
pub(crate) struct Incoming {
    pub(crate) netns: bool,
    pub(crate) layers: usize,
    pub(crate) launch: Launch,
}

impl Spawner {
    /// Forks the prepared process, which compiles `filter` as the one that most containers will have.
    ///
    /// # Errors
    /// `Threads` when the caller has more than one: a copy of it could hang on a lock that another thread held.
    pub fn start(filter: Option<&DefaultFilter>) -> Result<Self> {
        match fs::read_dir("/proc/self/task").map_or(1, Iterator::count) {
            0 | 1 => {}
            threads => return Err(LaunchError::Threads(threads)),
        }
        // Messages, not a stream: callers need no lock to send one whole.
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(LaunchError::system("make a socket"))?;
        let process = clone3(Namespaces::default(), None, || serve(&theirs, filter))
            .map_err(LaunchError::system("make the process that starts containers"))?;
        Ok(Self { control: Some(ours), process })
    }

    /// The number of the prepared process.
    pub fn pid(&self) -> i32 {
        self.process.pid.as_raw_nonzero().get()
    }

    /// Readable when the prepared process has ended, which only somebody else can bring about.
    ///
    /// # Errors
    /// When there is no fd to spare.
    pub fn watch(&self) -> Result<OwnedFd> {
        self.process.pidfd.try_clone().map_err(|e| LaunchError::System {
            action: "watch the process that starts containers",
            errno: Errno::from_io_error(&e).unwrap_or(Errno::MFILE),
        })
    }

    /// Makes a container run. `streams` are the clients' ends for [`Launch::attach`]. Returns when the user's program runs, or nothing of it is left.
    ///
    /// # Errors
    /// `Failed` with the code by which Docker's users know it; `NoSpawner` when the prepared process was killed.
    pub fn launch(&self, launch: &Launch, given: &Given<'_>, streams: &[BorrowedFd<'_>]) -> Result<Launched> {
        if streams.len() != launch.attach.len() {
            return Err(LaunchError::Streams { given: streams.len(), asked: launch.attach.len() });
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(LaunchError::system("make a socket"))?;
        let control = self.control.as_ref().ok_or(LaunchError::NoSpawner)?;
        // First: the monitor is forked while the request is still being written.
        pass(control, theirs.as_fd()).map_err(|errno| match errno {
            Errno::PIPE | Errno::CONNRESET => LaunchError::NoSpawner,
            errno => LaunchError::System { action: "reach the process that starts containers", errno },
        })?;
        drop(theirs);
        let room = message::MAX_FDS.saturating_sub(1 + streams.len());
        let layers = &given.layers[..given.layers.len().min(room)];
        let json = serde_json::to_vec(&Outgoing { netns: given.netns.is_some(), layers: layers.len(), launch })
            .map_err(|e| LaunchError::BadAnswer(e.to_string()))?;
        let fds: Vec<BorrowedFd<'_>> =
            given.netns.into_iter().chain(layers.iter().copied()).chain(streams.iter().copied()).collect();
        match message::send(&ours, &json, &fds) {
            // It has an answer already, or has gone.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(LaunchError::System { action: "ask for a container", errno }),
        }
        let waits = given.call_off.map(|call_off| call_off.wait_on(ours.as_fd()));
        let answer = message::receive(&ours);
        drop(waits);
        let (bytes, _) = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(Errno::CONNRESET | Errno::IO) => return Err(LaunchError::NoAnswer),
            Err(errno) => return Err(LaunchError::System { action: "hear from the container's monitor", errno }),
        };
        let reply: Reply = serde_json::from_slice(&bytes).map_err(|e| LaunchError::BadAnswer(e.to_string()))?;
        match reply {
            Reply { error: Some(message), code, .. } => Err(LaunchError::Failed { message, code: code.unwrap_or(125) }),
            Reply { pid: Some(pid), monitor_pid: Some(monitor_pid), started_at: Some(started_at), .. } => {
                Ok(Launched { pid, monitor_pid, started_at })
            }
            other => Err(LaunchError::BadAnswer(format!("{other:?}"))),
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.control = None;
        // It ends at once; waited for, so that no zombie stays.
        let _ = waitid(WaitId::PidFd(self.process.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// One byte with one fd.
fn pass(control: &OwnedFd, fd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        match sendmsg(control, &[IoSlice::new(b"L")], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// The other side: the next fd, or `None` at the daemon's end.
fn take(control: &OwnedFd) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut byte = [0];
    loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [std::io::IoSliceMut::new(&mut byte)];
        match recvmsg(control, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(_) | Ok(rustix::net::RecvMsg { bytes: 0, .. }) => return None,
            Ok(_) => {
                let fd = ancillary.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                });
                // Without one there is nobody to answer.
                if fd.is_some() {
                    return fd;
                }
            }
        }
    }
}

/// The prepared process: forks until the daemon closes its end.
fn serve(control: &OwnedFd, filter: Option<&DefaultFilter>) -> u8 {
    let Some(control) = settle(control) else { return 1 };
    // Monitors find it compiled; one that does not compiles it.
    let _ = filter.map(DefaultFilter::prepare);
    while let Some(asker) = take(&control) {
        let forked = clone3(Namespaces::default(), None, || match only(&asker) {
            Some(asker) => run::monitor(asker),
            None => 1,
        });
        if let Err(errno) = forked {
            let reply = Reply::error(format!("cannot make a process beside the container: {errno}"), 125);
            let _ = message::send(&asker, &serde_json::to_vec(&reply).unwrap_or_default(), &[]);
        }
    }
    0
}

/// Leaves everything of the daemon's but the connection: its session, its directory, its fds, what ends it.
fn settle(control: &OwnedFd) -> Option<OwnedFd> {
    rustix::process::setsid().ok()?;
    disposition::ignore_passing().ok()?;
    // Children are reaped by the kernel.
    disposition::ignore(&[Signal::CHILD]).ok()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    rustix::stdio::dup2_stdout(&null).ok()?;
    rustix::stdio::dup2_stderr(&null).ok()?;
    // Before all are closed: a value that owns a closed fd must not be dropped.
    drop(null);
    rustix::process::chdir("/").ok()?;
    // What a container's setup makes has the modes that it says.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let control = only(control)?;
    // A daemon without the right keeps its own score.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // What the daemon was started with is for nobody else: an init of ours shows it to the container.
    let _ = wharf_sys::title::set(b"wharf");
    let _ = wharf_sys::process::set_name(NAME);
    Some(control)
}

/// Closes everything but this fd and the standard streams.
fn only(fd: &OwnedFd) -> Option<OwnedFd> {
    fds::keep_only(fd.as_raw_fd(), ONLY_FD).ok()?;
    fds::adopt(ONLY_FD).ok()
}
