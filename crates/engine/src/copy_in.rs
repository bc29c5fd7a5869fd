//! Files copied into a container.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wharf_archive::{UnpackOptions, Whiteouts, unpack_at};
use wharf_rooted_path::RootError;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::files::Asked;
use crate::ids::as_root_of;
use crate::process::Process;
use crate::slot::Slot;

/// So long a client may send nothing while others wait for a container that does not run. A copy from a pipe has pauses.
const SILENCE: Duration = Duration::from_secs(10);

/// How an archive is put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    pub no_overwrite_dir_non_dir: bool,
    /// Files belong to the container's user, if it has one, and not to the archive's owners.
    pub copy_uid_gid: bool,
}

/// A copy into one container. While one that does not run gets files, it does not start.
#[derive(Debug)]
pub struct CopyIn {
    engine: Engine,
    slot: Arc<Slot>,
    name: String,
    /// That of the container, if it runs; empty until the copy has begun.
    begun: OnceLock<Option<Process>>,
    /// Why it was given up.
    given_up: OnceLock<EngineError>,
}

impl Engine {
    /// Begins a copy.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn copy_in(&self, name: &str) -> Result<CopyIn> {
        let slot = self.inner.slots.find(name)?;
        Ok(CopyIn {
            engine: self.clone(),
            slot,
            name: name.to_owned(),
            begun: OnceLock::new(),
            given_up: OnceLock::new(),
        })
    }
}

impl CopyIn {
    /// Whether the copy is to go on, when its client has sent nothing for `silent`.
    ///
    /// # Errors
    /// `Conflict` when the container has ended since, or others wait for it and the client sends nothing.
    pub fn check(&self, silent: Duration) -> Result<()> {
        let name = &self.name;
        let why = match self.begun.get() {
            Some(Some(process)) if process.lives().is_err() => {
                format!("container {name} has ended while files were copied into it")
            }
            // It has the turn.
            Some(None) if silent >= SILENCE && self.slot.turn.is_waited_for() => format!(
                "the copy into container {name} is given up: nothing has come for {} s, and others wait for the container",
                silent.as_secs()
            ),
            _ => return Ok(()),
        };
        Err(self.given_up.get_or_init(|| EngineError::conflict(why)).clone())
    }

    /// Applies an archive, compressed or not, to the directory `path`: to the volume that is mounted there, whether the
    /// container runs or not. Waits for disk and writer.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory, `InvalidParameter` when it is none, `Forbidden` when the
    /// container's root or the mount there is read-only; what [`Self::check`] says.
    pub fn put(&self, path: &str, input: impl Read + Send, options: PutOptions) -> Result<()> {
        let name = &self.name;
        let (mut root, _turn) = self.engine.root_to_write(&self.slot)?;
        let _ = self.begun.set(root.process.take());
        let record = &root.record;
        let at = Asked::new(path).path;
        let place = root.follow(&at);
        root.check(&place)?;
        let missing = |error: RootError| {
            if error.is_not_found() {
                return EngineError::not_found(format!("Could not find the file {path} in container {name}"));
            }
            EngineError::invalid("extraction point is not a directory")
        };
        let target = root.open_dir(&at).map_err(missing)?;
        // Put together without its container, a root that is to be read only is not, and links would lead there.
        let is_alone = record.host.readonly_rootfs && self.begun.get().is_some_and(Option::is_none);
        let (target, place_there) = if is_alone { (&target, Path::new("/")) } else { (&*root, place.as_path()) };
        let on = record.mounts.iter().map(|m| (root.follow(&m.destination), m));
        let on = on.filter(|(destination, _)| place.starts_with(destination));
        let (read_only, what) = match on.max_by_key(|(destination, _)| destination.as_os_str().len()) {
            Some((_, mount)) => (!mount.rw, "mounted volume is marked read-only"),
            None => (record.host.readonly_rootfs, "container rootfs is marked read-only"),
        };
        if read_only {
            return Err(EngineError::new(ErrorKind::Forbidden, what));
        }
        let owner = if options.copy_uid_gid && !record.config.user.is_empty() {
            let user = self.engine.identity(record)?;
            Some((user.uid, user.gid))
        } else {
            None
        };
        let how = UnpackOptions {
            whiteouts: Whiteouts::Literal,
            owner,
            ids: root.ids,
            no_overwrite_dir_non_dir: options.no_overwrite_dir_non_dir,
            keep_mounts: true,
            ..UnpackOptions::default()
        };
        let done = as_root_of(root.ids, || {
            let input = wharf_image::decompressed(input)?;
            unpack_at(input, target, place_there, &how)
                .map_err(|e| EngineError::from_source("cannot copy to the container", &e))
        })?;
        if done.is_err() {
            // If that was why, it is said as such.
            self.check(Duration::ZERO)?;
        }
        match self.given_up.get() {
            Some(why) if done.is_err() => return Err(why.clone()),
            _ => drop(done?),
        }
        self.engine.tell(record, "extract-to-dir");
        Ok(())
    }
}
