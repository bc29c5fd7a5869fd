//! Limits of the runtime specification (config-linux, "Control groups") as writes to control files.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, LinuxThrottleDevice};

use crate::group::{Group, write};
use crate::{CgroupError, Result};

/// What `no limit` is in v2's files.
const MAX: &str = "max";

pub(crate) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    memory(group, resources)?;
    cpu(group, resources)?;
    if let Some(pids) = resources.pids() {
        let text = if pids.limit() > 0 { pids.limit().to_string() } else { MAX.into() };
        write(&dir(group, "pids", "a limit on processes")?.join("pids.max"), &text)?;
    }
    block_io(group, resources)?;
    others(group, resources)?;
    devices(group, resources.devices().as_deref().unwrap_or_default())?;
    for (key, value) in resources.unified().iter().flatten() {
        if key.contains('/') || !group.hierarchies().is_v2() {
            return Err(CgroupError::Unsupported("`unified` keys need a host with cgroup2 alone, and are file names"));
        }
        write(&dir(group, "memory", "a unified key")?.join(key), value)?;
    }
    Ok(())
}

/// The directory where the limits of a controller are: its v1 hierarchy's, or the unified one that has it.
fn dir(group: &Group, controller: &'static str, limit: &'static str) -> Result<PathBuf> {
    let name = if controller == "blkio" { "io" } else { controller };
    group
        .v1_dir(controller)
        .or_else(|| group.v2_dir().filter(|_| group.hierarchies().v2_has(name)))
        .ok_or(CgroupError::NoController { controller, limit })
}

fn memory(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let none = [memory.limit(), memory.swap(), memory.reservation()].iter().all(Option::is_none)
        && memory.swappiness().is_none()
        && memory.disable_oom_killer().is_none();
    if none {
        return Ok(());
    }
    let dir = dir(group, "memory", "a limit on memory")?;
    if group.hierarchies().is_v2() {
        let text = |bytes: i64| if bytes < 0 { MAX.to_owned() } else { bytes.to_string() };
        if let Some(limit) = memory.limit() {
            write(&dir.join("memory.max"), &text(limit))?;
        }
        if let Some(both) = memory.swap() {
            // The specification counts memory and swap together, v2 swap alone.
            let swap = if both < 0 { both } else { (both - memory.limit().unwrap_or(0)).max(0) };
            write_unless_missing(&dir.join("memory.swap.max"), &text(swap))?;
        }
        if let Some(low) = memory.reservation() {
            write(&dir.join("memory.low"), &text(low))?;
        }
        return Ok(());
    }
    let (limit, both) = (memory.limit(), memory.swap());
    let limit_file = dir.join("memory.limit_in_bytes");
    let both_file = dir.join("memory.memsw.limit_in_bytes");
    // The kernel keeps memory <= memory+swap at every moment, so a raise starts with the larger of the two.
    let set_limit = || limit.map_or(Ok(()), |bytes| write(&limit_file, &bytes.to_string()));
    let set_both = || match both {
        // Without swap accounting a limit on swap is a default of ours that holds nothing.
        Some(bytes) if both_file.exists() => write(&both_file, &bytes.to_string()),
        _ => Ok(()),
    };
    if set_limit().is_ok() {
        set_both()?;
    } else {
        set_both()?;
        set_limit()?;
    }
    if let Some(soft) = memory.reservation() {
        write(&dir.join("memory.soft_limit_in_bytes"), &soft.to_string())?;
    }
    if let Some(swappiness) = memory.swappiness() {
        write(&dir.join("memory.swappiness"), &swappiness.to_string())?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(&dir.join("memory.oom_control"), "1")?;
    }
    Ok(())
}

/// A file that a kernel without swap accounting does not have.
fn write_unless_missing(path: &std::path::Path, text: &str) -> Result<()> {
    if path.exists() { write(path, text) } else { Ok(()) }
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000), by the formula that runc and systemd agree on.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

