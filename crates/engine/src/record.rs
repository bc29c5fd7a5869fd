//! A container as it is persisted, and as `inspect` and `ps` see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_reference::Digest;

use crate::spec::{Config, EndpointSettings, HostConfig, PortBinding};

/// Everything the engine knows of one container. A snapshot: cheap to hand out, never locked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The program and its arguments, after entrypoint and command were joined.
    pub path: String,
    pub args: Vec<String>,
    pub image: Digest,
    /// Diff IDs of the image's layers, base first: they stay when the image's name goes.
    pub layers: Vec<Digest>,
    pub config: Config,
    pub host: HostConfig,
    pub state: State,
    pub restart_count: u64,
    pub mounts: Vec<MountPoint>,
    /// Endpoints by the network's name.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// The hardware addresses that were asked for, by the network's name: each start gets them again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub asked_macs: BTreeMap<String, String>,
    /// What is published while it runs: `80/tcp` → where.
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub log_path: String,
    pub platform: String,
    /// Of its image, by Go's name: which programs its seccomp filter is for.
    #[serde(default)]
    pub architecture: String,
    /// The user's last word was `stop`: `unless-stopped` does not start it again.
    pub stopped_by_user: bool,
    #[serde(default)]
    pub exec_ids: Vec<String>,
    /// The first of the host's IDs that its user namespace has: its own for as long as it is there.
    #[serde(default)]
    pub first_id: Option<u32>,
    /// Containers of the default network that it knows by names of its own.
    #[serde(default)]
    pub links: Vec<Link>,
}

impl Container {
    /// Diff IDs of all layers that it shows: its root's, and those of images among its mounts.
    pub fn all_layers(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain(self.mounts.iter().flat_map(MountPoint::layers))
    }

    /// Whether it was made of an image, or has it mounted.
    pub fn uses(&self, image: &Digest) -> bool {
        let mounted = |point: &MountPoint| point.image.as_ref().is_some_and(|mounted| mounted.id == *image);
        self.image == *image || self.mounts.iter().any(mounted)
    }
}

/// A container that another one knows by a name of its own (`--link`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its ID.
    pub to: String,
    pub alias: String,
    /// What it was called when the link was made: for when it is no more.
    #[serde(default)]
    pub name: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// The word that the API and the `status` filter use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a process (or a monitor about to start one) is there.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// The time that the API shows for "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// 0 when nothing runs.
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    /// The group whose limit was reached then, its own or one above it; `None` also when that is not known.
    #[serde(default)]
    pub oom_group: Option<String>,
    pub started_at: String,
    pub finished_at: String,
    pub health: Option<Health>,
    /// What was sent last, in its last run, and may have ended it.
    #[serde(default)]
    pub last_signal: Option<SentSignal>,
    /// It is being stopped, and SIGKILL follows, whichever daemon is there then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_at: Option<KillAt>,
    /// Lines of its log that a full disk or a slow receiver has cost.
    #[serde(default)]
    pub lines_lost: u64,
    /// It is paused because its files are being read, not because the user wants it.
    #[serde(default)]
    pub paused_for_commit: bool,
}

impl State {
    /// Takes away what was known of the run before the one that has begun.
    pub(crate) fn forget_run(&mut self) {
        self.finished_at = NEVER.into();
        self.exit_code = 0;
        self.error.clear();
        self.oom_killed = false;
        self.oom_group = None;
        self.last_signal = None;
        self.kill_at = None;
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            oom_group: None,
            started_at: NEVER.into(),
            finished_at: NEVER.into(),
            health: None,
            last_signal: None,
            kill_at: None,
            lines_lost: 0,
            paused_for_commit: false,
        }
    }
}

/// When a run is killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillAt {
    /// When that run began: a row may be older than what runs.
    pub started_at: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// A signal that came through the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    pub signal: i32,
    pub at: String,
    /// Who wanted it, in words.
    pub by: String,
    /// SIGKILL followed, as it had not ended in time.
    #[serde(default)]
    pub then_killed: bool,
}

impl State {
    /// What is said of its health. While nobody asks it, as it does not run or is frozen, it is not well: as Docker says.
    pub fn health_status(&self) -> &str {
        match &self.health {
            None => "none",
            Some(health) if self.status == Status::Running => &health.status,
            Some(_) => "unhealthy",
        }
    }
}

/// The last word of the health probes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    pub failing_streak: u64,
    /// The last five probes, oldest first.
    pub log: Vec<HealthProbe>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthProbe {
    pub start: String,
    pub end: String,
    pub exit_code: i32,
    pub output: String,
}

/// Something of the host that is mounted in the container, as `inspect` lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
    /// A volume that was made for this container alone and goes with it (`rm -v`, `--rm`). The server leaves it out.
    #[serde(rename = "Anonymous", skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// What of a volume or an image is mounted; empty for all. The server leaves it out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// The image that is mounted. The server leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<MountedImage>,
}

impl MountPoint {
    /// Diff IDs of the layers that it shows.
    pub fn layers(&self) -> &[Digest] {
        self.image.as_ref().map_or(&[], |image| &image.layers)
    }
}

/// An image among the mounts of a container, as it was when that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountedImage {
    pub id: Digest,
    /// Diff IDs, base first: they stay when the image's name goes.
    pub layers: Vec<Digest>,
}
