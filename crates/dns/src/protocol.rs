//! What goes over the process's socket: JSON behind a length, fds beside it (`wharf_sys::message`).
//!
//! Every request is answered once, in order, and can be repeated: the second time changes nothing.

use serde::{Deserialize, Serialize};

use crate::records::{Container, Known, Member, Network};

/// Name of the socket in the daemon's volatile directory.
pub(crate) const SOCKET: &str = "dns.sock";
/// What both sides must have in common. The process is started by one daemon and may serve a later one.
pub(crate) const VERSION: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Hello,
    /// Ends the process.
    Quit,
    Known,
    PutNetwork(Network),
    RemoveNetwork {
        id: String,
    },
    PutMember {
        network: String,
        member: Member,
    },
    RemoveMember {
        network: String,
        container: String,
    },
    PutContainer(Put),
    RemoveContainer {
        id: String,
    },
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
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<Known>,
}
