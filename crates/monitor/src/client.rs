//! A monitor's socket from the other side. Each function is one connection.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use wharf_sys::message;

use crate::launch::{Attach, Restart};
use crate::state::{ExecState, Exit, HealthState, State};
pub use crate::wire::ExecRequest;
use crate::wire::{EventFrame, NOT_RUNNING, Reply, Request, SOCKET};

/// After which a monitor, which answers at once to who asks for no start, is said not to.
const SILENCE: Duration = Duration::from_secs(5);

/// Why a monitor does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The container has ended, whether its monitor is still there to say so or not.
    #[error("{NOT_RUNNING}")]
    Gone,
    /// The monitor says no.
    #[error("{message}")]
    Refused { message: String, code: u8 },
    /// It is there and says nothing.
    #[error("the container's monitor does not answer: it was stopped, or is starting the container")]
    Silent,
    #[error("cannot {action}")]
    System {
        action: &'static str,
        #[source]
        errno: Errno,
    },
    #[error("the monitor answers what is not understood: {0}")]
    BadAnswer(String),
}

impl ClientError {
    /// Whether there is nothing any more that could take the request.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
    }

    /// The code by which Docker's users know this failure of an exec: 126, 127, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { code, .. } => *code,
            _ => 125,
        }
    }
}

/// Result of a request.
pub type Result<T> = std::result::Result<T, ClientError>;

/// A change that a monitor tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// How things are: always the first.
    State(State),
    Exited {
        exit: Exit,
        /// It is started again; else this is the last event.
        restarting: bool,
    },
    Started {
        pid: i32,
        started_at: String,
        restart_count: u32,
    },
    Health(HealthState),
    /// An exec has ended whose asker had gone.
    ExecEnded(ExecState),
    /// Processes were ended for want of memory.
    Oom {
        /// Whose limit was reached, as in [`Exit::oom_group`].
        group: Option<String>,
    },
}

/// Reads the bytes of a frame of [`watch`], its length left out. `None` for what this version does not know.
pub fn decode(frame: &[u8]) -> Option<Event> {
    let frame: EventFrame = serde_json::from_slice(frame).ok()?;
    if let Some(state) = frame.state {
        return Some(Event::State(state));
    }
    if let Some(exit) = frame.exited {
        return Some(Event::Exited { exit, restarting: frame.restarting.unwrap_or(false) });
    }
    if let Some(started) = frame.started {
        let (pid, started_at, restart_count) = (started.pid, started.started_at, started.restart_count);
        return Some(Event::Started { pid, started_at, restart_count });
    }
    if let Some(health) = frame.health {
        return Some(Event::Health(health));
    }
    if let Some(exec) = frame.exec_ended {
        return Some(Event::ExecEnded(exec));
    }
    frame.oom.filter(|oom| *oom).map(|_| Event::Oom { group: frame.oom_group })
}

/// Connects to the monitor whose directory this is.
///
/// # Errors
/// `Gone` when nobody listens there; `Silent` when it takes no connections.
pub fn connect(dir: &Path) -> Result<UnixStream> {
    let fail = |errno| match errno {
        Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR => ClientError::Gone,
        // Its queue is full.
        Errno::AGAIN => ClientError::Silent,
        errno => ClientError::System { action: "reach the container's monitor", errno },
    };
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(fail)?;
    set_socket_timeout(&socket, Timeout::Send, Some(SILENCE)).map_err(fail)?;
    with_address(dir, |address| rustix::net::connect(&socket, address)).map_err(fail)?;
    set_socket_timeout(&socket, Timeout::Send, None).map_err(fail)?;
    Ok(UnixStream::from(socket))
}

/// The socket's address in `dir`, however long the path of `dir` is.
pub(crate) fn with_address<T>(
    dir: &Path,
    call: impl FnOnce(&SocketAddrUnix) -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    match SocketAddrUnix::new(dir.join(SOCKET)) {
        Ok(address) => call(&address),
        Err(_) => {
            use std::os::fd::AsRawFd;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(dir, flags, Mode::empty())?;
            let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
            call(&SocketAddrUnix::new(short)?)
        }
    }
}

fn send(dir: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<UnixStream> {
    let stream = connect(dir)?;
    let bytes = serde_json::to_vec(request).map_err(|e| ClientError::BadAnswer(e.to_string()))?;
    match message::send(&stream, &bytes, fds) {
        Ok(()) => Ok(stream),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(ClientError::Gone),
        Err(errno) => Err(ClientError::System { action: "ask the container's monitor", errno }),
    }
}

fn receive(stream: &UnixStream) -> Result<Reply> {
    let bytes = match message::receive(stream) {
        Ok(Some((bytes, _))) => bytes,
        // It ended while we asked.
        Ok(None) | Err(Errno::CONNRESET | Errno::IO) => return Err(ClientError::Gone),
        Err(errno) => return Err(ClientError::System { action: "hear from the container's monitor", errno }),
    };
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|e| ClientError::BadAnswer(e.to_string()))?;
    match reply.error {
        Some(message) if message == NOT_RUNNING => Err(ClientError::Gone),
        Some(message) => Err(ClientError::Refused { message, code: reply.code.unwrap_or(125) }),
        None => Ok(reply),
    }
}

