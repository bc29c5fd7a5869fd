//! User namespaces as tables: what an id-mapped mount takes its mapping from (mount_setattr(2)).

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_sys::process::{Namespaces, clone3};

use crate::{Result, RuntimeError};

/// The lines of a `uid_map` or `gid_map` (user_namespaces(7)).
pub(crate) fn lines(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

/// A user namespace with these mappings and nobody in it.
pub(crate) fn namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno| RuntimeError::Setup { step, errno }
    };
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    // It is there for its namespace alone, and ends with the pipe.
    let mut held = Some(write);
    let child = clone3(Namespaces { user: true, ..Namespaces::default() }, None, || {
        drop(held.take());
        let _ = rustix::io::read(&read, &mut [0u8]);
        0
    });
    let child = child.map_err(failed("make a user namespace"))?;
    let pid = child.pid.as_raw_nonzero();
    let made = write_maps(pid.get(), uids, gids, false).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| RuntimeError::host("open", path, errno))
    });
    drop(held);
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).map_err(failed("wait for a helper"))?;
    made
}

/// Gives a new user namespace its mappings, by a process in it. An ordinary user has to give up setgroups(2) for it.
pub(crate) fn write_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], unprivileged: bool) -> Result<()> {
    let setgroups = unprivileged.then(|| ("setgroups", "deny".to_owned()));
    for (file, text) in setgroups.into_iter().chain([("uid_map", lines(uids)), ("gid_map", lines(gids))]) {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, text)
            .map_err(|e| RuntimeError::host("write", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    }
    Ok(())
}
