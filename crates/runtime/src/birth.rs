//! Where the first process is born: in new namespaces, below those of others that it cannot enter by itself.
//!
//! - A PID namespace and a time namespace take only children, so the parent goes there for the clone. Into a
//!   PID namespace of others the program's process alone goes into where that can be ([`crate::joining`]).
//! - From a user namespace of its own a process has no right to namespaces of the host's, so for such a one the parent
//!   goes into all of them.
//! - A user namespace of others is entered for good: a helper goes there, by way of the others, and makes the process as
//!   its own sibling.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::move_into_link_name_space;
use wharf_sys::message;
use wharf_sys::process::{Child, Namespaces, clone3, clone3_sibling};

use crate::plan::{Join, MOUNT, MountSource, Plan};
use crate::root::{new_mount, procfs_of, write_procfs};
use crate::{Result, RuntimeError};

/// Makes the process; `child` is what it does.
///
/// # Errors
/// When a namespace cannot be entered or made; this process is back in its own in any case but that this fails.
pub(crate) fn bear(plan: &mut Plan, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce(&Plan) -> u8) -> Result<Child> {
    if !plan.in_user_namespace() {
        stay_outside(plan);
    }
    if let Some(user) = plan.user_join.take() {
        let joins = std::mem::take(&mut plan.joins);
        // A mount namespace is joined by the child, once its root is built.
        let (visits, rest): (Vec<Join>, Vec<Join>) = joins.into_iter().partition(|join| join.kind != MOUNT);
        plan.joins = rest;
        let time = plan.time.take();
        let has_network = visits.iter().any(|join| join.kind == "net");
        let mut sysctls = if has_network { std::mem::take(&mut plan.sysctls) } else { Vec::new() };
        plan.sysctls.extend(sysctls.extract_if(.., |(path, _)| !path.starts_with("sys/net")));
        let enter = || {
            let mut joined = |join: &Join| {
                if join.kind == "net" { set_network_parameters(&mut sysctls).map_err(errno) } else { Ok(()) }
            };
            // Who has joined the user namespace has no right any more to those that are not its own, and only then the
            // right to its own where this is an ordinary user.
            let mut refused = Vec::new();
            for join in &visits {
                match move_into_link_name_space(join.fd.as_fd(), None) {
                    Ok(()) => joined(join)?,
                    Err(_) => refused.push(join),
                }
            }
            move_into_link_name_space(user.as_fd(), None)?;
            for join in refused {
                move_into_link_name_space(join.fd.as_fd(), None)?;
                joined(join)?;
            }
            time.as_ref().map_or(Ok(()), |time| time.make().map_err(errno))
        };
        let plan = &*plan;
        return by_helper(plan.namespaces, cgroup, enter, || child(plan));
    }
    let mut away = Vec::new();
    let born = go(plan, &mut away).and_then(|()| {
        let plan = &*plan;
        clone3(plan.namespaces, cgroup, || child(plan))
            .map_err(|errno| RuntimeError::Setup { step: "make the container's process".into(), errno })
    });
    // The last one entered is left first.
    for home in away.into_iter().rev() {
        home.back()?;
    }
    born
}

/// Goes where the child is to be born, and does there what the child will have no right to.
fn go(plan: &mut Plan, away: &mut Vec<Home>) -> Result<()> {
    let all = plan.namespaces.user;
    let (visits, rest): (Vec<Join>, Vec<Join>) =
        std::mem::take(&mut plan.joins).into_iter().partition(|join| all || matches!(join.kind, "pid" | "time"));
    plan.joins = rest;
    for join in &visits {
        away.push(Home::of(join.kind)?);
        enter(join)?;
        if join.kind == "net" {
            set_network_parameters(&mut plan.sysctls)?;
        }
    }
    if all && !plan.unprivileged && !plan.namespaces.network {
        make_sysfs(plan)?;
    }
    if let Some(time) = &plan.time {
        let home = Home::of("time")?;
        // In a user namespace below the one that these clocks belong to there is no way back.
        if !time.optional || home.back().is_ok() {
            away.push(home);
            time.make()?;
        }
    }
    Ok(())
}

