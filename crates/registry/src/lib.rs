//! An OCI registry (OCI distribution-spec 1.1) on a store of its own.
//!
//! ```text
//! ROOT/…           as every store: blobs by digest, rows for repositories, links, manifests, tags and referrers
//! ROOT/uploads/…   blobs on their way in, which go on after a restart
//! ```
//!
//! A blob is there once for all repositories, but is given only to those that have it: by a push, or by a mount
//! from one that has it. Bodies of any length go to the disk piece by piece. What a crash leaves is a blob that
//! nothing names, or an upload that goes on; [`Collect`] finds the first.
//!
//! - [`main`]: the command line. [`serve`]: a registry until a signal. [`Registry`]: one within a program.

mod answer;
mod app;
mod blobs;
mod collect;
mod command;
mod error;
mod inflow;
mod listings;
mod log;
mod manifest;
mod manifests;
mod passwords;
mod patience;
mod range;
mod repositories;
mod route;
mod server;
mod sessions;
mod uploads;

pub use collect::{Collect, Collected};
pub use command::main;
pub use error::RegistryError;
pub use server::{Options, Registry, serve};
