//! rtnetlink and nftables, in batches.
//!
//! Only what a container engine needs of the two families, written straight into the kernel's form: no program is
//! run, no task per request. A batch is one system call; its answer names the request that failed and carries the
//! kernel's own words for it.
//!
//! A connection belongs to the network namespace of the thread that opened it.
//!
//! - [`route`]: links, addresses, routes. [`nft`]: the firewall. [`namespace`]: where they are.
//! - [`conntrack`]: forgetting what the firewall remembers.
//! - [`MacAddress`], [`NetlinkError`].

mod address;
pub mod conntrack;
mod error;
mod message;
pub mod namespace;
pub mod nft;
pub mod route;
mod socket;

pub use address::MacAddress;
pub use error::NetlinkError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, NetlinkError>;
