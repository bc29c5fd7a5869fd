//! The parent's side: make the process, do what only the parent can, wait until it is ready.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxPids, LinuxResources, Process, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};
use serde_json::Value;
use wharf_cgroup::{Group, Hierarchies};
use wharf_sys::process::Child;

use crate::bind_source::{BindSource, BindSources};
use crate::birth::bear;
use crate::capabilities;
use crate::child::{self, Birth};
use crate::default_filter::DefaultFilter;
use crate::entering::{GoBetween, reap_soon};
use crate::hooks::{HookSet, Point};
use crate::init;
use crate::mapping;
use crate::net_devices::{self, LentDevices, MovedDevices};
use crate::patience::Patience;
use crate::plan::{Join, Plan, plan};
use crate::process::ProcessPlan;
use crate::report::{Joined, ParentEnd};
use crate::root::write_procfs;
use crate::rootfs::Rootfs;
use crate::{Result, RuntimeError};

/// The program's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// These three, as fds 0, 1 and 2.
    Fds { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A terminal of the container's own; its master comes back in [`Created::terminal`]. Needs
    /// `process.terminal` in the configuration.
    Terminal,
}

/// Everything that makes a container.
#[derive(Debug)]
pub struct Launch<'a> {
    pub spec: &'a Spec,
    pub rootfs: Rootfs,
    /// Mounts of images among the layers of the root and of `binds`, as those count them. Any may be missing at the end.
    pub layers: &'a [BorrowedFd<'a>],
    /// Binds of the configuration that have another source than the one there.
    pub binds: &'a [BindSource],
    pub stdio: Stdio,
    /// A network namespace to join; one in the configuration is joined after it.
    pub netns: Option<BorrowedFd<'a>>,
    /// The control group to be born in, made and limited by the caller or by [`create`] from
    /// `linux.resources`.
    pub group: Option<&'a Group>,
    /// Instead of the configuration's seccomp section, which nobody looks at then.
    pub default_filter: Option<&'a DefaultFilter>,
    pub lifecycle: Lifecycle<'a>,
}

/// What a caller asks besides that follows the OCI lifecycle, in which create and start are two programs. The default
/// is nothing of it.
#[derive(Debug, Default)]
pub struct Lifecycle<'a> {
    /// A listening unix stream socket: the first process waits there until somebody calls [`start_at`], and not for
    /// its parent, which may end ([`Created::leave`]).
    pub gate: Option<BorrowedFd<'a>>,
    /// The container's state without `status` and `pid`, for who listens to its filter.
    pub state: Option<&'a Value>,
    /// Those up to the start are run; the later ones are the caller's.
    pub hooks: Option<HookSet<'a>>,
    /// Where hooks look for a root that is at no path: it is attached there, in the container's mount namespace alone.
    pub hooks_root: Option<&'a Path>,
    pub inheritance: Inheritance,
    /// A new time namespace without offsets is nobody's wish but a caller's default: where there may be no more of them
    /// (`user.max_time_namespaces`, namespaces(7)), or the caller may not come back to its own after making it, the
    /// container shares the caller's.
    pub time_is_optional: bool,
    /// A unix stream socket to who waits for the container. By a shutdown of the other end for writing (shutdown(2))
    /// that one calls off what has come to a standstill because somebody in a PID namespace that is joined wants it so.
    /// An end of the other end calls nothing off.
    pub caller: Option<BorrowedFd<'a>>,
    /// Is told of the first process as soon as there is one.
    pub born: Option<Born<'a>>,
}

impl Lifecycle<'_> {
    fn tell_born(&self, pid: Pid) -> Result<()> {
        self.born.map_or(Ok(()), |born| born.0(pid))
    }
}

/// What is called with the number of a container's first process before that goes on, so that the caller can write it
/// down: should the caller be killed, somebody else finds it. Called again with another one where that joins a PID
/// namespace. An error of its ends the creation.
#[derive(Clone, Copy)]
pub struct Born<'a>(pub &'a dyn Fn(Pid) -> Result<()>);

