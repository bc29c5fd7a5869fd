//! `/dev/shm` of a container whose IPC others may join (`--ipc shareable`, `--ipc container:NAME`).
//!
//! It is the one thing of a container that is mounted on the host: no mount of another mount namespace can be bound, so
//! what several containers are to have must be where the engine can reach it. It goes with the container's end, and
//! after a crash with the next start of the daemon. A container's private one is made in its own namespace.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::Container;

/// Where the host has its own.
const HOST: &str = "/dev/shm";
/// More containers in a row that share another's are no chain but a circle.
const MAX_CHAIN: u32 = 16;

impl Engine {
    /// What is to be mounted on `/dev/shm`; `None` for a file system of the container's own. Makes that of a container
    /// that shares its own.
    pub(crate) fn shared_shm(&self, record: &Container, owner: Option<u32>) -> Result<Option<PathBuf>> {
        match record.host.ipc_mode.as_str() {
            "shareable" => self.make_shm(record, owner).map(Some),
            "host" => Ok(Some(HOST.into())),
            mode => match mode.strip_prefix("container:") {
                Some(of) => self.shm_of(of).map(Some),
                None => Ok(None),
            },
        }
    }

    fn make_shm(&self, record: &Container, owner: Option<u32>) -> Result<PathBuf> {
        let dir = self.exec_dir(&record.id);
        unmount(&dir);
        let place = place(&dir);
        let fail =
            |what: &str, e: &dyn std::error::Error| EngineError::from_source(&format!("cannot {what} /dev/shm"), e);
        std::fs::create_dir_all(&place).map_err(|e| fail("make the place of", &e))?;
        let owner = owner.map(|id| format!(",uid={id},gid={id}")).unwrap_or_default();
        let options = format!("mode=1777,size={}{owner}", record.host.shm_size);
        let options = std::ffi::CString::new(options).map_err(|e| fail("mount", &e))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("shm", &place, "tmpfs", flags, Some(options.as_c_str())).map_err(|e| fail("mount", &e))?;
        Ok(place)
    }

    /// That of a container that another joins.
    fn shm_of(&self, name: &str) -> Result<PathBuf> {
        let mut name = name.to_owned();
        for _ in 0..MAX_CHAIN {
            let donor = self.inspect(&name)?;
            match donor.host.ipc_mode.as_str() {
                "host" => return Ok(HOST.into()),
                "shareable" => {
                    let place = place(&self.exec_dir(&donor.id));
                    if is_mounted(&place) {
                        return Ok(place);
                    }
                    break;
                }
                mode => match mode.strip_prefix("container:") {
                    Some(of) => name = of.to_owned(),
                    None => break,
                },
            }
        }
        Err(EngineError::invalid(format!(
            "container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )))
    }

    /// What a container that has ended, or was never started, had mounted. Who shares it keeps it.
    pub(crate) fn drop_shm(&self, record: &Container) {
        if record.host.ipc_mode == "shareable" {
            unmount(&self.exec_dir(&record.id));
        }
    }
}

fn place(dir: &Path) -> PathBuf {
    dir.join("shm")
}

/// A mount point is on another file system than its directory.
fn is_mounted(place: &Path) -> bool {
    let device = |path: &Path| path.symlink_metadata().map(|found| found.dev());
    match (device(place), place.parent().map(device)) {
        (Ok(own), Some(Ok(above))) => own != above,
        _ => false,
    }
}

/// Unmounts what is in a container's volatile directory.
pub(crate) fn unmount(dir: &Path) {
    let place = place(dir);
    while is_mounted(&place) {
        if let Err(error) = rustix::mount::unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!("cannot unmount {}: {error}", place.display());
            return;
        }
    }
}
