//! Between clone and exec: the container's first process sets itself up.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fstat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, unlockpt};
use rustix::thread::{CapabilitySet, CapabilitySets};
use wharf_rooted_path::RootDir;
use wharf_sys::mount::{Attributes, Change, Propagation, set_attributes};

use crate::create::Stdio;
use crate::init;
use crate::plan::{DEV_LINKS, DeviceStep, MountSource, MountStep, Plan, ProcessPlan};
use crate::report::{Failure, send_ready, wait_for_go, wait_for_start};

type Step<T> = Result<T, Failure>;

/// Runs in the child; the value is its exit status when the program could not be reached.
pub(crate) fn run(
    plan: &Plan,
    socket: BorrowedFd<'_>,
    rootfs: Option<BorrowedFd<'_>>,
    stdio: &Stdio,
    init: bool,
) -> u8 {
    match set_up(plan, socket, rootfs, stdio, init) {
        Err(failure) => {
            failure.send(socket);
            125
        }
        Ok(never) => match never {},
    }
}

fn set_up(
    plan: &Plan,
    socket: BorrowedFd<'_>,
    rootfs: Option<BorrowedFd<'_>>,
    stdio: &Stdio,
    init: bool,
) -> Step<std::convert::Infallible> {
    // Until the program runs nobody of the same user may look into this process (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(Failure::at("become undumpable"))?;
    let sent = wait_for_go(socket)?;
    let rootfs = sent.as_ref().map(AsFd::as_fd).or(rootfs);
    let rootfs = rootfs.ok_or_else(|| Failure::Step("find the root file system".into(), Errno::NOENT))?;
    for namespace in &plan.joins {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).map_err(Failure::at("join a namespace"))?;
    }
    if plan.namespaces.user {
        become_id(0, 0, &[])?;
    }
    if plan.cgroup_namespace {
        wharf_sys::process::unshare_cgroup().map_err(Failure::at("make a cgroup namespace"))?;
    }
    rustix::process::setsid().map_err(Failure::at("start a session"))?;
    let terminal = file_system(plan, rootfs)?;
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Failure::at("set the host name"))?;
    }
    if let Some(name) = &plan.domainname {
        wharf_sys::process::set_domain_name(name.as_bytes()).map_err(Failure::at("set the domain name"))?;
    }
    let (master, slave) = match terminal {
        Some((master, slave)) => (Some(master), Some(slave)),
        None => (None, None),
    };
    send_ready(socket, master.as_ref())?;
    drop(master);
    wait_for_start(socket)?;
    streams(stdio, slave.as_ref())?;
    if init {
        return init::become_init(&plan.process, socket);
    }
    become_program(&plan.process)
}

/// Builds the root, goes into it, and leaves nothing of the host's behind.
fn file_system(plan: &Plan, rootfs: BorrowedFd<'_>) -> Step<Option<(OwnedFd, OwnedFd)>> {
    let host = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Failure::at("open the host's root"))?;
    // Slave, not private: what the host unmounts goes here too, so that nothing of it is held by us.
    let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
    set_attributes(host.as_fd(), true, slave).map_err(Failure::at("cut off the host's mounts"))?;
    move_mount(rootfs, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Failure::at("attach the root file system"))?;
    let root = rootfs.try_clone_to_owned().map_err(|_| Failure::Step("hold the root".into(), Errno::MFILE))?;
    let root = RootDir::from_fd(root);
    for step in &plan.mounts {
        mount(&root, step, plan)?;
    }
    let terminal = device_files(&root, plan)?;
    confine(&root, plan)?;
    make_cwd(&root, &plan.process.cwd)?;
    if plan.readonly_root {
        // Last, as the places for the mounts had to be made.
        let readonly = Change { set: Attributes::RDONLY, ..Change::default() };
        set_attributes(root.as_fd(), false, readonly).map_err(Failure::at("make the root read-only"))?;
    }
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is unmounted.
    rustix::process::fchdir(&root).map_err(Failure::at("enter the root"))?;
    rustix::process::pivot_root(".", ".").map_err(Failure::at("change the root"))?;
    rustix::process::fchdir(&host).map_err(Failure::at("leave the host's root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Failure::at("unmount the host's root"))?;
    rustix::process::chdir("/").map_err(Failure::at("enter the new root"))?;
    Ok(terminal)
}

fn mount(root: &RootDir, step: &MountStep, plan: &Plan) -> Step<()> {
    let shown = step.destination.display();
    let fail = || Failure::at(format!("mount `{shown}`"));
    let tree = match &step.source {
        MountSource::New { kind, source } => {
            let fresh = new_mount(kind, source, step);
            match fresh {
                // sysfs belongs to the owner of the network namespace; the host's own, read-only, is what is left.
                Err(Errno::PERM) if kind == "sysfs" && plan.namespaces.user => host_sysfs().map_err(fail())?,
                done => done.map_err(fail())?,
            }
        }
        MountSource::Tree { tree, .. } => {
            return attach(root, step, tree.as_fd());
        }
        MountSource::Groups(groups) => {
            let top = new_mount("tmpfs", "cgroup", step).map_err(fail())?;
            attach(root, step, top.as_fd())?;
            let below = RootDir::from_fd(top);
            for (name, tree) in groups {
                let target = below.mkdir_all(name, 0o755).map_err(|e| fail()(e.errno))?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                move_mount(tree, "", &target, "", flags).map_err(fail())?;
            }
            let readonly = Change { set: step.options.set, ..Change::default() };
            return set_attributes(below.as_fd(), false, readonly).map_err(fail());
        }
    };
    attach(root, step, tree.as_fd())
}

/// Puts a detached mount where it belongs; the place is made if it is missing.
fn attach(root: &RootDir, step: &MountStep, tree: BorrowedFd<'_>) -> Step<()> {
    let shown = step.destination.display();
    let fail = |errno| Failure::at(format!("mount on `{shown}`"))(errno);
    let directory = match &step.source {
        MountSource::Tree { directory, .. } => *directory,
        _ => true,
    };
    let target = root.mount_point(&step.destination, directory).map_err(|e| fail(e.errno))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &target, "", flags).map_err(fail)?;
    let (propagation, recursive) = step.options.propagation.unwrap_or((Propagation::Private, true));
    let change = Change { propagation: Some(propagation), ..Change::default() };
    set_attributes(tree, recursive, change).map_err(fail)
}

