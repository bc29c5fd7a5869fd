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
//! - [`CallOff`]: calls off a launch that makes no progress.
//! - [`Silent`]: the process of one that does not answer.
//! - [`client`]: what can be asked of a monitor, and how it tells of changes.
//! - [`State`], [`Exit`], [`HealthState`]: what it tells.
//! - The monitor itself: `run` begins it, `place` is what it has of the host, `supervise` is its loop, `serve` what it is asked; `container`, `exec` and
//!   `probe` are the programs it runs, `ask` the probes that need none, `streams` and `attached` what passes between them and their clients; `restart`
//!   and the counting in `probe` decide, and are pure.
//!
//! Blocking, no tokio: an asynchronous caller reads the frames of [`client::watch`] itself.

mod ask;
mod attached;
mod call_off;
pub mod client;
mod coming;
mod connection;
mod container;
mod detach;
mod error;
mod exec;
mod exit;
mod hooked;
mod late;
mod launch;
mod log;
mod oom;
mod outbox;
mod place;
mod probe;
mod ready;
mod reaper;
mod restart;
mod run;
mod serve;
mod silent;
mod spawner;
mod state;
mod streams;
mod supervise;
mod unheard;
mod wire;

pub use ask::check_probe;
pub use call_off::CallOff;
pub use error::{LaunchError, Result};
pub use launch::{Attach, Health, Launch, LogConfig, Restart};
pub use silent::Silent;
pub use spawner::{Given, Launched, Spawner};
pub use state::{ExecState, Exit, HealthState, Probe, State};
pub use wharf_runtime::{INIT_NAME, init_main, offer_init};
