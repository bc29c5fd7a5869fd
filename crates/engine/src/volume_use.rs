//! Volumes while a container runs: mounted where they are something else's content, and told of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::record::{Container, MountPoint};
use crate::slot::Slot;

fn volumes(record: &Container) -> impl Iterator<Item = &MountPoint> {
    record.mounts.iter().filter(|point| point.kind == "volume")
}

impl Engine {
    /// Mounts what a container that starts needs. Waits for the disk, or for a server.
    ///
    /// # Errors
    /// When one cannot be mounted; then none of them is held.
    pub(crate) fn mount_volumes(&self, slot: &Slot) -> Result<Arc<Container>> {
        let record = slot.record();
        let mut moved = BTreeMap::new();
        for point in volumes(&record) {
            match self.volumes().mount(&point.name, &record.id) {
                Ok(path) => {
                    let path = path.to_string_lossy().into_owned();
                    if path != point.source {
                        moved.insert(point.name.clone(), path);
                    }
                }
                Err(error) => {
                    self.release_volumes(&record);
                    return Err(error.into());
                }
            }
        }
        // A plugin says at each mount where the volume is.
        let record = if moved.is_empty() {
            record
        } else {
            slot.change(|record| {
                for point in record.mounts.iter_mut().filter(|point| point.kind == "volume") {
                    if let Some(path) = moved.get(&point.name) {
                        point.source.clone_from(path);
                    }
                }
            })
        };
        let record = &record;
        for point in volumes(record) {
            let rw = point.rw.to_string();
            let attributes = [
                ("container", record.id.as_str()),
                ("destination", &point.destination),
                ("driver", &point.driver),
                ("propagation", &point.propagation),
                ("read/write", &rw),
            ];
            self.tell_of("volume", "mount", &point.name, &attributes);
        }
        Ok(Arc::clone(record))
    }

    /// After a start of the daemon: a container that runs goes on using its volumes.
    pub(crate) fn keep_volumes(&self, record: &Container) {
        for point in volumes(record) {
            if let Err(error) = self.volumes().keep(&point.name, &record.id, Path::new(&point.source)) {
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
            let attributes = [("container", record.id.as_str()), ("driver", point.driver.as_str())];
            self.tell_of("volume", "unmount", &point.name, &attributes);
        }
    }
}
