//! What a container has used, in the form of runc's `events`.

use std::path::Path;

use serde_json::{Map, Value, json};
use wharf_cgroup::Group;

use crate::state::Container;

pub(crate) fn read(container: &Container) -> Value {
    let group = &container.group;
    let usage = group.usage();
    let mut throttling = json!({});
    for (key, value) in
        [("periods", usage.periods), ("throttledPeriods", usage.throttled_periods), ("throttledTime", usage.throttled)]
    {
        if value > 0 {
            throttling[key] = json!(value);
        }
    }
    let mut cpu = json!({ "total": usage.cpu, "kernel": usage.cpu_system, "user": usage.cpu_user });
    if let Some(dir) = group.v1_dir("cpuacct") {
        cpu["percpu"] = json!(numbers(&dir.join("cpuacct.usage_percpu")));
    }
    let mut memory = json!({
        "usage": entry(usage.memory_limit, usage.memory, usage.memory_peak, usage.memory_failures),
        "raw": usage.memory_details,
    });
    if let Some(cache) = usage.memory_details.get("cache").or_else(|| usage.memory_details.get("file")) {
        memory["cache"] = json!(cache);
    }
    if let Some(dir) = group.v1_dir("memory") {
        memory["swap"] = v1_memory(&dir, "memory.memsw");
        memory["kernel"] = v1_memory(&dir, "memory.kmem");
        memory["kernelTCP"] = v1_memory(&dir, "memory.kmem.tcp");
    }
    let mut pids = json!({ "current": usage.pids });
    if usage.pids_limit != u64::MAX {
        pids["limit"] = json!(usage.pids_limit);
    }
    json!({
        "cpu": { "usage": cpu, "throttling": throttling },
        "cpuset": cpuset(group),
        "memory": memory,
        "pids": pids,
        "blkio": block_io(group),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// What v1 and so runc writes for no limit.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

fn entry(limit: u64, usage: u64, peak: u64, failures: u64) -> Value {
    json!({ "limit": limit.min(UNLIMITED), "usage": usage, "max": peak, "failcnt": failures })
}

fn v1_memory(dir: &Path, prefix: &str) -> Value {
    let read = |name: &str| numbers(&dir.join(format!("{prefix}.{name}"))).first().copied().unwrap_or(0);
    entry(read("limit_in_bytes"), read("usage_in_bytes"), read("max_usage_in_bytes"), read("failcnt"))
}

fn cpuset(group: &Group) -> Value {
    let Some(dir) = group.v1_dir("cpuset").or_else(|| group.v2_dir()) else { return json!({}) };
    let list = |name: &str| {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        expand(text.trim())
    };
    let mut all = json!({ "cpus": list("cpuset.cpus"), "mems": list("cpuset.mems") });
    for key in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        if let Ok(text) = std::fs::read_to_string(dir.join(format!("cpuset.{key}")))
            && let Ok(number) = text.trim().parse::<i64>()
        {
            all[key] = json!(number);
        }
    }
    all
}

/// `0-2,5` as its numbers.
fn expand(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        Some(first..=last.min(first.saturating_add(4096)))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// By device and operation; runc's names for the files.
fn block_io(group: &Group) -> Value {
    let mut all = Map::new();
    let Some(dir) = group.v1_dir("blkio") else { return Value::Object(all) };
    for (key, file) in [
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes_recursive"),
        ("ioServicedRecursive", "blkio.throttle.io_serviced_recursive"),
    ] {
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        let entries: Vec<Value> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (major, minor) = words.next()?.split_once(':')?;
                let (op, value) = (words.next()?, words.next()?);
                let number = |text: &str| text.parse::<u64>().ok();
                Some(json!({ "major": number(major)?, "minor": number(minor)?, "op": op, "value": number(value)? }))
            })
            .collect();
        if !entries.is_empty() {
            all.insert(key.into(), entries.into());
        }
    }
    Value::Object(all)
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_expanded() {
        assert_eq!(expand("0-2,5"), [0, 1, 2, 5]);
        assert!(expand("").is_empty());
        assert!(expand("0-4000000000").len() < 5000);
    }
}
