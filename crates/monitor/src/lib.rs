//! The process that stays beside a container: one small process each, with one thread, that outlives the daemon.
//!
//! It holds the container's streams and log, its pidfd and its exit status, starts it again by its policy, probes its
//! health, and runs further programs in it, whether a daemon is there or not.
//!
//! ```text
//! daemon ── Spawner ──► spawner ──fork──► monitor ──► the container's first process
//!    │                                      ▲
//!    └───────── client, on monitor.sock ────┘
//! ```
//!
//! - [`Spawner`]: the daemon's connection to a process that was prepared before the daemon had threads, and that forks
//!   a monitor per [`Launch`].
//! - [`client`]: what can be asked of a monitor, and how it tells of changes.
//! - [`State`], [`Exit`], [`HealthState`]: what it tells.
//! - `run` is the monitor itself; `container`, `streams`, `exec`, `probe`, `restart`, `detach`, `exit` are its parts.
//!
//! Blocking, no tokio: an asynchronous caller reads the frames of [`client::watch`] itself.

pub mod client;
mod container;
mod detach;
mod error;
mod exec;
mod exit;
mod launch;
mod probe;
mod restart;
mod run;
mod spawner;
mod state;
mod streams;
mod wire;

pub use error::{LaunchError, Result};
pub use launch::{Attach, Health, Launch, LogConfig, Restart};
pub use spawner::{Launched, Spawner};
pub use state::{Exit, HealthState, Probe, State};
