//! Published ports that the kernel cannot lead to a container: those of the host's IPv6 for one that has IPv4 alone, and those of
//! a host whose network namespace is another than the daemon's. A port of IPv4 is one of IPv6 here (RFC 4291, 2.5.5.2).
//!
//! Docker has a process for each such port. Here one process with one thread serves all ports of a daemon: it listens on
//! sockets that the daemon has bound and passes, connects to the container for each client, and copies bytes both ways;
//! with datagrams a client is who sends from the same address and port. It is started with the first port that needs it,
//! keeps nothing on the disk, goes on when the daemon dies, and ends by itself when it has no port and no daemon any
//! more. A container sees the host's address instead of the client's, as with Docker.
//!
//! - [`Relay`]: the daemon's side. Starts the process or finds it, gives it ports, asks which it has.
//! - [`Port`], [`Protocol`]: what it is given.
//! - [`main()`]: the process. The binary goes there when it is called by the name of [`ROLE`].

mod client;
mod flow;
mod ports;
mod process;
mod protocol;
mod stream;
mod token;

pub use client::Relay;
pub use process::main;
pub use protocol::{Port, Protocol, ROLE};
pub use wharf_companion::{Error as RelayError, Result};
