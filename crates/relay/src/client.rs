//! The daemon's connection to the process that passes bytes on.

use std::net::SocketAddrV6;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_sys::message;

use crate::error::{RelayError, Result};
use crate::protocol::{MOST_PORTS, Port, Protocol, Reply, Request, VERSION};
use crate::start;

/// The process answers in microseconds; one that does not in this time never will.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process may end for want of work in the very moment that it is connected to.
const TRIES: usize = 5;

/// The process that passes bytes on, seen from the daemon. It stays when this value is dropped, and when the daemon dies.
/// Blocking; each call is one exchange of some microseconds.
#[derive(Debug)]
pub struct Relay {
    exec_root: PathBuf,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    process: OwnedFd,
}

impl Relay {
    /// The process of the daemon whose volatile directory is `exec_root`. Nothing is started before it is needed.
    ///
    /// The calling program must hand over to [`main`](crate::main()) when it is called by the name
    /// [`PROGRAM_NAME`](crate::PROGRAM_NAME).
    pub fn new(exec_root: &Path) -> Self {
        Self { exec_root: exec_root.to_owned(), connection: Mutex::default() }
    }

    /// Which ports the process has, maybe of another daemon before; none where there is no process.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn known(&self) -> Result<Vec<Port>> {
        match self.ask(&Request::Known, &[], false) {
            Err(RelayError::Gone) => Ok(Vec::new()),
            told => told?.known.ok_or_else(|| RelayError::BadAnswer("no ports".into())),
        }
    }

    /// Has ports passed on: each with a bound socket that does not listen yet. The process is started where there is
    /// none; it knows of these ports only then.
    ///
    /// # Errors
    /// `Refused` for a socket that is none for the port; when the process cannot be started.
    pub fn put(&self, ports: &[(Port, BorrowedFd<'_>)]) -> Result<()> {
        for some in ports.chunks(MOST_PORTS) {
            let (ports, fds): (Vec<Port>, Vec<BorrowedFd<'_>>) = some.iter().cloned().unzip();
            self.ask(&Request::Put(ports), &fds, true)?;
        }
        Ok(())
    }

    /// Takes ports of a container away, and ends what goes through them; with an empty list all of them. What the process
    /// does not have is what was wanted.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn remove(&self, container: &str, ports: &[(Protocol, SocketAddrV6)]) -> Result<()> {
        let request = Request::Remove { container: container.to_owned(), ports: ports.to_vec() };
        match self.ask(&request, &[], false) {
            Ok(_) | Err(RelayError::Gone) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has a container's ports go when a process (a pidfd) ends, also while no daemon is there.
    ///
    /// # Errors
    /// `Gone`, with all ports; when it does not answer.
    pub fn hang(&self, container: &str, process: BorrowedFd<'_>) -> Result<()> {
        self.ask(&Request::Until { container: container.to_owned() }, &[process], false).map(drop)
    }

    /// Whether there is a process; a connection that is there is asked for no more than its end.
    pub fn is_there(&self) -> bool {
        let mut place = self.lock();
        if let Some(connection) = place.as_ref() {
            let mut ended = [PollFd::new(&connection.process, PollFlags::IN)];
            let now = Timespec::default();
            return matches!(poll(&mut ended, Some(&now)), Ok(0));
        }
        *place = self.connect(false).unwrap_or_default();
        place.is_some()
    }

    /// Ends the process if it has no ports; else it goes on without this daemon.
    pub fn leave(&self) {
        if !self.known().is_ok_and(|known| known.is_empty()) {
            return;
        }
        let asked = self.ask(&Request::Quit, &[], false);
        let connection = self.lock().take();
        if let (Ok(_), Some(connection)) = (asked, connection) {
            wait_for(&connection.process);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the process; with `start` it is started where there is none, once more when it had gone.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>], start: bool) -> Result<Reply> {
        let mut place = self.lock();
        for _ in 0..2 {
            if place.is_none() {
                *place = self.connect(start)?;
            }
            let Some(connection) = place.as_ref() else { return Err(RelayError::Gone) };
            match exchange(&connection.stream, request, fds) {
                Err(RelayError::Gone) => *place = None,
                said => return said,
            }
        }
        Err(RelayError::Gone)
    }

    fn connect(&self, start: bool) -> Result<Option<Connection>> {
        let mut last = RelayError::Gone;
        for _ in 0..TRIES {
            let stream = match start::connect(&self.exec_root) {
                Ok(stream) => stream,
                Err(Errno::NOENT | Errno::CONNREFUSED) if !start => return Ok(None),
                Err(Errno::NOENT | Errno::CONNREFUSED) => {
                    start::start(&self.exec_root)?;
                    start::connect(&self.exec_root)
                        .map_err(RelayError::system("reach the process that relays ports"))?
                }
                Err(errno) => return Err(RelayError::system("reach the process that relays ports")(errno)),
            };
            for timeout in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&stream, timeout, Some(PATIENCE)).map_err(RelayError::system("bound a wait"))?;
            }
            match greet(stream) {
                Ok(Some(connection)) => return Ok(Some(connection)),
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// `None` when the process speaks otherwise; it ends then.
fn greet(stream: UnixStream) -> Result<Option<Connection>> {
    let reply = exchange(&stream, &Request::Hello, &[])?;
    let pid = reply.pid.and_then(Pid::from_raw).ok_or_else(|| RelayError::BadAnswer("no pid".into()))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| RelayError::Gone)?;
    if reply.version != Some(VERSION) {
        exchange(&stream, &Request::Quit, &[])?;
        wait_for(&process);
        return Ok(None);
    }
    Ok(Some(Connection { stream, process }))
}

fn exchange(stream: &UnixStream, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
    let fail = |errno| match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::IO => RelayError::Gone,
        errno => {
            // The next answer would be the one that is missing now.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            RelayError::system("ask the process that relays ports")(errno)
        }
    };
    let bytes = serde_json::to_vec(request).map_err(|error| RelayError::BadAnswer(error.to_string()))?;
    message::send(stream, &bytes, fds).map_err(fail)?;
    let (bytes, _) = message::receive(stream).map_err(fail)?.ok_or(RelayError::Gone)?;
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|error| RelayError::BadAnswer(error.to_string()))?;
    match reply.error {
        Some(error) => Err(RelayError::Refused(error)),
        None => Ok(reply),
    }
}

/// Waits for the end of a process that was told to.
fn wait_for(process: &OwnedFd) {
    let bound = Timespec::try_from(PATIENCE).ok();
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], bound.as_ref());
}