fn new_mount(kind: &str, source: &str, step: &MountStep) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What `df` and /proc/mounts call it.
    fsconfig_set_string(&fs, "source", source)?;
    for (key, value) in &step.options.data {
        match value {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&fs, key.as_str())?,
        }
    }
    fsconfig_create(&fs)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // The v1 groups are mounted on their tmpfs first.
    let set = if matches!(step.source, MountSource::Groups(_)) { Attributes::default() } else { step.options.set };
    if !set.is_empty() {
        set_attributes(mount.as_fd(), false, Change { set, ..Change::default() })?;
    }
    Ok(mount)
}

fn host_sysfs() -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, "/sys", flags)?;
    let set = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    set_attributes(tree.as_fd(), true, Change { set, ..Change::default() })?;
    Ok(tree)
}

/// Nodes and links below `/dev`, and the terminal.
fn device_files(root: &RootDir, plan: &Plan) -> Step<Option<(OwnedFd, OwnedFd)>> {
    // Somebody else's /dev, most likely the host's, is left as it is: as runc.
    let foreign = plan.mounts.iter().any(|step| {
        let below = step.destination.components().filter(|part| matches!(part, Component::Normal(_)));
        matches!(step.source, MountSource::Tree { .. }) && below.eq([Component::Normal(OsStr::new("dev"))])
    });
    if !foreign {
        fill_dev(root, plan)?;
    }
    let Some(size) = plan.process.terminal else { return Ok(None) };
    let (master, slave) = pseudo_terminal(root, size)?;
    if foreign && root.handle("dev/console").is_err() {
        return Ok(Some((master, slave)));
    }
    let fail = || Failure::at("make the terminal");
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&slave, "", flags).map_err(fail())?;
    let console = root.mount_point("dev/console", false).map_err(|e| fail()(e.errno))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &console, "", flags).map_err(fail())?;
    Ok(Some((master, slave)))
}

fn fill_dev(root: &RootDir, plan: &Plan) -> Step<()> {
    for step in &plan.devices {
        device(root, step).map_err(Failure::at(format!("make `{}`", step.path.display())))?;
    }
    for (target, path) in DEV_LINKS {
        match root.symlink(OsStr::new(target), path) {
            Err(error) if error.errno != Errno::EXIST => {
                return Err(Failure::Step(format!("make `/{path}`"), error.errno));
            }
            _ => {}
        }
    }
    if root.metadata("dev/pts/ptmx", false).is_ok() {
        let _ = root.remove_file("dev/ptmx");
        root.symlink(OsStr::new("pts/ptmx"), "dev/ptmx")
            .map_err(|e| Failure::Step("make `/dev/ptmx`".into(), e.errno))?;
    }
    Ok(())
}

