//! Names of containers: Docker's embedded DNS at 127.0.0.11, answered by a process that outlives the daemon.
//!
//! One process with one thread for each daemon. Containers on user-defined networks ask it through sockets in their own
//! network namespaces, which the daemon makes and passes; it knows their names, their neighbours' and the host's, and
//! asks the host's name servers for all others. It is told everything by the daemon, keeps nothing on the disk, and
//! ends by itself when it has no container and no daemon any more.
//!
//! A daemon that starts says everything once more: first the networks, then the containers, those that the process has
//! the sockets of without any; and takes back what is known and is not there any more. The same after
//! [`DnsError::is_gone`].
//!
//! - [`Server`]: the daemon's side. Starts the process or finds it, tells it what there is, asks what it knows.
//! - [`Network`], [`Member`], [`Container`], [`Known`]: what it is told, and what it knows.
//! - [`Sockets`]: what a container asks through. [`ADDRESS`]: where that is for its programs.
//! - [`main()`]: the process. The binary goes there when it is called by the name of [`ROLE`].

mod attempt;
mod cache;
mod containers;
mod error;
mod forwarder;
mod health;
mod process;
mod protocol;
mod records;
mod requests;
mod resolver;
mod server;
mod sockets;
mod tcp;
mod timers;
mod token;
mod wire;
mod zones;

pub use error::{DnsError, Result};
pub use process::main;
pub use protocol::ROLE;
pub use records::{Container, Known, Member, Network};
pub use server::Server;
pub use sockets::{ADDRESS, Sockets};
