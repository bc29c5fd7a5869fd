//! Control groups (cgroups(7)): v1, v2 and hybrid hosts, through the file system.
//!
//! - [`Hierarchies`]: what this host has, found out at run time.
//! - [`Group`]: one container's group in all hierarchies: made, joined, limited, frozen, killed, removed.
//! - [`Scope`]: a group that systemd makes.
//! - [`cpuset_numbers`]: a list of CPUs.
//! - [`Usage`]: what a group has used. [`Oom`]: which group was out of memory.
//!
//! A limit that the user asked for and the host cannot set is an error, not a warning: a container that
//! runs without its limit harms the host.

mod below;
mod cpuset;
mod detect;
mod device_list;
mod device_program;
mod device_rule;
mod entrance;
mod group;
mod limits;
mod oom;
mod processes;
mod rootless;
mod systemd;
mod usage;

pub use cpuset::cpuset_numbers;
pub use detect::Hierarchies;
pub use entrance::Entrance;
pub use group::Group;
pub use oom::{Oom, OutOfMemory};
pub use processes::{fair_share, leave_room};
pub use rootless::is_rootless;
pub use systemd::{Scope, Started};
pub use usage::Usage;

use std::path::PathBuf;

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot {action} `{path}`")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("this host has no cgroup controller `{controller}`, which {limit} needs")]
    NoController { controller: &'static str, limit: &'static str },
    #[error("the control groups above `{path}` do not hand down the controller `{controller}`, which {limit} needs")]
    NotDelegated { controller: &'static str, limit: &'static str, path: PathBuf },
    #[error("this kernel's cgroup controller `{controller}` has no `{file}`, which {limit} needs")]
    NoFile { controller: &'static str, file: String, limit: &'static str },
    #[error("the group uses {used} bytes of `{controller}`, more than the new limit of {limit}")]
    InUse { controller: &'static str, limit: i64, used: i64 },
    #[error("cpuset `{asked}` asks for {kind} that the group above does not have: {number}")]
    NotInParent { kind: &'static str, number: u32, asked: String },
    #[error("unified resource `{0}` is not of the form CONTROLLER.PARAMETER")]
    Unified(String),
    #[error(
        "unified resource `{key}` cannot be set: controller `{controller}` is not available in cgroup2 on this host"
    )]
    UnifiedController { key: String, controller: String },
    #[error("cannot set the device rules of a cgroup2 group (a BPF program)")]
    DeviceProgram(#[source] rustix::io::Errno),
    #[error(
        "the device rules cannot be had with cgroup v1: it cannot deny `{at}` within what `{wide}` allows; \
         allow the devices one by one, or use cgroup2"
    )]
    DeviceRules { wide: String, at: String },
    #[error("--systemd-cgroup needs systemd as PID 1, which this host does not have; use the cgroupfs driver")]
    NoSystemd,
    #[error("systemd cannot make or change the control group: {0}")]
    Systemd(String),
    #[error("cgroupsPath `{0}` is not of the form SLICE:PREFIX:NAME, which the systemd driver needs")]
    ScopePath(String),
    #[error("invalid control group path `{0}`: it must be absolute and without `..`")]
    Path(String),
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("no cgroup hierarchy is mounted on this host")]
    NoHierarchy,
    #[error("the control group still has processes after {0} attempts to remove it")]
    Busy(u32),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CgroupError>;
