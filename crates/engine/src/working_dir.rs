//! The directory that a container's processes begin in: made with the container, so that who looks at the container
//! before its first start, or makes an image of it, finds it (moby, `container.SetupWorkingDirectory`).

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use wharf_rooted_path::RootDir;
use wharf_runtime::{Rootfs, mount_outside};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::mounts::clean;
use crate::record::Container;

impl Engine {
    /// Makes it in the container's own layer, where it is missing. Nothing of the container's mounts is there yet, as
    /// with Docker. Waits for the disk.
    ///
    /// A container with IDs of its own gets them at its first start, and what it has on the disk has them: there the
    /// start makes it.
    ///
    /// # Errors
    /// `System` with Docker's words when a file is in its place.
    pub(crate) fn make_working_dir(&self, record: &Container) -> Result<()> {
        let asked = &record.config.working_dir;
        let path = clean(asked);
        if path == "/" || record.host.userns_mode == "auto" {
            return Ok(());
        }
        // As a rule the image has it: then there is nothing to mount.
        let image = self.images().layers().view(&record.layers, None)?;
        if image.metadata(path.trim_start_matches('/'), true).is_ok_and(|found| is_directory(found.st_mode)) {
            return Ok(());
        }
        let stacks = self.stacks(record)?;
        let layers: Vec<BorrowedFd<'_>> = stacks.mounts.iter().map(AsFd::as_fd).collect();
        let dir = self.dir(&record.id);
        let rootfs =
            Rootfs::Overlay { lowers: stacks.root, upper: Some(dir.join("upper")), work: Some(dir.join("work")) };
        let root = mount_outside(&rootfs, &layers, &[], &[], &[])
            .map_err(|e| EngineError::from_source("cannot mount the container's files", &e))?;
        let made = RootDir::from_fd(root).mount_point(path.trim_start_matches('/'), true);
        let refused = |errno: Errno| EngineError::system(format!("mkdir {asked}: {}", wharf_report::os(&errno.into())));
        let found = rustix::fs::fstat(&made.map_err(|error| refused(error.errno))?).map_err(refused)?;
        if !is_directory(found.st_mode) {
            return Err(EngineError::system(format!("Cannot mkdir: {asked} is not a directory")));
        }
        Ok(())
    }
}

fn is_directory(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}