/// linux/magic.h, `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// A pair of the container's own terminals.
pub(crate) fn pseudo_terminal(root: &RootDir, (rows, columns): (u16, u16)) -> Step<(OwnedFd, OwnedFd)> {
    let fail = || Failure::at("make the terminal");
    let master = root
        .open_at("dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
        .map_err(|e| Failure::Step("make the terminal".into(), e.errno))?;
    // What the container has put in that place is not taken for one.
    #[allow(clippy::unnecessary_cast)]
    if rustix::fs::fstatfs(&master).map_err(fail())?.f_type as i64 != DEVPTS_MAGIC {
        return Err(Failure::Step("make the terminal".into(), Errno::NOTTY));
    }
    grantpt(&master).and_then(|()| unlockpt(&master)).map_err(fail())?;
    // By the master's own fd, not by a name that could be another's (CVE-2025-52565).
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(fail())?;
    if rows > 0 && columns > 0 {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).map_err(fail())?;
    }
    Ok((master, slave))
}

fn device(root: &RootDir, step: &DeviceStep) -> Result<(), Errno> {
    let errno = |error: wharf_rooted_path::RootError| error.errno;
    if let Some(host) = &step.host {
        let target = root.mount_point(&step.path, false).map_err(errno)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        return move_mount(host, "", &target, "", flags);
    }
    if let Some(parent) = step.path.parent() {
        root.mkdir_all(parent, 0o755).map_err(errno)?;
    }
    match root.mknod(&step.path, step.kind, step.mode, step.device) {
        // The image has it already: only the very same node will do.
        Err(error) if error.errno == Errno::EXIST => {
            let found = root.metadata(&step.path, false).map_err(errno)?;
            let same = FileType::from_raw_mode(found.st_mode) == step.kind && found.st_rdev == step.device;
            if !same {
                return Err(Errno::EXIST);
            }
        }
        made => made.map_err(errno)?,
    }
    root.set_mode(&step.path, step.mode).map_err(errno)?;
    root.set_owner(&step.path, step.owner.0, step.owner.1).map_err(errno)
}

/// Kernel parameters, masks and read-only paths: after this the container's view is what it will be.
fn confine(root: &RootDir, plan: &Plan) -> Step<()> {
    if !plan.sysctls.is_empty() {
        // Through a procfs that nothing of the container is mounted on (CVE-2019-19921 and its kin).
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(Failure::at("open procfs"))?;
        fsconfig_create(&fs).map_err(Failure::at("open procfs"))?;
        let proc =
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(Failure::at("open procfs"))?;
        for (path, value) in &plan.sysctls {
            let fail = |errno| Failure::Step(format!("set the kernel parameter `{}`", path.display()), errno);
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
            let fd = openat2(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(fail)?;
            rustix::io::write(&fd, value.as_bytes()).map_err(fail)?;
        }
    }
    for path in &plan.readonly {
        let fail = || Failure::at(format!("make `{}` read-only", path.display()));
        let Some(target) = there(root, path).map_err(fail())? else { continue };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&target, "", flags).map_err(fail())?;
        let readonly = Change { set: Attributes::RDONLY, ..Change::default() };
        set_attributes(tree.as_fd(), true, readonly).map_err(fail())?;
        cover(tree.as_fd(), target.as_fd()).map_err(fail())?;
    }
    for path in &plan.masked {
        let fail = || Failure::at(format!("mask `{}`", path.display()));
        let Some(target) = there(root, path).map_err(fail())? else { continue };
        let kind = fstat(&target).map_err(fail())?;
        let cloth = if FileType::from_raw_mode(kind.st_mode) == FileType::Directory {
            empty_directory().map_err(fail())?
        } else {
            null_device(root).map_err(fail())?
        };
        cover(cloth.as_fd(), target.as_fd()).map_err(fail())?;
    }
    Ok(())
}

/// What is not there needs no cover; what cannot be looked at is no reason to go on without one.
fn there(root: &RootDir, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match root.handle(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.errno),
    }
}

fn cover(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags)
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A copy of the container's own `/dev/null`, which is checked to be that device and not something an image
/// put there (CVE-2025-31133).
fn null_device(root: &RootDir) -> Result<OwnedFd, Errno> {
    let null = root.handle("dev/null").map_err(|e| e.errno)?;
    let found = fstat(&null)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || found.st_rdev != rustix::fs::makedev(1, 3)
    {
        return Err(Errno::NXIO);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&null, "", flags)
}

/// The working directory is made where it is missing, as Docker's users expect of `-w`.
fn make_cwd(root: &RootDir, cwd: &Path) -> Step<()> {
    match root.mkdir_all(cwd, 0o755) {
        // A read-only root that lacks it: the chdir will say so.
        Ok(_) => Ok(()),
        Err(error) if error.errno == Errno::ROFS => Ok(()),
        Err(error) => Err(Failure::Step(format!("make the working directory `{}`", cwd.display()), error.errno)),
    }
}