impl std::fmt::Debug for Born<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Born")
    }
}

/// What a program takes over from the caller. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inheritance {
    /// How many fds after the standard streams.
    pub fds: u32,
    /// The session keyring.
    pub keyring: bool,
    /// The supplementary groups, instead of those of the configuration.
    pub groups: bool,
}

/// A container whose first process waits for [`Created::start`]. Dropping it ends that process.
#[derive(Debug)]
pub struct Created {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master of the container's terminal.
    pub terminal: Option<OwnedFd>,
    /// Capabilities that the configuration asks for and the caller does not have to give.
    pub left_out: Vec<&'static str>,
    pub(crate) command: String,
    pub(crate) parent: ParentEnd,
    started: bool,
    /// Goes back to where it is from when the container does not come to be.
    devices: Option<MovedDevices>,
}

/// Makes a container; its first process is set up and waits before the user's program.
///
/// # Errors
/// When the configuration cannot be done, the host refuses a step, or the process fails at one; then nothing
/// stays but the control group, which is the caller's.
pub fn create(launch: Launch<'_>) -> Result<Created> {
    create_as(&launch, false)
}

/// As [`create`], but the first process is an init of this crate: a copy of the caller, confined as the program is,
/// that starts the program, passes signals on to it, reaps what is orphaned, and ends as the program does. Needs a
/// PID namespace of the container's own.
///
/// # Errors
/// As [`create`].
pub fn create_with_init(launch: Launch<'_>) -> Result<Created> {
    create_as(&launch, true)
}

fn create_as(launch: &Launch<'_>, init: bool) -> Result<Created> {
    let mut devices = None;
    match make(launch, init, &mut devices) {
        Ok(mut created) => {
            created.devices = devices;
            Ok(created)
        }
        Err(error) => Err(error.with(devices.map_or_else(Vec::new, MovedDevices::give_back))),
    }
}

