//! The daemon's connection to the process that passes bytes on.

use std::net::SocketAddrV6;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wharf_companion::{Connection, Error as RelayError, Result};

use crate::protocol::{MOST_PORTS, Port, Protocol, ROLE, Reply, Request};

/// The process that passes bytes on, seen from the daemon. It stays when this value is dropped, and when the daemon dies.
/// Blocking; each call is one exchange of some microseconds.
#[derive(Debug)]
pub struct Relay {
    exec_root: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Relay {
    /// The process of the daemon whose volatile directory is `exec_root`. Nothing is started before it is needed.
    ///
    /// The calling program must hand over to [`main`](crate::main()) when it is called by the name
    /// of [`ROLE`](crate::ROLE).
    pub fn new(exec_root: &Path) -> Self {
        Self { exec_root: exec_root.to_owned(), connection: Mutex::default() }
    }

    /// Which ports the process has, maybe of another daemon before; none where there is no process.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn known(&self) -> Result<Vec<Port>> {
        match self.ask(&Request::Known, &[], false) {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            told => Ok(told?.known.unwrap_or_default()),
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
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
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
            return !connection.has_ended();
        }
        *place = Connection::find(&ROLE, &self.exec_root).unwrap_or_default();
        place.is_some()
    }

    /// Ends the process if it has no ports; else it goes on without this daemon.
    pub fn leave(&self) {
        if !self.known().is_ok_and(|known| known.is_empty()) {
            return;
        }
        if let Some(connection) = self.lock().take() {
            // One that has gone is what was wanted.
            let _ = connection.quit();
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
                *place = if start {
                    Some(Connection::start(&ROLE, &self.exec_root)?)
                } else {
                    Connection::find(&ROLE, &self.exec_root)?
                };
            }
            let Some(connection) = place.as_ref() else { return Err(gone()) };
            match connection.ask(request, fds) {
                Err(error) if error.is_gone() => *place = None,
                said => return said,
            }
        }
        Err(gone())
    }
}

fn gone() -> RelayError {
    RelayError::Gone { does: ROLE.does }
}
