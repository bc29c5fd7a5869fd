//! A further program in a container that runs: into its namespaces and its group, with a confinement of its own
//! that the caller takes from the container's configuration.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxMemoryPolicy, LinuxPersonality, LinuxSeccomp, Process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;
use serde_json::Value;
use wharf_cgroup::Group;
use wharf_sys::process::{Namespaces, clone3};

use crate::capabilities;
use crate::create::{Created, Inheritance, Stdio, one_thread, set_oom_score};
use crate::default_filter::DefaultFilter;
use crate::enter::{self, Entry};
use crate::entering::{Entering, wait};
use crate::filter::SystemCalls;
use crate::identity::setgroups_denied;
use crate::mapping::roots_of;
use crate::memory_policy::MemoryPolicy;
use crate::process::process_plan;
use crate::report::ParentEnd;
use crate::scheduling::personality;
use crate::sight::Sight;
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
    /// The container's, instead of `seccomp`.
    pub default_filter: Option<&'a DefaultFilter>,
    /// The container's state, for who listens to the filter.
    pub state: Option<&'a Value>,
    pub stdio: Stdio,
    /// The container's group.
    pub group: Option<&'a Group>,
    /// It has to be that one. Else where the first process is will do, when the container has made groups of its own in
    /// cgroup2 and that one takes no processes any more (cgroups(7), "no internal processes").
    pub only_there: bool,
    /// The container's.
    pub personality: Option<&'a LinuxPersonality>,
    /// The container's.
    pub memory_policy: Option<&'a LinuxMemoryPolicy>,
    pub inheritance: Inheritance,
    /// What the first process has shown of itself, where it cannot be looked at.
    pub sight: Option<Sight>,
}

/// Makes a process in a running container; it waits for [`Created::start`]. It is this process's child.
///
/// # Errors
/// When the container has ended, a step fails, or takes longer than [`crate::EXEC_PATIENCE`].
pub fn exec(exec: Exec<'_>) -> Result<Created> {
    let mut entering = begin_exec(exec)?;
    loop {
        if let Some(created) = entering.advance()? {
            return Ok(created);
        }
        wait(&entering)?;
    }
}

/// As [`exec`], but nobody is waited for.
///
/// # Errors
/// When the container has ended, or no process can be made.
pub fn begin_exec(exec: Exec<'_>) -> Result<Entering> {
    one_thread()?;
    let filter = SystemCalls::of(exec.default_filter, exec.seccomp, exec.state)?;
    let mut plan = process_plan(exec.process, filter)?;
    plan.inherit(exec.inheritance);
    plan.exec = true;
    plan.scheduling.memory = exec.memory_policy.map(MemoryPolicy::plan).transpose()?;
    plan.scheduling.personality = exec.personality.map(personality).transpose()?;
    if matches!(exec.stdio, Stdio::Terminal) != plan.terminal.is_some() {
        return Err(RuntimeError::Invalid("process.terminal and the streams that were given disagree".into()));
    }
    let birth = exec.group.map(Group::birth_fd).transpose()?.flatten();
    let entrance = exec.group.map(|group| group.entrance(birth.is_none())).transpose()?;
    let (joins, namespaces, root) = match exec.sight {
        Some(Sight { namespaces, kinds, root }) => (kinds, namespaces, root),
        None => (namespaces_to_join(exec.pid)?, Vec::new(), container_root(exec.pid)?),
    };
    let own = if joins.contains(ThreadNameSpaceType::USER) { u64::MAX } else { capabilities::own()? };
    let left_out = plan.keep_to(own);
    let (mut ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| RuntimeError::host("make", "socket", e))?;

    let number = exec.pid.as_raw_nonzero().to_string();
    let setgroups = !setgroups_denied(&number);
    let roots = if joins.contains(ThreadNameSpaceType::USER) { roots_of(&number) } else { (0, 0) };
    let entry = |socket| Entry {
        process: &plan,
        joins,
        container: exec.pidfd,
        namespaces: &namespaces,
        root: root.as_fd(),
        socket,
        entrance: entrance.as_ref(),
        stdio: &exec.stdio,
        setgroups,
        roots,
    };
    let mut child = || {
        if rustix::io::dup2(&theirs, &mut ours).is_err() {
            return 125;
        }
        enter::run(&entry(theirs.as_fd()))
    };
    let mut between = clone3(Namespaces::default(), birth.as_ref().map(AsFd::as_fd), &mut child);
    if let (Err(Errno::BUSY), Some(group), false) = (&between, exec.group, exec.only_there)
        && let Some(beside) = group.birth_fd_beside(exec.pid.as_raw_nonzero().get())?
    {
        between = clone3(Namespaces::default(), Some(beside.as_fd()), &mut child);
    }
    let between =
        between.map_err(|errno| RuntimeError::Setup { step: "make a process for the container".into(), errno })?;
    drop(theirs);
    let number = between.pid.as_raw_nonzero().get();
    let mut entering = Entering::new(between, ParentEnd::new(ours), plan, left_out);
    // Its child inherits it.
    set_oom_score(number, exec.process)?;
    entering.go(number)?;
    Ok(entering)
}

/// The root of a process, whatever its mount namespace is.
fn container_root(pid: Pid) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path.as_str(), flags, Mode::empty()).map_err(|errno| RuntimeError::host("open", path, errno))
}

/// What an exec's first process joins, by the names in procfs; only the first gives the right to the others.
pub(crate) const NAMESPACES: [(&str, ThreadNameSpaceType); 7] = [
    ("user", ThreadNameSpaceType::USER),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("net", ThreadNameSpaceType::NETWORK),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("time", ThreadNameSpaceType::TIME),
];

/// All that differ from our own: the kernel refuses to join a user namespace that one is in already.
fn namespaces_to_join(pid: Pid) -> Result<ThreadNameSpaceType> {
    let mut joins = ThreadNameSpaceType::empty();
    for (name, kind) in NAMESPACES {
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
