//! Runs an OCI bundle: namespaces, mounts, confinement (OCI runtime-spec 1.2, and of 1.3 what a configuration names).
//!
//! Knows a configuration and a root file system; nothing of images, networks or HTTP, and no tokio.
//!
//! ```text
//! Launch ──plan──► Plan ──create──► Created ──start──► the program runs
//!                   │ clone3          ▲
//!                   └────► child ─────┘ ready, or what failed at which step
//! ```
//!
//! - [`create`] makes the container and leaves its first process waiting; [`Created::start`] lets it go on.
//! - [`create_with_init`] does the same with an init of ours as the first process, which starts the program.
//! - [`exec`] puts a further program into it, in the same way; [`begin_exec`] does so in steps that wait for nobody.
//! - [`Lifecycle`] makes create and start two programs, as OCI has it: the first process waits at a gate, and
//!   [`start_at`] lets it go on; [`HookSet`] runs the hooks.
//! - `plan`, with `namespaces`, `mounts`, `nodes` and `process`, turns the configuration into steps, opens what comes from
//!   the host, and refuses what cannot be done before anything exists.
//! - `birth` makes the process where it is to be, and `child` interprets the plan between clone and exec: `root` and
//!   `devices` build what it sees, `identity` makes it what it is. `enter` does so for an exec. `net_devices` moves the
//!   host's links there, and back when there is no container in the end.
//!
//! **The caller must have one thread.** The child is a copy of it and goes on to use memory that another
//! thread may have locked; [`create`] refuses otherwise. The monitor and `wharf oci` are such callers.

mod bind_flags;
mod bind_source;
mod birth;
mod capabilities;
mod child;
mod copy_up;
mod create;
mod default_filter;
mod devices;
pub mod docker_defaults;
mod enter;
mod entering;
mod error;
mod exec;
mod filter;
mod hooks;
mod host_nodes;
mod identity;
mod init;
mod joining;
mod label;
mod mapping;
mod memory_policy;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod nodes;
mod outside;
mod own_time;
mod patience;
mod plan;
mod process;
mod report;
mod review;
mod rlimits;
mod root;
mod rootfs;
mod scheduling;
mod sight;

pub use bind_source::BindSource;
pub use capabilities::CAPABILITIES;
pub use create::{Born, Created, Inheritance, Launch, Lifecycle, Stdio, create, create_with_init, start_at};
pub use default_filter::DefaultFilter;
pub use entering::{EXEC_PATIENCE, Entering, Starting};
pub use error::RuntimeError;
pub use exec::{Exec, begin_exec, exec};
pub use hooks::{HookError, HookPlace, HookSet, Point};
pub use init::{INIT_NAME, init_main, offer_init};
pub use mapping::map_user;
pub use mount_options::MOUNT_OPTIONS;
pub use net_devices::{LentDevices, network_of};
pub use outside::mount_outside;
pub use review::review;
pub use rootfs::{Lower, Rootfs};
pub use sight::{Sight, look_at};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RuntimeError>;
