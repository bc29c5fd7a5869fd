//! A container's root as seen from the host, with what is mounted there: through its first process while it runs, else
//! put together as for a start.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxIdMapping, Mount};
use serde_json::{Value, json};
use wharf_archive::IdRange;
use wharf_rooted_path::{RootDir, follow};
use wharf_runtime::{Lower, Rootfs, mount_outside};

use crate::bundle;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ids::{IDS_PER_CONTAINER, as_root_of};
use crate::process::Process;
use crate::record::Container;
use crate::slot::{Slot, TurnGuard};

/// A root to look at, or to write to.
pub(crate) struct ContainerRoot {
    dir: RootDir,
    pub(crate) record: Arc<Container>,
    /// The host's IDs that its files have, when it has a user namespace of its own.
    pub(crate) ids: Option<IdRange>,
    /// Destinations of mounts whose source the host does not have any more.
    gone: Vec<(String, String)>,
    /// That of the container, if it runs.
    pub(crate) process: Option<Process>,
}

impl Deref for ContainerRoot {
    type Target = RootDir;
    fn deref(&self) -> &RootDir {
        &self.dir
    }
}

impl ContainerRoot {
    /// Where `path` leads, with all links followed inside.
    pub(crate) fn follow(&self, path: impl AsRef<Path>) -> PathBuf {
        follow(path, |link| self.read_link(link).ok())
    }

    /// # Errors
    /// When what is at `place`, without links, would be on a mount that cannot be had.
    pub(crate) fn check(&self, place: &Path) -> Result<()> {
        match self.gone.iter().find(|(destination, _)| place.starts_with(self.follow(destination))) {
            Some((destination, source)) => Err(EngineError::not_found(format!(
                "{} is not reachable: the source of the mount on {destination}, {source}, is not there any more",
                place.display()
            ))),
            None => Ok(()),
        }
    }
}

impl Engine {
    /// Opens the root to read. Waits for the disk, and for a start that is under way.
    pub(crate) fn root_to_read(&self, slot: &Slot) -> Result<ContainerRoot> {
        if let Some(running) = running(slot) {
            return Ok(running);
        }
        // What is mounted while the container starts has the same upper directory. To read that later harms nobody.
        let _turn = slot.turn.blocking_lock();
        running(slot).map_or_else(|| self.stopped(slot, slot.record().state.status.is_active()), Ok)
    }

