//! The daemon's connection to the process.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wharf_sys::message;

use crate::error::{Error, Result};
use crate::role::Role;
use crate::wire::{Reply, Request, Word};

/// The process answers in microseconds; one that does not in this time never will.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process may end for want of work in the very moment that it is connected to.
const TRIES: usize = 5;

/// The process, seen from the daemon. It stays when this value is dropped, and when the daemon dies. Blocking; each call
/// is one exchange of some microseconds.
#[derive(Debug)]
pub struct Connection {
    role: &'static Role,
    stream: Mutex<UnixStream>,
    pid: Pid,
    process: OwnedFd,
}

impl Connection {
    /// Connects to the process of the daemon whose volatile directory is `exec_root`, and starts it where there is none.
    /// One of another version is made to end first.
    ///
    /// The calling program must hand over to [`Role::main`] when it is called by the role's name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(role: &'static Role, exec_root: &Path) -> Result<Self> {
        for _ in 0..TRIES {
            let stream = match role.connect(exec_root, PATIENCE) {
                Err(Errno::NOENT | Errno::CONNREFUSED) => {
                    role.start(exec_root)?;
                    role.connect(exec_root, PATIENCE)
                }
                stream => stream,
            };
            if let Some(connection) = Self::greet(role, exec_root, stream)? {
                return Ok(connection);
            }
        }
        Err(Error::Gone { does: role.does })
    }

    /// Connects as [`Self::start`] does, and starts nothing: `None` where there is no process, or one of another
    /// version or that does not answer, which ends then.
    ///
    /// # Errors
    /// When the process cannot be talked to.
    pub fn find(role: &'static Role, exec_root: &Path) -> Result<Option<Self>> {
        match role.connect(exec_root, PATIENCE) {
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            stream => Self::greet(role, exec_root, stream),
        }
    }

    /// `None` when the process has gone, or is of another version or does not answer; it ends then.
    fn greet(role: &'static Role, exec_root: &Path, stream: rustix::io::Result<UnixStream>) -> Result<Option<Self>> {
        let stream = match stream {
            Ok(stream) => stream,
            // Its queue is full.
            Err(Errno::AGAIN) => {
                role.end_silent(exec_root);
                return Ok(None);
            }
            Err(errno) => return Err(unreached(role)(errno)),
        };
        let hello = match exchange(role, &stream, &Request::<()>::Word(Word::Hello), &[]) {
            Ok(hello) => hello,
            Err(Error::Gone { .. }) => return Ok(None),
            // It does not answer, or speaks otherwise altogether.
            Err(_) => {
                role.end_silent(exec_root);
                return Ok(None);
            }
        };
        let Reply::<()> { version, pid, .. } = hello;
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            role.end_silent(exec_root);
            return Ok(None);
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
        let connection = Self { role, stream: Mutex::new(stream), pid, process };
        // A number is the same said otherwise.
        let version = version.map(|version| version.as_str().map_or_else(|| version.to_string(), str::to_owned));
        if version.as_deref() == Some(role.version) {
            return Ok(Some(connection));
        }
        if connection.quit().is_err() {
            role.end_silent(exec_root);
        }
        Ok(None)
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Readable when the process has ended, which only somebody else can bring about while this value is there.
    ///
    /// # Errors
    /// When there is no fd to spare.
    pub fn watch(&self) -> Result<OwnedFd> {
        self.process.try_clone().map_err(Error::io(format!("watch the process that {}", self.role.does)))
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.wait(Timespec::default())
    }

    /// Asks for something of the task's.
    ///
    /// # Errors
    /// `Gone`; `Refused` with the process's reason.
    pub fn ask<A: DeserializeOwned>(&self, request: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<A> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        match exchange(self.role, &stream, &Request::Own(request), fds) {
            Ok(Reply { own, .. }) => Ok(own),
            // It never will: the next one does.
            Err(Error::System { errno: Errno::AGAIN, .. }) => {
                let _ = pidfd_send_signal(&self.process, Signal::KILL);
                self.wait(Timespec::try_from(PATIENCE).unwrap_or_default());
                Err(Error::Gone { does: self.role.does })
            }
            Err(error) => Err(error),
        }
    }

    /// Ends the process, and waits until it has gone.
    ///
    /// # Errors
    /// `Gone` when it had ended before.
    pub fn quit(&self) -> Result<()> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _: Reply<()> = exchange(self.role, &stream, &Request::<()>::Word(Word::Quit), &[])?;
        self.wait(Timespec::try_from(PATIENCE).unwrap_or_default());
        Ok(())
    }

    fn wait(&self, bound: Timespec) -> bool {
        poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&bound)).is_ok_and(|ended| ended > 0)
    }
}

fn unreached(role: &Role) -> impl Fn(Errno) -> Error + use<> {
    Error::system(format!("reach the process that {}", role.does))
}

fn exchange<A: DeserializeOwned>(
    role: &Role,
    stream: &UnixStream,
    request: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<Reply<A>> {
    let does = role.does;
    let fail = |errno| match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::IO => Error::Gone { does },
        errno => {
            // The next answer would be the one that is missing now.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            Error::system(format!("ask the process that {does}"))(errno)
        }
    };
    let bad = |error: serde_json::Error| Error::BadAnswer { does, why: error.to_string() };
    message::send(stream, &serde_json::to_vec(request).map_err(bad)?, fds).map_err(fail)?;
    let (bytes, _) = message::receive(stream).map_err(fail)?.ok_or(Error::Gone { does })?;
    let reply: Reply<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(&bytes).map_err(bad)?;
    if let Some(error) = reply.error {
        return Err(Error::Refused(error));
    }
    serde_json::from_slice(&bytes).map_err(bad)
}
