//! Limits that are changed while the container runs: all that was asked, or nothing.

use crate::kit::Daemon;

const READ: &str =
    "exec limited sh -c cat${IFS}/sys/fs/cgroup/memory/memory.limit_in_bytes||cat${IFS}/sys/fs/cgroup/memory.max";

#[test]
fn an_update_is_whole_or_not_at_all() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --network none -m 50m --memory-swap 50m --restart always --name limited busybox sleep 1000").ok();
    let limit = || d.docker(READ).ok();
    assert_eq!(limit(), (50 << 20).to_string());
    let refused = d.docker("update -m 60m limited");
    let words =
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time";
    assert!(refused.code == 1 && refused.err.contains(words), "{}", refused.err);
    assert_eq!(limit(), (50 << 20).to_string());
    // A group in which nothing may run in real time takes no such limit; it is set after that of memory.
    let half = d.docker("update -m 70m --memory-swap 140m --cpu-rt-runtime 900000 limited");
    assert!(half.code == 1 && half.err.contains("cannot change the limits"), "{}", half.err);
    assert_eq!(limit(), (50 << 20).to_string());
    assert_eq!(d.docker("inspect -f {{.HostConfig.Memory}} limited").ok(), (50 << 20).to_string());
    d.docker("update -m 60m --memory-swap 120m --restart no limited").ok();
    assert_eq!(limit(), (60 << 20).to_string());
    // The rules of devices were left alone.
    assert_eq!(d.docker("exec limited head -c 1 /dev/zero").ok(), "\0");
    d.docker("run -d --network none -m 50m --name doubled busybox sleep 1000").ok();
    assert_eq!(d.docker("inspect -f {{.HostConfig.MemorySwap}} doubled").ok(), (100 << 20).to_string());
    assert!(d.docker("update -m 200m doubled").err.contains(words));
}

#[test]
fn what_the_kernel_lacks_is_left_out_with_a_warning_as_at_the_creation() {
    let Some(d) = Daemon::start() else { return };
    let created = d.docker("create --network none --blkio-weight 300 --name weight busybox sleep 1000");
    let warning = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.";
    let lacks = created.err.contains(warning);
    let weight = || d.docker("inspect -f {{.HostConfig.BlkioWeight}} weight").ok();
    assert_eq!(weight(), if lacks { "0" } else { "300" });
    let updated = |options: &str, left: &str| {
        let said = d.docker(&format!("update {options} weight"));
        assert!(said.code == 0 && said.err.contains(warning) == lacks, "{}", said.err);
        assert_eq!(weight(), if lacks { "0" } else { left });
    };
    updated("--blkio-weight 400", "400");
    d.docker("start weight").ok();
    updated("--blkio-weight 500 --pids-limit 77", "500");
    // The rest of it counts.
    assert_eq!(d.docker("inspect -f {{.HostConfig.PidsLimit}} weight").ok(), "77");
    assert!(d.docker("update --cpu-shares 512 weight").err.is_empty());
}
