//! User namespaces as tables: what an id-mapped mount takes its mapping from (mount_setattr(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::move_into_link_name_space;
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

/// Gives the user namespace of a process its IDs, for a program of an ordinary user that has made it: ranges of the first
/// ID there, the first ID here, and how many. More than the user's own are written by newuidmap(1) and newgidmap(1).
///
/// # Errors
/// When one of those is not there or refuses, and as the kernel does.
pub fn map_user(pid: i32, uids: &[[u32; 3]], gids: &[[u32; 3]]) -> Result<()> {
    let list = |ranges: &[[u32; 3]]| -> Result<Vec<LinuxIdMapping>> {
        let one = |[inside, outside, count]: &[u32; 3]| {
            let builder = LinuxIdMappingBuilder::default().container_id(*inside).host_id(*outside).size(*count);
            builder.build().map_err(|error| RuntimeError::IdMapping(error.to_string()))
        };
        ranges.iter().map(one).collect()
    };
    write_maps(pid, &list(uids)?, &list(gids)?, true)
}

/// Whether nobody but `own` is mapped.
fn is_alone(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [one] if one.host_id() == own && one.size() == 1)
}

fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    write_procfs(Path::new(&format!("/proc/{pid}/{file}")), text)
}

/// Refuses what the kernel would when there is a process already: ranges that overlap, on one side or the other, are
/// empty, or end beyond the last ID (user_namespaces(7)).
///
/// # Errors
/// With the name of the list.
pub(crate) fn check(name: &str, mappings: &[LinuxIdMapping]) -> Result<()> {
    let bad = |what: String| Err(RuntimeError::Invalid(format!("{name}: {what}")));
    for (side, start) in
        [("container", LinuxIdMapping::container_id as fn(&_) -> u32), ("host", LinuxIdMapping::host_id)]
    {
        let mut ranges: Vec<(u64, u64)> =
            mappings.iter().map(|m| (start(m).into(), u64::from(start(m)) + u64::from(m.size()))).collect();
        ranges.sort_unstable();
        if let Some((start, end)) = ranges.iter().find(|(start, end)| start == end || *end > u64::from(u32::MAX)) {
            return bad(format!("{} IDs of the {side} from {start} on", end - start));
        }
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return bad(format!("the ID {} of the {side} is mapped twice", pair[1].0));
        }
    }
    Ok(())
}

/// Whether it is what podman writes beside the path of a user namespace, whatever that one has (`--userns=ns:PATH`): its
/// library for configurations takes no user namespace without a mapping.
pub(crate) fn stands_for_none(mappings: &[LinuxIdMapping]) -> bool {
    matches!(mappings, [one] if (one.container_id(), one.host_id(), one.size()) == (0, 0, 1))
}

/// Mappings beside the path of a user namespace: they can only be those that it has. `None` is this process's own.
///
/// # Errors
/// When they are others, or the namespace cannot be looked at.
pub(crate) fn check_joined(
    namespace: Option<BorrowedFd<'_>>,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> Result<()> {
    let (has_uids, has_gids) = match namespace {
        None => maps_of("self")?,
        Some(namespace) => maps_in(namespace)?,
    };
    for (name, given, has) in [("uidMappings", uids, has_uids), ("gidMappings", gids, has_gids)] {
        let mut given: Vec<[u32; 3]> = given.iter().map(|m| [m.container_id(), m.host_id(), m.size()]).collect();
        given.sort_unstable();
        if given != has {
            return Err(RuntimeError::Invalid(format!(
                "{name} are not those of the user namespace that is joined: leave them out"
            )));
        }
    }
    Ok(())
}

/// The mappings of users and of groups.
type Maps = (Vec<[u32; 3]>, Vec<[u32; 3]>);

/// By somebody who goes there: only of a process it is told.
fn maps_in(namespace: BorrowedFd<'_>) -> Result<Maps> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno| RuntimeError::Setup { step, errno }
    };
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"));
    let ((arrived, tell), (stay, hold)) = (pipe()?, pipe()?);
    let (mut tell, mut hold) = (Some(tell), Some(hold));
    let child = clone3(Namespaces::default(), None, || {
        drop(hold.take());
        if move_into_link_name_space(namespace, None).is_ok() {
            let _ = tell.as_ref().map(|tell| rustix::io::write(tell, b"I"));
        }
        drop(tell.take());
        let _ = rustix::io::read(&stay, &mut [0u8]);
        0
    });
    let child = child.map_err(failed("make a helper"))?;
    drop(tell);
    let maps = match rustix::io::read(&arrived, &mut [0u8]) {
        Ok(1) => maps_of(&child.pid.as_raw_nonzero().to_string()),
        _ => Err(failed("join the user namespace")(Errno::PERM)),
    };
    drop(hold);
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).map_err(failed("wait for a helper"))?;
    maps
}

fn maps_of(process: &str) -> Result<Maps> {
    let read = |file: &str| -> Result<Vec<[u32; 3]>> {
        let path = format!("/proc/{process}/{file}");
        let text = std::fs::read_to_string(&path)
            .map_err(|e| RuntimeError::host("read", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        let mut map: Vec<[u32; 3]> = text.lines().filter_map(line).collect();
        map.sort_unstable();
        Ok(map)
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

fn line(text: &str) -> Option<[u32; 3]> {
    let mut numbers = text.split_whitespace().map(str::parse::<u32>);
    Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
}

/// Root of a user namespace; the first who is mapped stands in for it where it is not.
pub(crate) fn root_of(mappings: &[LinuxIdMapping]) -> u32 {
    let ids = || mappings.iter().map(LinuxIdMapping::container_id);
    if ids().any(|id| id == 0) { 0 } else { ids().next().unwrap_or(0) }
}

/// As [`root_of`], the user and the group, in the user namespace of a process.
pub(crate) fn roots_of(process: &str) -> (u32, u32) {
    let root = |map: &[[u32; 3]]| map.first().map_or(0, |[id, ..]| *id);
    // Sorted: root is the first.
    maps_of(process).map_or((0, 0), |(uids, gids)| (root(&uids), root(&gids)))
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

    #[test]
    fn overlaps_are_refused_and_root_may_be_missing() {
        let mappings = |list: &[[u32; 3]]| -> Vec<LinuxIdMapping> {
            let one = |[container, host, size]: &[u32; 3]| serde_json::json!({ "containerID": container, "hostID": host, "size": size });
            serde_json::from_value(list.iter().map(one).collect()).unwrap()
        };
        for right in [&[[0, 0, u32::MAX]][..], &[[0, 1000, 1], [1, 100_000, 65_536]], &[[9, 5, 1], [0, 6, 9]], &[]] {
            check("uidMappings", &mappings(right)).unwrap();
        }
        for (wrong, word) in [
            (&[[0, 100, 10], [9, 200, 10]][..], "the ID 9 of the container is mapped twice"),
            (&[[10, 100, 10], [0, 109, 10]], "the ID 109 of the host is mapped twice"),
            (&[[0, 100, 0]], "0 IDs of the container from 0 on"),
            (&[[0, u32::MAX, 1]], "1 IDs of the host"),
        ] {
            let told = check("uidMappings", &mappings(wrong)).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(root_of(&mappings(&[[1, 100_000, 9], [0, 1000, 1]])), 0);
        assert_eq!(root_of(&mappings(&[[7, 1000, 1], [1, 100_000, 6]])), 7);
    }
}
