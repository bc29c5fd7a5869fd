//! Limits and ulimits of a record in the words of the runtime specification.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use wharf_cgroup::Hierarchies;

use crate::error::{EngineError, Result};
use crate::spec::{HostConfig, Resources, ThrottleDevice, Ulimit};
use crate::{cpuset, devices};

/// Below this a container's own set-up does not fit. Docker's bound.
const MIN_MEMORY: i64 = 6 << 20;

/// Refuses limits that contradict each other, with Docker's words.
pub fn check(host: &HostConfig) -> Result<()> {
    let r = &host.resources;
    let bad = |text: String| Err(EngineError::invalid(text));
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return bad("Minimum memory limit allowed is 6MB".into());
    }
    if r.memory_swap > 0 && r.memory == 0 {
        return bad("You should always set the Memory limit when using Memoryswap limit, see usage".into());
    }
    if r.memory_swap > 0 && r.memory_swap < r.memory {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage".into());
    }
    if r.memory_reservation > 0 && r.memory > 0 && r.memory < r.memory_reservation {
        return bad("Minimum memory limit can not be less than memory reservation limit, see usage".into());
    }
    if r.memory_reservation > 0 && r.memory_reservation < MIN_MEMORY {
        return bad("Minimum memory reservation allowed is 6MB".into());
    }
    for (given, what) in [(r.cpu_period, "Period"), (r.cpu_quota, "Quota")] {
        if r.nano_cpus > 0 && given > 0 {
            return bad(format!("Conflicting options: Nano CPUs and CPU {what} cannot both be set"));
        }
    }
    // Asked only then: it is a dozen files to look at.
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
    if r.nano_cpus != 0 && !(0..=cores() * 1_000_000_000).contains(&r.nano_cpus) {
        let cores = cores();
        return bad(format!("range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available"));
    }
    if r.cpu_period != 0 && !(1_000..=1_000_000).contains(&r.cpu_period) {
        return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into());
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1_000 {
        return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
    }
    let weights = r.blkio_weight_device.iter().flatten().map(|device| device.weight);
    if std::iter::once(r.blkio_weight).chain(weights).any(|weight| weight != 0 && !(10..=1000).contains(&weight)) {
        return bad("Range of blkio weight is from 10 to 1000".into());
    }
    // Docker's client says -1 where it was not told.
    if let Some(swappiness) = r.memory_swappiness.filter(|n| *n != -1 && !(0..=100).contains(n)) {
        return bad(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100"));
    }
    if r.cpu_shares < 0 {
        return bad(format!("invalid CPU shares ({}): value must be a positive integer", r.cpu_shares));
    }
    // 0 is the group's own period, which nobody has asked about.
    if r.cpu_realtime_period > 0 && r.cpu_realtime_runtime > r.cpu_realtime_period {
        return bad("cpu real-time runtime cannot be higher than cpu real-time period".into());
    }
    cpuset::check(r)?;
    for rule in r.device_cgroup_rules.iter().flatten() {
        devices::parse_rule(rule)?;
    }
    rlimits(host)?;
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return bad(format!("Invalid value {}, range for oom score adj is [-1000, 1000]", host.oom_score_adj));
    }
    Ok(())
}

