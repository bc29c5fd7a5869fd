//! The daemon's connection to the process that answers.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use wharf_companion::Connection;

use crate::error::Result;
use crate::protocol::{Put, ROLE, Reply, Request};
use crate::records::{Container, Known, Member, Network};
use crate::sockets::Sockets;

/// The process that answers the queries of containers, seen from the daemon. It stays when this value is dropped, and
/// when the daemon dies. Blocking; each call is one exchange of some microseconds.
#[derive(Debug)]
pub struct Server {
    connection: Connection,
}

impl Server {
    /// Connects to the process of the daemon whose volatile directory is `exec_root`, and starts it where there is
    /// none. What it knows already, [`Self::known`] tells. One of another version is made to end first: then it knows
    /// nothing, as after any start.
    ///
    /// The calling program must hand over to [`main`](crate::main()) when it is called by the name of
    /// [`ROLE`](crate::ROLE).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(exec_root: &Path) -> Result<Self> {
        Ok(Self { connection: Connection::start(&ROLE, exec_root)? })
    }

    /// Connects as [`Self::start`] does, and starts nothing: `None` where there is no process, or one of another
    /// version, which ends then.
    ///
    /// # Errors
    /// When the process cannot be talked to.
    pub fn find(exec_root: &Path) -> Result<Option<Self>> {
        Ok(Connection::find(&ROLE, exec_root)?.map(|connection| Self { connection }))
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        self.connection.pid()
    }

    /// Readable when the process has ended, which only somebody else can bring about while this value is there.
    ///
    /// # Errors
    /// When there is no fd to spare.
    pub fn watch(&self) -> Result<OwnedFd> {
        Ok(self.connection.watch()?)
    }

    /// What the process has been told, maybe by another daemon before.
    ///
    /// # Errors
    /// `Gone`, as for all that follow.
    pub fn known(&self) -> Result<Known> {
        Ok(self.ask(&Request::Known, &[])?.known.unwrap_or_default())
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
        Ok(self.connection.quit()?)
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        Ok(self.connection.ask(request, fds)?)
    }
}
