//! What is written to procfs, and what could stand in its place: CVE-2019-16884, CVE-2019-19921, CVE-2025-52881,
//! CVE-2022-0811.

use std::path::Path;

use serde_json::json;

use crate::canary::{Canary, SECRET, say};
use crate::image;
use crate::kit::{Daemon, Said};

#[test]
fn files_of_an_image_below_proc_are_covered() {
    let Some(d) = Daemon::start() else { return };
    let fake = |root: &Path| {
        std::fs::create_dir_all(root.join("proc/self/attr")).unwrap();
        std::fs::create_dir_all(root.join("proc/sys/net/ipv4")).unwrap();
        std::fs::create_dir_all(root.join("proc/1")).unwrap();
        std::fs::write(root.join("proc/1/comm"), "faked\n").unwrap();
        std::fs::write(root.join("proc/sys/net/ipv4/ip_forward"), "faked\n").unwrap();
        image::link(root, "proc/self/attr/exec", Path::new("/proc/self/sched"));
    };
    image::load(&d, "fake", fake, |_| {}).ok();
    let look = "cat /proc/1/comm; cat /proc/sys/net/ipv4/ip_forward";
    for options in [&["--rm"][..], &["--rm", "--sysctl", "net.ipv4.ip_forward=0"]] {
        let said = say(&d, &[&["run"], options, &["fake", "sh", "-c", look]].concat()).ok();
        let forward = if options.len() > 1 { "0" } else { "1" };
        assert_eq!(said, format!("sh\n{forward}"));
    }
}

/// `-v` and `--tmpfs` on what a link of the image makes of `/proc`.
#[test]
fn nothing_is_mounted_into_procfs_by_way_of_a_link() {
    let Some(d) = Daemon::start() else { return };
    let links = |root: &Path| {
        image::link(root, "one", Path::new("/proc"));
        image::link(root, "two", Path::new("one/self"));
        image::link(root, "three", Path::new("../../proc/sys"));
    };
    image::load(&d, "linked", links, |config| config["config"]["Volumes"] = json!({})).ok();
    for target in ["/one/sys", "/one/1", "/two/attr", "/three/kernel", "/one", "/one/sys/kernel/core_pattern"] {
        for options in [["--tmpfs".to_owned(), target.to_owned()], ["-v".to_owned(), format!("/etc:{target}")]] {
            let said = say(&d, &["run", "--rm", &options[0], &options[1], "linked", "true"]);
            let refused = said.err.contains("inside of procfs") || said.err.contains("cannot mount");
            assert!(said.code != 0 && refused, "{options:?}: {} {}", said.code, said.err);
        }
    }
    // A volume that the image itself asks for.
    image::load(&d, "asks", links, |config| config["config"]["Volumes"] = json!({ "/one/1": {} })).ok();
    let said = say(&d, &["run", "--rm", "asks", "true"]);
    assert!(said.code != 0 && said.err.contains("procfs"), "{}", said.err);
}

#[test]
fn kernel_parameters_are_the_container_s_own() {
    let Some(d) = Daemon::start() else { return };
    let core = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    for options in [
        &["--sysctl", "kernel.core_pattern=|/x"][..],
        &["--sysctl", "kernel/core_pattern=|/x"],
        &["--sysctl", "net.ipv4.ip_forward=0\nkernel.core_pattern=|/x"],
        &["--sysctl", "net/../kernel/core_pattern=|/x"],
        &["--sysctl", "net.../kernel.core_pattern=|/x"],
        &["--sysctl", "net./../../kernel.core_pattern=|/x"],
        &["--sysctl", "fs.mqueue./../../kernel.core_pattern=|/x"],
        &["--sysctl", "fs.file-max=1"],
        &["--sysctl", "vm.swappiness=1"],
        &["--sysctl", "kernel.hostname=x"],
        &["--sysctl", "kernel.msgmax=1+kernel.core_pattern=|/x"],
        &["--network", "host", "--sysctl", "net.ipv4.ip_forward=0"],
        &["--ipc", "host", "--sysctl", "kernel.msgmax=1"],
    ] {
        let said = say(&d, &[&["run", "--rm"], options, &["busybox", "true"]].concat());
        assert!(said.code != 0, "{options:?} was taken");
    }
    let inside =
        d.sh("--sysctl kernel.msgmax=4096", "cat /proc/sys/kernel/msgmax; echo '|/x' > /proc/sys/kernel/core_pattern");
    assert!(inside.out.starts_with("4096\n") && inside.err.contains("Read-only"), "{} {}", inside.out, inside.err);
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), forward);
}

/// What must not be there, or shows nothing, and what cannot be written: by the first process and by an exec, also
/// with a root of its own choice.
#[test]
fn what_is_masked_and_read_only_is_so_for_all() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    let look = "for f in acpi asound kcore keys latency_stats sched_debug scsi timer_list timer_stats interrupts; do \
                    [ -e /proc/$f ] || continue; \
                    [ -d /proc/$f ] && ls -A /proc/$f || head -c 1 /proc/$f; \
                done; \
                for d in /sys/firmware /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu*/thermal_throttle; do \
                    [ ! -d $d ] || ls -A $d; \
                done; \
                for f in sysrq-trigger sys/kernel/core_pattern sys/vm/drop_caches irq/default_smp_affinity; do \
                    [ ! -e /proc/$f ] || ! { echo 1 > /proc/$f; } 2>/dev/null || echo written $f; \
                done; \
                for f in /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run /sys/power/state /sys/fs/cgroup/devices/devices.allow; do \
                    [ ! -e $f ] || ! { echo 1 > $f; } 2>/dev/null || echo written $f; \
                done; true";
    for words in [
        &["run", "--rm", "busybox"][..],
        &["run", "--rm", "--read-only", "busybox"],
        &["run", "--rm", "--pid", "host", "busybox"],
        &["exec", "idle"],
        // More capabilities, in the same mounts.
        &["exec", "--privileged", "idle"],
    ] {
        let said: Said = say(&d, &[words, &["sh", "-c", look]].concat());
        assert_eq!(said.ok(), "", "{words:?}");
    }
}

/// `docker cp` to a place that is procfs by the time that it is written to.
#[test]
fn a_copy_into_procfs_writes_nothing() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let links = |root: &Path| image::link(root, "conf", Path::new("/proc/1"));
    image::load(&d, "linked", links, |_| {}).ok();
    say(&d, &["run", "-d", "--name", "idle", "linked", "sleep", "1000"]).ok();
    let file = d.path().join("oom_score_adj");
    std::fs::write(&file, "1000").unwrap();
    for target in ["idle:/conf/oom_score_adj", "idle:/conf/", "idle:/proc/1/oom_score_adj", "idle:/proc/sys/kernel/"] {
        let said = say(&d, &["cp", &file.to_string_lossy(), target]);
        assert!(said.code != 0, "{target} was written to");
    }
    assert_eq!(say(&d, &["exec", "idle", "cat", "/proc/1/oom_score_adj"]).ok(), "0");
    let root = format!("idle:/proc/1/root{}", canary.file().display());
    let said = say(&d, &["cp", &root, "-"]);
    assert!(said.code != 0 && !said.out.contains(SECRET));
}
