//! The container's filter, and who decides what the filter leaves open (runtime-spec, config-linux, "Seccomp").

use std::cell::Cell;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use oci_spec::runtime::LinuxSeccomp;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use wharf_seccomp::{Action, Filter, Policy};
use wharf_sys::process::CLONE_SIBLING;
use wharf_sys::seccomp::{Flags, install, install_with_listener, supports};

use crate::default_filter::DefaultFilter;
use crate::report::{Failure, Step, send_decisions};
use crate::{Result, RuntimeError};

/// What the process calls to hand the decisions over: nobody could answer before that has been done.
const NEEDED: &str = "sendmsg";
/// runc needs it for that, and whoever writes for it is told so.
const NEEDED_BY_RUNC: &str = "write";

/// What this program calls until it is an init ([`crate::init_main`]), and as one.
const START: &[(&str, Option<u64>)] = &[
    ("execveat", None),
    ("arch_prctl", None),
    ("brk", None),
    ("mmap", None),
    ("munmap", None),
    ("mprotect", None),
    ("set_tid_address", None),
    ("set_robust_list", None),
    ("rseq", None),
    ("prlimit64", None),
    ("readlink", None),
    ("readlinkat", None),
    ("getrandom", None),
    ("gettid", None),
    ("poll", None),
    ("ppoll", None),
    ("rt_sigaction", None),
    ("rt_sigprocmask", None),
    ("rt_sigtimedwait", None),
    ("sigaltstack", None),
    ("sched_getaffinity", None),
    ("openat", None),
    ("newfstatat", None),
    ("fstat", None),
    ("read", None),
    ("write", None),
    ("close", None),
    ("fcntl", None),
    ("prctl", None),
    ("wait4", None),
    ("kill", None),
    ("exit_group", None),
];

/// What is called from the filter of an exec's process to its program, by `enter` and `identity`: a filter that judges
/// one of them is installed after them.
const LEFT: &[(&str, Option<u64>)] = &[
    ("capget", None),
    ("capset", None),
    ("prctl", None),
    ("clone", Some(CLONE_SIBLING)),
    ("sendmsg", None),
    ("sendto", None),
    ("recvmsg", None),
    ("recvfrom", None),
    ("exit_group", None),
    ("setsid", None),
    ("ioctl", None),
    ("newfstatat", None),
    ("statx", None),
    ("fstat", None),
    ("chdir", None),
    ("getcwd", None),
    ("prlimit64", None),
    ("openat2", None),
    ("openat", None),
    ("read", None),
    ("lseek", None),
    ("close", None),
    ("rt_sigaction", None),
    ("rt_sigprocmask", None),
    ("close_range", None),
    ("brk", None),
    ("mmap", None),
    ("munmap", None),
    ("mremap", None),
    ("execve", None),
];

/// A filter ready to be installed.
#[derive(Debug)]
pub(crate) struct SystemCalls {
    judged: Arc<Judged>,
    flags: Flags,
    listener: Option<Listener>,
    permits_what_is_left: bool,
}

/// A policy's filter, and what of a container's making it leaves alone.
#[derive(Debug)]
pub(crate) struct Judged {
    filter: Filter,
    /// [`LEFT`].
    permits_what_is_left: bool,
    /// And what a process calls at its gate besides.
    permits_gate: bool,
    /// [`START`].
    permits_start: bool,
}

