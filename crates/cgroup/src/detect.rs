//! What hierarchies the host has mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{CgroupError, Result, is_rootless};

/// The mounted hierarchies. On a hybrid host both kinds are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// v1: mount point by controller (`cpu`, `memory`, `name=systemd`, …); joint mounts appear once for each.
    v1: BTreeMap<String, PathBuf>,
    /// Mount point of the unified hierarchy and the controllers that it has.
    v2: Option<(PathBuf, Vec<String>)>,
}

impl Hierarchies {
    /// Reads this process's mount table.
    ///
    /// # Errors
    /// When it cannot be read, or when no hierarchy is there at all.
    pub fn detect() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let table = std::fs::read_to_string(path).map_err(|source| CgroupError::File {
            action: "read",
            path: path.into(),
            source,
        })?;
        let mut found = Self::parse(&table);
        // Something else may be mounted over a hierarchy; what is seen there decides, not the table.
        found.v1.retain(|_, point| is_on(point, CGROUP_MAGIC));
        found.v2 = found.v2.filter(|(point, _)| is_on(point, CGROUP2_MAGIC));
        if let Some((root, controllers)) = &mut found.v2 {
            let list = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            *controllers = list.split_whitespace().map(str::to_owned).collect();
        }
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(CgroupError::NoHierarchy);
        }
        Ok(found)
    }

    /// Those in which this process can have the group `path`, which an ordinary user cannot but in what was delegated to
    /// him: where there is none, containers have no group, no limit, and are not counted.
    ///
    /// # Errors
    /// As [`Self::detect`], for root of the host.
    pub fn usable(path: &str) -> Result<Self> {
        if !is_rootless() {
            return Self::detect();
        }
        let mut found = Self::detect().unwrap_or_default();
        found.v1.retain(|_, root| is_writable(root, path));
        found.v2 = found.v2.filter(|(root, _)| is_writable(root, path));
        Ok(found)
    }

    /// Whether there are none, as for [`Self::usable`].
    pub fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// Whether groups can be limited by `controller`.
    pub fn has(&self, controller: &str) -> bool {
        self.v1(controller).is_some() || self.v2_has(controller)
    }

    /// proc_pid_mountinfo(5): `ID PARENT DEV ROOT POINT OPTIONS FIELDS* - TYPE SOURCE SUPER`.
    pub(crate) fn parse(table: &str) -> Self {
        let mut found = Self::default();
        for line in table.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            let Some(point) = left.split(' ').nth(4).map(unescape) else { continue };
            match kind {
                // The first mount of a hierarchy is the host's; a container's view may be mounted elsewhere too.
                "cgroup2" if found.v2.is_none() => found.v2 = Some((point, Vec::new())),
                "cgroup" => {
                    for controller in options.split(',').filter(|o| is_controller(o)) {
                        found.v1.entry(controller.to_owned()).or_insert_with(|| point.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The names of all groups right below this one, in any hierarchy.
    pub fn names_in(&self, path: &str) -> BTreeSet<String> {
        let inside = Path::new(path.trim_start_matches('/'));
        let roots: BTreeSet<&Path> = self.all_v1().map(|(_, root)| root).chain(self.v2()).collect();
        let entries =
            roots.into_iter().flat_map(|root| std::fs::read_dir(root.join(inside)).into_iter().flatten().flatten());
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.filter_map(|group| group.file_name().into_string().ok()).collect()
    }

    /// Whether limits are set in the unified hierarchy.
    pub fn is_v2(&self) -> bool {
        self.v1.keys().all(|controller| controller.starts_with("name=")) && self.v2.is_some()
    }

    /// Where the v1 hierarchy of `controller` is mounted.
    pub fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.get(controller).map(PathBuf::as_path)
    }

    /// All v1 hierarchies: name and mount point.
    pub fn all_v1(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.v1.iter().map(|(name, point)| (name.as_str(), point.as_path()))
    }

    /// Where the unified hierarchy is mounted.
    pub fn v2(&self) -> Option<&Path> {
        self.v2.as_ref().map(|(point, _)| point.as_path())
    }

    /// Whether swap of a group can be limited: the kernel may have none, or not count it.
    pub fn counts_swap(&self) -> bool {
        match self.v1("memory") {
            Some(root) => root.join("memory.memsw.limit_in_bytes").exists(),
            // v2's root group has no limits to look at.
            None => {
                let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
                self.v2_has("memory")
                    && Path::new("/proc/swaps").exists()
                    && !words.split_whitespace().any(|word| word == "swapaccount=0")
            }
        }
    }

    /// Whether the unified hierarchy has `controller`.
    pub fn v2_has(&self, controller: &str) -> bool {
        self.v2.as_ref().is_some_and(|(_, all)| all.iter().any(|c| c == controller))
    }
}

/// linux/magic.h, `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC`.
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Whether the group, or what is there of the way to it, lets this process make groups.
fn is_writable(root: &Path, path: &str) -> bool {
    let wanted = root.join(path.trim_start_matches('/'));
    let there = wanted.ancestors().take_while(|dir| dir.starts_with(root)).find(|dir| dir.is_dir());
    there.is_some_and(|dir| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok())
}

fn is_on(point: &Path, magic: i64) -> bool {
    // The type is a `long`, or an `int` on some architectures.
    #[allow(clippy::unnecessary_cast)]
    rustix::fs::statfs(point).is_ok_and(|found| found.f_type as i64 == magic)
}

/// Controllers among a v1 mount's options, which also hold `rw`, `clone_children` and the like.
fn is_controller(option: &str) -> bool {
    const KNOWN: &[&str] = &[
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    ];
    KNOWN.contains(&option) || option.starts_with("name=")
}

/// Blanks and backslashes are written in octal.
fn unescape(text: &str) -> PathBuf {
    PathBuf::from(text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_is_seen_as_it_is() {
        let found = Hierarchies::parse(
            "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             34 30 0:30 / /else\\040where rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!(found.v1("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.v1("memory"), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(found.v2(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert!(!found.is_v2());
    }

    #[test]
    fn a_unified_host_is_v2() {
        let found = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(found.is_v2());
        assert!(!found.v2_has("memory"));
    }
}
