//! How much a container uses: disk, processor, memory, network; and which processes it has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Value, json};
use wharf_rooted_path::RootDir;

use crate::engine::{Engine, blocking, now};
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::Container;

/// Bytes on the disk of all below `dir`; a file with several names counts once. Who writes there may put a link in the
/// place of a directory meanwhile: it leads nowhere else.
pub(crate) fn tree_size(dir: &Path) -> u64 {
    let Ok(root) = RootDir::open(dir) else { return 0 };
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![PathBuf::new()];
    let mut total = 0;
    while let Some(dir) = left.pop() {
        for name in root.read_dir(&dir).unwrap_or_default() {
            let path = dir.join(name);
            let Ok(found) = root.metadata(&path, false) else { continue };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                left.push(path);
            } else if found.st_nlink < 2 || seen.insert((found.st_dev, found.st_ino)) {
                total += u64::try_from(found.st_size).unwrap_or(0);
            }
        }
    }
    total
}

/// The processes of a container, as `top` shows them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

impl Engine {
    /// Bytes that a container has written to its own layer.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn size_rw(&self, name: &str) -> Result<u64> {
        let slot = self.inner.slots.find(name)?;
        let dir = self.dir(&slot.id).join("upper");
        blocking(move || Ok(tree_size(&dir))).await
    }

    /// One reading of a container's use, in the form of `GET /containers/{id}/stats`; `precpu_stats` is the
    /// caller's to fill from the reading before.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stats(&self, name: &str) -> Result<Value> {
        let record = self.inner.slots.find(name)?.record();
        let engine = self.clone();
        blocking(move || engine.read_stats(&record)).await
    }

    fn read_stats(&self, record: &Container) -> Result<Value> {
        let usage = if record.state.status.is_active() { self.group(record)?.usage() } else { Default::default() };
        let known = |n: u64| (n != u64::MAX).then_some(n);
        let details = &usage.memory_details;
        let limit = known(usage.memory_limit).filter(|limit| *limit > 0).unwrap_or_else(host_memory);
        let running = record.state.status.is_active();
        let mut pids = json!({});
        let mut memory = json!({});
        let mut cpu = json!({
            "cpu_usage": { "total_usage": usage.cpu, "usage_in_kernelmode": usage.cpu_system,
                           "usage_in_usermode": usage.cpu_user },
            "throttling_data": { "periods": usage.periods, "throttled_periods": usage.throttled_periods,
                                 "throttled_time": usage.throttled },
        });
        if !usage.cpu_each.is_empty() {
            cpu["cpu_usage"]["percpu_usage"] = json!(usage.cpu_each);
        }
        if running {
            cpu["system_cpu_usage"] = host_cpu().into();
            cpu["online_cpus"] = std::thread::available_parallelism().map_or(1, usize::from).into();
            pids = json!({ "current": usage.pids, "limit": known(usage.pids_limit).unwrap_or(u64::MAX) });
            memory = json!({ "usage": usage.memory, "limit": limit, "stats": details });
            if !self.inner.hierarchies.is_v2() {
                memory["max_usage"] = usage.memory_peak.into();
                memory["failcnt"] = usage.memory_failures.into();
            }
        }
        let mut stats = json!({
            "name": format!("/{}", record.name),
            "id": record.id,
            "os_type": "linux",
            "read": now(),
            "preread": crate::record::NEVER,
            "num_procs": 0,
            "pids_stats": pids,
            "cpu_stats": cpu,
            "precpu_stats": {
                "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
                "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
            },
            "memory_stats": memory,
            "blkio_stats": self.block_io(record),
            "storage_stats": {},
        });
        if record.host.network_mode != "host"
            && let Ok(process) = Process::of(record)
        {
            stats["networks"] = networks(&process.path("net/dev"));
        }
        Ok(stats)
    }

    /// Bytes and operations by device (cgroup v1's throttle files, or v2's `io.stat`).
    fn block_io(&self, record: &Container) -> Value {
        let mut bytes = Vec::new();
        let mut operations = Vec::new();
        if let Ok(group) = self.group(record) {
            if let Some(dir) = group.v1_dir("blkio") {
                bytes = v1_blkio(&dir.join("blkio.throttle.io_service_bytes"));
                operations = v1_blkio(&dir.join("blkio.throttle.io_serviced"));
            } else if let Some(dir) = group.v2_dir() {
                (bytes, operations) = v2_io(&dir.join("io.stat"));
            }
        }
        json!({
            "io_service_bytes_recursive": bytes, "io_serviced_recursive": operations, "io_queue_recursive": null,
            "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null,
        })
    }

    /// The processes of a container.
    ///
    /// # Errors
    /// `Conflict` when it does not run; `InvalidParameter` when `ps` refuses the arguments.
    pub async fn top(&self, name: &str, arguments: &str) -> Result<Top> {
        let record = self.inner.slots.find(name)?.record();
        if !record.state.status.is_active() {
            return Err(EngineError::conflict(format!("container {} is not running", record.id)));
        }
        let group = self.group(&record)?;
        let arguments = if arguments.is_empty() { "-ef".to_owned() } else { arguments.to_owned() };
        let first = record.state.pid;
        let top = blocking(move || {
            let pids = match group.hierarchies().is_empty() {
                true => crate::ungrouped::processes(first),
                false => group.processes().map_err(|e| EngineError::from_source("cannot list the processes", &e))?,
            };
            ps(&arguments, &pids)
        })
        .await?;
        self.tell(&record, "top");
        Ok(top)
    }
}