fn cpu(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    let v2 = group.hierarchies().is_v2();
    let wants_cpu = cpu.shares().is_some() || cpu.quota().is_some() || cpu.period().is_some();
    if wants_cpu {
        let dir = dir(group, "cpu", "a limit on CPU time")?;
        if v2 {
            if let Some(shares) = cpu.shares().filter(|s| *s > 0) {
                write(&dir.join("cpu.weight"), &weight_of_shares(shares).to_string())?;
            }
            if cpu.quota().is_some() || cpu.period().is_some() {
                let quota = cpu.quota().filter(|q| *q > 0).map_or(MAX.to_owned(), |q| q.to_string());
                write(&dir.join("cpu.max"), &format!("{quota} {}", cpu.period().unwrap_or(100_000)))?;
            }
        } else {
            if let Some(shares) = cpu.shares() {
                write(&dir.join("cpu.shares"), &shares.to_string())?;
            }
            if let Some(period) = cpu.period() {
                write(&dir.join("cpu.cfs_period_us"), &period.to_string())?;
            }
            if let Some(quota) = cpu.quota() {
                write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
        }
    }
    if let Some(burst) = cpu.burst() {
        let file = if v2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
        write(&dir(group, "cpu", "a burst of CPU time")?.join(file), &burst.to_string())?;
    }
    if let Some(idle) = cpu.idle() {
        write(&dir(group, "cpu", "an idle group")?.join("cpu.idle"), &idle.to_string())?;
    }
    // The kernel keeps runtime <= period, and a period of 0 is what engines write for none in particular.
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        let dir = dir(group, "cpu", "a limit on real-time CPU time")?;
        write(&dir.join("cpu.rt_period_us"), &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        let dir = dir(group, "cpu", "a limit on real-time CPU time")?;
        write(&dir.join("cpu.rt_runtime_us"), &runtime.to_string())?;
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = value.as_deref().filter(|list| !list.is_empty()) {
            write(&dir(group, "cpuset", "a choice of CPUs")?.join(file), list)?;
        }
    }
    Ok(())
}

fn block_io(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    let none: &[LinuxThrottleDevice] = &[];
    let throttles = [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ];
    for (file, key, devices) in throttles {
        for device in devices.as_deref().unwrap_or(none) {
            let dir = dir(group, "blkio", "a limit on a device")?;
            let (name, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
            if group.hierarchies().is_v2() {
                write(&dir.join("io.max"), &format!("{name} {key}={rate}"))?;
            } else {
                write(&dir.join(file), &format!("{name} {rate}"))?;
            }
        }
    }
    if let Some(weight) = io.weight().filter(|w| *w > 0) {
        let dir = dir(group, "blkio", "a block IO weight")?;
        let file = ["io.bfq.weight", "io.weight", "blkio.bfq.weight", "blkio.weight"].map(|f| dir.join(f));
        let file = file.iter().find(|path| path.exists()).ok_or(CgroupError::Unsupported(
            "a block IO weight needs an IO scheduler with weights, which this kernel does not have",
        ))?;
        write(file, &weight.to_string())?;
    }
    Ok(())
}

/// Huge pages, RDMA, and marks on the packets that the group sends.
fn others(group: &Group, resources: &LinuxResources) -> Result<()> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let dir = dir(group, "hugetlb", "a limit on huge pages")?;
        let size = limit.page_size();
        if size.is_empty() || size.contains(['/', '.']) {
            return Err(CgroupError::Unsupported("a size of huge pages is like 2MB"));
        }
        let last = if group.hierarchies().is_v2() { "max" } else { "limit_in_bytes" };
        let text = if limit.limit() < 0 && last == "max" { MAX.to_owned() } else { limit.limit().to_string() };
        write(&dir.join(format!("hugetlb.{size}.{last}")), &text)?;
        // Reservations too, where the kernel counts them: a fault past the other limit kills.
        write_unless_missing(&dir.join(format!("hugetlb.{size}.rsvd.{last}")), &text)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let text = |n: Option<u32>| n.map_or(MAX.to_owned(), |n| n.to_string());
        let (handles, objects) = (text(limit.hca_handles()), text(limit.hca_objects()));
        let file = dir(group, "rdma", "a limit on RDMA")?.join("rdma.max");
        write(&file, &format!("{device} hca_handle={handles} hca_object={objects}"))?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            write(&dir(group, "net_cls", "a class of packets")?.join("net_cls.classid"), &class.to_string())?;
        }
        for interface in network.priorities().iter().flatten() {
            let file = dir(group, "net_prio", "a priority of packets")?.join("net_prio.ifpriomap");
            write(&file, &format!("{} {}", interface.name(), interface.priority()))?;
        }
    }
    Ok(())
}

/// v1's devices controller takes the rules as they are. On v2 they are a BPF program, which this does not
/// make: a policy that allows everything needs none, any other is refused (fail closed).
fn devices(group: &Group, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let Some(dir) = group.v1_dir("devices") else {
        return if rules.iter().all(LinuxDeviceCgroup::allow) {
            Ok(())
        } else {
            Err(CgroupError::Unsupported(
                "device rules on a host with cgroup2 alone are not supported yet; allow all devices (privileged)",
            ))
        };
    };
    for rule in rules {
        let file = dir.join(if rule.allow() { "devices.allow" } else { "devices.deny" });
        write(&file, &device_rule(rule))?;
    }
    Ok(())
}

fn device_rule(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
        LinuxDeviceType::B => "b",
        LinuxDeviceType::C | LinuxDeviceType::U => "c",
        _ => "a",
    };
    if kind == "a" {
        return "a".into();
    }
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let access = rule.access().as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm");
    format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_at_the_known_points() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight);
        }
    }

    #[test]
    fn device_rules_are_written_as_the_kernel_reads_them() {
        let rule = |text: &str| device_rule(&serde_json_rule(text));
        assert_eq!(rule(r#"{"allow":false,"access":"rwm"}"#), "a");
        assert_eq!(rule(r#"{"allow":true,"type":"c","major":136,"access":"rw"}"#), "c 136:* rw");
        assert_eq!(rule(r#"{"allow":true,"type":"b"}"#), "b *:* rwm");
    }

    fn serde_json_rule(text: &str) -> LinuxDeviceCgroup {
        serde_json::from_str(text).unwrap()
    }
}
