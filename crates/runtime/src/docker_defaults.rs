//! What Docker confines a container to when nobody says otherwise (moby, `oci/caps/defaults.go` and `oci/defaults.go`).

use std::sync::LazyLock;

/// The capabilities that it keeps, in the order of their numbers.
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// What it can only read.
pub const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// In moby's order, which `inspect` shows.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// How its terminals are mounted (devpts): they belong to the group `tty`, where that is somebody's.
pub fn terminals() -> Vec<&'static str> {
    const TTY: u32 = 5;
    let mut options = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if own_last_group() >= TTY {
        options.push("gid=5");
    }
    options
}

/// What it does not see: beside the same on every host, what tells of each processor's heat, and so of what others do.
pub fn masked() -> Vec<String> {
    // The same for as long as this process lives, but for processors that somebody plugs in.
    static HEAT: LazyLock<Vec<String>> = LazyLock::new(heat);
    MASKED.iter().map(|path| (*path).to_owned()).chain(HEAT.iter().cloned()).collect()
}

fn heat() -> Vec<String> {
    let all = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut heat: Vec<String> = all
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    heat.sort();
    heat
}

/// `net.ipv4.ping_group_range` for everybody: all groups that there are in this process's user namespace.
pub fn ping_groups() -> String {
    format!("0 {}", own_last_group())
}

/// The last group that this process's user namespace has; one is given its groups once.
fn own_last_group() -> u32 {
    static LAST: LazyLock<u32> =
        LazyLock::new(|| last_group(&std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default()));
    *LAST
}

/// The last of the groups that follow each other from 0 on (user_namespaces(7)); the kernel takes no more than an `i32`.
fn last_group(map: &str) -> u32 {
    const MOST: u32 = i32::MAX.unsigned_abs();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    let mut ranges: Vec<(u32, u32)> = map
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((number(words.next())?, number(words.nth(1))?))
        })
        .collect();
    ranges.sort_unstable();
    let end =
        ranges.iter().fold(0, |end: u32, (first, count)| if *first == end { end.saturating_add(*count) } else { end });
    if map.trim().is_empty() { MOST } else { end.saturating_sub(1).min(MOST) }
}

#[cfg(test)]
mod tests {
    use super::last_group;

    #[test]
    fn groups_are_those_that_are_mapped() {
        for (map, last) in [
            ("         0          0 4294967295\n", 2_147_483_647),
            ("0 1000 1\n1 100000 65536\n", 65536),
            ("1 100000 65536\n0 1000 1\n70000 1 1\n", 65536),
            ("0 1000 1\n", 0),
            ("", 2_147_483_647),
        ] {
            assert_eq!(last_group(map), last, "{map}");
        }
    }
}
