//! What is kept of a container, and what has become of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wharf_cgroup::{Group, Hierarchies, Scope};
use wharf_runtime::LentDevices;

use crate::SPEC_VERSION;
use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::place::{GONE, Place};
use crate::words::Given;

/// What `state.json` holds. A later version reads what an earlier one wrote: fields are added, and may be missing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    /// Who made it.
    pub(crate) owner: u32,
    /// The path of its control group.
    pub(crate) group: String,
    /// Who made the group, when it was systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<Scope>,
    /// The first process, once there is one.
    #[serde(default)]
    pub(crate) process: Cell<Option<Identity>>,
    /// The first process is not ready for a start yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) creating: bool,
    /// The host's network devices that it has got: they are given back unless its program runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lent: Option<LentDevices>,
    /// The configuration as it was at the creation, with later updates of limits.
    pub(crate) spec: Spec,
}

/// A process, which its number alone does not name: it comes to mean another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/PID/stat`: ticks after the boot.
    pub(crate) start: u64,
}

impl Identity {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, start)| Self { pid, start })
    }

    /// Whether it runs: neither ended nor waiting to be reaped.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// Whether it has a number still, as one that waits to be reaped has.
    pub(crate) fn is_there(self) -> bool {
        stat(self.pid).is_some_and(|(_, start)| start == self.start)
    }

    /// The process itself, if it is still that one.
    pub(crate) fn open(self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after the opening: then the fd is of what was seen.
        self.is_alive().then_some((pid, pidfd))
    }
}

/// State and start time (proc_pid_stat(5)); the name before them may hold anything.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Runtime-spec, runtime, "State".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container that is there.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) place: Place,
    pub(crate) record: Record,
    pub(crate) group: Group,
}

impl Container {
    pub(crate) fn open(global: &Global, id: &str) -> Result<Self> {
        Self::at(Place::open(&global.root, id)?)
    }

    /// Opened for a change: no other command changes it meanwhile.
    pub(crate) fn lock(global: &Global, id: &str) -> Result<Self> {
        let place = Place::open(&global.root, id)?;
        place.lock()?;
        Self::at(place)
    }

    pub(crate) fn at(place: Place) -> Result<Self> {
        let record = place.read()?.ok_or_else(|| Failure::new(GONE))?;
        let group = Group::open(&Hierarchies::detect()?, &record.group)?;
        Ok(Self { place, record, group })
    }

    pub(crate) fn status(&self) -> Status {
        match self.record.process.get() {
            None if self.place.is_busy() => Status::Creating,
            None => Status::Stopped,
            Some(process) if !process.is_alive() => Status::Stopped,
            Some(_) if self.record.creating => Status::Creating,
            Some(_) if self.group.is_frozen() => Status::Paused,
            // One that has gone on while who started it was killed has left its gate behind.
            Some(_) if self.place.has_gate() && (self.place.is_busy() || !self.place.is_gate_shut()) => Status::Created,
            Some(_) => Status::Running,
        }
    }

    /// The first process, by its number and an fd.
    pub(crate) fn process(&self) -> Option<(Pid, OwnedFd)> {
        self.record.process.get().and_then(Identity::open)
    }

    pub(crate) fn write(&self) -> Result<()> {
        self.place.write(&self.record)
    }
}

impl Record {
    /// What hooks are told, without what changes.
    pub(crate) fn for_hooks(&self, id: &str) -> Value {
        let mut state = json!({ "ociVersion": SPEC_VERSION, "id": id, "bundle": self.bundle });
        if let Some(annotations) = self.annotations() {
            state["annotations"] = json!(annotations);
        }
        state
    }

    fn annotations(&self) -> Option<BTreeMap<&String, &String>> {
        self.spec.annotations().as_ref().filter(|all| !all.is_empty()).map(|all| all.iter().collect())
    }

    /// What `state` and `list` show.
    pub(crate) fn show(&self, id: &str, status: Status, owner: &str) -> Value {
        let alive = self.process.get().filter(|_| status != Status::Stopped);
        let mut state = json!({
            "ociVersion": SPEC_VERSION,
            "id": id,
            "pid": alive.map_or(0, |process| process.pid),
            "status": status.name(),
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
        });
        if let Some(annotations) = self.annotations() {
            state["annotations"] = json!(annotations);
        }
        state["owner"] = json!(owner);
        state
    }
}

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let container = Container::open(global, &given.arguments[0])?;
    let shown = container.record.show(&container.place.id, container.status(), "");
    let text = serde_json::to_string_pretty(&shown).map_err(|error| Failure::new(error.to_string()))?;
    Ok(crate::print(&format!("{text}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_names_no_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let identity = Identity::of(own).unwrap();
        assert!(identity.is_alive() && identity.open().is_some());
        let other = Identity { start: identity.start + 1, ..identity };
        assert!(!other.is_alive() && other.open().is_none());
    }

    #[test]
    fn who_waits_to_be_reaped_has_ended() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(identity.is_none_or(|identity| !identity.is_alive()));
        child.wait().unwrap();
    }
}
