//! Content on its way in: made beside the volumes, and then given to one in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use wharf_archive::{PackOptions, UnpackOptions, Whiteouts};
use wharf_rooted_path::RootDir;

use crate::record::{LOCAL, Row, SnapshotRow};
use crate::volumes::{DATA, MAKING, TABLE, make_dir, remove_tree};
use crate::{CreateVolume, Limit, Origin, Result, Snapshot, Volume, VolumeError, Volumes, copy, mounting, name};

/// Beside a volume's content.
pub(crate) const SNAPSHOTS: &str = ".snapshots";
/// Who uses a volume while it is copied.
const COPIER: &str = "copy";

/// Content that belongs to no volume yet. Dropped, it goes.
#[derive(Debug, Default)]
pub struct Staged {
    /// `volumes/.making-HEX`, with `_data` in it; empty for none at all.
    dir: PathBuf,
    /// What was left out, in words.
    pub skipped: Vec<String>,
    /// Files that share their blocks with the original, and files that were copied.
    pub shared: u64,
    pub copied: u64,
    /// What it may become at most.
    limit: Option<Limit>,
    kept: bool,
}

impl Staged {
    fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Whether the content is in a file, which is mounted as long as there is something to be written.
    fn is_in_file(&self) -> bool {
        self.limit.is_some_and(|limit| limit.project.is_none())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.kept || self.dir.as_os_str().is_empty() {
            return;
        }
        let unmounted = if self.is_in_file() { take_off(&self.dir) } else { Ok(()) };
        if let Err(error) = unmounted.and_then(|()| remove_tree(&self.dir)) {
            tracing::warn!("{} stays until the next start: {error}", self.dir.display());
        } else if let (Some(limit), Some(volumes)) = (self.limit, self.dir.parent()) {
            limit.forget(volumes);
        }
    }
}

/// Unmounts what a directory of content on its way in has mounted.
fn take_off(dir: &Path) -> Result<()> {
    let data = dir.join(DATA);
    if mounting::is_mounted(&data) {
        mounting::unmount(&data).map_err(VolumeError::file("unmount", &data))?;
    }
    Ok(())
}

impl Volumes {
    fn stage(&self) -> Result<Staged> {
        let dir = self.dir().join(format!("{MAKING}{}", &name::random()?[..16]));
        let data = dir.join(DATA);
        for (path, mode) in [(&dir, 0o711), (&data, 0o755)] {
            DirBuilder::new().mode(mode).create(path).map_err(VolumeError::file("create", path))?;
        }
        Ok(Staged { dir, skipped: Vec::new(), shared: 0, copied: 0, limit: None, kept: false })
    }

    /// Room for a copy of a volume or a snapshot, of `size` bytes at most when one is given. Nobody need be frozen for that: the
    /// file system that a size may need takes a while to make.
    ///
    /// # Errors
    /// `NoLimit`.
    pub fn stage_room(&self, origin: &Origin, size: Option<u64>) -> Result<Staged> {
        let mut staged = self.stage()?;
        if let Some(bytes) = size {
            staged.limit = Some(self.limit_dir(&origin.volume, &staged.dir, bytes)?);
            if staged.is_in_file() {
                crate::limit::mount_disk(&staged.dir)?;
            }
        }
        Ok(staged)
    }

    /// What a new volume of that size will be, with nothing in it.
    ///
    /// # Errors
    /// `NoLimit`.
    pub(crate) fn stage_empty(&self, name: &str, size: u64) -> Result<Staged> {
        let mut staged = self.stage()?;
        staged.limit = Some(self.limit_dir(name, &staged.dir, size)?);
        Ok(staged)
    }

    /// Copies the content of a volume or a snapshot into `staged`, which has none yet. `still` are the containers that do not
    /// write now; where others use the volume, nothing is copied.
    ///
    /// # Errors
    /// `NotFound`, `Moving` with those others, `TooSmall`.
    pub fn copy_into(&self, staged: &mut Staged, origin: &Origin, still: &BTreeSet<String>) -> Result<()> {
        self.locked(&origin.volume, || {
            let volume = self.get(&origin.volume)?;
            let copied = match &origin.snapshot {
                Some(snapshot) => self.copy_tree(origin, &self.snapshot_path(&volume, snapshot)?, staged)?,
                None => {
                    let moving: Vec<String> =
                        self.containers(&volume.name).into_iter().filter(|id| !still.contains(id)).collect();
                    if !moving.is_empty() {
                        return Err(VolumeError::Moving { name: volume.name.clone(), containers: moving });
                    }
                    let path = self.mount_held(&volume, COPIER, None)?;
                    let copied = self.copy_tree(origin, &path, staged);
                    self.release_held(&volume.name, COPIER)?;
                    copied?
                }
            };
            staged.skipped = copied.skipped;
            (staged.shared, staged.copied) = (copied.shared, copied.copied);
            Ok(())
        })
    }

