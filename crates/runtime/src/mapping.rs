//! User namespaces as tables: what an id-mapped mount takes its mapping from (mount_setattr(2)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use wharf_sys::process::{Namespaces, clone3};

use crate::root::write_procfs;
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

/// Gives a new user namespace its mappings, by a process in it.
///
/// An ordinary user may write one line, which maps that user alone, and has to give up setgroups(2) for a group. For
/// more there are programs of the system's (newuidmap(1), newgidmap(1)): they write what `/etc/subuid` and
/// `/etc/subgid` give to that user.
pub(crate) fn write_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping], unprivileged: bool) -> Result<()> {
    if !unprivileged {
        write(pid, "uid_map", &lines(uids))?;
        return write(pid, "gid_map", &lines(gids));
    }
    if is_alone(uids, rustix::process::geteuid().as_raw()) {
        write(pid, "uid_map", &lines(uids))?;
    } else {
        by_program("newuidmap", pid, uids)?;
    }
    if is_alone(gids, rustix::process::getegid().as_raw()) {
        write(pid, "setgroups", "deny")?;
        write(pid, "gid_map", &lines(gids))
    } else {
        by_program("newgidmap", pid, gids)
    }
}

/// Whether nobody but `own` is mapped.
fn is_alone(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [one] if one.host_id() == own && one.size() == 1)
}

fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    write_procfs(Path::new(&format!("/proc/{pid}/{file}")), text)
}

fn by_program(name: &'static str, pid: i32, mappings: &[LinuxIdMapping]) -> Result<()> {
    let numbers = mappings.iter().flat_map(|m| [m.container_id(), m.host_id(), m.size()]);
    let words = std::iter::once(pid.to_string()).chain(numbers.map(|number| number.to_string()));
    let output = Command::new(name).args(words).stdin(Stdio::null()).output().map_err(|error| {
        RuntimeError::IdMapping(if error.kind() == std::io::ErrorKind::NotFound {
            format!("more IDs than one's own need the program `{name}` (package uidmap), which is not there")
        } else {
            format!("cannot run `{name}`: {error}")
        })
    })?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(RuntimeError::IdMapping(format!("`{name}` refuses ({}): {}", output.status, told.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_oneself_is_alone() {
        let mappings = |text: &str| serde_json::from_str::<Vec<LinuxIdMapping>>(text).unwrap();
        let one = r#"{"containerID":0,"hostID":7,"size":1}"#;
        assert!(is_alone(&mappings(&format!("[{one}]")), 7));
        assert!(!is_alone(&mappings(&format!("[{one}]")), 8));
        assert!(!is_alone(&mappings(&format!("[{one},{one}]")), 7));
        assert!(!is_alone(&mappings(r#"[{"containerID":0,"hostID":7,"size":2}]"#), 7));
    }
}