pub(crate) fn streams(stdio: &Stdio, terminal: Option<&OwnedFd>) -> Step<()> {
    let fail = || Failure::at("connect the standard streams");
    let (stdin, stdout, stderr) = match (stdio, terminal) {
        (Stdio::Fds { stdin, stdout, stderr }, _) => (stdin, stdout, stderr),
        (Stdio::Terminal, Some(slave)) => {
            rustix::process::ioctl_tiocsctty(slave).map_err(fail())?;
            (slave, slave, slave)
        }
        (Stdio::Terminal, None) => return Err(Failure::Step("find the terminal".into(), Errno::NOTTY)),
    };
    rustix::stdio::dup2_stdin(stdin).map_err(fail())?;
    rustix::stdio::dup2_stdout(stdout).map_err(fail())?;
    rustix::stdio::dup2_stderr(stderr).map_err(fail())
}

/// Takes on the program's identity and confinement, and becomes the program.
pub(crate) fn become_program(process: &ProcessPlan) -> Step<std::convert::Infallible> {
    take_identity(process, true)?;
    let mut denied = None;
    for path in &process.candidates {
        match wharf_sys::process::execve(path, &process.arguments, &process.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS if process.candidates.len() > 1 => denied = Some(Errno::ACCESS),
            errno => return Err(Failure::NotExecutable(errno)),
        }
    }
    Err(denied.map_or(Failure::NotFound, Failure::NotExecutable))
}

/// Takes on the program's identity and confinement, in the one order in which each step still has the right to be
/// done. `program`: and what only the program itself needs, its directory, its signals, its fds.
pub(crate) fn take_identity(process: &ProcessPlan, program: bool) -> Step<()> {
    for (resource, limit) in &process.rlimits {
        rustix::process::setrlimit(*resource, *limit)
            .map_err(Failure::at(format!("set the resource limit {resource:?}")))?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if process.bounding & (1 << bit) == 0 {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                // No such capability in this kernel.
                Err(Errno::INVAL) => break,
                done => done.map_err(Failure::at("drop a capability"))?,
            }
        }
    }
    if !process.no_new_privileges {
        // Only with CAP_SYS_ADMIN, so before it goes.
        install_filter(process)?;
    }
    rustix::thread::set_keep_capabilities(true).map_err(Failure::at("keep capabilities"))?;
    become_id(process.uid, process.gid, &process.groups)?;
    rustix::thread::set_keep_capabilities(false).map_err(Failure::at("keep capabilities"))?;
    if program {
        enter_cwd(&process.cwd)?;
    }
    // The exec of who is not root leaves it the ambient ones alone (capabilities(7)): so what does not exec.
    let kept = if program || process.uid == 0 { u64::MAX } else { process.ambient };
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(process.effective & kept),
        permitted: CapabilitySet::from_bits_retain(process.permitted & kept),
        inheritable: CapabilitySet::from_bits_retain(process.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(Failure::at("set the capabilities"))?;
    rustix::thread::clear_ambient_capability_set().map_err(Failure::at("clear the ambient capabilities"))?;
    for bit in (0..64).filter(|bit| process.ambient & (1 << bit) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .map_err(Failure::at("set an ambient capability"))?;
    }
    if program {
        wharf_sys::process::reset_signals().map_err(Failure::at("reset the signals"))?;
        wharf_sys::fds::close_on_exec_from(3).map_err(Failure::at("close what is not inherited"))?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::at("forbid new privileges"))?;
        install_filter(process)?;
    }
    Ok(())
}

/// As the user, so that a directory that the user may not enter is not entered.
fn enter_cwd(cwd: &Path) -> Step<()> {
    rustix::process::chdir(cwd).map_err(Failure::at(format!("enter the working directory `{}`", cwd.display())))?;
    let here = rustix::process::getcwd(Vec::new()).map_err(Failure::at("find the working directory"))?;
    if !here.to_bytes().starts_with(b"/") {
        // Outside of the root (CVE-2024-21626).
        return Err(Failure::Step("stay inside the root".into(), Errno::XDEV));
    }
    Ok(())
}

fn install_filter(process: &ProcessPlan) -> Step<()> {
    match &process.filter {
        Some(filter) => wharf_sys::seccomp::install(filter, false).map_err(Failure::at("install the seccomp filter")),
        None => Ok(()),
    }
}

/// Groups first, then the group, then the user: after that the right to change them is gone.
pub(crate) fn become_id(uid: u32, gid: u32, groups: &[u32]) -> Step<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(Failure::at("set the supplementary groups"))?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(Failure::at("set the group"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(Failure::at("set the user"))
}
