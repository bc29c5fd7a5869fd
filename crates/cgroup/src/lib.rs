//! Control groups (cgroups(7)): v1, v2 and hybrid hosts, through the file system.
//!
//! - [`Hierarchies`]: what this host has, found out at run time.
//! - [`Group`]: one container's group in all hierarchies: made, joined, limited, frozen, killed, removed.
//! - [`Usage`]: what a group has used.
//!
//! A limit that the user asked for and the host cannot set is an error, not a warning: a container that
//! runs without its limit harms the host.

mod detect;
mod entrance;
mod group;
mod limits;
mod usage;

pub use detect::Hierarchies;
pub use entrance::Entrance;
pub use group::Group;
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
    #[error("invalid control group path `{0}`: it must be absolute and without `..`")]
    Path(String),
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("no cgroup hierarchy is mounted on this host")]
    NoHierarchy,
    #[error("the control group still has processes after {0} attempts to end them")]
    Busy(u32),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, CgroupError>;
