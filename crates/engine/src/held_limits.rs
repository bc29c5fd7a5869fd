//! The limits of a group as they are before a change, to be put back when the change fails half-way.

use std::fs;
use std::path::{Path, PathBuf};

use wharf_cgroup::Group;

/// Files that an update may write, by their v1 controller. Memory alone and memory with swap must be restored in turns,
/// as the kernel keeps the one below the other.
const V1: &[(&str, &[&str])] = &[
    ("memory", &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"]),
    ("memory", &["memory.swappiness"]),
    ("cpu", &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_runtime_us"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"]),
    ("pids", &["pids.max"]),
    ("blkio", &["blkio.weight", "blkio.bfq.weight"]),
];
const V2: &[&str] = &[
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "pids.max",
    "io.weight",
    "io.bfq.weight",
];

/// Files with what was in them.
#[derive(Debug)]
pub(crate) struct HeldLimits(Vec<(PathBuf, String)>);

impl HeldLimits {
    pub(crate) fn of(group: &Group) -> Self {
        let mut files = Vec::new();
        for (controller, names) in V1 {
            files.extend(group.v1_dir(controller).into_iter().flat_map(|dir| names.iter().map(move |n| dir.join(n))));
        }
        files.extend(group.v2_dir().into_iter().flat_map(|dir| V2.iter().map(move |n| dir.join(n))));
        Self::read(files)
    }

    fn read(files: Vec<PathBuf>) -> Self {
        // A controller or a file that this kernel does not have cannot have been changed either.
        Self(files.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))).collect())
    }

    /// Writes what differs, and once more what the order had forbidden.
    pub(crate) fn put_back(&self) {
        for _ in 0..2 {
            for (path, before) in &self.0 {
                let now = fs::read_to_string(path).unwrap_or_default();
                if now != *before {
                    // What the kernel does not take back now, as too much is in use, it has refused as a new limit, too.
                    let _ = write(path, before.trim());
                }
            }
        }
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (there, missing) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&there, "100\n").unwrap();
        let held = HeldLimits::read(vec![there.clone(), missing.clone()]);
        fs::write(&there, "200\n").unwrap();
        held.put_back();
        assert!(fs::read_to_string(&there).unwrap().starts_with("100") && !missing.exists());
    }
}