/// `devices`: those that the container has got, whatever becomes of it.
fn make(launch: &Launch<'_>, init: bool, devices: &mut Option<MovedDevices>) -> Result<Created> {
    one_thread()?;
    let hierarchies = match launch.group {
        Some(group) => group.hierarchies().clone(),
        None => Hierarchies::detect()?,
    };
    let spec = launch.spec;
    if spec.process().is_none() && launch.lifecycle.gate.is_none() {
        return Err(RuntimeError::Invalid("there is no process to be started".into()));
    }
    let mut plan = plan(
        spec,
        &hierarchies,
        launch.group,
        launch.lifecycle.state,
        BindSources { all: launch.binds, layers: launch.layers },
        launch.default_filter,
    )?;
    plan.process.inherit(launch.lifecycle.inheritance);
    plan.process.scheduling.leave_out_exec();
    plan.time = plan.time.map(|time| time.optional(launch.lifecycle.time_is_optional));
    // In a user namespace of its own it has all.
    let left_out = if plan.in_user_namespace() { Vec::new() } else { plan.process.keep_to(capabilities::own()?) };
    if matches!(launch.stdio, Stdio::Terminal) != plan.process.terminal.is_some() {
        return Err(RuntimeError::Invalid("process.terminal and the streams that were given disagree".into()));
    }
    if let Some(netns) = launch.netns {
        let fd = netns.try_clone_to_owned().map_err(|e| {
            RuntimeError::host("duplicate", "network namespace", Errno::from_io_error(&e).unwrap_or(Errno::IO))
        })?;
        plan.namespaces.network = false;
        plan.joins.push(Join { kind: "net", fd });
    }
    let target = net_devices::joined(&plan)?;
    let linux = spec.linux().as_ref();
    let alone_at_last = plan.alone && plan.joins.iter().any(|join| join.kind == "pid");
    if let (Some(group), Some(resources)) = (launch.group, linux.and_then(|linux| linux.resources().as_ref())) {
        if alone_at_last {
            group.limit(&with_processes(resources.clone(), WITH_GO_BETWEEN))?;
        } else {
            group.limit(resources)?;
        }
    }
    if init && !plan.namespaces.pid {
        return Err(RuntimeError::Invalid("an init needs a PID namespace of the container's own".into()));
    }
    let seen_at = match &launch.rootfs {
        Rootfs::Directory(path) => Some(path.as_path()),
        _ => launch.lifecycle.hooks_root,
    };
    if let (Some(path), Some(hooks)) = (seen_at, launch.lifecycle.hooks)
        && [Point::Prestart, Point::CreateRuntime, Point::CreateContainer].iter().any(|at| !hooks.at(*at).is_empty())
    {
        plan.rootfs_at = path.to_owned();
    }
    let late_rootfs = match &launch.rootfs {
        Rootfs::Directory(path) if plan.unprivileged => Some(path.as_path()),
        _ => None,
    };
    let later = late_rootfs.is_some() || launch.rootfs.is_mapped() && plan.namespaces.user;
    let rootfs = if later { None } else { Some(launch.rootfs.mount(None, launch.layers)?) };
    // Kernel parameters of a network that is joined may be set before the clone, and may be a device's own.
    *devices = target.map(|netns| MovedDevices::carry(&plan.net_devices, netns)).transpose()?;
    let birth = launch.group.map(Group::birth_fd).transpose()?.flatten();
    let entrance = launch.group.map(|group| group.entrance(birth.is_none())).transpose()?;
    let (mut ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| RuntimeError::host("make", "socket", e))?;

    if let (Some(filter), Some(_)) = (&mut plan.process.filter, launch.lifecycle.gate) {
        filter.wait_at_gate();
    }
    let patience = Patience::of(&plan, launch)?;
    let init_program = if init { init::program_of_init(&plan.process) } else { None };
    let child = bear(&mut plan, birth.as_ref().map(AsFd::as_fd), |plan| {
        // With the parent's end open in the child too, the parent's death would not end the stream: the child's
        // copy of that fd becomes another of its own end.
        if rustix::io::dup2(&theirs, &mut ours).is_err() {
            return 125;
        }
        let birth = Birth {
            socket: theirs.as_fd(),
            entrance: entrance.as_ref(),
            rootfs: rootfs.as_ref().map(AsFd::as_fd),
            late_rootfs,
            stdio: &launch.stdio,
            init,
            init_program: init_program.as_ref().map(AsFd::as_fd),
            gate: launch.lifecycle.gate,
            other_user: plan.in_user_namespace(),
            hooks: launch.lifecycle.hooks,
        };
        child::run(plan, &birth)
    });
    let child = child.map_err(|error| in_group(error, launch.group))?;
    drop(theirs);
    let mut created = Created::new(child, plan.process.command.clone(), ParentEnd::new(ours));
    let alone = launch.group.filter(|_| alone_at_last);
    if let (Some(group), None) = (alone, &plan.late_pid) {
        leave_alone(group)?;
    }
    created.left_out = left_out;
    created.parent.be_patient(patience);
    let pid = created.pid.as_raw_nonzero().get();
    if devices.is_none() && !plan.net_devices.is_empty() {
        *devices = Some(MovedDevices::carry(&plan.net_devices, net_devices::network_of(pid)?)?);
    }
    launch.lifecycle.tell_born(created.pid)?;
    prepare(&mut created, launch, &plan)?;
    let hooks = || {
        let Some(set) = launch.lifecycle.hooks else { return Ok(()) };
        let process = created.pidfd.as_fd();
        set.run_beside(Point::Prestart, "creating", pid, process)?;
        Ok(set.run_beside(Point::CreateRuntime, "creating", pid, process)?)
    };
    if plan.late_pid.is_none() {
        created.terminal = created.parent.ready(&plan.process.command, hooks)?;
        return Ok(created);
    }
    let joined = created.parent.made(&plan.process.command, hooks).inspect_err(|_| {
        // With what it may have made that nobody has heard of, which is in its process group.
        let _ = kill_process_group(created.pid, Signal::KILL);
    })?;
    launch.lifecycle.tell_born(joined.child.pid)?;
    created.become_joined(joined, &plan.process, alone)?;
    Ok(created)
}

