//! Nodes and links below `/dev`, and the container's terminal.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags};
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
