//! The container's filter, and who decides what the filter leaves open (runtime-spec, config-linux, "Seccomp").

use std::cell::Cell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::LinuxSeccomp;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use wharf_seccomp::{Action, Filter};
use wharf_sys::seccomp::{Flags, install, install_with_listener};

use crate::report::{Failure, Step};
use crate::{Result, RuntimeError};

/// What the process calls itself to hand the decisions over; it cannot wait for somebody's answer there.
const NEEDED: &[&str] = &["sendmsg", "close"];

/// A filter ready to be installed.
#[derive(Debug)]
pub(crate) struct SystemCalls {
    filter: Filter,
    flags: Flags,
    listener: Option<Listener>,
}

/// Who decides.
#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// `ContainerProcessState` without the process ID.
    state: Value,
    /// As its parent counts.
    pid: Cell<i32>,
}

impl SystemCalls {
    /// Compiles it, and connects to who decides. `state` is the container's, for them.
    pub(crate) fn plan(section: &LinuxSeccomp, state: Option<&Value>) -> Result<Self> {
        let policy = wharf_seccomp::from_oci(section)?;
        let flags = wharf_seccomp::flags_of(section);
        let notifies = policy.rules.iter().filter(|rule| rule.action == Action::Notify);
        let names: Vec<&String> = notifies.flat_map(|rule| &rule.names).collect();
        if policy.default == Action::Notify {
            return Err(RuntimeError::Invalid("SCMP_ACT_NOTIFY cannot be the default action".into()));
        }
        if let Some(name) = names.iter().find(|name| NEEDED.contains(&name.as_str())) {
            return Err(RuntimeError::Invalid(format!("SCMP_ACT_NOTIFY cannot be used for `{name}`")));
        }
        let listener = match section.listener_path() {
            Some(path) if !path.as_os_str().is_empty() => {
                if names.is_empty() {
                    return Err(RuntimeError::Invalid("a seccomp listenerPath without an SCMP_ACT_NOTIFY".into()));
                }
                let socket = UnixStream::connect(path).map_err(|e| {
                    RuntimeError::host("connect to", path, Errno::from_io_error(&e).unwrap_or(Errno::IO))
                })?;
                let state = state.cloned().unwrap_or(Value::Null);
                let mut process = json!({ "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "state": state });
                if let Some(metadata) = section.listener_metadata() {
                    process["metadata"] = json!(metadata);
                }
                Some(Listener { socket: socket.into(), state: process, pid: Cell::new(0) })
            }
            _ if names.is_empty() => None,
            _ => return Err(RuntimeError::Invalid("SCMP_ACT_NOTIFY needs a listenerPath".into())),
        };
        Ok(Self { filter: policy.compile()?, flags, listener })
    }

    /// In the process itself: what number its parent knows it by.
    pub(crate) fn is_known_as(&self, pid: i32) {
        if let Some(listener) = &self.listener {
            listener.pid.set(pid);
        }
    }

    /// The fd that must stay open until the filter is installed.
    pub(crate) fn fd(&self) -> Option<i32> {
        self.listener.as_ref().map(|listener| listener.socket.as_raw_fd())
    }

    pub(crate) fn install(&self, running: bool) -> Step<()> {
        let failed = || Failure::at("install the seccomp filter");
        let Some(listener) = &self.listener else {
            return install(&self.filter, self.flags).map_err(failed());
        };
        let status = if running { "running" } else { "creating" };
        let mut told = listener.state.clone();
        told["pid"] = json!(listener.pid.get());
        told["state"]["pid"] = json!(listener.pid.get());
        told["state"]["status"] = json!(status);
        let text = told.to_string();
        let decisions = install_with_listener(&self.filter, self.flags).map_err(failed())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [decisions.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&listener.socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(Failure::at("send the seccomp listener"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(section: Value) -> Result<SystemCalls> {
        SystemCalls::plan(&serde_json::from_value(section).unwrap(), None)
    }

    #[test]
    fn what_nobody_could_decide_is_refused() {
        let notify = |names: Value| json!([{ "names": names, "action": "SCMP_ACT_NOTIFY" }]);
        let allow = "SCMP_ACT_ALLOW";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(
            plan(json!({ "defaultAction": allow, "listenerPath": path, "syscalls": notify(json!(["mkdir"])) })).is_ok()
        );
        for wrong in [
            json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path }),
            json!({ "defaultAction": allow, "listenerPath": path, "syscalls": notify(json!(["sendmsg"])) }),
            json!({ "defaultAction": allow, "listenerPath": path }),
            json!({ "defaultAction": allow, "syscalls": notify(json!(["mkdir"])) }),
            json!({ "defaultAction": allow, "listenerPath": "/no/such", "syscalls": notify(json!(["mkdir"])) }),
        ] {
            assert!(plan(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
