//! A further program in a container that runs: into its namespaces and its group, with a confinement of its own
//! that the caller takes from the container's configuration.

use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::{LinuxPersonality, LinuxSeccomp, Process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde_json::Value;
use wharf_cgroup::Group;
use wharf_sys::process::{Child, Namespaces, clone3};

use crate::birth::by_helper;
use crate::capabilities;
use crate::child;
use crate::create::{Created, Inheritance, Stdio, one_thread};
use crate::filter::SystemCalls;
use crate::plan::process_plan;
use crate::report::ParentEnd;
use crate::scheduling::personality;
use crate::{Result, RuntimeError};

/// What is run, and where.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container's first process, by number and by an fd that cannot come to mean another.
    pub pid: Pid,
    pub pidfd: BorrowedFd<'a>,
    pub process: &'a Process,
    /// The container's filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The container's state without `status` and `pid`, for who listens to the filter.
    pub state: Option<&'a Value>,
    pub stdio: Stdio,
    /// The container's group.
    pub group: Option<&'a Group>,
    /// The container's.
    pub personality: Option<&'a LinuxPersonality>,
    pub inheritance: Inheritance,
}

/// Makes a process in a running container; it waits for [`Created::start`]. It is this process's child.
///
/// # Errors
/// When the container has ended, or a step fails.
pub fn exec(exec: Exec<'_>) -> Result<Created> {
    one_thread()?;
    let filter = match exec.seccomp {
        Some(section) => Some(SystemCalls::plan(section, exec.state)?),
        None => None,
    };
    let mut plan = process_plan(exec.process, filter)?;
    plan.inherit(exec.inheritance);
    plan.exec = true;
    plan.scheduling.personality = exec.personality.map(personality).transpose()?;
    if matches!(exec.stdio, Stdio::Terminal) != plan.terminal.is_some() {
        return Err(RuntimeError::Invalid("process.terminal and the streams that were given disagree".into()));
    }
    let birth = exec.group.map(Group::birth_fd).transpose()?.flatten();
    let joins = namespaces_to_join(exec.pid)?;
    let own = if joins.contains(ThreadNameSpaceType::USER) { u64::MAX } else { capabilities::own()? };
    let left_out = plan.keep_to(own);
    let (mut ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| RuntimeError::host("make", "socket", e))?;

    let user = joins.contains(ThreadNameSpaceType::USER);
    let mut run = |joins: ThreadNameSpaceType| {
        if rustix::io::dup2(&theirs, &mut ours).is_err() {
            return 125;
        }
        child::run_exec(&plan, (joins, user), exec.pidfd, theirs.as_fd(), &exec.stdio)
    };
    let cgroup = birth.as_ref().map(AsFd::as_fd);
    let child = if user && !capabilities::is_privileged()? {
        // Who owns the user namespace may enter the others only from there.
        let enter = || {
            move_into_thread_name_spaces(exec.pidfd, ThreadNameSpaceType::USER)?;
            move_into_thread_name_spaces(exec.pidfd, ThreadNameSpaceType::PROCESS_ID)
        };
        by_helper(Namespaces::default(), cgroup, enter, || run(joins - ThreadNameSpaceType::USER))?
    } else {
        beside(exec.pidfd, cgroup, || run(joins))?
    };
    drop(theirs);
    let mut created = Created::new(child, plan.command.clone(), ParentEnd(ours));
    created.left_out = left_out;
    let number = created.pid.as_raw_nonzero().get();
    if let Some(group) = exec.group {
        group.add(number, birth.is_none())?;
    }
    created.parent.go(number, None)?;
    created.terminal = created.parent.ready(&plan.command, || Ok(()))?;
    Ok(created)
}

/// A PID namespace takes only children: this process points its next one there, and itself back again.
fn beside(container: BorrowedFd<'_>, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> u8) -> Result<Child> {
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| RuntimeError::host("open", "/proc/self/ns/pid", e))?;
    let into = |fd: BorrowedFd<'_>, what: ThreadNameSpaceType| {
        move_into_thread_name_spaces(fd, what)
            .map_err(|errno| RuntimeError::Setup { step: "join the container".into(), errno })
    };
    into(container, ThreadNameSpaceType::PROCESS_ID)?;
    let made = clone3(Namespaces::default(), cgroup, child);
    into(own.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
    made.map_err(|errno| RuntimeError::Setup { step: "make a process in the container".into(), errno })
}

/// All that differ from our own: the kernel refuses to join a user namespace that one is in already.
fn namespaces_to_join(pid: Pid) -> Result<ThreadNameSpaceType> {
    let all = [
        ("user", ThreadNameSpaceType::USER),
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("net", ThreadNameSpaceType::NETWORK),
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
        ("time", ThreadNameSpaceType::TIME),
    ];
    let mut joins = ThreadNameSpaceType::empty();
    for (name, kind) in all {
        let link = |who: &str| {
            let path = format!("/proc/{who}/ns/{name}");
            std::fs::read_link(&path)
                .map_err(|e| RuntimeError::host("read", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))
        };
        if link(&pid.as_raw_nonzero().to_string())? != link("self")? {
            joins |= kind;
        }
    }
    Ok(joins)
}