impl Judged {
    pub(crate) fn of(policy: &Policy) -> Result<Self> {
        let gate = [("accept4", None), ("accept", None), ("getsockopt", None), ("setsockopt", None)];
        Ok(Self {
            filter: policy.compile()?,
            permits_what_is_left: policy.permits(LEFT),
            permits_gate: policy.permits(&gate),
            permits_start: policy.permits(START),
        })
    }
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
        if let Some(name) = names.iter().find(|name| matches!(name.as_str(), NEEDED | NEEDED_BY_RUNC)) {
            return Err(RuntimeError::Invalid(format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall")));
        }
        if flags.wait_killable && names.is_empty() {
            return Err(RuntimeError::Invalid(
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV without an SCMP_ACT_NOTIFY: nobody would wait".into(),
            ));
        }
        if flags != Flags::default()
            && !supports(flags).map_err(|e| RuntimeError::Setup { step: "ask for seccomp flags".into(), errno: e })?
        {
            return Err(RuntimeError::Unsupported(
                "this kernel does not know all of the seccomp flags that are asked for".into(),
            ));
        }
        let listener = match section.listener_path() {
            // Without a call to decide about it is not used (runtime-spec; so runc).
            Some(path) if !path.as_os_str().is_empty() && names.is_empty() => None,
            Some(path) if !path.as_os_str().is_empty() => {
                let socket =
                    UnixStream::connect(path).map_err(|source| RuntimeError::Agent { path: path.clone(), source })?;
                let state = state.cloned().unwrap_or(Value::Null);
                let mut process = json!({ "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "state": state });
                if let Some(metadata) = section.listener_metadata() {
                    process["metadata"] = json!(metadata);
                }
                Some(Listener { socket: socket.into(), state: process, pid: Cell::new(0) })
            }
            _ if section.listener_metadata().is_some() => {
                return Err(RuntimeError::Invalid("a seccomp listenerMetadata needs a listenerPath".into()));
            }
            _ if names.is_empty() => None,
            _ => return Err(RuntimeError::Invalid("SCMP_ACT_NOTIFY needs a listenerPath".into())),
        };
        Ok(Self::with(Arc::new(Judged::of(&policy)?), flags, listener))
    }

    /// Docker's default, or by the section of a configuration. `state` as for [`Self::plan`].
    pub(crate) fn of(
        default: Option<&DefaultFilter>,
        section: Option<&LinuxSeccomp>,
        state: Option<&Value>,
    ) -> Result<Option<Self>> {
        match (default, section) {
            (Some(default), _) => Ok(Some(Self::with(default.judged()?, Flags::default(), None))),
            (None, Some(section)) => Self::plan(section, state).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn with(judged: Arc<Judged>, flags: Flags, listener: Option<Listener>) -> Self {
        let permits_what_is_left = judged.permits_what_is_left;
        Self { judged, flags, listener, permits_what_is_left }
    }

    /// In the process itself: what number its parent knows it by.
    pub(crate) fn is_known_as(&self, pid: i32) {
        if let Some(listener) = &self.listener {
            listener.pid.set(pid);
        }
    }

    /// Whether it can be installed before the last steps of a process: it judges none of them.
    pub(crate) fn permits_what_is_left(&self) -> bool {
        self.permits_what_is_left
    }

    /// Whether it leaves [`START`] alone: what has it may become this program.
    pub(crate) fn permits_start(&self) -> bool {
        self.judged.permits_start
    }

    /// What waits at a gate calls more.
    pub(crate) fn wait_at_gate(&mut self) {
        self.permits_what_is_left &= self.judged.permits_gate;
    }

    /// The fd that must stay open until the filter is installed.
    pub(crate) fn fd(&self) -> Option<i32> {
        self.listener.as_ref().map(|listener| listener.socket.as_raw_fd())
    }

    /// In the process itself.
    pub(crate) fn install(&self, running: bool) -> Step<()> {
        let Some(listener) = &self.listener else { return self.install_alone() };
        let decisions = install_with_listener(&self.judged.filter, self.flags).map_err(Failure::at(INSTALL))?;
        listener.hand_over(&decisions, if running { "running" } else { "creating" }).map_err(Failure::at(HAND_OVER))
    }

    /// For a process that the caller will make: who decides is told by the parent ([`SystemCalls::hand_over`]), which
    /// knows its number then.
    pub(crate) fn install_ahead(&self, socket: BorrowedFd<'_>) -> Step<()> {
        if self.listener.is_none() {
            return self.install_alone();
        }
        let decisions = install_with_listener(&self.judged.filter, self.flags).map_err(Failure::at(INSTALL))?;
        send_decisions(socket, decisions)
    }

    fn install_alone(&self) -> Step<()> {
        install(&self.judged.filter, self.flags).map_err(Failure::at(INSTALL))
    }

    /// In the parent of a process that was made for it, which is known as `pid`. `status` is the container's.
    pub(crate) fn hand_over(&self, pid: i32, status: &str, decisions: &OwnedFd) -> Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        listener.pid.set(pid);
        listener.hand_over(decisions, status).map_err(|errno| RuntimeError::Setup { step: HAND_OVER.into(), errno })
    }
}

const INSTALL: &str = "install the seccomp filter";
const HAND_OVER: &str = "send the seccomp listener";

impl Listener {
    /// Tells who decides of the process.
    fn hand_over(&self, decisions: &OwnedFd, status: &str) -> std::result::Result<(), Errno> {
        let mut told = self.state.clone();
        told["pid"] = json!(self.pid.get());
        // Of an exec the container's are known: this is another process than its first.
        let state = &mut told["state"];
        for (key, value) in [("pid", json!(self.pid.get())), ("status", json!(status))] {
            if state.get(key).is_none() {
                state[key] = value;
            }
        }
        let text = told.to_string();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [decisions.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL).map(drop)
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
        for right in [
            json!({ "defaultAction": allow, "listenerPath": path, "syscalls": notify(json!(["mkdir", "close"])) }),
            json!({ "defaultAction": allow, "listenerPath": path, "listenerMetadata": "told" }),
            json!({ "defaultAction": allow, "listenerPath": "" }),
        ] {
            plan(right.clone()).unwrap_or_else(|e| panic!("{right}: {e}"));
        }
        for wrong in [
            json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path }),
            json!({ "defaultAction": allow, "listenerPath": path, "syscalls": notify(json!(["sendmsg"])) }),
            json!({ "defaultAction": allow, "listenerPath": path, "syscalls": notify(json!(["read", "write"])) }),
            json!({ "defaultAction": allow, "syscalls": notify(json!(["mkdir"])) }),
            json!({ "defaultAction": allow, "listenerPath": "", "syscalls": notify(json!(["mkdir"])) }),
            json!({ "defaultAction": allow, "listenerPath": "/no/such", "syscalls": notify(json!(["mkdir"])) }),
            json!({ "defaultAction": allow, "listenerMetadata": "told to nobody" }),
        ] {
            assert!(plan(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_that_contradict_are_refused() {
        let with = |flags: Value| plan(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags }));
        with(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]))
            .unwrap();
        let alone = with(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])).unwrap_err().to_string();
        assert!(alone.contains("SCMP_ACT_NOTIFY"), "{alone}");
    }

    #[test]
    fn unknown_words_are_refused_with_their_name() {
        for (key, value) in [
            ("flags", json!(["SECCOMP_FILTER_FLAG_NONSENSE"])),
            ("architectures", json!(["SCMP_ARCH_PDP11"])),
            ("defaultAction", json!("SCMP_ACT_NONSENSE")),
            ("syscalls", json!([{ "names": ["read"], "action": "SCMP_ACT_NONSENSE" }])),
        ] {
            let mut section = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
            section[key] = value.clone();
            let error = serde_json::from_value::<LinuxSeccomp>(section).unwrap_err().to_string();
            assert!(error.contains("NONSENSE") || error.contains("PDP11"), "{error}");
        }
        let passed_over = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"] });
        plan(passed_over).unwrap();
    }
}