    /// [`Self::stage_room`] and [`Self::copy_into`] in one.
    ///
    /// # Errors
    /// As of both.
    pub fn stage_copy(&self, origin: &Origin, still: &BTreeSet<String>, size: Option<u64>) -> Result<Staged> {
        let mut staged = self.stage_room(origin, size)?;
        self.copy_into(&mut staged, origin, still)?;
        Ok(staged)
    }

    fn copy_tree(&self, origin: &Origin, from: &Path, staged: &Staged) -> Result<copy::Copied> {
        let copied = crate::limit::within(staged.limit, || {
            RootDir::open(from).and_then(|from| copy::copy(&from, &RootDir::open(staged.data())?))
        });
        copied.map_err(|source| match (staged.limit, source.errno) {
            (Some(limit), Errno::NOSPC | Errno::DQUOT) => {
                VolumeError::TooSmall { what: origin.to_string(), bytes: limit.bytes }
            }
            _ => VolumeError::Tree { action: "copy", what: origin.to_string(), source },
        })
    }

    /// Unpacks a tar, which may be compressed.
    ///
    /// # Errors
    /// For an archive that is damaged, or wants to be somewhere else.
    pub fn stage_tar(&self, name: &str, input: &mut dyn Read) -> Result<Staged> {
        name::check(name)?;
        let staged = self.stage()?;
        let root = RootDir::open(staged.data())?;
        let failed = |source| VolumeError::Import { name: name.to_owned(), source: Box::new(source) };
        let mut metered = self.store().budget().metered(input);
        let plain =
            wharf_archive::decompressed(&mut metered).map_err(|e| failed(wharf_archive::ArchiveError::Read(e)))?;
        let options = UnpackOptions { whiteouts: Whiteouts::Literal, ..UnpackOptions::default() };
        wharf_archive::unpack(plain, &root, &options).map_err(failed)?;
        Ok(staged)
    }

    fn sync(staged: &Staged) -> Result<()> {
        let data = staged.data();
        copy::sync(&RootDir::open(&data)?).map_err(VolumeError::file("write to the disk", data))?;
        if staged.is_in_file() {
            take_off(&staged.dir)?;
            // The file itself, and its name.
            copy::sync(&RootDir::open(&staged.dir)?).map_err(VolumeError::file("write to the disk", &staged.dir))?;
        }
        Ok(())
    }

    /// Makes a new volume of it. Its row decides: with it the volume is there, without it all is gone after a crash.
    ///
    /// # Errors
    /// `Exists` when there is a volume of this name.
    pub fn adopt(&self, staged: Staged, request: &CreateVolume) -> Result<Volume> {
        let anonymous = request.name.is_empty();
        let name = if anonymous { name::random()? } else { request.name.clone() };
        name::check(&name)?;
        Self::sync(&staged)?;
        self.locked(&name, || {
            let path = self.dir().join(&name);
            if self.find(&name)?.is_some() || path.exists() {
                return Err(VolumeError::Exists { name: name.clone() });
            }
            let row = Row {
                driver: LOCAL.into(),
                created: now(),
                labels: request.labels.clone(),
                options: request.options.clone(),
                anonymous,
                scope: String::new(),
                snapshots: BTreeMap::new(),
                limit: None,
                from_dir: None,
            };
            self.settle(staged, &name, row)
        })
    }

