//! Builds the container's root: mounts by fd, then masks, then the change of the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags, fsetxattr, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use wharf_rooted_path::RootDir;
use wharf_sys::mount::{Attributes, Change, Propagation, set_attributes};

use crate::RuntimeError;
use crate::bind_flags;
use crate::copy_up::copy_up;
use crate::devices::device_files;
use crate::label::{Labelling, labelling};
use crate::mount_options::Options;
use crate::plan::{MOUNT, MountSource, MountStep, Plan, Shown};
use crate::report::{Failure, Step};

/// Builds the root, goes into it, and leaves nothing of the host's behind. `before` is done when all is mounted and
/// the host's root is still this process's.
pub(crate) fn file_system(
    plan: &Plan,
    rootfs: BorrowedFd<'_>,
    before: impl FnOnce() -> Step<()>,
) -> Step<Option<(OwnedFd, OwnedFd)>> {
    let host = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Failure::at("open the host's root"))?;
    // In a mount table that others use too the root and what is on it stay detached, and appear in nobody's.
    let own = plan.namespaces.mount;
    if own {
        // Slave, not private: what the host unmounts goes here too, so that nothing of it is held by us.
        let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
        set_attributes(host.as_fd(), true, slave).map_err(Failure::at("cut off the host's mounts"))?;
        let at = |path: &Path| move_mount(rootfs, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        match at(&plan.rootfs_at) {
            // Where the root of a user namespace may not go; hooks will not find it by its path then.
            Err(Errno::ACCESS) => at(Path::new("/")),
            done => done,
        }
        .map_err(Failure::at("attach the root file system"))?;
    }
    // A shared one could not become the root, and what is mounted here would show on the host.
    let (propagation, recursive) = plan.propagation;
    let at_first = if propagation == Propagation::Slave { Propagation::Slave } else { Propagation::Private };
    set_attributes(rootfs, true, Change { propagation: Some(at_first), ..Change::default() })
        .map_err(Failure::at("cut off the root file system"))?;
    let root = rootfs.try_clone_to_owned().map_err(|_| Failure::Step("hold the root".into(), Errno::MFILE))?;
    let root = RootDir::from_fd(root);
    for step in &plan.mounts {
        mount(&root, step, plan)?;
    }
    let terminal = device_files(&root, plan)?;
    for place in &plan.sealed {
        let fail = || Failure::at(format!("make `{}` read-only", place.display()));
        let mount = root.handle(place).map_err(|e| fail()(e.errno))?;
        let readonly = Change { set: Attributes::RDONLY, ..Change::default() };
        set_attributes(mount.as_fd(), false, readonly).map_err(fail())?;
    }
    confine(&root, plan)?;
    make_cwd(&root, &plan.process.cwd)?;
    if plan.readonly_root {
        // Last, as the places for the mounts had to be made.
        let readonly = Change { set: Attributes::RDONLY, ..Change::default() };
        set_attributes(root.as_fd(), false, readonly).map_err(Failure::at("make the root read-only"))?;
    }
    rustix::process::fchdir(&root).map_err(Failure::at("enter the root"))?;
    before()?;
    if !own {
        if let Some(other) = plan.joins.iter().find(|join| join.kind == MOUNT) {
            rustix::thread::move_into_link_name_space(other.fd.as_fd(), None)
                .map_err(Failure::at("join the mnt namespace"))?;
            // Which has led to that one's root.
            rustix::process::fchdir(&root).map_err(Failure::at("enter the root"))?;
        }
        rustix::process::chroot(".").map_err(Failure::at("change the root"))?;
        return Ok(terminal);
    }
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is unmounted.
    rustix::process::pivot_root(".", ".").map_err(Failure::at("change the root"))?;
    rustix::process::fchdir(&host).map_err(Failure::at("leave the host's root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Failure::at("unmount the host's root"))?;
    rustix::process::chdir("/").map_err(Failure::at("enter the new root"))?;
    if propagation != at_first {
        set_attributes(root.as_fd(), recursive, Change { propagation: Some(propagation), ..Change::default() })
            .map_err(Failure::at("set the propagation of the root"))?;
    }
    Ok(terminal)
}

fn mount(root: &RootDir, step: &MountStep, plan: &Plan) -> Step<()> {
    let own = plan.namespaces.mount;
    let shown = step.destination.display();
    let fail = || Failure::at(format!("mount `{shown}`"));
    // What the kernel tells belongs where it is looked for, not where an image's link leads (CVE-2019-19921,
    // CVE-2026-41579).
    let kernel_s = matches!(&step.source, MountSource::New { kind, .. } if kind == "proc" || kind == "sysfs");
    if (kernel_s || step.destination == Path::new("/dev"))
        && root
            .metadata(&step.destination, false)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
    {
        let text = format!("mount `{shown}`, which must be mounted on ordinary directory");
        return Err(Failure::Step(text, Errno::NOTDIR));
    }
    let tree = match &step.source {
        MountSource::New { made: Some(made), .. } => return attach(root, step, made.as_fd(), own),
        MountSource::New { kind, source, made: None } => {
            let fresh = new_mount(kind, source, step).and_then(|fresh| {
                if kind == "tmpfs" {
                    in_place_of(root, step, &fresh)?;
                }
                Ok(fresh)
            });
            match fresh {
                // sysfs belongs to the owner of the network namespace, and an ordinary user has no other; the host's own,
                // read-only, is what is left.
                Err(Errno::PERM) if kind == "sysfs" && plan.in_user_namespace() => host_sysfs().map_err(fail())?,
                done => done.map_err(fail())?,
            }
        }
        MountSource::Tree { tree, .. } => {
            return attach(root, step, tree.as_fd(), own);
        }
        MountSource::Late { source, .. } => {
            let tree = open_here(source, step.options.recursive).map_err(fail())?;
            let Options { recursive_set, recursive_clear, .. } = step.options;
            if let Some(change) = bind_flags::change(&step.options, true) {
                set_attributes(tree.as_fd(), false, change).map_err(fail())?;
            }
            let below = Change { set: recursive_set, clear: recursive_clear, ..Change::default() };
            set_attributes(tree.as_fd(), true, below).map_err(fail())?;
            tree
        }
        MountSource::Groups(groups) => {
            let top = new_mount("tmpfs", "cgroup", step).map_err(fail())?;
            if own {
                attach(root, step, top.as_fd(), own)?;
            }
            let below = RootDir::from_fd(top);
            // A tmpfs is everybody's otherwise.
            below.set_mode("", 0o755).map_err(|e| fail()(e.errno))?;
            for (name, shown) in groups {
                let late;
                let tree = match shown {
                    Shown::Tree(tree) => tree,
                    Shown::Late(path) => {
                        late = open_group(path, step.options.set).map_err(fail())?;
                        &late
                    }
                };
                let target = below.mkdir_all(name, 0o755).map_err(|e| fail()(e.errno))?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                move_mount(tree, "", &target, "", flags).map_err(fail())?;
            }
            let readonly = Change { set: step.options.set, ..Change::default() };
            set_attributes(below.as_fd(), false, readonly).map_err(fail())?;
            return if own { Ok(()) } else { attach(root, step, below.as_fd(), own) };
        }
    };
    attach(root, step, tree.as_fd(), own)
}

const fn directory_of(source: &MountSource) -> bool {
    match source {
        MountSource::Tree { directory, .. } | MountSource::Late { directory, .. } => *directory,
        _ => true,
    }
}

/// A detached copy of what is at a path of the host's, in this process's own mounts: the only ones of which an ordinary
/// user may make copies.
pub(crate) fn open_here(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

fn open_group(path: &Path, set: Attributes) -> Result<OwnedFd, Errno> {
    let tree = open_here(path, false)?;
    set_attributes(tree.as_fd(), false, Change { set, ..Change::default() })?;
    Ok(tree)
}

/// A tmpfs is as accessible as the directory that it covers, if nothing else is asked, and may begin with its contents.
fn in_place_of(root: &RootDir, step: &MountStep, tmpfs: &OwnedFd) -> Result<(), Errno> {
    let Ok(covered) = root.open_dir(&step.destination) else { return Ok(()) };
    let errno = |error: wharf_rooted_path::RootError| error.errno;
    let fresh = RootDir::from_fd(tmpfs.try_clone().map_err(|_| Errno::MFILE)?);
    let given = |key: &str| step.options.data.iter().any(|(name, _)| name == key);
    let stat = covered.metadata("", true).map_err(errno)?;
    // Options that are there already may forbid writing.
    let writable = !step.options.set.contains(Attributes::RDONLY);
    if !writable {
        let clear = Change { clear: Attributes::RDONLY, ..Change::default() };
        set_attributes(tmpfs.as_fd(), false, clear)?;
    }
    if !given("mode") {
        fresh.set_mode("", stat.st_mode & 0o7777).map_err(errno)?;
    }
    if step.options.copy_up {
        if !given("uid") && !given("gid") {
            fresh.set_owner("", stat.st_uid, stat.st_gid).map_err(errno)?;
        }
        copy_up(&covered, &fresh)?;
    }
    if !writable {
        set_attributes(tmpfs.as_fd(), false, Change { set: Attributes::RDONLY, ..Change::default() })?;
    }
    Ok(())
}

/// Puts a detached mount where it belongs; the place is made if it is missing. `own`: the root is in a mount table of
/// this process's own.
fn attach(root: &RootDir, step: &MountStep, tree: BorrowedFd<'_>, own: bool) -> Step<()> {
    let shown = step.destination.display();
    let fail = |errno| Failure::at(format!("mount on `{shown}`"))(errno);
    let inside = || Failure::Step(format!("mount on `{shown}`, which is procfs or inside of it"), Errno::PERM);
    let target = root.mount_point(&step.destination, directory_of(&step.source)).map_err(|e| match e.errno {
        // Nothing is made there; of "no such file" engines make that the program is missing.
        Errno::NOENT if step.destination.starts_with("/proc") => inside(),
        errno => fail(errno),
    })?;
    let is_instead = || Ok(is_procfs(&target)? && !may_hide(&step.destination) || is_place_of_procfs(root, &target));
    if !is_procfs(tree).map_err(fail)? && is_instead().map_err(fail)? {
        // Wherever a link of the image has led.
        return Err(inside());
    }
    let (propagation, recursive) = step.options.propagation.unwrap_or((Propagation::Private, true));
    let change = Change { propagation: Some(propagation), ..Change::default() };
    if !own {
        // What is on a detached root cannot be changed any more (mount_setattr(2)).
        set_attributes(tree, recursive, change).map_err(fail)?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", &target, "", flags).map_err(|errno| of_other_kind(errno, step, tree, target.as_fd()))?;
    if own { set_attributes(tree, recursive, change).map_err(fail) } else { Ok(()) }
}

/// What engines tell their users of a directory on a file, or the other way round, hangs on `ENOTDIR`, which mount(2)
/// gives for it and move_mount(2) does not. Docker's client takes "is a directory" for a program that is none.
fn of_other_kind(errno: Errno, step: &MountStep, tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Failure {
    let shown = step.destination.display();
    let is_directory = |fd| {
        let stat = rustix::fs::fstat(fd);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    };
    let (what, on) = match (is_directory(tree), is_directory(target)) {
        (true, false) => ("a directory", "the file"),
        (false, true) => ("a file", "the directory"),
        _ => return Failure::Step(format!("mount on `{shown}`"), errno),
    };
    Failure::Step(format!("mount {what} on {on} `{shown}`"), Errno::NOTDIR)
}

/// Whether it is the directory on which procfs goes, or went: what masks and read-only paths are about, and what is
/// written to procfs, is there.
fn is_place_of_procfs(root: &RootDir, target: impl AsFd) -> bool {
    let Ok(place) = root.open_dir("/proc") else { return false };
    let ids = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((ids(place.as_fd()), ids(target.as_fd())), (Ok(place), Ok(target)) if place == target)
}

/// linux/magic.h, `PROC_SUPER_MAGIC`.
const PROC_MAGIC: i64 = 0x9fa0;
/// What stands in for files of procfs, as LXCFS does; runc allows these (`checkProcMount`).
const STANDING_IN: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

#[allow(clippy::unnecessary_cast)]
pub(crate) fn is_procfs(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64 == PROC_MAGIC)
}

/// Writes to a file of this process's own procfs, whose place another file system may have been mounted on: a mapping or a
/// kernel parameter that went elsewhere would count as set.
///
/// # Errors
/// As open(2) and write(2); `ENOTSUP` for what is no file of procfs.
pub(crate) fn write_procfs(path: &Path, text: &str) -> crate::Result<()> {
    let fail = |errno| RuntimeError::host("write", path, errno);
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    if !is_procfs(&file).map_err(fail)? {
        return Err(fail(Errno::NOTSUP));
    }
    // All in one call: these files take no part of it.
    rustix::io::write(&file, text.as_bytes()).map(drop).map_err(fail)
}

fn may_hide(destination: &Path) -> bool {
    STANDING_IN.iter().any(|allowed| destination == Path::new(allowed))
}

pub(crate) fn new_mount(kind: &str, source: &str, step: &MountStep) -> Result<OwnedFd, Errno> {
    configure(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?, kind, source, step)
}

/// A procfs of a PID namespace that this process is not in (Linux 6.17).
pub(crate) fn procfs_of(namespace: BorrowedFd<'_>, source: &str, step: &MountStep) -> Result<OwnedFd, Errno> {
    let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_fd(&fs, "pidns", namespace)?;
    configure(fs, "proc", source, step)
}

fn configure(fs: OwnedFd, kind: &str, source: &str, step: &MountStep) -> Result<OwnedFd, Errno> {
    // What `df` and /proc/mounts call it.
    fsconfig_set_string(&fs, "source", source)?;
    for (key, value) in &step.options.data {
        match value {
            Some(value) => fsconfig_set_string(&fs, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&fs, key.as_str())?,
        }
    }
    let label = step.options.label.as_deref();
    let labelling = label.map_or(Labelling::None, |_| labelling(kind));
    // Who has given one to this mount means that one.
    let given = step.options.data.iter().any(|(key, _)| key == "context");
    if let (Some(label), Labelling::Option, false) = (label, labelling, given) {
        fsconfig_set_string(&fs, "context", label)?;
    }
    fsconfig_create(&fs)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    if let (Some(label), Labelling::Attribute) = (label, labelling) {
        let top = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        fsetxattr(&top, "security.selinux", label.as_bytes(), XattrFlags::empty())?;
    }
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

/// The host's own will do where the PID namespace is the host's, of which a user namespace gets no procfs: it is what it
/// says, and what is mounted inside is not entered.
fn procfs_to_write() -> Result<OwnedFd, Errno> {
    let new = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|fs| {
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    if !matches!(new, Err(Errno::PERM)) {
        return new;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let host = rustix::fs::open("/proc", flags, Mode::empty())?;
    if is_procfs(&host)? { Ok(host) } else { Err(Errno::PERM) }
}

/// Kernel parameters, masks and read-only paths: after this the container's view is what it will be.
fn confine(root: &RootDir, plan: &Plan) -> Step<()> {
    if !plan.sysctls.is_empty() {
        // Through a procfs that nothing of the container is mounted on (CVE-2019-19921 and its kin).
        let proc = procfs_to_write().map_err(Failure::at("open procfs"))?;
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
            empty_directory(plan.mount_label.as_deref()).map_err(fail())?
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

fn empty_directory(label: Option<&str>) -> Result<OwnedFd, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(label) = label {
        fsconfig_set_string(&fs, "context", label)?;
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// A copy of the container's own `/dev/null`, which is checked to be that device and not something an image
/// put there (CVE-2025-31133); of the host's, where the configuration has mounted something else on it.
fn null_device(root: &RootDir) -> Result<OwnedFd, Errno> {
    let own = root.handle("dev/null").map_err(|e| e.errno);
    let null = match own.and_then(checked_null) {
        Ok(null) => null,
        Err(_) => checked_null(rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&null, "", flags)
}

fn checked_null(handle: OwnedFd) -> Result<OwnedFd, Errno> {
    let found = fstat(&handle)?;
    let is_null = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == rustix::fs::makedev(1, 3);
    if is_null { Ok(handle) } else { Err(Errno::NXIO) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_procfs_is_written_to_no_other_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("uid_map");
        std::fs::write(&file, "as it was").unwrap();
        let refused = write_procfs(&file, "0 0 1\n");
        assert!(matches!(refused, Err(RuntimeError::Host { errno: Errno::NOTSUP, .. })), "{refused:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"as it was");
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        write_procfs(Path::new("/proc/self/oom_score_adj"), own.trim()).unwrap();
    }
}
