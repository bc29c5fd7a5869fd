//! What the daemon knows of names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A network and who is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// Nothing gets out of it: a container that has no other network is told of its neighbours only.
    #[serde(default)]
    pub internal: bool,
    /// What `host.docker.internal` is there.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    #[serde(default)]
    pub members: Vec<Member>,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub container: String,
    pub addresses: Vec<IpAddr>,
    /// The first is what its addresses lead back to.
    pub names: Vec<String>,
}

/// A container that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    /// IDs of its networks; where two have the same name, the first wins.
    pub networks: Vec<String>,
    /// Who knows all other names, best first. More than three are not asked.
    #[serde(default)]
    pub upstreams: Vec<SocketAddr>,
    /// Those of `upstreams` that are on its own networks: they are asked also where all of these are closed.
    #[serde(default)]
    pub near: Vec<SocketAddr>,
    /// Further names that it alone has for others (`--link`), by the name that is looked up instead.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
}

/// What the process has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// IDs.
    pub networks: Vec<String>,
    /// IDs; the sockets of each are there.
    pub containers: Vec<String>,
}
