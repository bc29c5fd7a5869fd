//! What a container's files are made of, as the runtime takes it: layers of its root and of images that it mounts, and
//! parts of volumes.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use wharf_rooted_path::RootDir;
use wharf_runtime::{BindSource, Lower, Rootfs};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::{Container, MountPoint};

/// Layers, of which images count their mounts among `mounts`.
#[derive(Debug)]
pub(crate) struct Stacks {
    /// Below the files that the container writes, the topmost first.
    pub(crate) root: Vec<Lower>,
    /// What its mounts of images and of parts of volumes show.
    pub(crate) binds: Vec<BindSource>,
    pub(crate) mounts: Vec<Arc<OwnedFd>>,
}

impl Engine {
    /// # Errors
    /// When a layer is not there.
    pub(crate) fn stacks(&self, record: &Container) -> Result<Stacks> {
        let layers = self.images().layers();
        let mut root = layers.lowers(&record.layers)?;
        // Below all: only what the image lacks is seen.
        root.push(wharf_snapshot::Lower::Directory(self.inner.places.clone()));
        let images: Vec<&MountPoint> = record.mounts.iter().filter(|point| point.image.is_some()).collect();
        let mut stacks = vec![root];
        for point in &images {
            stacks.push(layers.stack(point.layers())?);
        }
        // One count for all of them.
        let sizes: Vec<usize> = stacks.iter().map(Vec::len).collect();
        let all = stacks.into_iter().flatten().map(wharf_snapshot::Lower::into_parts);
        let (mut all, mounts) = Lower::list(all);
        let mut stacks = sizes.into_iter().map(|size| all.drain(..size).collect::<Vec<Lower>>());
        let root = stacks.next().unwrap_or_default();
        let mut binds: Vec<BindSource> =
            images.iter().zip(stacks).map(|(point, stack)| bind(point, shown(stack))).collect();
        let parts = record.mounts.iter().filter(|point| point.kind == "volume" && !point.subpath.is_empty());
        binds.extend(parts.map(|point| bind(point, Rootfs::Directory(point.source.clone().into()))));
        Ok(Stacks { root, binds, mounts })
    }

    /// Looks whether what is mounted of a volume or an image is there. The runtime looks again, at each start.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidParameter` where a link leads out of the volume, with Docker's words.
    pub(crate) fn check_subpath(&self, point: &MountPoint) -> Result<()> {
        let (base, part) = (&point.source, &point.subpath);
        if part.is_empty() {
            return Ok(());
        }
        let found = match &point.image {
            Some(image) => self.images().layers().view(&image.layers, None)?.handle_beneath(part),
            None => RootDir::open(base).and_then(|root| root.handle_beneath(part)),
        };
        match found.map_err(|error| error.errno) {
            Ok(_) => Ok(()),
            Err(Errno::XDEV) => Err(EngineError::invalid(format!(
                "path concatenation escapes the base directory, base: {base}, subpath: {part}"
            ))),
            Err(errno) => Err(EngineError::not_found(format!(
                "cannot access path {base}/{part}: {}",
                wharf_report::os(&errno.into())
            ))),
        }
    }
}

fn bind(point: &MountPoint, root: Rootfs) -> BindSource {
    BindSource { destination: point.destination.clone().into(), root, path: point.subpath.clone().into() }
}

/// What an image without layers has is one empty directory, which overlayfs does not take twice.
fn shown(stack: Vec<Lower>) -> Rootfs {
    match stack.as_slice() {
        [Lower::Directory(one), Lower::Directory(other)] if one == other => Rootfs::Directory(one.clone()),
        _ => Rootfs::Overlay { lowers: stack, upper: None, work: None },
    }
}
