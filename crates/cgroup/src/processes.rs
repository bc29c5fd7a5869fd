//! How many processes groups get that nobody has given a number.

use std::sync::OnceLock;

use oci_spec::runtime::{LinuxPidsBuilder, LinuxResourcesBuilder};

use crate::{Group, Hierarchies, Result};

/// A quarter of the processes and threads that this host has room for (proc(5), `pid_max` and `threads-max`): a container
/// that forks without end takes none from the host or from its neighbours. None where groups cannot be held to a number.
pub fn fair_share(hierarchies: &Hierarchies) -> Option<i64> {
    host_room(hierarchies).map(|room| (room / 4).max(1))
}

/// Makes the group `path`, above those of all containers, and holds it to seven eighths of what the host has room for: an
/// eighth stays with the host, however many containers fork without end. A group that is held to less keeps that: it may be
/// the administrator's. Nothing where groups cannot be held to a number.
///
/// # Errors
/// When the path is not absolute, or a hierarchy cannot be written.
pub fn leave_room(hierarchies: &Hierarchies, path: &str) -> Result<()> {
    let Some(room) = host_room(hierarchies) else { return Ok(()) };
    let (group, most) = (Group::create(hierarchies, path)?, (room - room / 8).max(1));
    if group.usage().pids_limit <= most.cast_unsigned() {
        return Ok(());
    }
    let pids = LinuxPidsBuilder::default().limit(most).build();
    let resources = pids.and_then(|pids| LinuxResourcesBuilder::default().pids(pids).build());
    group.limit(&resources.expect("all fields have defaults"))
}

fn host_room(hierarchies: &Hierarchies) -> Option<i64> {
    static ROOM: OnceLock<Option<i64>> = OnceLock::new();
    let room = *ROOM.get_or_init(|| room(|name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()));
    room.filter(|_| hierarchies.has("pids"))
}

fn room(read: impl Fn(&str) -> Option<String>) -> Option<i64> {
    ["pid_max", "threads-max"].iter().filter_map(|name| read(name)?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_number_is_the_host_s_room() {
        let host = |pid_max: Option<&'static str>, threads: Option<&'static str>| {
            room(|name| if name == "pid_max" { pid_max } else { threads }.map(Into::into))
        };
        assert_eq!(host(Some("32768\n"), Some("192731\n")), Some(32_768));
        assert_eq!(host(Some("4194304\n"), Some("192731\n")), Some(192_731));
        assert_eq!((host(None, Some("7")), host(Some("x"), None)), (Some(7), None));
    }
}
