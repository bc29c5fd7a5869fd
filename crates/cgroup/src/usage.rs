//! What a group has used, as `stats` shows it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::group::Group;

/// A reading. What the host does not count is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Nanoseconds of CPU time.
    pub cpu: u64,
    /// By CPU; v1 alone counts that.
    #[serde(default)]
    pub cpu_each: Vec<u64>,
    pub cpu_user: u64,
    pub cpu_system: u64,
    /// Periods of the CPU quota, those in which it was reached, and nanoseconds waited for that.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
    /// Bytes.
    pub memory: u64,
    pub memory_peak: u64,
    /// Bytes; `u64::MAX` is none.
    pub memory_limit: u64,
    pub memory_failures: u64,
    /// Processes of the group, and on v2 of those below it, that the kernel ended for want of memory: its own, or that of
    /// a group above.
    pub oom_kills: u64,
    /// The kernel's own counters of `memory.stat`.
    pub memory_details: BTreeMap<String, u64>,
    pub pids: u64,
    /// `u64::MAX` is none.
    pub pids_limit: u64,
}

impl Usage {
    pub(crate) fn read(group: &Group) -> Self {
        let mut usage = Self { memory_limit: u64::MAX, pids_limit: u64::MAX, ..Self::default() };
        // On a hybrid host each controller is in one of both.
        let unified = group.v2_dir();
        match (group.v1_dir("cpuacct"), group.v1_dir("cpu"), &unified) {
            (None, None, Some(dir)) => usage.read_cpu(dir),
            (accounts, limits, _) => usage.read_v1_cpu(accounts.as_deref(), limits.as_deref()),
        }
        match (group.v1_dir("memory"), &unified) {
            (Some(dir), _) => usage.read_v1_memory(&dir),
            (None, Some(dir)) => usage.read_memory(dir),
            (None, None) => {}
        }
        if let Some(dir) = group.v1_dir("pids").or(unified) {
            usage.read_pids(&dir);
        }
        usage
    }

    fn read_v1_cpu(&mut self, accounts: Option<&Path>, limits: Option<&Path>) {
        if let Some(dir) = accounts {
            self.cpu = number(&dir.join("cpuacct.usage")).unwrap_or(0);
            self.cpu_user = number(&dir.join("cpuacct.usage_user")).unwrap_or(0);
            self.cpu_system = number(&dir.join("cpuacct.usage_sys")).unwrap_or(0);
            let each = std::fs::read_to_string(dir.join("cpuacct.usage_percpu")).unwrap_or_default();
            self.cpu_each = each.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        }
        if let Some(dir) = limits {
            let stat = table(&dir.join("cpu.stat"));
            let get = |key: &str| stat.get(key).copied().unwrap_or(0);
            (self.periods, self.throttled_periods, self.throttled) =
                (get("nr_periods"), get("nr_throttled"), get("throttled_time"));
        }
    }

    fn read_v1_memory(&mut self, dir: &Path) {
        self.memory = number(&dir.join("memory.usage_in_bytes")).unwrap_or(0);
        self.memory_peak = number(&dir.join("memory.max_usage_in_bytes")).unwrap_or(0);
        self.memory_failures = number(&dir.join("memory.failcnt")).unwrap_or(0);
        // v1 writes "no limit" as the largest multiple of a page.
        self.memory_limit = number(&dir.join("memory.limit_in_bytes"))
            .filter(|limit| *limit < i64::MAX as u64 - 65_536)
            .unwrap_or(u64::MAX);
        self.oom_kills = table(&dir.join("memory.oom_control")).get("oom_kill").copied().unwrap_or(0);
        self.memory_details = table(&dir.join("memory.stat"));
    }

    fn read_cpu(&mut self, dir: &Path) {
        const MICRO: u64 = 1_000;
        let cpu = table(&dir.join("cpu.stat"));
        let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
        self.cpu = get("usage_usec") * MICRO;
        self.cpu_user = get("user_usec") * MICRO;
        self.cpu_system = get("system_usec") * MICRO;
        self.periods = get("nr_periods");
        self.throttled_periods = get("nr_throttled");
        self.throttled = get("throttled_usec") * MICRO;
    }

    fn read_memory(&mut self, dir: &Path) {
        self.memory = number(&dir.join("memory.current")).unwrap_or(0);
        self.memory_peak = number(&dir.join("memory.peak")).unwrap_or(0);
        self.memory_limit = number(&dir.join("memory.max")).unwrap_or(u64::MAX);
        let events = table(&dir.join("memory.events"));
        self.memory_failures = events.get("max").copied().unwrap_or(0);
        self.oom_kills = events.get("oom_kill").copied().unwrap_or(0);
        self.memory_details = table(&dir.join("memory.stat"));
    }

    fn read_pids(&mut self, dir: &Path) {
        self.pids = number(&dir.join("pids.current")).unwrap_or(0);
        self.pids_limit = number(&dir.join("pids.max")).unwrap_or(u64::MAX);
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Lines of `key value`.
fn table(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}
