//! What a monitor tells of its container.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// 0 while it waits to be started again.
    pub pid: i32,
    /// RFC 3339, as all times here.
    pub started_at: String,
    pub restart_count: u32,
    /// It has ended and is to be started again.
    #[serde(rename = "status", serialize_with = "write_status", deserialize_with = "read_status")]
    pub restarting: bool,
    pub health: Option<HealthState>,
    /// The kernel ended a process of this run because memory was used up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_killed: bool,
    /// As [`Exit::oom_group`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<String>,
    /// Ends that were not the last, of which nobody has heard as nobody watched: told once, to who watches first. The
    /// latest of a container that ends again and again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Exit>,
    /// Programs that run beside the first, and those that have ended and whose askers had gone by then: the latter are told once,
    /// to who watches first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub execs: Vec<ExecState>,
}

/// A further program in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub id: String,
    pub pid: i32,
    /// As in [`crate::client::ExecRequest::note`].
    #[serde(default)]
    pub note: serde_json::Value,
    /// Its exit code; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

fn write_status<S: Serializer>(restarting: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *restarting { "restarting" } else { "running" })
}

fn read_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(String::deserialize(deserializer)? == "restarting")
}

/// How a container ended. Also the content of `exit.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The program's own, or 128 and the signal that ended it.
    pub code: i32,
    /// The kernel ended a process of it because its memory was used up.
    pub oom_killed: bool,
    /// Whose limit was reached then, `/parent/child`: the container's own group, or one above it. `None` also when the
    /// host had no memory left, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_group: Option<String>,
    pub started_at: String,
    pub finished_at: String,
    /// Why it could not be started again; empty otherwise.
    pub error: String,
    /// Lines of its log, of this monitor's whole life, that a full disk or a receiver that was slow or away has cost.
    #[serde(default)]
    pub lines_lost: u64,
    /// How often it was started again until this end, which was for good. `None` of monitors that did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
    /// Of an end for good: those before it of which nobody has heard, as in [`State::untold`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Exit>,
}

/// What the probes have found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<Probe>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub start: String,
    pub end: String,
    /// -1 when it did not end in time or could not be run.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote.
    pub output: String,
}