    /// Opens the root to write. While the second part is there, a container that does not run does not start.
    pub(crate) fn root_to_write<'a>(&self, slot: &'a Slot) -> Result<(ContainerRoot, Option<TurnGuard<'a>>)> {
        if let Some(running) = running(slot) {
            return Ok((running, None));
        }
        let turn = slot.turn.blocking_lock();
        if let Some(running) = running(slot) {
            return Ok((running, None));
        }
        if slot.record().state.status.is_active() {
            // Its monitor starts it again by itself, and two mounts cannot have one upper directory to write to.
            let id = &slot.record().id;
            return Err(EngineError::conflict(format!("container {id} is restarting: stop it, or wait until it runs")));
        }
        Ok((self.stopped(slot, false)?, Some(turn)))
    }

    /// With `aside` what the container writes to is not mounted to be written to, and so may be in use.
    fn stopped(&self, slot: &Slot, aside: bool) -> Result<ContainerRoot> {
        // What is made belongs to its IDs, places for mounts too, so they are chosen now.
        if slot.record().host.userns_mode == "auto" {
            self.id_range(&slot.record())?;
        }
        let mut record = slot.record();
        let ids = ids(&record);
        let volumes = record.mounts.iter().filter(|point| point.kind == "volume");
        // Some are mounted on the host while somebody uses them. The root has a copy of its own afterwards.
        let user = format!("{}, copied", record.id);
        let used: Vec<String> = volumes
            .filter(|point| self.volumes().get(&point.name).is_ok_and(|volume| !volume.is_plain()))
            .map(|point| point.name.clone())
            .collect();
        let mounted = used.iter().try_for_each(|name| {
            let path = self.volumes().mount(name, &user)?.to_string_lossy().into_owned();
            let points = Arc::make_mut(&mut record).mounts.iter_mut();
            points
                .filter(|point| point.kind == "volume" && point.name == *name)
                .for_each(|p| p.source.clone_from(&path));
            Ok(())
        });
        let opened = mounted.and_then(|()| self.put_together(record.clone(), ids, aside));
        for name in &used {
            if let Err(error) = self.volumes().release(name, &user) {
                tracing::warn!("cannot unmount volume {name}: {error}");
            }
        }
        opened
    }

    fn put_together(&self, record: Arc<Container>, ids: Option<IdRange>, aside: bool) -> Result<ContainerRoot> {
        let dir = self.dir(&record.id);
        let stacks = self.stacks(&record)?;
        let mut lowers = stacks.root;
        let layers: Vec<BorrowedFd<'_>> = stacks.mounts.iter().map(AsFd::as_fd).collect();
        let rootfs = if aside {
            lowers.insert(0, Lower::Directory(dir.join("upper")));
            Rootfs::Overlay { lowers, upper: None, work: None }
        } else {
            Rootfs::Overlay { lowers, upper: Some(dir.join("upper")), work: Some(dir.join("work")) }
        };
        let mapped = if ids.is_some() { self.mapped(&record) } else { Vec::new() };
        let etc = self.etc_files(&record);
        let all = Value::from(bundle::own_mounts(
            &record,
            etc.as_deref(),
            self.inner.secrets.of(&record.id).as_deref(),
            ids.is_some(),
            &mapped,
        )?);
        let fail = |e| EngineError::from_source("the container's mounts cannot be expressed for the runtime", &e);
        let all: Vec<Mount> = serde_json::from_value(all).map_err(fail)?;
        let (mut binds, mut gone) = (Vec::new(), Vec::new());
        for mount in all.into_iter().filter(|mount| mount.typ().as_deref() == Some("bind")) {
            let source = mount.source().clone().unwrap_or_default();
            let point = record.mounts.iter().find(|point| Path::new(&point.destination) == mount.destination());
            let there = match point {
                Some(point) if point.image.is_some() => self.check_subpath(point).is_ok(),
                Some(point) => source.exists() && self.check_subpath(point).is_ok(),
                None => source.exists(),
            };
            if there {
                binds.push(mount);
            } else if source.parent() != etc.as_deref() {
                // Files of the engine's own come with the first start.
                let text = |path: &PathBuf| path.to_string_lossy().into_owned();
                gone.push((text(mount.destination()), text(&source)));
            }
        }
        let mappings = ids.map(|ids| json!({ "containerID": 0, "hostID": ids.first, "size": ids.count }));
        let mappings: Vec<LinuxIdMapping> = serde_json::from_value(mappings.into_iter().collect()).map_err(fail)?;
        let root = as_root_of(ids, || mount_outside(&rootfs, &layers, &binds, &stacks.binds, &mappings))?;
        let root = root.map_err(|e| EngineError::from_source("cannot mount the container's files", &e))?;
        Ok(ContainerRoot { dir: RootDir::from_fd(root), record, ids, gone, process: None })
    }
}

/// The root of a container that runs, with its volumes, as it sees them itself.
fn running(slot: &Slot) -> Option<ContainerRoot> {
    let record = slot.record();
    let process = Process::of(&record).ok()?;
    let dir = RootDir::open(process.path("root")).ok()?;
    process.lives().ok()?;
    let ids = ids(&record);
    Some(ContainerRoot { dir, record, ids, gone: Vec::new(), process: Some(process) })
}

/// The host's IDs of a container that has a user namespace of its own.
pub(crate) fn ids(record: &Container) -> Option<IdRange> {
    let first = record.first_id.filter(|_| record.host.userns_mode == "auto")?;
    Some(IdRange { first, count: IDS_PER_CONTAINER })
}