/// A PID namespace of others is for the program's own process ([`crate::joining`]), where its procfs can be made from
/// outside; else the first process is born there and sets itself up in the sight of those.
fn stay_outside(plan: &mut Plan) {
    let Some(at) = plan.joins.iter().position(|join| join.kind == "pid") else { return };
    let mut made = Vec::new();
    for (n, step) in plan.mounts.iter().enumerate() {
        if let MountSource::New { kind, source, .. } = &step.source
            && kind == "proc"
        {
            // Before Linux 6.17 there is no way; what else is wrong with it the child will tell.
            let Ok(tree) = procfs_of(plan.joins[at].fd.as_fd(), source, step) else { return };
            made.push((n, tree));
        }
    }
    for (n, tree) in made {
        if let MountSource::New { made, .. } = &mut plan.mounts[n].source {
            *made = Some(tree);
        }
    }
    plan.late_pid = Some(plan.joins.remove(at).fd);
}

fn enter(join: &Join) -> Result<()> {
    move_into_link_name_space(join.fd.as_fd(), None)
        .map_err(|errno| RuntimeError::Setup { step: format!("join the {} namespace", join.kind), errno })
}

/// sysfs shows a network namespace, and only who owns that may mount it: the child, in its user namespace, does not.
/// The host's own would show the host's devices, and with it what is mounted below it.
fn make_sysfs(plan: &mut Plan) -> Result<()> {
    for step in &mut plan.mounts {
        if !matches!(&step.source, MountSource::New { kind, .. } if kind == "sysfs") {
            continue;
        }
        let tree = new_mount("sysfs", "sysfs", step).map_err(|e| RuntimeError::host("mount", &step.destination, e))?;
        if let MountSource::New { made, .. } = &mut step.source {
            *made = Some(tree);
        }
    }
    Ok(())
}

/// What a helper can tell of a failure.
fn errno(error: RuntimeError) -> Errno {
    match error {
        RuntimeError::Setup { errno, .. } | RuntimeError::Host { errno, .. } => errno,
        _ => Errno::PERM,
    }
}

fn set_network_parameters(sysctls: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let mut failed = None;
    sysctls.retain(|(path, value)| {
        let network = path.starts_with("sys/net");
        if network && let Err(error) = write_procfs(&Path::new("/proc").join(path), value) {
            failed.get_or_insert(error);
        }
        !network
    });
    failed.map_or(Ok(()), Err)
}

/// A namespace of this process's own, to go back to.
#[derive(Debug)]
pub(crate) struct Home {
    kind: &'static str,
    pub(crate) fd: OwnedFd,
}

impl Home {
    pub(crate) fn of(kind: &'static str) -> Result<Self> {
        let path = format!("/proc/self/ns/{kind}");
        let fd = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| RuntimeError::host("open", path, e))?;
        Ok(Self { kind, fd })
    }

    pub(crate) fn back(&self) -> Result<()> {
        move_into_link_name_space(self.fd.as_fd(), None)
            .map_err(|errno| RuntimeError::Setup { step: format!("go back to the {} namespace", self.kind), errno })
    }
}

/// What the helper ends with when it could tell whom it made.
const TOLD: u8 = 0;

/// Makes a process from where `enter` leads, from where there may be no way back: a helper goes there.
///
/// # Errors
/// When there is no way, or no process can be made there.
pub(crate) fn by_helper(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    enter: impl FnOnce() -> std::result::Result<(), Errno>,
    child: impl FnOnce() -> u8,
) -> Result<Child> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| RuntimeError::host("make", "socket", e))?;
    let failed = |errno| RuntimeError::Setup { step: "make a process in the user namespace".into(), errno };
    let helper = clone3(Namespaces::default(), None, || {
        let made = enter().and_then(|()| clone3_sibling(namespaces, cgroup, child));
        let told = made.and_then(|made| {
            message::send(&theirs, &made.pid.as_raw_nonzero().get().to_be_bytes(), &[made.pidfd.as_fd()])
        });
        told.map_or_else(|errno| u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX), |()| TOLD)
    });
    let helper = helper.map_err(failed)?;
    drop(theirs);
    let told = message::receive(&ours);
    let ended = waitid(WaitId::PidFd(helper.pidfd.as_fd()), WaitIdOptions::EXITED).map_err(failed)?;
    let status = ended.and_then(|status| status.exit_status()).unwrap_or(0);
    match told {
        Ok(Some((bytes, mut fds))) => {
            let number = <[u8; 4]>::try_from(bytes.as_slice()).map(i32::from_be_bytes).ok();
            match (number.and_then(Pid::from_raw), fds.pop()) {
                (Some(pid), Some(pidfd)) => Ok(Child { pid, pidfd }),
                _ => Err(RuntimeError::Vanished),
            }
        }
        _ => Err(failed(Errno::from_raw_os_error(status))),
    }
}
