//! All volumes of a store.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wharf_rooted_path::{RootDir, disk_usage};
use wharf_store::{Store, Table};

use crate::mounting;
use crate::record::{LOCAL, Row};
use crate::using::Used;
use crate::{CreateVolume, Limit, Lookup, Plugins, Result, Volume, VolumeError, name};

pub(crate) const TABLE: Table = Table::new("volumes");
/// The content of a volume in its directory; beside it there is room for what is ours.
pub(crate) const DATA: &str = "_data";
/// No volume's name begins with a dot.
pub(crate) const REMOVING: &str = ".removing-";
/// Content on its way in.
pub(crate) const MAKING: &str = ".making-";

/// The volumes of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Volumes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    dir: PathBuf,
    /// Held by name while a volume is made, filled or removed.
    busy: Mutex<HashMap<String, Weak<Mutex<()>>>>,
    /// Who uses which volume, by its name.
    users: Mutex<HashMap<String, Used>>,
    plugins: Plugins,
    lookup: Lookup,
    /// Held while a project is chosen.
    projects: Mutex<()>,
}

impl Volumes {
    /// Opens the volumes of `store`, and finishes the removals that a crash interrupted.
    ///
    /// # Errors
    /// When the data root cannot be written.
    pub fn open(store: Store) -> Result<Self> {
        Self::open_with(store, Plugins::default(), Lookup::default())
    }

    /// As [`Self::open`], with plugins from other folders than Docker's, and somebody who looks up names of hosts.
    ///
    /// # Errors
    /// When the data root cannot be written.
    pub fn open_with(store: Store, plugins: Plugins, lookup: Lookup) -> Result<Self> {
        let volumes = Self::open_bare(store, plugins.looking_up(lookup.clone()), lookup)?;
        volumes.inner.sweep()?;
        volumes.sweep_staged()?;
        Ok(volumes)
    }

