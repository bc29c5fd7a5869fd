//! Between clone and exec: the container's first process sets itself up.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use wharf_cgroup::Entrance;

use crate::create::Stdio;
use crate::filter::SystemCalls;
use crate::hooks::{HookSet, Point};
use crate::identity::{become_id, become_program, find_program, set_ids, settle};
use crate::init;
use crate::joining::Joining;
use crate::mapping::roots_of;
use crate::plan::{MOUNT, Plan};
use crate::process::ProcessPlan;
use crate::report::{
    Failure, Step, send_ready, send_terminal, wait_at_gate, wait_for_go, wait_for_hooks, wait_for_start,
};
use crate::root::{file_system, open_here};

/// What the first process needs besides the plan.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// The connection to the parent.
    pub(crate) socket: BorrowedFd<'a>,
    /// Into its control group.
    pub(crate) entrance: Option<&'a Entrance>,
    pub(crate) rootfs: Option<BorrowedFd<'a>>,
    /// A root that only the child has the right to open.
    pub(crate) late_rootfs: Option<&'a Path>,
    pub(crate) stdio: &'a Stdio,
    pub(crate) init: bool,
    /// The program that an init goes on as.
    pub(crate) init_program: Option<BorrowedFd<'a>>,
    /// Where the start is waited for, if not at the parent's.
    pub(crate) gate: Option<BorrowedFd<'a>>,
    /// The process is in another user namespace than who has made the gate.
    pub(crate) other_user: bool,
    pub(crate) hooks: Option<HookSet<'a>>,
}

/// Into the control group before anything else: nothing of the container is ever outside of it.
pub(crate) fn go_into(entrance: Option<&Entrance>) -> Step<()> {
    let Some(entrance) = entrance else { return Ok(()) };
    entrance
        .enter()
        .map_err(|(file, errno)| Failure::Step(format!("join the control group at {}", file.display()), errno))
}

/// Runs in the child; the value is its exit status when the program could not be reached.
pub(crate) fn run(plan: &Plan, birth: &Birth<'_>) -> u8 {
    let mut visitor = None;
    match set_up(plan, birth, &mut visitor) {
        Err(failure) => {
            failure.send(visitor.as_ref().map_or(birth.socket, AsFd::as_fd));
            125
        }
        Ok(never) => match never {},
    }
}

