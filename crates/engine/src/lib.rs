//! Containers: what a user asks of one, and how that becomes a bundle that the runtime can run.
//!
//! Knows nothing of HTTP; the server alone maps its errors to statuses. So far the engine's words and its
//! pure decisions are here; what acts (start, stop, exec, events of a daemon) comes on top of them.
//!
//! - [`spec`]: the configuration in the words of the Engine API. [`record`]: a container as it is persisted.
//! - [`bundle`], [`resources`]: from a record to an OCI configuration. Pure.
//! - [`user`], [`etc`]: who the process is, and its `/etc/hosts`, `hostname` and `resolv.conf`.
//! - [`names`], [`signal`]: words that users type, checked.
//! - [`event`]: what happens, told to whoever listens. [`error`]: what can go wrong.

pub mod bundle;
pub mod error;
pub mod etc;
pub mod event;
pub mod names;
pub mod record;
pub mod resources;
pub mod signal;
pub mod spec;
pub mod user;

pub use error::{EngineError, ErrorKind, Result};