    /// As [`Self::open`], to look at what a crash has left.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open_to_check(store: Store) -> Result<Self> {
        Self::open_bare(store, Plugins::default(), Lookup::default())
    }

    fn open_bare(store: Store, plugins: Plugins, lookup: Lookup) -> Result<Self> {
        let dir = store.root().join("volumes");
        // 0711 as Docker's: a mount point that a container's user cannot pass through is no use to it.
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&dir);
        made.map_err(VolumeError::file("create", &dir))?;
        let (busy, users, projects) = (Mutex::default(), Mutex::default(), Mutex::default());
        let inner = Inner { store, dir, busy, users, plugins, lookup, projects };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a volume. A name that is taken answers with the volume that has it, as Docker does.
    ///
    /// # Errors
    /// For a name, driver or option that is not accepted, and when the disk fails.
    pub fn create(&self, request: &CreateVolume) -> Result<Volume> {
        let anonymous = request.anonymous || request.name.is_empty();
        let name = if request.name.is_empty() { name::random()? } else { request.name.clone() };
        name::check(&name)?;
        self.locked(&name, || {
            // One that is there is the answer whatever options are asked for.
            if let Some(there) = self.find(&name)? {
                if !matches!(request.driver.as_str(), "") && request.driver != there.driver {
                    self.check_named(&name, request)?;
                    return Err(VolumeError::OtherDriver { name: name.clone(), driver: there.driver });
                }
                if self.is_lost(&there) {
                    let request = CreateVolume { driver: there.driver, ..request.clone() };
                    return self.create_by_plugin(&name, &request, anonymous);
                }
                return Ok(there);
            }
            self.check_named(&name, request)?;
            if !matches!(request.driver.as_str(), "" | LOCAL) {
                return self.create_by_plugin(&name, request, anonymous);
            }
            let mut row = Row {
                driver: LOCAL.into(),
                created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                labels: request.labels.clone(),
                options: request.options.clone(),
                anonymous,
                scope: String::new(),
                snapshots: BTreeMap::new(),
                from_dir: None,
                limit: None,
            };
            let path = self.path(&name);
            let size = crate::size_of(&request.options);
            if let Some(size) = size.filter(|_| !self.inner.dir.join(&name).exists()) {
                return self.settle(self.stage_empty(&name, size)?, &name, row);
            }
            // The directory first: one without a row is harmless, a row without its directory is not.
            make_dirs(&path)?;
            if let Some(size) = size {
                row.limit = Some(self.set_up_limit(&name, size)?);
            }
            self.inner.store.write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, &name, &row)?))?;
            Ok(row.shown(name.clone(), path))
        })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let rows = self.inner.store.read::<_, VolumeError>(|tx| Ok(tx.list::<Row>(TABLE)?))?;
        let volumes = rows.into_iter().map(|(name, row)| {
            let path = self.path(&name);
            row.shown(name, path)
        });
        Ok(volumes.collect())
    }

    /// The volume of this very name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, name: &str) -> Result<Volume> {
        self.find(name)?.ok_or_else(|| VolumeError::NotFound(name.to_owned()))
    }

    /// Where the content of the volume is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.inner.dir.join(name).join(DATA)
    }

    /// Bytes that the volume takes on the disk; files with several names count once. A container may be at work in it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn size(&self, name: &str) -> Result<u64> {
        Ok(disk_usage(self.get(name)?.mountpoint))
    }

    /// Removes a volume with all that is in it. `in_use` names the containers that have it. With `force` a volume
    /// that is not there is no error.
    ///
    /// # Errors
    /// `NotFound`, `InUse`.
    pub fn remove(&self, name: &str, force: bool, in_use: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
        self.locked(name, || {
            let Some(volume) = self.find(name)? else {
                return if self.remove_foreign(name)? || force {
                    Ok(())
                } else {
                    Err(VolumeError::NotFound(name.to_owned()))
                };
            };
            let containers = in_use(name);
            if !containers.is_empty() {
                return Err(VolumeError::InUse { action: "remove", name: name.to_owned(), containers });
            }
            if !volume.snapshots.is_empty() && !force {
                return Err(VolumeError::HasSnapshots { name: name.to_owned(), snapshots: volume.snapshots });
            }
            if !volume.is_local() {
                self.remove_by_plugin(&volume, force)?;
            } else if !volume.is_plain() {
                // What is mounted there is not the volume's own.
                self.unmount(name)?;
            }
            self.inner.remove(name)?;
            if let Some(limit) = volume.limit {
                limit.forget(&self.inner.dir);
            }
            Ok(())
        })
    }

    /// Bytes that a volume of a size has taken of it.
    pub fn used(&self, volume: &Volume) -> Option<u64> {
        volume.limit.map(|limit| limit.used(&self.inner.dir.join(&volume.name)))
    }

    /// Removes the volumes that no container has and `unwanted` says yes to: only anonymous ones unless `all`.
    /// Answers with their names and the bytes that they took.
    ///
    /// # Errors
    /// When the disk fails; what was removed until then is.
    pub fn prune(
        &self,
        all: bool,
        unwanted: &dyn Fn(&Volume) -> bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<(Vec<String>, u64)> {
        self.prune_and_tell(all, unwanted, in_use, &|_| ())
    }

    /// As [`Self::prune`]; `told` hears of each when it has gone.
    ///
    /// # Errors
    /// When the database or the disk fails.
    pub fn prune_and_tell(
        &self,
        all: bool,
        unwanted: &dyn Fn(&Volume) -> bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
        told: &dyn Fn(&str),
    ) -> Result<(Vec<String>, u64)> {
        let (mut names, mut bytes) = (Vec::new(), 0);
        for (volume, size) in self.prunable(all, unwanted, in_use)? {
            match self.remove(&volume.name, true, in_use) {
                // Somebody took it meanwhile.
                Err(VolumeError::InUse { .. }) => continue,
                done => done?,
            }
            told(&volume.name);
            names.push(volume.name);
            bytes += size;
        }
        Ok((names, bytes))
    }

    /// What [`Self::prune`] would remove now, each with the bytes that it takes.
    ///
    /// # Errors
    /// When the database fails.
    pub fn prunable(
        &self,
        all: bool,
        unwanted: &dyn Fn(&Volume) -> bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<Vec<(Volume, u64)>> {
        // What is elsewhere is not this host's to throw away, and of what has snapshots somebody takes care.
        let own = |volume: &Volume| volume.is_plain() && volume.snapshots.is_empty();
        let goes = |volume: &Volume| {
            own(volume) && (all || volume.anonymous) && unwanted(volume) && in_use(&volume.name).is_empty()
        };
        let sized = |volume: Volume| {
            let size = disk_usage(&volume.mountpoint);
            (volume, size)
        };
        Ok(self.list()?.into_iter().filter(goes).map(sized).collect())
    }

    /// Whether [`Self::create`] would take such a request.
    ///
    /// # Errors
    /// For a name, driver or option that is not accepted.
    pub fn check(&self, request: &CreateVolume) -> Result<()> {
        match request.name.as_str() {
            "" => self.check_named("anonymous", request),
            name => self.check_named(name, request),
        }
    }

    /// Sets up a volume that has no row yet; nothing is left of one that cannot be.
    fn set_up_limit(&self, name: &str, bytes: u64) -> Result<Limit> {
        let dir = self.inner.dir.join(name);
        let made = self.limit_dir(name, &dir, bytes);
        if made.is_err() {
            remove_tree(&dir)?;
        }
        made
    }

    /// Bounds what a directory with nothing in its content yet may become.
    pub(crate) fn limit_dir(&self, name: &str, dir: &Path, bytes: u64) -> Result<Limit> {
        // Two volumes with the same project would share what they may have.
        let _alone = self.inner.projects.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<u32> = self.list()?.iter().filter_map(|volume| volume.limit?.project).collect();
        crate::limit::set_up(name, dir, bytes, &taken)
    }

    /// What is refused whatever is there.
    fn check_named(&self, name: &str, request: &CreateVolume) -> Result<()> {
        name::check(name)?;
        match request.driver.as_str() {
            "" | LOCAL => mounting::check(name, &request.options),
            driver => self.driver("create", name, driver).map(drop),
        }
    }

    /// Fills an empty volume, or the directory `part` of it, with the directory `path` of an image's file system, whose
    /// owner and mode it also takes. Links in `path` are followed inside `source` only. What is not empty, a part that is
    /// no directory, and a path that is not there, change nothing.
    ///
    /// # Errors
    /// When `path` is no directory, or something cannot be copied; the next call then begins anew.
    pub fn copy_up(&self, name: &str, part: impl AsRef<Path>, source: &RootDir, path: impl AsRef<Path>) -> Result<()> {
        self.locked(name, || {
            let volume = self.get(name)?;
            let data = self.users().get(name).map(|used| used.path.clone()).unwrap_or(volume.mountpoint);
            let mark = self.inner.dir.join(name).join(crate::fill::FILLING);
            let fill = || crate::fill::fill(name, &data, &mark, part.as_ref(), source, path.as_ref());
            crate::limit::within(volume.limit, fill)
        })
    }

    pub(crate) fn users(&self) -> std::sync::MutexGuard<'_, HashMap<String, Used>> {
        self.inner.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Drivers of volumes that are programs of others.
    pub fn plugins(&self) -> &Plugins {
        &self.inner.plugins
    }

    pub(crate) fn lookup(&self) -> &Lookup {
        &self.inner.lookup
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn row(&self, name: &str) -> Result<Option<Row>> {
        self.inner.store.read::<_, VolumeError>(|tx| Ok(tx.get::<Row>(TABLE, name)?))
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<Volume>> {
        Ok(self.row(name)?.map(|row| row.shown(name.to_owned(), self.path(name))))
    }

    /// Does `f` while nobody else changes this volume; others are not held up.
    pub(crate) fn locked<T>(&self, name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        let own = {
            let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, held| held.strong_count() > 0);
            let held = busy.get(name).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let new = Arc::new(Mutex::new(()));
                busy.insert(name.to_owned(), Arc::downgrade(&new));
                new
            })
        };
        let _guard = own.lock().unwrap_or_else(PoisonError::into_inner);
        f()
    }
}

