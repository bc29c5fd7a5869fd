//! What can go wrong with a network.

use std::net::{IpAddr, SocketAddr};

use wharf_netlink::NetlinkError;
use wharf_relay::RelayError;
use wharf_store::StoreError;

/// What kind of failure it is; the server alone makes an HTTP status of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What is named is not there (404).
    NotFound,
    /// The request makes no sense (400).
    Invalid,
    /// It cannot be done in the state that things are in (409).
    Conflict,
    /// It is not permitted (403).
    Forbidden,
    /// This engine does not do that (501).
    NotImplemented,
    /// The host failed, or has no more of something (500).
    System,
}

/// A failed operation on networks. The texts are Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("network {0} not found")]
    NotFound(String),
    #[error("network {0} is ambiguous ({1} matches found based on ID prefix)")]
    Ambiguous(String, usize),
    #[error("network with name {0} already exists")]
    NameTaken(String),
    // With the space at its end.
    #[error("operation is not permitted on predefined {0} network ")]
    Predefined(String),
    #[error("{0} is a pre-defined network and cannot be removed")]
    CannotRemove(String),
    #[error("error while removing network: network {name} has active endpoints ({endpoints})")]
    InUse { name: String, endpoints: String },
    #[error("configuration network {0:?} does not exist")]
    NoConfiguration(String),
    #[error("plugin \"{0}\" not found")]
    NoDriver(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    NotImplemented(String),
    #[error("invalid pool request: Pool overlaps with {0}")]
    Overlap(String),
    #[error(
        "bridge device with non default name {0} must be created manually: `ip link add {0} type bridge`, or leave --bridge \
         out"
    )]
    NoBridge(String),
    #[error("all predefined address pools have been fully subnetted")]
    NoPool,
    #[error("no available {family} addresses on this network's address pools: {name} ({id})")]
    NoAddress { family: &'static str, name: String, id: String },
    #[error("Address already in use: {address} belongs to {owner}")]
    AddressTaken { address: IpAddr, owner: String },
    #[error("endpoint with name {name} already exists in network {network}")]
    Connected { name: String, network: String },
    #[error("error renaming interface to {0:?}: file exists: the container has one of that name")]
    InterfaceTaken(String),
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: String, network: String },
    #[error("Bind for {} failed: port is already allocated ({owner})", SocketAddr::new(*.address, *.port))]
    PortTaken { address: IpAddr, port: u16, owner: String },
    #[error("Bind for {} failed: {why}", SocketAddr::new(*.address, *.port))]
    Bind { address: IpAddr, port: u16, why: String },
    #[error("all ports are allocated")]
    NoPort,
    #[error("cannot {action}")]
    Host {
        action: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot have a published port relayed")]
    Relay(#[from] RelayError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NetworkError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::NoDriver(_) | Self::NoConfiguration(_) => ErrorKind::NotFound,
            Self::NameTaken(_) | Self::InterfaceTaken(_) => ErrorKind::Conflict,
            Self::Ambiguous(..) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Predefined(_)
            | Self::CannotRemove(_)
            | Self::InUse { .. }
            | Self::Forbidden(_)
            | Self::Overlap(_)
            | Self::NoBridge(_)
            | Self::AddressTaken { .. }
            | Self::Connected { .. }
            | Self::NotConnected { .. } => ErrorKind::Forbidden,
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::NoPool
            | Self::NoAddress { .. }
            | Self::PortTaken { .. }
            | Self::Bind { .. }
            | Self::NoPort
            | Self::Host { .. }
            | Self::Netlink(_)
            | Self::Relay(_)
            | Self::Store(_) => ErrorKind::System,
        }
    }

    pub(crate) fn host(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Host { action, source }
    }
}