/// What the host's own ps(1) says of these processes: the caller chooses its columns.
fn ps(arguments: &str, pids: &[i32]) -> Result<Top> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let run = |more: &[&str]| {
        let output = std::process::Command::new("ps").args(&words).args(more).output();
        output
            .map_err(|e| EngineError::from_source("Error running ps: the host's ps (Debian: procps) cannot be run", &e))
    };
    // By their numbers: options that name columns alone would mean our own user's. Some others cannot be beside those (moby,
    // `daemon.ContainerTop`).
    let all = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let output = match run(&["-q", &all])? {
        chosen if chosen.status.success() => chosen,
        _ => run(&[])?,
    };
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
        return Err(EngineError::invalid(format!("ps: {line}")));
    }
    select(&String::from_utf8_lossy(&output.stdout), pids)
}

/// The lines of `ps` that are about these processes, cut into columns.
fn select(text: &str, pids: &[i32]) -> Result<Top> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| EngineError::invalid("Couldn't find PID field in ps output"))?;
    let mut processes = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let pid = fields.get(column).and_then(|text| text.parse::<i32>().ok());
        if !pid.is_some_and(|pid| pids.contains(&pid)) {
            continue;
        }
        // The last column is the command with its arguments.
        let last = titles.len() - 1;
        let mut row: Vec<String> = fields.iter().take(last).map(|f| (*f).to_owned()).collect();
        row.push(fields.get(last..).unwrap_or_default().join(" "));
        processes.push(row);
    }
    Ok(Top { titles, processes })
}

fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// Nanoseconds of all processors together since the boot (proc(5), `/proc/stat`).
fn host_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or("");
    // The first seven, as Docker: guest time is in user time already.
    let ticks: u64 = line.split_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    // The kernel's USER_HZ is 100 on all that we build for.
    ticks * (1_000_000_000 / 100)
}

/// Counters of the container's interfaces, read in its own namespace.
fn networks(path: &str) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut all = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if name.trim() == "lo" || numbers.len() < 12 {
            continue;
        }
        all.insert(
            name.trim().to_owned(),
            json!({
                "rx_bytes": numbers[0], "rx_packets": numbers[1], "rx_errors": numbers[2], "rx_dropped": numbers[3],
                "tx_bytes": numbers[8], "tx_packets": numbers[9], "tx_errors": numbers[10], "tx_dropped": numbers[11],
            }),
        );
    }
    json!(all)
}

fn v1_blkio(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (device, op, value) = (words.next()?, words.next()?, words.next()?.parse::<u64>().ok()?);
        let (major, minor) = device.split_once(':')?;
        Some(
            json!({ "major": major.parse::<u32>().ok()?, "minor": minor.parse::<u32>().ok()?, "op": op, "value": value }),
        )
    };
    text.lines().filter_map(line).collect()
}

fn v2_io(path: &Path) -> (Vec<Value>, Vec<Value>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { continue };
        for (key, value) in words.filter_map(|pair| pair.split_once('=')) {
            let Ok(value) = value.parse::<u64>() else { continue };
            let row = |op: &str| json!({ "major": major, "minor": minor, "op": op, "value": value });
            match key {
                "rbytes" => bytes.push(row("read")),
                "wbytes" => bytes.push(row("write")),
                "rios" => operations.push(row("read")),
                "wios" => operations.push(row("write")),
                _ => {}
            }
        }
    }
    (bytes, operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_container_are_selected() {
        let text = "UID PID PPID CMD\nroot 1 0 /sbin/init splash\nweb 77 1 nginx: worker process\n";
        let top = select(text, &[77]).unwrap();
        assert_eq!(top.processes, [["web", "77", "1", "nginx: worker process"]]);
        assert!(select("USER\nroot\n", &[1]).is_err());
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0; 100]).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/c"), [0; 11]).unwrap();
        assert_eq!(tree_size(dir.path()), 111);
    }
}
