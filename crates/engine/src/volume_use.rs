//! Volumes while a container runs: mounted where they are something else's content, and told of.

use crate::engine::Engine;
use crate::error::Result;
use crate::record::{Container, MountPoint};

fn volumes(record: &Container) -> impl Iterator<Item = &MountPoint> {
    record.mounts.iter().filter(|point| point.kind == "volume")
}

impl Engine {
    /// Mounts what a container that starts needs. Waits for the disk, or for a server.
    ///
    /// # Errors
    /// When one cannot be mounted; then none of them is held.
    pub(crate) fn mount_volumes(&self, record: &Container) -> Result<()> {
        for point in volumes(record) {
            if let Err(error) = self.volumes().mount(&point.name, &record.id) {
                self.release_volumes(record);
                return Err(error.into());
            }
        }
        for point in volumes(record) {
            let rw = point.rw.to_string();
            let attributes = [
                ("container", record.id.as_str()),
                ("destination", &point.destination),
                ("driver", "local"),
                ("propagation", &point.propagation),
                ("read/write", &rw),
            ];
            self.tell_of("volume", "mount", &point.name, &attributes);
        }
        Ok(())
    }

    /// After a start of the daemon: a container that runs goes on using its volumes.
    pub(crate) fn keep_volumes(&self, record: &Container) {
        for point in volumes(record) {
            if let Err(error) = self.volumes().mount(&point.name, &record.id) {
                tracing::warn!("volume {} of container {} is not there: {error}", point.name, record.id);
            }
        }
    }

    /// A container has ended, or does not start.
    pub(crate) fn release_volumes(&self, record: &Container) {
        for point in volumes(record) {
            if let Err(error) = self.volumes().release(&point.name, &record.id) {
                tracing::warn!("cannot unmount volume {}: {error}", point.name);
            }
        }
    }

    pub(crate) fn tell_unmounted(&self, record: &Container) {
        for point in volumes(record) {
            let attributes = [("container", record.id.as_str()), ("driver", "local")];
            self.tell_of("volume", "unmount", &point.name, &attributes);
        }
    }
}
