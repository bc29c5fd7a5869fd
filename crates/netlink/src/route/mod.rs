//! Links, addresses and routes (rtnetlink(7)).
//!
//! - [`Connection`]: sends batches and asks what there is. [`Batch`]: changes that go together.
//! - [`PermanentAddress`]: what a link keeps when it moves to another namespace.
//! - [`TokenBucket`], [`RootQueue`]: how fast a link sends.
//! - [`Bridge`], [`Veth`], [`Macvlan`], [`Ipvlan`], [`Port`], [`Route`]: what is made. [`Link`], [`Address`], [`RouteEntry`]: what
//!   is there.

mod batch;
mod dump;
mod moves;
mod queue;
mod stacked;

pub use batch::{Batch, Bridge, Peer, Port, Route, Veth};
pub use dump::{Address, Link, RouteEntry};
pub use moves::PermanentAddress;
pub use queue::{RootQueue, TokenBucket};
pub use stacked::{Ipvlan, IpvlanFlag, IpvlanMode, Macvlan, MacvlanMode};

use crate::Result;
use crate::socket::Socket;

/// A connection to rtnetlink, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(None)?.strict()? })
    }

    /// Makes the changes of `batch`, in order, in one system call. They do not undo one another: when one fails, the
    /// others have been tried all the same.
    ///
    /// # Errors
    /// The first that the kernel reports.
    pub fn apply(&self, mut batch: Batch) -> Result<()> {
        batch.messages.acknowledge_last();
        self.socket.transact(&batch.messages)
    }
}