/// Room for the one process that may be there and, until it is, for who makes it ([`crate::joining`]): without that it
/// would be made in the sight of the others of its PID namespace.
const WITH_GO_BETWEEN: i64 = 2;

fn with_processes(mut resources: LinuxResources, limit: i64) -> LinuxResources {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    resources.set_pids(Some(pids));
    resources
}

/// The container's process is the only one from now on. It has not gone on yet.
fn leave_alone(group: &Group) -> Result<()> {
    Ok(group.limit(&with_processes(LinuxResources::default(), 1))?)
}

/// A group that takes no processes is named (cgroups(7), "no internal processes").
fn in_group(error: RuntimeError, group: Option<&Group>) -> RuntimeError {
    match (error, group) {
        (RuntimeError::Setup { step, errno: Errno::BUSY }, Some(group)) => {
            let step = format!("{step} in the control group `/{}`", group.path().display());
            RuntimeError::Setup { step, errno: Errno::BUSY }
        }
        (error, _) => error,
    }
}

/// Refuses a caller with more threads: see the crate's documentation.
pub(crate) fn one_thread() -> Result<()> {
    match fs::read_dir("/proc/self/task").map_or(1, Iterator::count) {
        0 | 1 => Ok(()),
        threads => Err(RuntimeError::Threads(threads)),
    }
}

/// What the child cannot do for itself; then it may go.
fn prepare(created: &mut Created, launch: &Launch<'_>, plan: &Plan) -> Result<()> {
    let pid = created.pid.as_raw_nonzero().get();
    if let Some(process) = launch.spec.process() {
        set_oom_score(pid, process)?;
    }
    if !plan.namespaces.user {
        return created.parent.go(pid, None);
    }
    let linux = launch.spec.linux().as_ref();
    let uids = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let gids = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    mapping::write_maps(pid, uids, gids, plan.unprivileged)?;
    if !launch.rootfs.is_mapped() {
        return created.parent.go(pid, None);
    }
    let path = format!("/proc/{pid}/ns/user");
    let userns = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| RuntimeError::host("open", path, e))?;
    let first =
        |list: &[LinuxIdMapping]| list.iter().find(|m| m.container_id() == 0).map_or(0, LinuxIdMapping::host_id);
    let root = (first(uids), first(gids));
    let rootfs = launch.rootfs.mount(Some((userns.as_fd(), root)), launch.layers)?;
    created.parent.go(pid, Some(rootfs.as_fd()))
}

/// `process.oomScoreAdj`; without it a process keeps its parent's.
pub(crate) fn set_oom_score(pid: i32, process: &Process) -> Result<()> {
    let Some(score) = process.oom_score_adj() else { return Ok(()) };
    match write_proc(pid, "oom_score_adj", &score.to_string()) {
        // 0 is what engines write for nothing in particular: a caller with a higher score may not lower it.
        Err(RuntimeError::Host { errno: Errno::ACCESS | Errno::PERM, .. }) if score == 0 => Ok(()),
        done => done,
    }
}

fn write_proc(pid: i32, file: &str, text: &str) -> Result<()> {
    write_procfs(Path::new(&format!("/proc/{pid}/{file}")), text)
}

impl Created {
    pub(crate) fn new(child: Child, command: String, parent: ParentEnd) -> Self {
        Self {
            pid: child.pid,
            pidfd: child.pidfd,
            terminal: None,
            left_out: Vec::new(),
            command,
            parent,
            started: false,
            devices: None,
        }
    }

