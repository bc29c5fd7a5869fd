//! What goes over the process's socket, in `wharf_companion`'s form.
//!
//! Every request can be repeated: the second time changes nothing.

use std::net::{SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};
use wharf_companion::Role;

/// What is the same on both sides.
pub static ROLE: Role = Role {
    name: c"wharf-relay",
    socket: "relay.sock",
    does: "relays ports",
    // It changes with what is said here and not with every version: the process may serve a later daemon, and to end it
    // would end what it passes on.
    version: "1",
};
/// Ports in one message, each with an fd.
pub(crate) const MOST_PORTS: usize = wharf_sys::message::MAX_FDS;

/// What carries a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host's and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The container's ID.
    pub container: String,
    pub protocol: Protocol,
    /// The host's, as the socket is bound.
    pub host: SocketAddrV6,
    /// The container's.
    pub target: SocketAddr,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Known,
    /// With a bound socket for each.
    Put(Vec<Port>),
    /// Takes ports of a container away; with an empty list all of them.
    Remove {
        container: String,
        ports: Vec<(Protocol, SocketAddrV6)>,
    },
    /// With a pidfd: when that process has ended, the container has no ports any more.
    Until {
        container: String,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<Vec<Port>>,
}
