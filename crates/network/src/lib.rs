//! Networks of containers: bridges, addresses, published ports.
//!
//! A network is a row in the store; its bridge, the links of its containers and the rules of its published ports
//! are kernel objects that live on when the daemon dies, carry our mark, and are found again or made anew from
//! the rows. Everything is blocking, and every change of the kernel is one batch over netlink.
//!
//! - [`Networks`]: opens, creates, removes; connects containers; publishes their ports; recovers.
//! - [`NetworkRecord`], [`Endpoint`], [`Published`]: what there is.
//! - [`CreateNetwork`], [`EndpointRequest`], [`PortRequest`]: what is asked for.
//! - [`HostPorts`], [`bind_for_relay`]: for a daemon in a network namespace of its own.
//! - [`Reach`]: who gets to a port of a container, and by whose rule not.
//! - [`Ipv4Net`], [`Ipv6Net`], [`Pool4`], [`Pool6`], [`MacAddress`]: addresses.

mod background;
mod bandwidth;
mod bridge;
mod capture;
mod choose;
mod configuration;
mod connect;
mod create;
mod default_addresses;
mod error;
mod firewall;
mod firewalld;
mod foreign;
mod found;
mod gateway_mode;
mod hold;
mod host_ports;
mod interface;
mod ipam;
mod ipam_request;
mod ipv4net;
mod ipv6net;
mod mark;
mod networks;
mod options;
mod parent;
mod pool4;
mod pool6;
mod ports;
mod predefined;
mod publish;
mod reach;
mod record;
mod recover;
mod relayed;
mod state;
mod sysctl;

pub use background::Namespace;
pub use bandwidth::{Bandwidth, DOWN, Limit, UP};
pub use capture::{Capture, CaptureFilter, SNAPLEN};
pub use configuration::Configuration;
pub use error::{ErrorKind, NetworkError};
pub use gateway_mode::GatewayMode;
pub use hold::bind_for_relay;
pub use host_ports::HostPorts;
pub use interface::{InterfaceSysctl, is_interface_name};
pub use ipv4net::Ipv4Net;
pub use ipv6net::Ipv6Net;
pub use networks::Networks;
pub use options::{BridgeRules, NetworkOptions, PublishPolicy};
pub use parent::Parent;
pub use pool4::Pool4;
pub use pool6::Pool6;
pub use reach::{Answer, Decider, Reach, Way};
pub use record::{
    CreateNetwork, Endpoint, EndpointRequest, IpamRequest, NetworkRecord, PoolRequest, PortRequest, Protocol, Published,
};
pub use wharf_netlink::MacAddress;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, NetworkError>;