fn set_up(plan: &Plan, birth: &Birth<'_>, visitor: &mut Option<OwnedFd>) -> Step<Infallible> {
    let socket = birth.socket;
    // Until the program runs nobody of the same user may look into this process (CVE-2016-9962). Without privileges its
    // parent is such a user, and has mappings to write; there is nothing here that is not that user's anyway.
    let undumpable = || {
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(Failure::at("become undumpable"))
    };
    if !plan.unprivileged {
        undumpable()?;
    }
    go_into(birth.entrance)?;
    let (number, sent) = wait_for_go(socket)?;
    if plan.unprivileged {
        undumpable()?;
    }
    plan.process.is_known_as(number);
    // A mount namespace is joined once the root is built, out of what is mounted in this one.
    for namespace in plan.joins.iter().filter(|namespace| namespace.kind != MOUNT) {
        rustix::thread::move_into_link_name_space(namespace.fd.as_fd(), None)
            .map_err(Failure::at(format!("join the {} namespace", namespace.kind)))?;
    }
    if plan.in_user_namespace() {
        let (uid, gid) = plan.root_ids.unwrap_or_else(|| roots_of("self"));
        if plan.process.keep_groups {
            set_ids(uid, gid)?;
        } else {
            become_id(uid, gid, &[])?;
        }
    }
    let joining = plan.late_pid.as_ref().map(|namespace| Joining::prepare(namespace.as_fd()));
    let label = match &plan.process.label {
        Some(label) => Some((label, label.open()?)),
        None => None,
    };
    if plan.cgroup_namespace {
        wharf_sys::process::unshare_cgroup().map_err(Failure::at("make a cgroup namespace"))?;
    }
    rustix::process::setsid().map_err(Failure::at("start a session"))?;
    new_keyring(&plan.process)?;
    let late = birth.late_rootfs.map(|path| open_here(path, true)).transpose().map_err(Failure::at("open the root"))?;
    let rootfs = sent.as_ref().or(late.as_ref()).map(AsFd::as_fd).or(birth.rootfs);
    let rootfs = rootfs.ok_or_else(|| Failure::Step("find the root file system".into(), Errno::NOENT))?;
    let hooks = |point: Point, status: &str| match birth.hooks {
        // The number that it has where the hook runs.
        Some(set) => set
            .run(point, status, rustix::process::getpid().as_raw_nonzero().get())
            .map_err(|error| Failure::Hook(error.to_string())),
        None => Ok(()),
    };
    let terminal = file_system(plan, rootfs, || {
        if birth
            .hooks
            .is_some_and(|set| !set.at(Point::Prestart).is_empty() || !set.at(Point::CreateRuntime).is_empty())
        {
            wait_for_hooks(socket)?;
        }
        hooks(Point::CreateContainer, "creating")
    })?;
    drop((sent, late));
    if let Some((label, file)) = label {
        // By this process, and not by one that it makes; what is run on the way to the program has been.
        label.write(&file)?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Failure::at("set the host name"))?;
    }
    if let Some(name) = &plan.domainname {
        wharf_sys::process::set_domain_name(name.as_bytes()).map_err(Failure::at("set the domain name"))?;
    }
    if plan.process.has_program() {
        find_program(&plan.process)?;
    }
    let (master, slave) = match terminal {
        Some((master, slave)) => (Some(master), Some(slave)),
        None => (None, None),
    };
    if let Some(joining) = joining {
        if let Some(master) = master {
            send_terminal(socket, master)?;
        }
        connect(birth.stdio, slave.as_ref())?;
        drop(slave);
        return joining.go(&plan.process, birth, || hooks(Point::StartContainer, "created"));
    }
    streams(birth.stdio, slave.as_ref())?;
    drop(slave);
    if !birth.init {
        settle(&plan.process)?;
    }
    send_ready(socket, master.as_ref())?;
    drop(master);
    if let Some(gate) = birth.gate {
        // Its parent will have gone: what that one held must not be held on here.
        let listener = plan.process.filter.as_ref().and_then(SystemCalls::fd);
        let kept = [gate.as_raw_fd(), listener.unwrap_or(gate.as_raw_fd())];
        wharf_sys::fds::close_all_but(3 + plan.process.preserve_fds, &kept)
            .map_err(Failure::at("close what is not inherited"))?;
        *visitor = Some(wait_at_gate(gate, birth.other_user)?);
    } else {
        wait_for_start(socket)?;
    }
    if birth.init {
        return init::become_init(&plan.process, socket, birth.init_program);
    }
    become_program(&plan.process, || hooks(Point::StartContainer, "created"))
}

/// The caller's keys are none of the container's (keyrings(7)).
pub(crate) fn new_keyring(process: &ProcessPlan) -> Step<()> {
    if process.keep_keyring {
        return Ok(());
    }
    match wharf_sys::process::join_new_session_keyring() {
        // A kernel without keys has none to share.
        Err(Errno::NOSYS) => Ok(()),
        done => done.map_err(Failure::at("make a session keyring")),
    }
}

/// The program's standard streams, and its terminal.
fn streams(stdio: &Stdio, terminal: Option<&OwnedFd>) -> Step<()> {
    if let Some(slave) = terminal {
        control(slave.as_fd())?;
    }
    connect(stdio, terminal)
}

/// Makes `terminal` that of this session.
pub(crate) fn control(terminal: BorrowedFd<'_>) -> Step<()> {
    rustix::process::ioctl_tiocsctty(terminal).map_err(Failure::at(STREAMS))
}

const STREAMS: &str = "connect the standard streams";

/// The standard streams.
pub(crate) fn connect(stdio: &Stdio, terminal: Option<&OwnedFd>) -> Step<()> {
    let fail = || Failure::at(STREAMS);
    let (stdin, stdout, stderr) = match (stdio, terminal) {
        (Stdio::Fds { stdin, stdout, stderr }, _) => (stdin, stdout, stderr),
        (Stdio::Terminal, Some(slave)) => (slave, slave, slave),
        (Stdio::Terminal, None) => return Err(Failure::Step("find the terminal".into(), Errno::NOTTY)),
    };
    rustix::stdio::dup2_stdin(stdin).map_err(fail())?;
    rustix::stdio::dup2_stdout(stdout).map_err(fail())?;
    rustix::stdio::dup2_stderr(stderr).map_err(fail())
}
