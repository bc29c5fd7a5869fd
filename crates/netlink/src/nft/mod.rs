//! nftables (linux/netfilter/nf_tables.h).
//!
//! - [`Connection`]: sends batches, each of which is done whole or not at all, and asks what there is.
//! - [`Batch`]: changes that go together. [`Table`], [`Chain`], [`Set`], [`Element`]: what is made.
//! - [`Expression`]: what rules consist of. [`Key`], [`Kind`]: what sets consist of.
//! - [`ChainEntry`], [`RuleEntry`], [`ElementEntry`]: what is there. [`Ruleset`]: all of it, with the [`Step`]s of rules.

mod batch;
mod dump;
mod expression;
mod ruleset;
mod set;
mod step;

pub use batch::{Batch, Chain, Hook, Policy, Table};
pub use dump::{ChainEntry, ElementEntry, RuleEntry};
pub use expression::{
    CT_ESTABLISHED, CT_RELATED, CT_STATUS_DNAT, Carrier, Comparison, Ct, Expression, Meta, Payload, Register, Verdict,
};
pub use ruleset::{Ruleset, StoredRule, StoredSet};
pub use set::{Element, Key, Kind, Set};
pub use step::{Decision, Place, Step};

use rustix::net::netlink::NETFILTER;

use crate::Result;
use crate::socket::Socket;

/// The packets that a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ip,
    Ip6,
}

impl Family {
    /// `NFPROTO_*` (linux/netfilter.h).
    const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }
}

/// A connection to nftables, in the network namespace of the thread that opened it. For one user at a time.
///
/// To be kept: when one is closed, the kernel first gives back whatever anybody has deleted, and waits ten milliseconds
/// and more for that.
#[derive(Debug)]
pub struct Connection {
    pub(crate) socket: Socket,
}

impl Connection {
    /// Opens a connection.
    ///
    /// # Errors
    /// `EPROTONOSUPPORT` when the kernel has no netfilter.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Some(NETFILTER))? })
    }

    /// Makes all changes of `batch`, or none.
    ///
    /// # Errors
    /// The first that the kernel reports.
    pub fn apply(&self, batch: Batch) -> Result<()> {
        batch.finish().map_or(Ok(()), |messages| self.socket.transact(&messages))
    }
}
