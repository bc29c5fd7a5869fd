//! A process beside the daemon, with a task of its own, that outlives it.
//!
//! It has one thread and one loop, keeps nothing on the disk, and is found again by a later daemon through its socket in
//! the volatile directory. This crate is all of it but the task: how it is started and found ([`Connection`]), how it
//! leaves what was the daemon's ([`Role::main`]), how it waits ([`Poller`]) and how it hears from daemons ([`Daemons`]).
//!
//! Both sides have the same [`Role`]. What is asked and answered is JSON behind a length, with fds beside it
//! (`wharf_sys::message`); every request is answered once, in order.

mod connection;
mod control;
mod daemons;
mod error;
mod poll;
mod role;
mod silent;
mod start;
mod wire;

pub use connection::Connection;
pub use daemons::{Asked, Daemons};
pub use error::{Error, Result};
pub use poll::{Interest, Poller, Token, pack, unpack};
pub use role::Role;
