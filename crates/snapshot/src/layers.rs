//! The layers of a store.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use wharf_reference::Digest;
use wharf_store::{Store, Table};

use crate::archive_times::Clamped;
use crate::group_sync::GroupSync;
use crate::hold::{Held, Hold, Holds};
use crate::lower::{Image, Lower, Mounts};
use crate::storage::{self, Storage};
use crate::view::View;
use crate::{Result, SnapshotError};

pub(crate) const LAYERS: Table = Table::new("layer");
/// Prefix of a tree that is not a layer yet, or no longer.
pub(crate) const TEMPORARY: &str = "tmp-";

/// A layer that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub diff_id: Digest,
    /// Bytes of its files' contents, which is what Docker calls a layer's size.
    pub size: u64,
    /// Bytes of the uncompressed tar stream.
    pub tar_size: u64,
    /// Bytes that it takes on the disk without its blobs; of a tree near enough.
    #[serde(default)]
    pub disk: u64,
    /// Those from before there were images have none.
    #[serde(default)]
    pub form: Storage,
    /// Compressed forms that are in the blob store, or were.
    pub blobs: Vec<LayerBlob>,
    /// Where files keep their real times here: what the archive has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamped: Option<Clamped>,
    /// When it came here, in seconds since the epoch.
    #[serde(default)]
    pub created: i64,
    /// One that was just made stays as long as this value: until its maker has said who needs it, nobody does.
    #[serde(skip)]
    pub(crate) held: Held,
}

/// A layer as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// All layers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Layers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    dir: PathBuf,
    /// Names of trees on their way in and out.
    next: AtomicU64,
    /// Held while a tree and its row come or go, which are two steps.
    placing: Mutex<()>,
    holds: Arc<Holds>,
    sync: GroupSync,
    /// What new layers become, and why they do not become images.
    form: Storage,
    no_images: Option<String>,
    mounts: Mounts,
}

