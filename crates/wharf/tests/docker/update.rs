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
    // No scheduler of this kernel may have weights; they are set last.
    let half = d.docker("update -m 70m --memory-swap 140m --cpu-shares 512 --blkio-weight 500 limited");
    let asked = d.docker("inspect -f {{.HostConfig.Memory}}:{{.HostConfig.CpuShares}} limited").ok();
    if half.code == 0 {
        assert_eq!((limit(), asked), ((70 << 20).to_string(), format!("{}:512", 70 << 20)));
    } else {
        assert_eq!((limit(), asked), ((50 << 20).to_string(), format!("{}:0", 50 << 20)));
    }
    d.docker("update -m 60m --memory-swap 120m --restart no limited").ok();
    assert_eq!(limit(), (60 << 20).to_string());
    // The rules of devices were left alone.
    assert_eq!(d.docker("exec limited head -c 1 /dev/zero").ok(), "\0");
    d.docker("run -d --network none -m 50m --name doubled busybox sleep 1000").ok();
    assert_eq!(d.docker("inspect -f {{.HostConfig.MemorySwap}} doubled").ok(), (100 << 20).to_string());
    assert!(d.docker("update -m 200m doubled").err.contains(words));
}
