//! The child's side of an exec: into the container, and on as its first process did.
//!
//! Two processes, one after the other. The first joins the container from outside of its PID namespace, where nobody in
//! the container sees it, closes all that is the host's, and gives away what the program will not have: capabilities,
//! user, limits, and what its filter refuses. Only then does it make the second one, inside: by the time that the
//! container can see it, with `CAP_SYS_PTRACE` take it over, it is nothing more than its program will be (CVE-2016-9962,
//! and its kin with more capabilities).
//!
//! A filter that judges what the second one has still to call ([`SystemCalls::permits_what_is_left`]) comes after that;
//! without no-new-privileges the process keeps `CAP_SYS_ADMIN` for it.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use wharf_cgroup::Entrance;
use wharf_rooted_path::RootDir;
use wharf_sys::fds;
use wharf_sys::process::clone_sibling;

use crate::child::{connect, control, go_into, new_keyring};
use crate::create::Stdio;
use crate::devices::pseudo_terminal;
use crate::filter::SystemCalls;
use crate::identity::{Ahead, become_id, find_program, set_ids, settle_ahead};
use crate::process::ProcessPlan;
use crate::report::{Failure, send_made, send_ready, send_terminal, wait_for_go, wait_for_start};

/// What the first process needs.
pub(crate) struct Entry<'a> {
    pub(crate) process: &'a ProcessPlan,
    /// Namespaces of the container that are not the host's.
    pub(crate) joins: ThreadNameSpaceType,
    /// The container's first process.
    pub(crate) container: BorrowedFd<'a>,
    /// Its namespaces, where that one may not be joined itself ([`crate::sight`]).
    pub(crate) namespaces: &'a [OwnedFd],
    /// Its root.
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) socket: BorrowedFd<'a>,
    /// Into the container's control group, where its child will be too.
    pub(crate) entrance: Option<&'a Entrance>,
    pub(crate) stdio: &'a Stdio,
    /// Whether groups may be set in the container's user namespace: its own procfs will not tell the first process.
    pub(crate) setgroups: bool,
    /// Who sets up in the container's user namespace, as [`crate::mapping::roots_of`] has it.
    pub(crate) roots: (u32, u32),
}

/// Runs as the first process; the value is its exit status.
pub(crate) fn run(entry: &Entry<'_>) -> u8 {
    match enter(entry) {
        Ok(()) => 0,
        Err(failure) => {
            failure.send(entry.socket);
            125
        }
    }
}

fn enter(entry: &Entry<'_>) -> Result<(), Failure> {
    // By its process group the parent finds the second process where it was not told of it.
    rustix::process::setpgid(None, None).map_err(Failure::at("start a process group"))?;
    // The second process inherits it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Failure::at("become undumpable"))?;
    entry.process.scheduling.begin()?;
    go_into(entry.entrance)?;
    wait_for_go(entry.socket)?;
    if let Some(label) = &entry.process.label {
        // By the host's procfs: the container's will not tell of this process. The child inherits it.
        label.apply()?;
    }
    let filter = entry.process.filter.as_ref();
    let late = filter.filter(|filter| !filter.permits_what_is_left()).and_then(SystemCalls::fd);
    let mut kept = vec![entry.socket.as_raw_fd(), entry.container.as_raw_fd(), entry.root.as_raw_fd()];
    if let Stdio::Fds { stdin, stdout, stderr } = entry.stdio {
        kept.extend([stdin, stdout, stderr].map(AsRawFd::as_raw_fd));
    }
    kept.extend(late);
    kept.extend(entry.namespaces.iter().map(AsRawFd::as_raw_fd));
    fds::close_all_but(3 + entry.process.preserve_fds, &kept).map_err(Failure::at("close what is the host's"))?;
    // A PID namespace takes only children: this process stays outside of it.
    let all = entry.joins | ThreadNameSpaceType::PROCESS_ID;
    match entry.namespaces {
        [] => move_into_thread_name_spaces(entry.container, all),
        some => some.iter().try_for_each(|one| move_into_link_name_space(one.as_fd(), None)),
    }
    .map_err(Failure::at("join the container"))?;
    if entry.joins.contains(ThreadNameSpaceType::USER) {
        let (uid, gid) = entry.roots;
        if entry.setgroups && !entry.process.keep_groups {
            become_id(uid, gid, &[])?;
        } else {
            set_ids(uid, gid)?;
        }
    }
    go_to_root(entry.root)?;
    new_keyring(entry.process)?;
    let slave = match entry.process.terminal {
        Some(size) => {
            let root = RootDir::open("/").map_err(|e| Failure::Step("open the root".into(), e.errno))?;
            let (master, slave) = pseudo_terminal(&root, size)?;
            send_terminal(entry.socket, master)?;
            Some(slave)
        }
        None => None,
    };
    connect(entry.stdio, slave.as_ref())?;
    drop(slave);
    let kept: Vec<i32> = [entry.socket.as_raw_fd()].into_iter().chain(late).collect();
    fds::close_all_but(3 + entry.process.preserve_fds, &kept)
        .map_err(Failure::at("close what is not the program's"))?;
    let ahead = settle_ahead(entry.process, entry.setgroups, entry.socket)?;
    let child = clone_sibling(|| match inside(entry, ahead) {
        Err(failure) => {
            failure.send(entry.socket);
            125
        }
        Ok(never) => match never {},
    });
    let child = child.map_err(Failure::at("make a process in the container"))?;
    send_made(entry.socket, &child)
}

/// To join a mount namespace is to go to its root; a container without one of its own has another.
fn go_to_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let fail = || Failure::at("find the container's root");
    let mount = |dir: BorrowedFd<'_>, path: &str, flags| {
        statx(dir, path, flags, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id).map_err(fail())
    };
    if mount(root, "", AtFlags::EMPTY_PATH)? == mount(CWD, "/", AtFlags::empty())? {
        return Ok(());
    }
    let fail = || Failure::at("change to the container's root");
    rustix::process::fchdir(root).map_err(fail())?;
    rustix::process::chroot(".").map_err(fail())
}

/// The second process.
fn inside(entry: &Entry<'_>, ahead: Ahead) -> Result<Infallible, Failure> {
    // The parent has heard of it: two may not speak at once.
    let (number, _) = wait_for_go(entry.socket)?;
    entry.process.is_known_as(number);
    rustix::process::setsid().map_err(Failure::at("start a session"))?;
    if entry.process.terminal.is_some() {
        control(rustix::stdio::stdin())?;
    }
    find_program(entry.process)?;
    ahead.settle(entry.process)?;
    send_ready(entry.socket, None)?;
    wait_for_start(entry.socket)?;
    ahead.become_program(entry.process, || Ok(()))
}
