//! What goes over the process's socket, in `wharf_companion`'s form.
//!
//! Every request can be repeated: the second time changes nothing.

use serde::{Deserialize, Serialize};
use wharf_companion::Role;

use crate::records::{Container, Known, Member, Network};

/// What is the same on both sides.
pub static ROLE: Role = Role {
    name: c"wharf-dns",
    socket: "dns.sock",
    does: "answers for names",
    // The process is started by one daemon and may serve a later one.
    version: concat!("1 ", env!("CARGO_PKG_VERSION")),
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Known,
    PutNetwork(Network),
    RemoveNetwork { id: String },
    PutMember { network: String, member: Member },
    RemoveMember { network: String, container: String },
    PutContainer(Put),
    RemoveContainer { id: String },
}

/// A container with as many fds as it says, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) container: Container,
    /// A UDP and a TCP socket. Without them it keeps those that it has.
    pub(crate) sockets: bool,
    /// A pidfd: when that process has ended, nobody asks any more.
    pub(crate) until: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<Known>,
}