impl Inner {
    /// Out of the way first, so that a crash leaves either a volume or something that [`Self::sweep`] ends.
    fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        let gone = self.dir.join(format!("{REMOVING}{}", name::end(name)));
        remove_tree(&gone)?;
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(VolumeError::file("remove", path)(error));
            }
            _ => {}
        }
        self.store.write::<_, VolumeError>(|tx| Ok(tx.delete(TABLE, name).map(drop)?))?;
        remove_tree(&gone)
    }

    fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(VolumeError::file("list", &self.dir))?;
        for entry in entries {
            let entry = entry.map_err(VolumeError::file("list", &self.dir))?;
            let file_name = entry.file_name();
            let Some(part) = file_name.to_str().and_then(|name| name.strip_prefix(REMOVING)) else { continue };
            let rows = self.store.read::<_, VolumeError>(|tx| Ok(tx.list::<Row>(TABLE)?))?;
            // The row may be of a new volume of the same name: then its directory is there.
            let lost = |name: &String| part == name::end(name) && !self.dir.join(name).exists();
            for (name, _) in rows.iter().filter(|(name, _)| lost(name)) {
                self.store.write::<_, VolumeError>(|tx| Ok(tx.delete(TABLE, name).map(drop)?))?;
            }
            let others = rows.iter().filter(|(name, _)| !lost(name));
            let taken: Vec<u32> = others.filter_map(|(_, row)| row.limit?.project).collect();
            crate::limit::forget_left(&entry.path(), &taken);
            if let Err(error) = remove_tree(&entry.path()) {
                // Something may be mounted in it. The next start tries again.
                tracing::warn!(?error, "a volume that was removed is still on the disk");
            }
        }
        Ok(())
    }
}

pub(crate) fn make_dirs(data: &Path) -> Result<()> {
    let above = data.parent().unwrap_or(data);
    make_dir(above)?;
    make(data, 0o755)
}

/// The directory that has what is ours beside the content.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    make(path, 0o711)
}

fn make(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(VolumeError::file("create", path)),
    }
}

/// Removes what a container may have filled with anything, without following a link.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    Ok(RootDir::open(above)?.remove_all(name)?)
}
