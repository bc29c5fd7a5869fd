//! Nodes for a container in a user namespace, where none can be made (user_namespaces(7)): made out here, in a tmpfs
//! that is in nobody's mount table, and mounted in there.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, LinuxIdMapping};
use rustix::fs::{AtFlags, Gid, Mode, Uid, chmodat, chownat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};

use crate::nodes::DeviceStep;

/// What a container's IDs are on the host.
#[derive(Debug, Default)]
pub(crate) struct Owners<'a> {
    uids: &'a [LinuxIdMapping],
    gids: &'a [LinuxIdMapping],
}

impl<'a> Owners<'a> {
    pub(crate) fn of(linux: &'a Linux) -> Self {
        let list = |mappings: &'a Option<Vec<LinuxIdMapping>>| mappings.as_deref().unwrap_or_default();
        Self { uids: list(linux.uid_mappings()), gids: list(linux.gid_mappings()) }
    }

    /// `None` for an ID that has no meaning on the host.
    fn on_host(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        Some((host_id(self.uids, uid)?, host_id(self.gids, gid)?))
    }
}

fn host_id(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    })
}

/// The node as a detached mount. An error is no failure of the container's: the host's own node will do then, whose
/// owner and mode are its own. Copying out of a mount that is in no mount table is possible from Linux 6.15 on.
pub(crate) fn make(step: &DeviceStep, owners: &Owners<'_>) -> Result<OwnedFd, Errno> {
    let (uid, gid) = owners.on_host(step.owner).ok_or(Errno::INVAL)?;
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dir = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    let mode = Mode::from_raw_mode(step.mode);
    mknodat(&dir, "node", step.kind, mode, step.device)?;
    chownat(&dir, "node", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    // The umask was none of the container's.
    chmodat(&dir, "node", mode, AtFlags::empty())?;
    open_tree(&dir, "node", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_host_s_where_it_is_mapped() {
        let mappings: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":10}]"#,
        )
        .unwrap();
        assert_eq!(host_id(&mappings, 0), Some(1000));
        assert_eq!(host_id(&mappings, 10), Some(100_009));
        assert_eq!(host_id(&mappings, 11), None);
    }
}
