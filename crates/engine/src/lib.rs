//! Containers: what a user asks of one, how that becomes a bundle, and what becomes of it.
//!
//! Knows nothing of HTTP; the server alone maps its errors to statuses.
//!
//! - [`Engine`]: everything that can be done with containers. What acts is in a file per verb: `create`, `start`,
//!   `stop`, `remove`, `wait`, `attach`, `exec`, `log`, `files`, `usage`, `commit`, `update`, `attachment` (networks),
//!   `image_ops`, `info`. `supervise` hears from the monitors.
//! - [`spec`]: the configuration in the words of the Engine API. [`record`]: a container as it is persisted.
//!   `plan` says what some of these would do (`dry-run`). `pause` freezes, for the user and for a commit.
//! - [`bundle`], [`resources`], `devices`, `cpuset`, `security`, `sysctl`, `profile`, `mounts`, `ports`,
//!   [`log_options`], `text`, `check`: from a request to an OCI configuration.
//! - `container_defaults`: what a container gets that does not say.
//! - `secrets`: files in containers whose content is in no record.
//! - `consistency` (`system fsck`): what is on the disk and in no row, and the other way round.
//! - `accounts`, `measure`: every byte of the data root by who has it.
//! - `process`, `shm`: what one container shares with another. `freezer`, `held_limits`: a group's files; `ungrouped`: those
//!   that have none.
//! - [`user`], [`etc`]: who the process is, and its `/etc/hosts`, `hostname` and `resolv.conf`.
//! - [`names`], [`signal`]: words that users type, checked.
//! - `log_watch`: logs that grow, told to who follows them. [`event`]: what happens, told to whoever listens. [`error`]: what can go wrong.

mod accounts;
mod attach;
mod attachment;
mod bandwidth;
pub mod bundle;
pub mod caller;
mod capture;
mod cdi;
mod cdi_spec;
mod cdi_yaml;
mod check;
mod clocks;
mod commit;
mod connecting;
mod consistency;
mod container_defaults;
mod container_root;
mod convert;
mod copy_in;
mod cpuset;
mod create;
mod devices;
mod discarded;
mod dns;
mod endpoint;
mod engine;
pub mod error;
pub mod etc;
pub mod event;
mod exec;
mod files;
mod freezer;

mod held_limits;
mod ids;
mod image_defaults;
mod image_ops;
mod info;
mod journal;
mod links;
mod log;
mod log_attributes;
pub mod log_options;
mod log_remote;
mod log_watch;
mod measure;
mod mount_request;
mod mounts;
pub mod names;
mod new_volumes;
mod pause;
mod plan;
mod ports;
mod probe_events;
mod process;
mod profile;
mod propagation;
mod reach;
pub mod record;
mod recover;
mod remove;
mod republish;
pub mod resources;
mod runs;
mod secrets;
mod security;
mod shm;
pub mod signal;
mod silent;
mod slot;
pub mod spec;
mod stacks;
mod start;
mod stop;
mod supervise;
mod sysctl;
mod tell;
mod text;
mod tmpfs;
mod ungrouped;
mod unwritten;
mod update;
mod usage;
pub mod user;
mod volume_copies;
mod volume_use;
mod wait;
mod wanted;
mod why;
mod working_dir;

pub use accounts::{Accounts, DiskUsage, PATIENCE};
pub use attach::{AttachOptions, Attached};
pub use capture::{CaptureRequest, Capturing};
pub use cdi::CDI_DIRS;
pub use commit::{CommitOptions, set_variable};
pub use consistency::fsck_without_engine;
pub use container_defaults::{ContainerDefaults, SeccompDefault};
pub use copy_in::{CopyIn, PutOptions};
pub use create::{CreateRequest, Created};
pub use engine::{Engine, EngineOptions, Parts, Told};
pub use error::{EngineError, ErrorKind, Result};
pub use exec::ExecRecord;
pub use files::{Change, PathStat};
pub use image_ops::PrunedImages;
pub use info::Info;
pub use log::{Log, LogOptions};
pub use plan::{CreationPlan, RemovalPlan};
pub use profile::common_filter;
pub use reach::ContainerReach;
pub use remove::{PrunedContainers, RemoveOptions};
pub use secrets::SecretContents;
pub use update::Update;
pub use usage::Top;
pub use wait::{Condition, WaitExit};
pub use wharf_store::fsck;
pub use why::Why;
