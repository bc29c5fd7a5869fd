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
    if !usage.cpu_each.is_empty() {
        cpu["percpu"] = json!(usage.cpu_each);
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
    } else if let Some(dir) = group.v2_dir() {
        memory["swap"] = swap(&dir, usage.memory, usage.memory_limit);
    }
    let mut pids = json!({ "current": usage.pids });
    if usage.pids_limit != u64::MAX {
        pids["limit"] = json!(usage.pids_limit);
    }
    let mut cpu = json!({ "usage": cpu, "throttling": throttling });
    let mut io = block_io(group);
    if let Some(dir) = group.v2_dir() {
        for (section, file) in [(&mut cpu, "cpu.pressure"), (&mut memory, "memory.pressure"), (&mut io, "io.pressure")]
        {
            // Not in every kernel, and of no group where it was switched off at the boot.
            if let Ok(text) = std::fs::read_to_string(dir.join(file)) {
                section["psi"] = pressure(&text);
            }
        }
    }
    json!({
        "cpu": cpu,
        "cpuset": cpuset(group),
        "memory": memory,
        "pids": pids,
        "blkio": io,
        "hugetlb": huge_pages(group),
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

/// On v2 swap is counted alone; with memory it is what v1 and so runc shows.
fn swap(dir: &Path, memory: u64, memory_limit: u64) -> Value {
    let read = |name: &str| numbers(&dir.join(format!("memory.swap.{name}"))).first().copied();
    let usage = read("current").unwrap_or(0).saturating_add(memory);
    let limit = read("max").map_or(u64::MAX, |limit| limit.saturating_add(memory_limit));
    entry(limit, usage, read("peak").unwrap_or(0), 0)
}

/// Pressure stall information (psi.rst): lines as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(text: &str) -> Value {
    let mut all = json!({});
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(who) = words.next() else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            all[who][key] = match key {
                "total" => json!(value.parse::<u64>().unwrap_or(0)),
                _ => json!(value.parse::<f64>().unwrap_or(0.0)),
            };
        }
    }
    all
}

/// By the size of the pages.
fn huge_pages(group: &Group) -> Value {
    let mut all = json!({});
    let v1 = group.v1_dir("hugetlb");
    let Some(dir) = v1.clone().or_else(|| group.v2_dir()) else { return all };
    let (limit, usage) = if v1.is_some() { ("limit_in_bytes", "usage_in_bytes") } else { ("max", "current") };
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(limit)?.strip_suffix('.'));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let read = |file: &str| numbers(&dir.join(format!("hugetlb.{size}.{file}"))).first().copied().unwrap_or(0);
        let failures = if v1.is_some() {
            read("failcnt")
        } else {
            let events = std::fs::read_to_string(dir.join(format!("hugetlb.{size}.events"))).unwrap_or_default();
            events.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok()).unwrap_or(0)
        };
        all[size] = json!({ "usage": read(usage), "max": read("max_usage_in_bytes"), "failcnt": failures });
    }
    all
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
    let Some(dir) = group.v1_dir("blkio") else {
        let text = group.v2_dir().and_then(|dir| std::fs::read_to_string(dir.join("io.stat")).ok());
        return io_stat(&text.unwrap_or_default());
    };
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

/// v2's one file in the form of v1's two.
fn io_stat(text: &str) -> Value {
    let mut all = json!({});
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|name| name.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse::<u64>(), minor.parse::<u64>()))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => ("ioServiceBytesRecursive", "Read"),
                "wbytes" => ("ioServiceBytesRecursive", "Write"),
                "rios" => ("ioServicedRecursive", "Read"),
                "wios" => ("ioServicedRecursive", "Write"),
                _ => continue,
            };
            if all[table].is_null() {
                all[table] = json!([]);
            }
            if let (Some(list), Ok(value)) = (all[table].as_array_mut(), value.parse::<u64>()) {
                list.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
            }
        }
    }
    all
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_s_files_are_shown_as_runc_does() {
        let psi = pressure(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
        );
        assert_eq!(
            (&psi["some"]["avg10"], &psi["some"]["total"], &psi["full"]["total"]),
            (&json!(1.5), &json!(77), &json!(5))
        );
        let io = io_stat("254:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n8:0 \n");
        assert_eq!(io["ioServiceBytesRecursive"][1], json!({ "major": 254, "minor": 0, "op": "Write", "value": 4096 }));
        assert_eq!(io["ioServicedRecursive"][0]["value"], json!(2));
        assert_eq!(io_stat(""), json!({}));
    }

    #[test]
    fn lists_of_cpus_are_expanded() {
        assert_eq!(expand("0-2,5"), [0, 1, 2, 5]);
        assert!(expand("").is_empty());
        assert!(expand("0-4000000000").len() < 5000);
    }
}
