//! Limits of containers as the host has them, and of a group above them.

use serde_json::{Value, json};

use crate::kit::Daemon;

fn host_config(d: &Daemon, name: &str) -> Value {
    let all: Value = serde_json::from_str(&d.docker(&format!("inspect {name}")).ok()).unwrap();
    all[0]["HostConfig"].clone()
}

#[test]
fn what_only_some_kernels_have_is_left_out_with_docker_s_warning() {
    let Some(d) = Daemon::start() else { return };
    let hierarchies = wharf_cgroup::Hierarchies::detect().unwrap();
    let said = d.docker("create --memory-swappiness 10 --oom-kill-disable -m 50m --name memory busybox sleep 100");
    assert_eq!(said.code, 0, "{}", said.err);
    let shown = host_config(&d, "memory");
    let shown = (&shown["MemorySwappiness"], &shown["OomKillDisable"]);
    if hierarchies.v1("memory").is_some() {
        assert!(!said.err.contains("discarded"), "{}", said.err);
        assert_eq!(shown, (&json!(10), &json!(true)));
        d.docker("start memory").ok();
        assert_eq!(d.docker("exec memory cat /sys/fs/cgroup/memory/memory.swappiness").ok(), "10");
        let control = d.docker("exec memory cat /sys/fs/cgroup/memory/memory.oom_control").ok();
        assert!(control.contains("oom_kill_disable 1"), "{control}");
        let said = d.docker("create --oom-kill-disable busybox true");
        assert!(said.code == 0 && said.err.contains("no memory limit is set"), "{}", said.err);
    } else {
        assert!(said.err.contains("Memory swappiness discarded."), "{}", said.err);
        assert!(said.err.contains("OomKillDisable discarded."), "{}", said.err);
        assert_eq!(shown, (&Value::Null, &Value::Null));
        d.docker("start memory").ok();
    }

    let said = d.docker("run --rm --blkio-weight-device /dev/null:5 busybox true");
    assert!(said.code != 0 && said.err.to_lowercase().contains("weight"), "{}", said.err);
    let disk = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"].into_iter().find(|disk| std::path::Path::new(disk).exists());
    let Some(disk) = disk else { return eprintln!("skipped: no disk") };
    let said = d.docker(&format!("create --blkio-weight-device {disk}:300 --name disk busybox sleep 100"));
    assert_eq!(said.code, 0, "{}", said.err);
    let kept = host_config(&d, "disk")["BlkioWeightDevice"].clone();
    let discarded = said.err.contains("Weight-device discarded.");
    assert_eq!(kept, if discarded { json!([]) } else { json!([{ "Path": disk, "Weight": 300 }]) });
    let started = d.docker("start disk");
    let read = "exec disk sh -c cat${IFS}/sys/fs/cgroup/blkio/*weight_device||cat${IFS}/sys/fs/cgroup/io.*weight";
    match started.code {
        // The kernel has no such file, and does not merely say so.
        0 if discarded => assert!(!d.docker(read).out.contains(':')),
        0 => assert!(d.docker(read).ok().lines().any(|line| line.contains(':'))),
        // The kernel has it, the disk's scheduler does not.
        _ => assert!(!discarded && started.err.contains("queue/scheduler"), "{}", started.err),
    }
}
