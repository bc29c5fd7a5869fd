//! Processes, huge pages, RDMA, marks on the packets that the group sends, and v2's own words.

use oci_spec::runtime::LinuxResources;

use super::{Controller, MAX, or_max};
use crate::group::{Group, write};
use crate::{CgroupError, Result};

pub(super) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    if let Some(pids) = resources.pids() {
        let limit = "a limit on processes";
        Controller::of(group, "pids", limit)?.write("pids.max", &or_max(processes(pids.limit())), limit)?;
    }
    huge_pages(group, resources)?;
    for (device, limit) in resources.rdma().iter().flatten() {
        let text = |n: Option<u32>| n.map_or(MAX.to_owned(), |n| n.to_string());
        let (handles, objects) = (text(limit.hca_handles()), text(limit.hca_objects()));
        let value = format!("{device} hca_handle={handles} hca_object={objects}");
        Controller::of(group, "rdma", "a limit on RDMA")?.write("rdma.max", &value, "a limit on RDMA")?;
    }
    let Some(network) = resources.network() else { return Ok(()) };
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let limit = "a class of packets";
        Controller::of(group, "net_cls", limit)?.write("net_cls.classid", &class.to_string(), limit)?;
    }
    for interface in network.priorities().iter().flatten() {
        let (limit, value) = ("a priority of packets", format!("{} {}", interface.name(), interface.priority()));
        Controller::of(group, "net_prio", limit)?.write("net_prio.ifpriomap", &value, limit)?;
    }
    Ok(())
}

/// How many processes a group may have by `pids.limit`. 0 is a limit (runtime-spec 1.3, config-linux, "PIDs") and comes to
/// the same as 1, as it does with runc: the first process is counted and not refused. systemd takes no 0, and nothing
/// could be born into such a group.
pub(crate) fn processes(limit: i64) -> i64 {
    if limit == 0 { 1 } else { limit }
}

fn huge_pages(group: &Group, resources: &LinuxResources) -> Result<()> {
    const LIMIT: &str = "a limit on huge pages of that size";
    for limit in resources.hugepage_limits().iter().flatten() {
        let controller = Controller::of(group, "hugetlb", LIMIT)?;
        let size = limit.page_size();
        if size.is_empty() || size.contains(['/', '.']) {
            return Err(CgroupError::Unsupported("a size of huge pages is like 2MB"));
        }
        let last = if controller.v2 { "max" } else { "limit_in_bytes" };
        let value = if controller.v2 { or_max(limit.limit()) } else { limit.limit().to_string() };
        controller.write(&format!("hugetlb.{size}.{last}"), &value, LIMIT)?;
        // Reservations too, where the kernel counts them: a fault past the other limit kills.
        let reserved = format!("hugetlb.{size}.rsvd.{last}");
        if controller.has(&reserved) {
            controller.write(&reserved, &value, LIMIT)?;
        }
    }
    Ok(())
}

/// Files of the unified hierarchy by their names.
pub(super) fn unified(group: &Group, resources: &LinuxResources) -> Result<()> {
    for (key, value) in resources.unified().iter().flatten() {
        let controller = controller_of(key).ok_or_else(|| CgroupError::Unified(key.clone()))?;
        let hierarchies = group.hierarchies();
        let none = CgroupError::UnifiedController { key: key.clone(), controller: controller.to_owned() };
        let Some(dir) = group.v2_dir() else { return Err(none) };
        // Those of the core are in every group.
        if controller != "cgroup" && !hierarchies.v2_has(controller) || !dir.join(key).exists() {
            return Err(none);
        }
        write(&dir.join(key), value)?;
    }
    Ok(())
}

/// `memory` of `memory.high`; `None` for what is no name of a control file.
fn controller_of(key: &str) -> Option<&str> {
    let (controller, rest) = key.split_once('.')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let is_name = !controller.is_empty() && !rest.is_empty() && key.chars().all(plain) && !key.contains("..");
    is_name.then_some(controller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hierarchies;

    /// Few hosts have this hierarchy any more: files of its names stand in for it.
    #[test]
    fn packets_get_a_class_and_priorities_by_their_device() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().display();
        let line = |name: &str| format!("31 30 0:27 / {place}/{name} rw - cgroup cgroup rw,{name}\n");
        let hierarchies = Hierarchies::parse(&(line("net_cls") + &line("net_prio")));
        let group = Group::open(&hierarchies, "/one").unwrap();
        let network = r#"{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":7}]}}"#;
        let resources: LinuxResources = serde_json::from_str(network).unwrap();
        std::fs::create_dir_all(dir.path().join("net_prio/one")).unwrap();
        std::fs::create_dir_all(dir.path().join("net_cls/one")).unwrap();
        let (class, priorities) =
            (dir.path().join("net_cls/one/net_cls.classid"), dir.path().join("net_prio/one/net_prio.ifpriomap"));
        std::fs::write(&class, "").unwrap();
        assert!(apply(&group, &resources).unwrap_err().to_string().contains("net_prio.ifpriomap"));
        std::fs::write(&priorities, "").unwrap();
        apply(&group, &resources).unwrap();
        assert_eq!(std::fs::read_to_string(class).unwrap(), "1048577");
        assert_eq!(std::fs::read_to_string(priorities).unwrap(), "lo 7");
    }

    #[test]
    fn only_names_of_control_files_are_taken() {
        assert_eq!(controller_of("memory.high"), Some("memory"));
        assert_eq!(controller_of("hugetlb.2MB.max"), Some("hugetlb"));
        assert_eq!(controller_of("cgroup.max.depth"), Some("cgroup"));
        for bad in ["", "memory", ".high", "memory.", "../memory.high", "a/memory.high", "memory..high"] {
            assert_eq!(controller_of(bad), None, "{bad}");
        }
    }
}