    /// Gives it to the volume that this row will be of: with the row the volume is there, without it all is gone after a
    /// crash. The name is the caller's meanwhile, and nothing has it.
    pub(crate) fn settle(&self, mut staged: Staged, name: &str, mut row: Row) -> Result<Volume> {
        row.limit = staged.limit;
        row.from_dir = staged.dir.file_name().map(|name| name.to_string_lossy().into_owned());
        self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, name, &row)?))?;
        staged.kept = true;
        let path = self.dir().join(name);
        fs::rename(&staged.dir, path).map_err(VolumeError::file("rename", &staged.dir))?;
        row.from_dir = None;
        // Not written, the next start finds the directory where it belongs.
        self.store().write_soon::<_, VolumeError>(|tx| Ok(tx.put(TABLE, name, &row)?))?;
        Ok(row.shown(name.to_owned(), self.path(name)))
    }

    /// Makes it a snapshot of the volume, by the name `snapshot` or, when that is empty, the time.
    ///
    /// # Errors
    /// `NotFound`, `Exists`.
    pub fn keep_snapshot(&self, mut staged: Staged, name: &str, snapshot: &str) -> Result<Snapshot> {
        Self::sync(&staged)?;
        self.locked(name, || {
            let mut row = self.row(name)?.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
            let mut own = snapshot.to_owned();
            if own.is_empty() {
                let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
                let free = |own: &String| !row.snapshots.contains_key(own);
                let all = std::iter::once(time.clone()).chain((2..).map(|number| format!("{time}-{number}")));
                own = all.into_iter().find(free).unwrap_or(time);
            }
            name::check_snapshot(name, &own)?;
            if row.snapshots.contains_key(&own) {
                return Err(VolumeError::Exists { name: format!("{name}@{own}") });
            }
            let dir = self.dir().join(name).join(SNAPSHOTS);
            make_dir(&self.dir().join(name))?;
            private(&dir)?;
            let path = dir.join(&own);
            // One without a row is what a crash has left of another of this name.
            remove_tree(&path)?;
            fs::rename(staged.data(), &path).map_err(VolumeError::file("create", &path))?;
            sync_dir(&dir)?;
            let created = now();
            row.snapshots.insert(own.clone(), SnapshotRow { created: created.clone() });
            self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, name, &row)?))?;
            let skipped = std::mem::take(&mut staged.skipped);
            Ok(Snapshot { volume: name.to_owned(), name: own, created, size: None, skipped })
        })
    }

    /// Puts it in the place of what the volume has, in one step.
    ///
    /// # Errors
    /// `Busy` while containers run with the volume, `Options` where its content is something else's; with `only_empty` also
    /// when it is not empty.
    pub fn replace(&self, staged: Staged, action: &'static str, name: &str, only_empty: bool) -> Result<Volume> {
        Self::sync(&staged)?;
        self.locked(name, || {
            let volume = self.get(name)?;
            self.check_replace(action, &volume)?;
            if only_empty && fs::read_dir(&volume.mountpoint).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(VolumeError::NotEmpty { name: name.to_owned() });
            }
            let path = &volume.mountpoint;
            renameat_with(CWD, staged.data(), CWD, path, RenameFlags::EXCHANGE)
                .map_err(|errno| VolumeError::file("replace", path)(errno.into()))?;
            for dir in [path.parent().unwrap_or(path), &staged.dir] {
                sync_dir(dir)?;
            }
            Ok(volume)
        })
    }

    /// Whether [`Self::replace`] could be done now.
    ///
    /// # Errors
    /// As there.
    pub fn check_replace(&self, action: &'static str, volume: &Volume) -> Result<()> {
        let containers = self.containers(&volume.name);
        if !containers.is_empty() {
            return Err(VolumeError::Busy { action, name: volume.name.clone(), containers });
        }
        if !volume.is_plain() {
            return Err(VolumeError::Elsewhere { action, name: volume.name.clone() });
        }
        Ok(())
    }

    /// Containers that run with the volume.
    fn containers(&self, name: &str) -> Vec<String> {
        let users = self.users();
        // Others are ours, for a moment.
        let is_id = |user: &&String| user.len() == 64 && user.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut all: Vec<String> =
            users.get(name).map(|used| used.users.iter().filter(is_id).cloned().collect()).unwrap_or_default();
        all.sort();
        all
    }

    /// Writes a snapshot, or what was staged, as a tar; the directory itself is its first entry.
    ///
    /// # Errors
    /// `NotFound`, and when the output ends.
    pub fn write_tar(&self, origin: &Origin, staged: Option<&Staged>, output: &mut dyn Write) -> Result<()> {
        let path = match (staged, &origin.snapshot) {
            (Some(staged), _) => staged.data(),
            (None, Some(snapshot)) => self.snapshot_path(&self.get(&origin.volume)?, snapshot)?,
            (None, None) => self.get(&origin.volume)?.mountpoint,
        };
        let root = RootDir::open(path)?;
        let options = PackOptions { holes: true, ..PackOptions::default() };
        wharf_archive::pack_dir_as(&root, Path::new(""), ".".as_ref(), output, &options)
            .map_err(|source| VolumeError::Export { what: origin.to_string(), source: Box::new(source) })
    }

    /// The snapshots of a volume, the oldest first, with what each takes on the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>> {
        let row = self.row(name)?.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        let dir = self.dir().join(name).join(SNAPSHOTS);
        let shown = |(own, row): (String, SnapshotRow)| Snapshot {
            volume: name.to_owned(),
            size: Some(wharf_rooted_path::disk_usage(dir.join(&own))),
            name: own,
            created: row.created,
            skipped: Vec::new(),
        };
        let mut all: Vec<Snapshot> = row.snapshots.into_iter().map(shown).collect();
        all.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_snapshot(&self, name: &str, snapshot: &str) -> Result<()> {
        self.locked(name, || {
            let missing = || VolumeError::NotFound(format!("{name}@{snapshot}"));
            let mut row = self.row(name)?.ok_or_else(missing)?;
            row.snapshots.remove(snapshot).ok_or_else(missing)?;
            // The row decides; a directory without one goes at the next start.
            self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, name, &row)?))?;
            remove_tree(&self.dir().join(name).join(SNAPSHOTS).join(snapshot))
        })
    }

    fn snapshot_path(&self, volume: &Volume, snapshot: &str) -> Result<PathBuf> {
        let known = self.row(&volume.name)?.is_some_and(|row| row.snapshots.contains_key(snapshot));
        if !known {
            return Err(VolumeError::NotFound(format!("{}@{snapshot}", volume.name)));
        }
        Ok(self.dir().join(&volume.name).join(SNAPSHOTS).join(snapshot))
    }

    /// Gives a volume that no container has another name.
    ///
    /// # Errors
    /// `InUse`, `Exists`, `NotFound`; `Elsewhere` for a plugin's.
    pub fn rename(&self, old: &str, new: &str, in_use: &dyn Fn(&str) -> Vec<String>) -> Result<Volume> {
        name::check(new)?;
        // Always in the same order, or two would wait for each other.
        let (first, second) = if old <= new { (old, new) } else { (new, old) };
        if first == second {
            return Err(VolumeError::Exists { name: new.to_owned() });
        }
        self.locked(first, || {
            self.locked(second, || {
                let row = self.row(old)?.ok_or_else(|| VolumeError::NotFound(old.to_owned()))?;
                if row.driver != LOCAL {
                    return Err(VolumeError::Elsewhere { action: "rename", name: old.to_owned() });
                }
                let containers = in_use(old);
                if !containers.is_empty() {
                    return Err(VolumeError::InUse { action: "rename", name: old.to_owned(), containers });
                }
                let (from, to) = (self.dir().join(old), self.dir().join(new));
                if self.find(new)?.is_some() || to.exists() {
                    return Err(VolumeError::Exists { name: new.to_owned() });
                }
                self.unmount(old)?;
                let moved = Row { from_dir: Some(old.to_owned()), ..row.clone() };
                self.store().write::<_, VolumeError>(|tx| {
                    tx.delete(TABLE, old)?;
                    Ok(tx.put(TABLE, new, &moved)?)
                })?;
                if let Err(error) = fs::rename(&from, &to) {
                    self.store().write::<_, VolumeError>(|tx| {
                        tx.delete(TABLE, new)?;
                        Ok(tx.put(TABLE, old, &row)?)
                    })?;
                    return Err(VolumeError::file("rename", from)(error));
                }
                self.store().write_soon::<_, VolumeError>(|tx| Ok(tx.put(TABLE, new, &row)?))?;
                Ok(row.shown(new.to_owned(), self.path(new)))
            })
        })
    }

    /// Ends what a crash has interrupted: volumes whose directory has another name yet, content that became nobody's,
    /// snapshots without a row or without a directory.
    pub(crate) fn sweep_staged(&self) -> Result<()> {
        let rows = self.store().read::<_, VolumeError>(|tx| Ok(tx.list::<Row>(TABLE)?))?;
        let taken: Vec<u32> = rows.iter().filter_map(|(_, row)| row.limit?.project).collect();
        for (name, mut row) in rows {
            let path = self.dir().join(&name);
            let before = row.clone();
            if let Some(from) = row.from_dir.take().map(|from| self.dir().join(from))
                && from.exists()
                && !path.exists()
            {
                fs::rename(&from, &path).map_err(VolumeError::file("rename", from))?;
            }
            let snapshots = path.join(SNAPSHOTS);
            for entry in fs::read_dir(&snapshots).into_iter().flatten().flatten() {
                if !row.snapshots.contains_key(&*entry.file_name().to_string_lossy()) {
                    remove_tree(&entry.path())?;
                }
            }
            row.snapshots.retain(|own, _| snapshots.join(own).is_dir());
            if row != before {
                self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, &name, &row)?))?;
            }
        }
        let dir = self.dir();
        for entry in fs::read_dir(dir).map_err(VolumeError::file("list", dir))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(MAKING) {
                take_off(&entry.path())?;
                crate::limit::forget_left(&entry.path(), &taken);
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What is in a snapshot may be private, and a directory on the way to it is for nobody.
fn private(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(VolumeError::file("create", path)),
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(VolumeError::file("write to the disk", path))
}
