//! The daemon's connection to the process that answers.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wharf_sys::message;

use crate::error::{DnsError, Result};
use crate::protocol::{Put, Reply, Request, VERSION};
use crate::records::{Container, Known, Member, Network};
use crate::sockets::Sockets;
use crate::start;

/// The process answers in microseconds; one that does not in this time never will.
const PATIENCE: Duration = Duration::from_secs(5);
/// A process may end for want of work in the very moment that it is connected to.
const TRIES: usize = 5;

/// The process that answers the queries of containers, seen from the daemon. It stays when this value is dropped, and
/// when the daemon dies. Blocking; each call is one exchange of some microseconds.
#[derive(Debug)]
pub struct Server {
    connection: Mutex<UnixStream>,
    pid: Pid,
    process: OwnedFd,
}

impl Server {
    /// Connects to the process of the daemon whose volatile directory is `exec_root`, and starts it where there is
    /// none. What it knows already, [`Self::known`] tells. One of another version is made to end first: then it knows
    /// nothing, as after any start.
    ///
    /// The calling program must hand over to [`main`](crate::main()) when it is called by the name
    /// [`PROGRAM_NAME`](crate::PROGRAM_NAME).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(exec_root: &Path) -> Result<Self> {
        let mut last = DnsError::Gone;
        for _ in 0..TRIES {
            let stream = match start::connect(exec_root) {
                Ok(stream) => stream,
                Err(Errno::NOENT | Errno::CONNREFUSED) => {
                    start::start(exec_root)?;
                    start::connect(exec_root).map_err(DnsError::system("reach the process that answers for names"))?
                }
                Err(errno) => return Err(DnsError::system("reach the process that answers for names")(errno)),
            };
            match Self::greet(bounded(stream)?) {
                Ok(Some(server)) => return Ok(server),
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects as [`Self::start`] does, and starts nothing: `None` where there is no process, or one of another
    /// version, which ends then.
    ///
    /// # Errors
    /// When the process cannot be talked to.
    pub fn find(exec_root: &Path) -> Result<Option<Self>> {
        match start::connect(exec_root) {
            Ok(stream) => Self::greet(bounded(stream)?),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(errno) => Err(DnsError::system("reach the process that answers for names")(errno)),
        }
    }

    /// `None` when the process is of another version; it ends then.
    fn greet(stream: UnixStream) -> Result<Option<Self>> {
        let reply = exchange(&stream, &Request::Hello, &[])?;
        let pid = reply.pid.and_then(Pid::from_raw).ok_or_else(|| DnsError::BadAnswer("no pid".into()))?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| DnsError::Gone)?;
        if reply.version.as_deref() != Some(VERSION) {
            exchange(&stream, &Request::Quit, &[])?;
            wait_for(&process);
            return Ok(None);
        }
        Ok(Some(Self { connection: Mutex::new(stream), pid, process }))
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
        self.process.try_clone().map_err(DnsError::io("watch the process that answers for names"))
    }

    /// What the process has been told, maybe by another daemon before.
    ///
    /// # Errors
    /// `Gone`, as for all that follow.
    pub fn known(&self) -> Result<Known> {
        self.ask(&Request::Known, &[])?.known.ok_or_else(|| DnsError::BadAnswer("nothing is known".into()))
    }

    /// Makes a network known, or replaces it with all its members.
    ///
    /// # Errors
    /// `Gone`.
    pub fn put_network(&self, network: &Network) -> Result<()> {
        self.ask(&Request::PutNetwork(network.clone()), &[]).map(drop)
    }

    /// Forgets a network; one that is not known is what was wanted.
    ///
    /// # Errors
    /// `Gone`.
    pub fn remove_network(&self, id: &str) -> Result<()> {
        self.ask(&Request::RemoveNetwork { id: id.to_owned() }, &[]).map(drop)
    }

    /// Puts a container into a network that is known, or replaces what it is there.
    ///
    /// # Errors
    /// `Gone`; `Refused` when the network is not known.
    pub fn put_member(&self, network: &str, member: &Member) -> Result<()> {
        self.ask(&Request::PutMember { network: network.to_owned(), member: member.clone() }, &[]).map(drop)
    }

    /// Takes a container out of a network; where either is not known, that is what was wanted.
    ///
    /// # Errors
    /// `Gone`.
    pub fn remove_member(&self, network: &str, container: &str) -> Result<()> {
        let request = Request::RemoveMember { network: network.to_owned(), container: container.to_owned() };
        self.ask(&request, &[]).map(drop)
    }

    /// Answers a container, or replaces what is known of it. Without `sockets` it keeps those that it has. `until` is a
    /// pidfd, of the container's monitor say: when that ends, the container is removed even though no daemon is there,
    /// so that its namespace is not kept for ever.
    ///
    /// # Errors
    /// `Gone`; `Refused` for a new container without sockets.
    pub fn put_container(
        &self,
        container: &Container,
        sockets: Option<&Sockets>,
        until: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let put = Put { container: container.clone(), sockets: sockets.is_some(), until: until.is_some() };
        let fds: Vec<_> = sockets.map(Sockets::fds).into_iter().flatten().chain(until).collect();
        self.ask(&Request::PutContainer(put), &fds).map(drop)
    }

    /// Forgets a container and closes its sockets; one that is not known is what was wanted.
    ///
    /// # Errors
    /// `Gone`.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        self.ask(&Request::RemoveContainer { id: id.to_owned() }, &[]).map(drop)
    }

    /// Ends the process, and waits until it has gone: with its containers unanswered from then on.
    ///
    /// # Errors
    /// `Gone` when it had ended before.
    pub fn quit(self) -> Result<()> {
        self.ask(&Request::Quit, &[])?;
        wait_for(&self.process);
        Ok(())
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let stream = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        exchange(&stream, request, fds)
    }
}

/// A connection on which nobody is waited for without end.
fn bounded(stream: UnixStream) -> Result<UnixStream> {
    for timeout in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&stream, timeout, Some(PATIENCE)).map_err(DnsError::system("bound a wait"))?;
    }
    Ok(stream)
}

fn exchange(stream: &UnixStream, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
    let fail = |errno| match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::IO => DnsError::Gone,
        errno => {
            // The next answer would be the one that is missing now.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            DnsError::system("ask the process that answers for names")(errno)
        }
    };
    let bytes = serde_json::to_vec(request).map_err(|error| DnsError::BadAnswer(error.to_string()))?;
    message::send(stream, &bytes, fds).map_err(fail)?;
    let (bytes, _) = message::receive(stream).map_err(fail)?.ok_or(DnsError::Gone)?;
    let reply: Reply = serde_json::from_slice(&bytes).map_err(|error| DnsError::BadAnswer(error.to_string()))?;
    match reply.error {
        Some(error) => Err(DnsError::Refused(error)),
        None => Ok(reply),
    }
}

/// Waits for the end of a process that was told to.
fn wait_for(process: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let bound = Timespec::try_from(PATIENCE).ok();
    let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], bound.as_ref());
}