impl Layers {
    /// Opens the layers of a store, and removes what a crash has left unfinished. New layers become images where the
    /// kernel mounts them from here.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(store: Store) -> Result<Self> {
        Self::open_as(store, None)
    }

    /// As [`Self::open`]; new layers become what `form` says.
    ///
    /// # Errors
    /// As [`Self::open`], and `NoImages` for images that cannot be mounted.
    pub fn open_as(store: Store, form: Option<Storage>) -> Result<Self> {
        let layers = Self::unswept(store, form)?;
        layers.sweep()?;
        Ok(layers)
    }

    /// As [`Self::open`], to look at what a crash has left.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_to_check(store: Store) -> Result<Self> {
        Self::unswept(store, None)
    }

    fn unswept(store: Store, form: Option<Storage>) -> Result<Self> {
        let dir = store.root().join("layers");
        // Layers have set-user-ID files in them: nobody but root may reach them (CVE-2021-41091).
        fs::DirBuilder::new().recursive(true).mode(0o710).create(&dir).map_err(SnapshotError::file("make", &dir))?;
        let no_images = match form {
            Some(Storage::Dirs) => None,
            _ => storage::probe(&dir.join(format!("{TEMPORARY}probe"))).err(),
        };
        let form = match (form, &no_images) {
            (Some(Storage::Erofs), Some(why)) => return Err(SnapshotError::NoImages(why.clone())),
            (Some(form), _) => form,
            (None, Some(_)) => Storage::Dirs,
            (None, None) => Storage::Erofs,
        };
        let inner = Inner {
            store,
            dir,
            next: AtomicU64::new(0),
            placing: Mutex::default(),
            holds: Arc::default(),
            sync: GroupSync::default(),
            form,
            no_images,
            mounts: Mounts::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What new layers become.
    pub fn form(&self) -> Storage {
        self.inner.form
    }

    /// Why they do not become images, where that was tried.
    pub fn no_images(&self) -> Option<&str> {
        self.inner.no_images.as_deref()
    }

    /// Removes files without a row, and rows without files. A row whose layer can be made again of a blob stays for that:
    /// a pull does so, or `system fsck`.
    fn sweep(&self) -> Result<()> {
        let dir = self.dir();
        let rows: Vec<(String, Layer)> = self.store().read(|tx| tx.list(LAYERS))?;
        let known: HashSet<&str> = rows.iter().map(|(_, layer)| layer.diff_id.hex()).collect();
        for entry in fs::read_dir(dir).map_err(SnapshotError::file("list", dir))? {
            let entry = entry.map_err(SnapshotError::file("list", dir))?;
            if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
                let path = entry.path();
                let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let removed = if directory { wharf_rooted_path::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(SnapshotError::file("sweep", &path))?;
            }
        }
        let blobs = self.store().blobs();
        let again = |layer: &Layer| layer.blobs.iter().any(|blob| blobs.contains(&blob.digest));
        let (mut gone, mut other) = (Vec::new(), Vec::new());
        for (key, layer) in &rows {
            if self.has_files(layer) {
                continue;
            }
            let form = if layer.form == Storage::Dirs { Storage::Erofs } else { Storage::Dirs };
            let made = Layer { form, ..layer.clone() };
            if self.has_files(&made) {
                // It was made again, and the daemon killed before its row said in which form.
                other.push((key, made));
            } else if !again(layer) {
                gone.push(key);
            }
        }
        if !gone.is_empty() || !other.is_empty() {
            self.store().write(|tx| {
                gone.iter().try_for_each(|key| tx.delete(LAYERS, key).map(drop))?;
                other.iter().try_for_each(|(key, layer)| tx.put(LAYERS, key, layer))
            })?;
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.inner.dir
    }

    pub(crate) fn number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn placing(&self) -> MutexGuard<'_, ()> {
        self.inner.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps layers from being taken away, those here and those to come, until the answer is dropped. Blobs can be held
    /// too, for whoever takes those away.
    pub fn hold(&self, digests: &[Digest]) -> Hold {
        let mut hold = Hold::new(Arc::clone(&self.inner.holds));
        self.hold_also(&mut hold, digests);
        hold
    }

    /// As [`Self::hold`], with a hold that is there.
    pub fn hold_also(&self, hold: &mut Hold, digests: &[Digest]) {
        // Not between the look at the holds and the removal.
        let _placing = self.placing();
        hold.add(digests);
    }

    pub fn is_held(&self, digest: &Digest) -> bool {
        self.inner.holds.contains(digest)
    }

    /// Whether somebody holds it beside the one who has `own`.
    pub fn is_held_beside(&self, digest: &Digest, own: &Hold) -> bool {
        self.inner.holds.contains_beside(digest, own)
    }

    pub(crate) fn sync(&self, file: &File) -> std::result::Result<(), Errno> {
        self.inner.sync.sync(file)
    }

    /// Where a layer is, or would be.
    pub(crate) fn place(&self, diff_id: &Digest) -> PathBuf {
        self.dir().join(diff_id.hex())
    }

    /// Whether a layer that has a row has its files as well: those come before it, and go after it.
    pub(crate) fn has_files(&self, layer: &Layer) -> bool {
        let name = match layer.form {
            Storage::Dirs => "root",
            Storage::Erofs => "image",
        };
        self.place(&layer.diff_id).join(name).exists()
    }

    pub fn contains(&self, diff_id: &Digest) -> bool {
        matches!(self.get(diff_id), Ok(Some(layer)) if self.has_files(&layer))
    }

    /// A layer, if it is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        Ok(self.store().read(|tx| tx.get(LAYERS, diff_id.as_str()))?)
    }

    pub(crate) fn require(&self, diff_id: &Digest) -> Result<Layer> {
        self.get(diff_id)?.ok_or_else(|| SnapshotError::NotFound(diff_id.clone()))
    }

    /// All layers.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Layer>> {
        let rows: Vec<(String, Layer)> = self.store().read(|tx| tx.list(LAYERS))?;
        Ok(rows.into_iter().map(|(_, layer)| layer).collect())
    }

    /// Notes that a compressed form of a layer is in the blob store.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn note_blob(&self, diff_id: &Digest, blob: LayerBlob) -> Result<()> {
        let key = diff_id.as_str();
        self.store().write(|tx| {
            let mut layer: Layer = tx.get(LAYERS, key)?.ok_or_else(|| SnapshotError::NotFound(diff_id.clone()))?;
            if !layer.blobs.contains(&blob) {
                layer.blobs.push(blob);
                tx.put(LAYERS, key, &layer)?;
            }
            Ok(())
        })
    }

    /// Layers given base first, the topmost first as overlayfs wants them.
    ///
    /// # Errors
    /// `NotFound`, `Image`.
    pub fn lowers(&self, diff_ids: &[Digest]) -> Result<Vec<Lower>> {
        // The same layer twice is seen once, where it lies topmost; overlayfs refuses the second.
        let mut all: Vec<Lower> = Vec::new();
        let mut seen = HashSet::new();
        for diff_id in diff_ids.iter().rev().filter(|id| seen.insert(*id)) {
            all.push(self.lower(diff_id)?);
        }
        if all.is_empty() {
            all.push(Lower::Directory(self.empty()?));
        }
        Ok(all)
    }

    pub(crate) fn lower(&self, diff_id: &Digest) -> Result<Lower> {
        let place = self.place(diff_id);
        let (tree, path) = (place.join("root"), place.join("image"));
        if tree.exists() {
            return Ok(Lower::Directory(tree));
        }
        if !path.exists() {
            return Err(SnapshotError::NotFound(diff_id.clone()));
        }
        match self.inner.mounts.get(&path) {
            Ok(mount) => Ok(Lower::Image(Image { path, mount })),
            Err(errno) => {
                let why = self.no_images().map_or_else(|| errno.to_string(), str::to_owned);
                Err(SnapshotError::Image { diff_id: diff_id.clone(), why })
            }
        }
    }

    /// A directory with nothing in it: below an image without layers.
    fn empty(&self) -> Result<PathBuf> {
        let path = self.store().root().join("empty");
        fs::create_dir_all(&path).map_err(SnapshotError::file("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(SnapshotError::file("make", &path))?;
        Ok(path)
    }

    /// The layers (base first) as one directory; with `writable`, changes go to that upper directory.
    ///
    /// # Errors
    /// `NotFound`, `Mount`.
    pub fn view(&self, diff_ids: &[Digest], writable: Option<(&Path, &Path)>) -> Result<View> {
        self.mount(self.lowers(diff_ids)?, writable)
    }

    /// The layers with further trees on top and below them (the topmost first), read-only: a container's files while it runs, whose
    /// upper directory cannot be mounted for writing a second time.
    ///
    /// # Errors
    /// `NotFound`, `Mount`.
    pub fn stacked(&self, diff_ids: &[Digest], above: &[PathBuf], below: &[PathBuf]) -> Result<View> {
        let mut all: Vec<Lower> = above.iter().cloned().map(Lower::Directory).collect();
        all.extend(self.lowers(diff_ids)?);
        all.extend(below.iter().cloned().map(Lower::Directory));
        self.mount(all, None)
    }

    /// As [`Self::lowers`], for an overlay that nobody writes to: that wants two layers at least.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stack(&self, diff_ids: &[Digest]) -> Result<Vec<Lower>> {
        self.two_at_least(self.lowers(diff_ids)?)
    }

    /// With an empty directory below a single layer, whose whiteouts hide nothing, and must not be seen either.
    fn two_at_least(&self, mut lowers: Vec<Lower>) -> Result<Vec<Lower>> {
        if lowers.len() == 1 {
            lowers.push(Lower::Directory(self.empty()?));
        }
        Ok(lowers)
    }

    fn mount(&self, mut lowers: Vec<Lower>, writable: Option<(&Path, &Path)>) -> Result<View> {
        if writable.is_none() {
            lowers = self.two_at_least(lowers)?;
        }
        if lowers.len() == 2 && lowers[0].path() == lowers[1].path() {
            return View::of_directory(lowers[0].path());
        }
        View::mount(&lowers, writable)
    }

    /// Removes a layer, and tells whether it was here and nobody held it. Nobody may have a tree mounted: files would
    /// vanish from under them. Of an image they keep what they have.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, diff_id: &Digest) -> Result<bool> {
        let there = self.get(diff_id)?.is_some();
        let discarded = self.discard(std::slice::from_ref(diff_id))?;
        let gone = there && !discarded.diff_ids.is_empty();
        discarded.delete()?;
        Ok(gone)
    }

    /// Takes layers away at once, those that nobody holds; their files are deleted when the answer is, which takes
    /// longer. Nobody may have trees of them mounted.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn discard(&self, diff_ids: &[Digest]) -> Result<Discarded> {
        let _placing = self.placing();
        let diff_ids: Vec<Digest> = diff_ids.iter().filter(|id| !self.is_held(id)).cloned().collect();
        if diff_ids.is_empty() {
            return Ok(Discarded { diff_ids, trees: Vec::new() });
        }
        // The rows first: a tree without one is swept.
        self.store().write(|tx| diff_ids.iter().try_for_each(|id| tx.delete(LAYERS, id.as_str()).map(drop)))?;
        let mut trees = Vec::new();
        for diff_id in &diff_ids {
            trees.extend(self.move_away(diff_id)?);
        }
        Ok(Discarded { diff_ids, trees })
    }

    /// Deletes a blob that no layer has as a compressed form, and for which `unowned` is so. Tells whether it has gone.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget_blob(&self, digest: &Digest, unowned: impl FnOnce() -> bool) -> Result<bool> {
        // A form that is being made is noted under the same lock.
        let _placing = self.placing();
        let owned = || Ok::<_, SnapshotError>(self.list()?.iter().any(|l| l.blobs.iter().any(|b| b.digest == *digest)));
        if !unowned() || owned()? {
            return Ok(false);
        }
        Ok(self.store().blobs().delete(digest)?)
    }

    /// The layer's files are no more those that a mount has.
    pub(crate) fn forget_mount(&self, diff_id: &Digest) {
        self.inner.mounts.forget(&self.place(diff_id).join("image"));
    }

    /// Takes what is in a layer's place out of it, and says where it is now.
    pub(crate) fn move_away(&self, diff_id: &Digest) -> Result<Option<PathBuf>> {
        let place = self.place(diff_id);
        let going = self.dir().join(format!("{TEMPORARY}gone-{}", self.number()));
        match fs::rename(&place, &going) {
            Ok(()) => {
                self.forget_mount(diff_id);
                Ok(Some(going))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SnapshotError::file("rename", place)(error)),
        }
    }
}

/// Layers that are no layers any more, and still have their files. Forgotten, they are swept with the next opening.
#[derive(Debug)]
#[must_use]
pub struct Discarded {
    diff_ids: Vec<Digest>,
    trees: Vec<PathBuf>,
}

impl Discarded {
    /// What has gone: what was asked for, without what somebody holds.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Deletes the files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn delete(self) -> Result<()> {
        self.trees
            .iter()
            .try_for_each(|tree| wharf_rooted_path::remove_dir_all(tree).map_err(SnapshotError::file("remove", tree)))
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