/// `linux.resources`.
pub fn limits(host: &HostConfig, processes: Option<i64>) -> Result<Value> {
    let r = &host.resources;
    let mut memory = Map::new();
    if r.memory > 0 {
        memory.insert("limit".into(), r.memory.into());
        // Docker's rule: as much swap again, unless told otherwise. A default that cannot be had is left out.
        let swap = match r.memory_swap {
            0 => Some(r.memory.saturating_mul(2)).filter(|_| counts_swap()),
            other => Some(other),
        };
        memory.extend(swap.map(|swap| ("swap".to_owned(), swap.into())));
    } else if r.memory_swap == -1 {
        memory.insert("swap".into(), json!(-1));
    }
    if r.memory_reservation > 0 {
        memory.insert("reservation".into(), r.memory_reservation.into());
    }
    if let Some(swappiness) = r.memory_swappiness.filter(|s| *s >= 0) {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if r.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".into(), true.into());
    }
    let mut cpu = Map::new();
    if r.nano_cpus > 0 {
        cpu.insert("period".into(), 100_000.into());
        cpu.insert("quota".into(), (r.nano_cpus / 10_000).into());
    }
    for (key, value) in [
        // As Docker: nearest to it what the kernel has.
        ("shares", if r.cpu_shares > 0 { r.cpu_shares.clamp(2, 262_144) } else { 0 }),
        ("period", r.cpu_period),
        ("quota", r.cpu_quota),
        ("realtimePeriod", r.cpu_realtime_period),
        ("realtimeRuntime", r.cpu_realtime_runtime),
    ] {
        // A quota below nothing is none any more.
        if value > 0 || (key == "quota" && value < 0) {
            cpu.insert(key.into(), value.max(-1).into());
        }
    }
    for (key, value) in [("cpus", &r.cpuset_cpus), ("mems", &r.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(key.into(), value.as_str().into());
        }
    }
    let mut all = Map::new();
    all.insert("devices".into(), devices::rules(host)?);
    for (key, section) in [("memory", memory), ("cpu", cpu), ("blockIO", block_io(host)?)] {
        if !section.is_empty() {
            all.insert(key.into(), Value::Object(section));
        }
    }
    // Who asks for nothing or less has no limit: an update takes it away.
    let asked = r.pids_limit.map(|limit| if limit > 0 { limit } else { -1 });
    if let Some(limit) = asked.or(processes) {
        all.insert("pids".into(), json!({ "limit": limit }));
    }
    Ok(Value::Object(all))
}

fn counts_swap() -> bool {
    static COUNTS: OnceLock<bool> = OnceLock::new();
    *COUNTS.get_or_init(|| {
        let counts = Hierarchies::usable("/").is_ok_and(|found| found.counts_swap());
        if !counts {
            tracing::warn!("this host cannot limit the swap of containers: their memory alone is limited");
        }
        counts
    })
}

