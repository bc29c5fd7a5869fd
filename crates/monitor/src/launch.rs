//! What a monitor needs to know to run a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use wharf_logs::RemoteConfig;
use wharf_runtime::{BindSource, DefaultFilter, Rootfs};

/// A container that is to run. All paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub id: String,
    /// Volatile: the socket `monitor.sock` is here. Made if it is not there.
    pub dir: PathBuf,
    /// Kept: `exit.json` is written here, whole, before anybody is told of the end, and synced right after unless `transient`.
    pub state_dir: PathBuf,
    pub spec: Spec,
    /// Instead of a seccomp section of `spec`.
    #[serde(default)]
    pub default_filter: Option<DefaultFilter>,
    pub rootfs: Rootfs,
    /// Binds of `spec` that have another source than the one there.
    #[serde(default)]
    pub binds: Vec<BindSource>,
    /// The control group, as `/wharf/ID`; made for this container and removed after it.
    pub cgroup: String,
    pub log: Option<LogConfig>,
    /// Standard input stays open, also while nobody is attached. Else it is `/dev/null`.
    pub open_stdin: bool,
    /// Standard input ends when the first client that was attached to it ends or leaves.
    pub stdin_once: bool,
    pub restart: Restart,
    pub health: Option<Health>,
    /// Clients that are attached before the first byte is written; each has a stream in [`crate::Spawner::launch`].
    pub attach: Vec<Attach>,
    /// The first process is an init of ours that reaps orphans and passes signals on.
    pub init: bool,
    /// It is removed when it has ended: how it did need not outlast the host.
    #[serde(default)]
    pub transient: bool,
}

/// Where what the container writes is kept and sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogConfig {
    pub path: PathBuf,
    /// `json-file`, `local` or `none`.
    pub driver: String,
    /// Bytes after which a new file is begun.
    pub max_size: Option<u64>,
    /// Files that are kept, the current one included.
    pub max_files: u32,
    /// Files that are not written to any more are compressed.
    #[serde(default)]
    pub compress: bool,
    /// What is written beside each line.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Where it is sent, too.
    #[serde(default)]
    pub remote: Option<RemoteConfig>,
}

/// When a container that has ended is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// `no` (also empty), `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    /// With `on-failure`: this often at most; 0 is without end.
    pub max: u32,
}

/// How the container is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `["CMD", word…]` or `["CMD-SHELL", text]`, or what [`crate::check_probe`] knows.
    pub test: Vec<String>,
    pub interval_ns: u64,
    pub timeout_ns: u64,
    /// So long after the start failures do not count.
    pub start_period_ns: u64,
    /// The interval in that time, until the first success.
    pub start_interval_ns: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
    /// What is done to it then: `none`, `kill`, `restart` or `stop`.
    pub on_failure: String,
    /// What asks it to end, for the last two of these.
    #[serde(default = "term")]
    pub stop_signal: i32,
    /// So long after it has been asked it is killed; `None` is never.
    #[serde(default = "grace")]
    pub stop_timeout_ns: Option<u64>,
}

/// What a daemon that says nothing of it means.
fn term() -> i32 {
    15
}

fn grace() -> Option<u64> {
    Some(10_000_000_000)
}

/// A client's wish to see and feed a container's streams.
///
/// Its stream is one end of a pair of unix stream sockets. What comes from the container is in frames of Docker's
/// stdcopy form without a terminal and plain with one; what the client sends is standard input, and its half-close
/// (`shutdown`) is the end of it. The monitor closes the stream when the container has ended and all is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Keys that end the attachment, as `ctrl-p,ctrl-q`, which is also the default. Only with a terminal.
    pub detach_keys: Option<String>,
}