fn ask(dir: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
    receive(&send(dir, request, fds)?).map(drop)
}

/// Asks to be told of changes. The stream carries frames (a length of 32 bits, big endian, and that many bytes),
/// each for [`decode`], the first of them [`Event::State`]; it ends with the monitor.
///
/// # Errors
/// `Gone`.
pub fn watch(dir: &Path) -> Result<UnixStream> {
    send(dir, &Request::Watch, &[])
}

/// The next event of a [`watch`]ed monitor, waiting for it; `None` when the monitor has ended.
///
/// # Errors
/// When the connection fails.
pub fn next_event(stream: &UnixStream) -> Result<Option<Event>> {
    loop {
        match message::receive(stream) {
            Ok(None) | Err(Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(ClientError::System { action: "hear from the container's monitor", errno }),
            Ok(Some((bytes, _))) => {
                if let Some(event) = decode(&bytes) {
                    return Ok(Some(event));
                }
            }
        }
    }
}

/// Attaches `stream` (see [`Attach`]). The value is when (RFC 3339): what was written before is in the log, and what is written later
/// comes by the stream. A monitor of an earlier version does not say it.
///
/// # Errors
/// `Gone`; `Refused` for detach keys that are none.
pub fn attach(dir: &Path, attach: &Attach, stream: BorrowedFd<'_>) -> Result<Option<String>> {
    Ok(receive(&send(dir, &Request::Attach(attach.clone()), &[stream])?)?.attached_at)
}

/// Tells the container's terminal its size.
///
/// # Errors
/// `Gone`; `Refused` when it has no terminal.
pub fn resize(dir: &Path, rows: u16, columns: u16) -> Result<()> {
    ask(dir, &Request::Resize { rows, cols: columns }, &[])
}

/// Sends a signal to the container's first process. With `no_restart` its policy does not start it again, and a
/// start that is being waited for is called off.
///
/// # Errors
/// `Gone`, also when the process has ended and its monitor has not; `Refused` when there is no such signal; `Silent`
/// when it has not answered for 5 s.
pub fn signal(dir: &Path, signal: i32, no_restart: bool) -> Result<()> {
    let stream = send(dir, &Request::Signal { signal, no_restart }, &[])?;
    let mut fds = [PollFd::new(&stream, PollFlags::IN)];
    let limit = Timespec::try_from(SILENCE).ok();
    match retry_on_intr(|| poll(&mut fds, limit.as_ref())) {
        Ok(0) => Err(ClientError::Silent),
        _ => receive(&stream).map(drop),
    }
}

/// Ends the container's standard input.
///
/// # Errors
/// `Gone`.
pub fn stdin_close(dir: &Path) -> Result<()> {
    ask(dir, &Request::StdinClose, &[])
}

/// Gives the container another restart policy.
///
/// # Errors
/// `Gone`.
pub fn update(dir: &Path, restart: &Restart) -> Result<()> {
    ask(dir, &Request::Update { restart: restart.clone() }, &[])
}

/// The container is not started again after its end, whatever its policy says.
///
/// # Errors
/// `Gone`.
pub fn no_restart(dir: &Path) -> Result<()> {
    ask(dir, &Request::NoRestart, &[])
}

/// An exec that runs.
#[derive(Debug)]
pub struct RunningExec {
    stream: UnixStream,
    pid: i32,
}

impl RunningExec {
    /// Its first process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end and answers with its exit code. All that it wrote is in its stream by then; the stream is
    /// closed only when this value is dropped, so that who sees its end can ask for the code.
    ///
    /// # Errors
    /// `Gone` when the monitor ended before it.
    pub fn wait(&self) -> Result<i32> {
        let reply = receive(&self.stream)?;
        reply.exit.ok_or_else(|| ClientError::BadAnswer("no exit code".into()))
    }
}

/// Runs a program in the container; its streams are `stream`, in the form of [`Attach`]'s.
///
/// # Errors
/// `Gone`; `Refused` with the code 127 when there is no such program, 126 when it cannot be executed, else 125.
pub fn exec(dir: &Path, request: &ExecRequest, stream: Option<BorrowedFd<'_>>) -> Result<RunningExec> {
    let fds: Vec<BorrowedFd<'_>> = stream.into_iter().collect();
    let stream = send(dir, &Request::Exec(Box::new(request.clone())), &fds)?;
    let pid = receive(&stream)?.pid.ok_or_else(|| ClientError::BadAnswer("no process number".into()))?;
    Ok(RunningExec { stream, pid })
}

/// Tells an exec's terminal its size.
///
/// # Errors
/// `Gone`; `Refused` when there is no such exec, or it has no terminal.
pub fn exec_resize(dir: &Path, id: &str, rows: u16, columns: u16) -> Result<()> {
    ask(dir, &Request::ExecResize { id: id.into(), rows, cols: columns }, &[])
}

/// Sends a signal to an exec's first process.
///
/// # Errors
/// `Gone`; `Refused` when there is no such exec or signal.
pub fn exec_signal(dir: &Path, id: &str, signal: i32) -> Result<()> {
    ask(dir, &Request::ExecSignal { id: id.into(), signal }, &[])
}

/// A connection is an fd like any other.
impl AsFd for RunningExec {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
