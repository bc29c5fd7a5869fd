//! Published ports that the kernel cannot lead to a container: those of the host's IPv6 for one that has IPv4 alone.
//!
//! Docker has a process for each such port. Here one process with one thread serves all ports of a daemon: it listens on
//! sockets that the daemon has bound and passes, connects to the container for each client, and copies bytes both ways;
//! with datagrams a client is who sends from the same address and port. It is started with the first port that needs it,
//! keeps nothing on the disk, goes on when the daemon dies, and ends by itself when it has no port and no daemon any
//! more. A container sees the host's address instead of the client's, as with Docker.
//!
//! - [`Relay`]: the daemon's side. Starts the process or finds it, gives it ports, asks which it has.
//! - [`Port`], [`Protocol`]: what it is given.
//! - [`main()`]: the process. The binary goes there when it is called [`PROGRAM_NAME`].

mod client;
mod control;
mod error;
mod flow;
mod poll;
mod ports;
mod process;
mod protocol;
mod role;
mod start;
mod stream;

pub use client::Relay;
pub use error::{RelayError, Result};
pub use protocol::{Port, Protocol};
pub use role::main;
pub use start::PROGRAM_NAME;
