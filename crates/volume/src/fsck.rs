//! Volumes whose row and directory do not fit.

use std::fs;

use wharf_rooted_path::disk_usage;
use wharf_store::fsck::{Fsck, Problem};

use crate::record::{LOCAL, Row};
use crate::volumes::{DATA, MAKING, REMOVING, TABLE, make_dirs, remove_tree};
use crate::{Result, VolumeError, Volumes, name};

impl Volumes {
    /// Looks for directories without a volume, and volumes without their directory. What has files in it is somebody's
    /// data, and becomes a volume; what is empty goes.
    ///
    /// # Errors
    /// When the database or the directory cannot be read.
    pub fn fsck(&self, fsck: &mut Fsck) -> Result<()> {
        for volume in self.list()? {
            fsck.look(0);
            self.locked(&volume.name, || {
                let path = self.path(&volume.name);
                // A plugin's has nothing here that it needs.
                if self.find(&volume.name)?.is_some_and(|found| found.is_local()) && !path.is_dir() {
                    let text = "its directory made again, empty: what was in it is lost";
                    fsck.repair(Problem::Missing, format!("volume {}", volume.name), 0, text, || make_dirs(&path));
                }
                Ok(())
            })?;
        }
        let dir = self.dir();
        for entry in fs::read_dir(dir).map_err(VolumeError::file("list", dir))? {
            let file_name = entry.map_err(VolumeError::file("list", dir))?.file_name();
            let found = file_name.to_string_lossy().into_owned();
            let path = dir.join(&file_name);
            let Some(volume) = file_name.to_str().filter(|text| name::check(text).is_ok()) else {
                // A removal or a copy that is under way, or was cut off: the next start ends it.
                if !found.starts_with(REMOVING) && !found.starts_with(MAKING) {
                    let why = "no volume can have this name: left alone";
                    fsck.note(format!("volumes/{found}"), disk_usage(&path), why);
                }
                continue;
            };
            self.locked(volume, || {
                if self.find(volume)?.is_some() || !path.exists() {
                    return Ok(());
                }
                fsck.look(0);
                let (what, bytes) = (format!("volumes/{volume}"), disk_usage(&path));
                let data = path.join(DATA);
                let filled = fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_some());
                if !filled {
                    fsck.repair(Problem::Unowned, what, bytes, "removed, as it is empty", || remove_tree(&path));
                    return Ok(());
                }
                let row = Row {
                    driver: LOCAL.into(),
                    created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                    labels: Default::default(),
                    options: Default::default(),
                    anonymous: false,
                    scope: String::new(),
                    snapshots: Default::default(),
                    from_dir: None,
                    limit: None,
                };
                fsck.repair(Problem::Unowned, what, bytes, "taken up as a volume, as there are files in it", || {
                    self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, volume, &row)?))
                });
                Ok(())
            })?;
        }
        Ok(())
    }
}
