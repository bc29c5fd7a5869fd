//! Nodes and links below `/dev`, and the container's terminal.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, chownat, mknodat, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, unlockpt};
use wharf_rooted_path::RootDir;

use crate::nodes::{DEV_LINKS, DeviceStep, HostNode};
use crate::plan::{MountSource, Plan};
use crate::report::{Failure, Step};
use crate::root::open_here;

/// Nodes and links below `/dev`, and the terminal.
pub(crate) fn device_files(root: &RootDir, plan: &Plan) -> Step<Option<(OwnedFd, OwnedFd)>> {
    // Somebody else's /dev, most likely the host's, is left as it is: as runc.
    let foreign = plan.mounts.iter().any(|step| {
        let below = step.destination.components().filter(|part| matches!(part, Component::Normal(_)));
        matches!(step.source, MountSource::Tree { .. } | MountSource::Late { .. })
            && below.eq([Component::Normal(OsStr::new("dev"))])
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
    let has_ptmx = root.metadata("dev/pts/ptmx", false).is_ok();
    // A link takes the place of one that is listed, as with runc: a node that is bound could not be removed for it.
    let listed = |step: &&DeviceStep| !has_ptmx || step.path != Path::new("/dev/ptmx");
    for step in plan.devices.iter().filter(listed) {
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
    if has_ptmx {
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
        let late = match host {
            HostNode::Open(_) => None,
            HostNode::Late => {
                let node = open_here(&step.path, false)?;
                step.check(&node)?;
                Some(node)
            }
        };
        let host = match host {
            HostNode::Open(open) => Some(open),
            HostNode::Late => late.as_ref(),
        };
        let host = host.ok_or(Errno::NOENT)?;
        let target = root.mount_point(&step.path, false).map_err(errno)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        return move_mount(host, "", &target, "", flags);
    }
    if let Some(parent) = step.path.parent() {
        root.mkdir_all(parent, 0o755).map_err(errno)?;
    }
    let (parent, name) = root.open_parent(&step.path).map_err(errno)?;
    match mknodat(&parent, name.as_os_str(), step.kind, Mode::from_raw_mode(step.mode), step.device) {
        // The image has it already.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // The directory may be one that others write to as well, a volume: what has that name now is held, looked at, and given
    // its mode and owner as held. Only the very same node will do.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(&parent, name.as_os_str(), flags, Mode::empty())?;
    step.check(&node).map_err(|_| Errno::EXIST)?;
    // chmod has no form for a handle before Linux 6.6; the root is still the host's here.
    chmodat(CWD, RootDir::proc_path_of(&node), Mode::from_raw_mode(step.mode), AtFlags::empty())?;
    let (uid, gid) = (Uid::from_raw(step.owner.0), Gid::from_raw(step.owner.1));
    chownat(&node, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{FileType, RenameFlags, renameat_with};

    use super::*;

    #[test]
    fn a_node_whose_name_is_swapped_changes_nothing_of_what_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        // By what does not change.
        let inode = std::fs::metadata(&victim).unwrap().ino();
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let path = std::path::PathBuf::from("/node");
        let step = DeviceStep { path, kind: FileType::Fifo, mode: 0o666, device: 0, owner: own, host: None };
        let root = RootDir::open(dir.path()).unwrap();
        device(&root, &step).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    renameat_with(&root, "node", &root, "victim", RenameFlags::EXCHANGE).unwrap();
                }
            });
            let made: Vec<_> = (0..5000).map(|_| device(&root, &step)).collect();
            over.store(true, Ordering::Relaxed);
            assert!(
                made.contains(&Ok(())) && made.iter().all(|done| matches!(done, Ok(()) | Err(Errno::EXIST))),
                "{made:?}"
            );
        });
        let all = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        let found: Vec<_> = all.map(|found| (found.ino() == inode, found.mode() & 0o777)).collect();
        assert!(found.contains(&(true, 0o600)) && found.contains(&(false, 0o666)), "{found:?}");
    }
}