/// Adds to a section of limits that `after` has what ends the rules for single devices that only `before` has.
pub(crate) fn end_device_rules(section: &mut Value, before: &Resources, after: &Resources) {
    let mut end = |key: &str, value: &str, had: Vec<&String>, has: Vec<&String>| {
        // A device that has gone has no rule any more.
        let gone = had.into_iter().filter(|path| !has.contains(path)).filter_map(|path| devices::find(path).ok());
        let gone = gone.map(|n| json!({ "major": n.major, "minor": n.minor, value: 0 }));
        let mut rules = section["blockIO"][key].as_array().cloned().unwrap_or_default();
        rules.extend(gone);
        if !rules.is_empty() {
            section["blockIO"][key] = rules.into();
        }
    };
    let weights = |r: &'_ Resources| r.blkio_weight_device.iter().flatten().map(|d| d.path.clone()).collect::<Vec<_>>();
    let (had, has) = (weights(before), weights(after));
    end("weightDevice", "weight", had.iter().collect(), has.iter().collect());
    type Rules = fn(&Resources) -> &Option<Vec<ThrottleDevice>>;
    let throttles: [(&str, Rules); 4] = [
        ("throttleReadBpsDevice", |r| &r.blkio_device_read_bps),
        ("throttleWriteBpsDevice", |r| &r.blkio_device_write_bps),
        ("throttleReadIOPSDevice", |r| &r.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", |r| &r.blkio_device_write_iops),
    ];
    for (key, rules) in throttles {
        let paths = |r| rules(r).iter().flatten().map(|d| &d.path).collect();
        end(key, "rate", paths(before), paths(after));
    }
}

pub(crate) fn block_io(host: &HostConfig) -> Result<Map<String, Value>> {
    let r = &host.resources;
    let mut section = Map::new();
    if r.blkio_weight > 0 {
        section.insert("weight".into(), r.blkio_weight.into());
    }
    // 0 is none.
    let weights = r.blkio_weight_device.iter().flatten().filter(|device| device.weight != 0);
    let weights: Vec<Value> = weights
        .map(|d| devices::find(&d.path).map(|n| json!({ "major": n.major, "minor": n.minor, "weight": d.weight })))
        .collect::<Result<_>>()?;
    if !weights.is_empty() {
        section.insert("weightDevice".into(), weights.into());
    }
    let throttles = [
        ("throttleReadBpsDevice", &r.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &r.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &r.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", &r.blkio_device_write_iops),
    ];
    for (key, devices) in throttles {
        let list: Vec<Value> = devices
            .iter()
            .flatten()
            .map(|d| devices::find(&d.path).map(|n| json!({ "major": n.major, "minor": n.minor, "rate": d.rate })))
            .collect::<Result<_>>()?;
        if !list.is_empty() {
            section.insert(key.into(), list.into());
        }
    }
    Ok(section)
}

/// `process.rlimits`.
pub fn rlimits(host: &HostConfig) -> Result<Value> {
    host.resources.ulimits.iter().flatten().map(rlimit).collect()
}

fn rlimit(limit: &Ulimit) -> Result<Value> {
    const NAMES: &[&str] = &[
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    if !NAMES.contains(&limit.name.as_str()) {
        return Err(EngineError::invalid(format!("invalid ulimit type: {}", limit.name)));
    }
    if limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0) {
        return Err(EngineError::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    // -1 is RLIM_INFINITY: all bits set.
    let value = |n: i64| n.cast_unsigned();
    Ok(json!({ "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
               "hard": value(limit.hard), "soft": value(limit.soft) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Resources, WeightDevice};

    fn with(resources: Resources) -> HostConfig {
        HostConfig { resources, ..HostConfig::default() }
    }

    #[test]
    fn memory_without_swap_gets_as_much_swap_again() {
        let limits = limits(&with(Resources { memory: 64 << 20, ..Resources::default() }), None).unwrap();
        assert_eq!(limits["memory"]["limit"], 64 << 20);
        let swap = if counts_swap() { json!(128 << 20) } else { json!(null) };
        assert_eq!(limits["memory"]["swap"], swap);
    }

    #[test]
    fn who_has_no_number_of_processes_gets_the_daemon_s() {
        let limit = |pids_limit, processes| {
            let found = limits(&with(Resources { pids_limit, ..Resources::default() }), processes).unwrap();
            found["pids"]["limit"].as_i64()
        };
        assert_eq!((limit(None, Some(9)), limit(Some(20), Some(9)), limit(None, None)), (Some(9), Some(20), None));
        assert_eq!((limit(Some(0), Some(9)), limit(Some(-1), Some(9))), (Some(-1), Some(-1)), "asked for");
    }

    #[test]
    fn cores_become_a_quota() {
        let limits = limits(&with(Resources { nano_cpus: 500_000_000, ..Resources::default() }), None).unwrap();
        assert_eq!(limits["cpu"]["quota"], 50_000);
        assert_eq!(limits["cpu"]["period"], 100_000);
    }

    #[test]
    fn contradictions_are_refused() {
        for bad in [
            Resources { memory: 1 << 20, ..Resources::default() },
            Resources { memory_swap: 1 << 30, ..Resources::default() },
            Resources { nano_cpus: 1, cpu_quota: 5_000, ..Resources::default() },
            Resources { nano_cpus: 1_000_000_000_000, ..Resources::default() },
            Resources { cpu_period: 1, ..Resources::default() },
            Resources { blkio_weight: 9, ..Resources::default() },
            Resources {
                blkio_weight_device: Some(vec![WeightDevice { path: "/dev/null".into(), weight: 1001 }]),
                ..Resources::default()
            },
            Resources { memory_swappiness: Some(101), ..Resources::default() },
            Resources { memory_swappiness: Some(-2), ..Resources::default() },
            Resources { cpuset_cpus: "0\n1".into(), ..Resources::default() },
            Resources { device_cgroup_rules: Some(vec!["q 1:1 r".into()]), ..Resources::default() },
            Resources {
                ulimits: Some(vec![Ulimit { name: "nosuch".into(), ..Ulimit::default() }]),
                ..Resources::default()
            },
        ] {
            assert!(check(&with(bad)).is_err());
        }
    }
}