    /// What was made was a go-between, which ends, and this is what it has made ([`crate::joining`]).
    fn become_joined(&mut self, joined: Joined, process: &ProcessPlan, alone: Option<&Group>) -> Result<()> {
        let pidfd = std::mem::replace(&mut self.pidfd, joined.child.pidfd);
        let between = GoBetween::new(Child { pid: self.pid, pidfd });
        (self.pid, self.terminal) = (joined.child.pid, joined.terminal);
        self.parent.outlast(between.as_fd())?;
        drop(between);
        alone.map_or(Ok(()), leave_alone)?;
        let number = self.pid.as_raw_nonzero().get();
        process.scheduling.schedule().map_or(Ok(()), |schedule| schedule.set(self.pid))?;
        if let (Some(filter), Some(decisions)) = (&process.filter, joined.decisions) {
            filter.hand_over(number, "creating", &decisions)?;
        }
        self.parent.go(number, None)?;
        self.parent.settle(&process.command)
    }

    /// Lets the first process become the user's program. Returns when it has.
    ///
    /// # Errors
    /// `CommandNotFound` (127), `NotExecutable` (126), or the step that failed (125); `Silent` and `CalledOff` where
    /// those in another container see it.
    pub fn start(mut self) -> Result<(Pid, OwnedFd, Option<OwnedFd>)> {
        match self.parent.start(&self.command).and_then(|()| self.parent.wait_for_exec(&self.command)) {
            Ok(()) => self.run(),
            Err(error) => Err(error.with(self.devices.take().map_or_else(Vec::new, MovedDevices::give_back))),
        }
    }

    /// The host's network devices that the container has, which are given back unless its program runs: for who leaves
    /// it at its gate ([`Created::leave`]), and has to do so then.
    pub fn lent_devices(&self) -> Option<&LentDevices> {
        self.devices.as_ref().map(MovedDevices::lent)
    }

    /// It has become its program.
    pub(crate) fn run(&mut self) -> Result<(Pid, OwnedFd, Option<OwnedFd>)> {
        self.started = true;
        let pidfd = self
            .pidfd
            .try_clone()
            .map_err(|e| RuntimeError::host("duplicate", "pidfd", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        Ok((self.pid, pidfd, self.terminal.take()))
    }

    /// Leaves the first process where it waits, at its gate. The value is the terminal's master.
    pub fn leave(mut self) -> Option<OwnedFd> {
        self.started = true;
        self.terminal.take()
    }
}

/// Lets a container's first process go on that waits at a gate, over a connection to it. Returns when it has become
/// `command`. `spec` is its configuration.
///
/// # Errors
/// As [`Created::start`], and `Vanished` when nobody waits there. After `Silent` the process is still there.
pub fn start_at(connection: OwnedFd, command: &str, spec: &Spec) -> Result<()> {
    let mut parent = ParentEnd::new(connection);
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    // An empty path is none, as in `plan`.
    let is_joined = |path: &Path| !path.as_os_str().is_empty();
    if namespaces
        .into_iter()
        .flatten()
        .any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().as_deref().is_some_and(is_joined))
    {
        let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
        parent.be_patient(Some(Patience::at_gate(hooks.is_some_and(|hooks| !hooks.is_empty()))));
    }
    parent.start(command)?;
    parent.wait_for_exec(command)
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.started {
            if let Some(devices) = self.devices.take() {
                devices.leave();
            }
            return;
        }
        // It may have ended by itself; either way it is waited for, so that no zombie stays.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if self.parent.is_at_mercy() {
            return reap_soon(self.pidfd.as_fd());
        }
        let id = rustix::process::WaitId::PidFd(self.pidfd.as_fd());
        let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_takes_nobody_is_named() {
        let Ok(hierarchies) = Hierarchies::detect() else { return eprintln!("skipped: no control groups") };
        let group = Group::open(&hierarchies, "/some/where").unwrap();
        let error = |errno| RuntimeError::Setup { step: "make the container's process".into(), errno };
        let told = in_group(error(Errno::BUSY), Some(&group)).to_string();
        assert!(told.starts_with("cannot make the container's process in the control group `/some/where`: "), "{told}");
        assert_eq!(in_group(error(Errno::PERM), Some(&group)).to_string(), error(Errno::PERM).to_string());
    }
}
