//! An archive of images on its way in: layers become layers at once, beside each other, and the rest is put aside until
//! the archive's end says what it is. Compressed layers of an OCI layout go to the blobs as they are, too.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek as _, Write};
use std::path::{Component, Path, PathBuf};
use std::thread::JoinHandle;

use rustix::io::Errno;
use wharf_archive::{ArchiveError, Entry, Kind, Reader};
use wharf_reference::{Digest, Hasher};
use wharf_rooted_path::{RootDir, RootError};
use wharf_snapshot::{Hold, Layer};

use crate::aside::Folder;
use crate::images::{Images, MAX_CONFIG};
use crate::progress::Progress;
use crate::side_by_side::{CHUNK, Making, Room};
use crate::{ErrorKind, ImageError, Result, decompressed};

/// An archive of images has a handful of entries for each layer; a bomb has more.
const MAX_ENTRIES: u64 = 200_000;
/// Most bytes of an archive. Larger than any that anybody moves, and an end to what inflates without one.
const MAX_BYTES: u64 = 1 << 40;
/// A header, which is what a tar begins with.
const BLOCK: usize = 512;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

/// What is in an archive.
pub(crate) struct Intake<'a> {
    images: &'a Images,
    progress: &'a dyn Fn(Progress),
    root: RootDir,
    _folder: Folder,
    /// Which of the layers is at a place in the archive.
    places: HashMap<PathBuf, usize>,
    layers: Vec<Found>,
    room: Room,
    /// What keeps them from being collected.
    held: Vec<Hold>,
    /// Layers that were here before, once there is one to compare with.
    before: Option<BTreeSet<Digest>>,
    /// Those that were not.
    new: BTreeSet<Digest>,
    /// Blobs that came with the archive. Those that belong to no layer at the end go again.
    blobs: Vec<Digest>,
}

/// A layer in the archive.
enum Found {
    /// It was here, or is now.
    Here(Digest),
    Coming(Making, Option<Stored>),
    /// A compressed blob that is no layer. Only who needs it as one wants to know why; then it is told once.
    None(Option<ImageError>),
}

/// A compressed layer that becomes a blob, or is one already.
enum Stored {
    Coming(Digest, JoinHandle<wharf_store::Result<(Digest, u64)>>),
    Here,
}

/// Who takes the bytes of a blob, piece by piece.
type Take<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

impl<'a> Intake<'a> {
    /// Reads the archive to its end.
    pub(crate) fn read(images: &'a Images, input: impl Read, progress: &'a dyn Fn(Progress)) -> Result<Self> {
        let folder = Folder::new(images.store().root())?;
        let root =
            RootDir::open(folder.path()).map_err(|e| ImageError::Io("cannot open the archive's folder", e.into()))?;
        let mut intake = Self {
            images,
            progress,
            root,
            _folder: folder,
            places: HashMap::new(),
            layers: Vec::new(),
            room: Room::new(images.waiting()),
            held: Vec::new(),
            before: None,
            new: BTreeSet::new(),
            blobs: Vec::new(),
        };
        match intake.entries(input).and_then(|()| intake.settle(true)) {
            Ok(()) => Ok(intake),
            Err(error) => {
                intake.undo()?;
                Err(error)
            }
        }
    }

    fn entries(&mut self, input: impl Read) -> Result<()> {
        let mut reader = Reader::new(input);
        let (mut entries, mut bytes) = (0, 0u64);
        while let Some(entry) = reader.next_entry()? {
            entries += 1;
            bytes = bytes.saturating_add(entry.size);
            if entries > MAX_ENTRIES {
                return Err(ArchiveError::TooMany(MAX_ENTRIES).into());
            }
            if bytes > MAX_BYTES {
                return Err(ArchiveError::TooLarge(MAX_BYTES).into());
            }
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let Some(path) = normal(&name) else {
                return Err(ImageError::Invalid(format!("`{name}`: its name leads out of the archive")));
            };
            if path.as_os_str().is_empty() {
                continue;
            }
            self.places.remove(&path);
            self.entry(&entry, &path, &mut reader)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &Path, content: &mut Reader<impl Read>) -> Result<()> {
        let fail = |error: RootError| ImageError::Invalid(format!("{error}: {}", error.errno));
        match entry.kind {
            Kind::Directory => self.root.mkdir_all(path, 0o700).map(drop).map_err(fail),
            Kind::File => self.file(entry, path, content),
            Kind::Symlink | Kind::HardLink => {
                self.make_room(path).map_err(fail)?;
                // Older archives name a layer that is there twice so.
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                match (entry.kind, normal(&target)) {
                    (Kind::Symlink, _) => self.root.symlink(target.as_ref(), path).map_err(fail),
                    (_, Some(existing)) => match self.places.get(&existing).copied() {
                        Some(layer) => {
                            self.places.insert(path.to_owned(), layer);
                            Ok(())
                        }
                        None => self.root.hard_link(existing, path).map_err(fail),
                    },
                    (_, None) => Err(ImageError::Invalid(format!("`{target}`: a link that leads out of the archive"))),
                }
            }
            // Nothing that an archive of images has.
            _ => Ok(()),
        }
    }

    fn make_room(&self, path: &Path) -> std::result::Result<(), RootError> {
        self.root.mkdir_all(path.parent().unwrap_or(Path::new("")), 0o700)?;
        self.root.remove_all(path)
    }

    fn file(&mut self, entry: &Entry, path: &Path, content: &mut Reader<impl Read>) -> Result<()> {
        let mut start = Vec::new();
        (&mut *content).take(BLOCK as u64).read_to_end(&mut start).map_err(ArchiveError::Read)?;
        let promised = promised(path);
        if is_tar(&start) {
            return self.layer(entry.size, path, promised, &mut start.chain(content));
        }
        if let Some(digest) = promised.filter(|_| is_compressed(&start)) {
            return self.compressed(entry.size, path, digest, &mut start.chain(content));
        }
        let fail = |error: RootError| match error.errno {
            // The disk's, or the process's: all others are of where the archive wants it to be.
            Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                ImageError::Io("cannot put a part of the archive aside", error.into())
            }
            errno => ImageError::Invalid(format!("{error}: {errno}")),
        };
        let _room = self.images.store().budget().reserve(entry.size)?;
        self.make_room(path).map_err(fail)?;
        let mut file = self.root.create_file(path, 0o600).map_err(fail)?;
        file.write_all(&start).map_err(|e| ImageError::Io("cannot put a part of the archive aside", e))?;
        Ok(content.copy_to(&mut file)?)
    }

    /// A plain tar is a layer, and goes to its place without a stay on the disk in between.
    fn layer(&mut self, size: u64, path: &Path, promised: Option<Digest>, content: &mut impl Read) -> Result<()> {
        if let Some(diff_id) = &promised {
            // First held, then looked for: what is found stays, and is not even read.
            self.held.push(self.images.hold(std::slice::from_ref(diff_id)));
            if self.images.layers().contains(diff_id) {
                self.found(path, Found::Here(diff_id.clone()));
                return Ok(());
            }
        }
        let id = promised.as_ref().map_or_else(|| place_of(path), |digest| digest.short().to_owned());
        self.images.store().budget().require(size)?;
        let mut making = self.begin(promised, size)?;
        self.carry(&id, size, content, &making, None)?;
        making.end();
        self.found(path, Found::Coming(making, None));
        Ok(())
    }

    /// What is compressed in an OCI layout is most likely a layer; whether it is, its content says.
    fn compressed(&mut self, size: u64, path: &Path, digest: Digest, content: &mut impl Read) -> Result<()> {
        self.held.push(self.images.hold(std::slice::from_ref(&digest)));
        let blobs = self.images.store().blobs();
        let here = blobs.contains(&digest);
        if here {
            let all = self.images.layers().list()?;
            let layer = all.into_iter().find(|layer| layer.blobs.iter().any(|blob| blob.digest == digest));
            if let Some(layer) = layer.filter(|layer| self.images.layers().contains(&layer.diff_id)) {
                self.held.push(self.images.hold(std::slice::from_ref(&layer.diff_id)));
                self.found(path, Found::Here(layer.diff_id));
                return Ok(());
            }
        }
        // What it will be unpacked, nobody knows: that is asked for while it comes.
        self.images.store().budget().require(if here { 0 } else { size })?;
        let mut making = self.begin(None, size)?;
        let stored = if here {
            // Its name is said of these bytes too, which the layer is made of.
            let mut hasher = Hasher::with(digest.algorithm());
            let mut hash = |bytes: &[u8]| {
                hasher.update(bytes);
                Ok(())
            };
            self.carry(digest.short(), size, content, &making, Some(&mut hash))?;
            if let Err(error) = compare(&digest, hasher) {
                // Without its end it becomes no layer.
                let _ = making.layer();
                self.found(path, Found::None(Some(error)));
                return Ok(());
            }
            Stored::Here
        } else {
            let mut writer = blobs.writer(Some(&digest))?;
            let mut append = |bytes: &[u8]| Ok(writer.append(bytes)?);
            self.carry(digest.short(), size, content, &making, Some(&mut append))?;
            // The disk may take its time to have it, and nobody waits for that yet.
            Stored::Coming(digest, std::thread::spawn(move || writer.finish()))
        };
        making.end();
        self.found(path, Found::Coming(making, Some(stored)));
        Ok(())
    }

    fn begin(&mut self, expected: Option<Digest>, size: u64) -> Result<Making> {
        // What has failed meanwhile ends the reading.
        self.settle(false)?;
        if self.before.is_none() {
            self.before = Some(self.images.layers().list()?.into_iter().map(|layer| layer.diff_id).collect());
        }
        Ok(Making::begin(self.images, expected, size, &self.room))
    }

    /// Reads a layer's content to its end, for who makes the layer and for who takes it as the blob that it is.
    fn carry(
        &self,
        id: &str,
        size: u64,
        content: &mut impl Read,
        making: &Making,
        mut blob: Option<&mut Take<'_>>,
    ) -> Result<()> {
        (self.progress)(Progress::bytes(id, "Loading layer", 0, size));
        let (mut have, mut told, mut wanted) = (0, 0, true);
        while wanted || blob.is_some() {
            let mut bytes = Vec::with_capacity(CHUNK);
            content.take(CHUNK as u64).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
            if bytes.is_empty() {
                break;
            }
            have += bytes.len() as u64;
            if have - told >= STEP {
                told = have;
                (self.progress)(Progress::bytes(id, "Loading layer", have, size));
            }
            if let Some(blob) = &mut blob {
                blob(&bytes)?;
            }
            wanted = wanted && making.give(bytes);
        }
        (self.progress)(Progress::bytes(id, "Loading layer", size, size));
        Ok(())
    }

    fn found(&mut self, path: &Path, found: Found) {
        self.places.insert(path.to_owned(), self.layers.len());
        self.layers.push(found);
    }

    /// Takes in the layers that are ready, or waits for all of them.
    fn settle(&mut self, all: bool) -> Result<()> {
        let mut failure = None;
        for at in 0..self.layers.len() {
            if !matches!(&self.layers[at], Found::Coming(making, _) if all || making.is_done()) {
                continue;
            }
            let Found::Coming(making, stored) = std::mem::replace(&mut self.layers[at], Found::None(None)) else {
                continue;
            };
            let compressed = stored.is_some();
            match self.taken_in(making.layer(), stored) {
                Ok(diff_id) => self.layers[at] = Found::Here(diff_id),
                Err(error) if compressed && error.kind() == ErrorKind::Invalid => {
                    self.layers[at] = Found::None(Some(error));
                }
                // Those that are still at work are waited for all the same: nothing of the archive may come after it.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn taken_in(&mut self, layer: Result<Layer>, stored: Option<Stored>) -> Result<Digest> {
        if let Ok(layer) = &layer {
            self.held.push(self.images.hold(std::slice::from_ref(&layer.diff_id)));
            if self.before.as_ref().is_some_and(|before| !before.contains(&layer.diff_id)) {
                self.new.insert(layer.diff_id.clone());
            }
        }
        if let Some(Stored::Coming(digest, finishing)) = stored {
            self.blobs.push(digest);
            let early = || ImageError::Invalid("a blob's thread has ended too early".into());
            finishing.join().map_err(|_| early())??;
        }
        Ok(layer?.diff_id)
    }

    /// Counts a layer that was put aside among those that came with this archive.
    pub(crate) fn note_new(&mut self, diff_id: &Digest) {
        self.new.insert(diff_id.clone());
    }

    /// The layer at a place in the archive, if one was there that was recognised.
    ///
    /// # Errors
    /// Why what is there is no layer.
    pub(crate) fn layer_at(&mut self, path: &str) -> Result<Option<Digest>> {
        let Some(path) = normal(path) else { return Ok(None) };
        let Some(at) = self.places.get(&path).copied().or_else(|| self.linked(&path)) else { return Ok(None) };
        match &mut self.layers[at] {
            Found::Here(diff_id) => Ok(Some(diff_id.clone())),
            Found::None(why) => Err(why
                .take()
                .unwrap_or_else(|| ImageError::Invalid(format!("{} of the archive is no layer", path.display())))),
            Found::Coming(..) => Ok(None),
        }
    }

    fn linked(&self, path: &Path) -> Option<usize> {
        let target = self.root.read_link(path).ok()?;
        let mut joined = path.parent()?.to_owned();
        for part in Path::new(&target).components() {
            match part {
                Component::Normal(name) => joined.push(name),
                Component::ParentDir => drop(joined.pop()),
                Component::RootDir => joined.clear(),
                _ => {}
            }
        }
        self.places.get(&joined).copied()
    }

    /// What was put aside, to make a layer of it. Under a digest's name it must have that.
    pub(crate) fn open(&self, path: &str) -> Result<File> {
        let opened = self.root.open_file(path);
        let mut file = opened.map_err(|e| ImageError::Invalid(format!("the archive has no {path}: {}", e.errno)))?;
        if let Some(digest) = normal(path).as_deref().and_then(promised) {
            let fail = |e| ImageError::Io("cannot read a part of the archive", e);
            let (mut hasher, mut bytes) = (Hasher::with(digest.algorithm()), vec![0; CHUNK]);
            while let read @ 1.. = file.read(&mut bytes).map_err(fail)? {
                hasher.update(&bytes[..read]);
            }
            compare(&digest, hasher)?;
            file.rewind().map_err(fail)?;
        }
        Ok(file)
    }

    /// Makes a layer of what was put aside, whichever it is.
    pub(crate) fn import(&mut self, path: &str) -> Result<Digest> {
        let mut tar = decompressed(self.open(path)?)?;
        let layer = self.images.layers().import(&mut tar, None)?;
        self.held.push(self.images.hold(std::slice::from_ref(&layer.diff_id)));
        self.note_new(&layer.diff_id);
        Ok(layer.diff_id)
    }

    /// The folders of the archive's top that have a file of this name, in their order.
    pub(crate) fn folders_with(&self, name: &str) -> Result<Vec<String>> {
        let fail = |error: RootError| ImageError::Io("cannot read what was put aside", error.into());
        let mut folders: Vec<String> =
            self.root.read_dir("").map_err(fail)?.into_iter().filter_map(|entry| entry.into_string().ok()).collect();
        folders.retain(|folder| self.root.metadata(Path::new(folder).join(name), true).is_ok());
        folders.sort();
        Ok(folders)
    }

    /// Whether something is at a place in the archive.
    pub(crate) fn has(&self, path: &str) -> bool {
        let Some(path) = normal(path) else { return false };
        self.places.contains_key(&path) || self.linked(&path).is_some() || self.root.metadata(&path, true).is_ok()
    }

    /// A file that is read whole, if it is there.
    pub(crate) fn small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.root.read_small(path, MAX_CONFIG) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ImageError::Invalid(format!("{path} of the archive cannot be read: {}", error.errno))),
        }
    }

    /// Removes the blobs that came with this archive and that no layer has, when all of it is done.
    pub(crate) fn end(mut self) -> Result<()> {
        self.held.clear();
        self.forget_blobs()
    }

    fn forget_blobs(&mut self) -> Result<()> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let layers = self.images.layers();
        let _gate = self.images.gate();
        let owned = self.images.owned_blobs()?;
        for digest in std::mem::take(&mut self.blobs).into_iter().filter(|digest| !owned.contains(digest)) {
            layers.forget_blob(&digest, || !layers.is_held(&digest))?;
        }
        Ok(())
    }

    /// Removes the layers and blobs that came with this archive and that no image has.
    pub(crate) fn undo(mut self) -> Result<()> {
        // Why is known already, or this would not be undone.
        let _ = self.settle(true);
        self.held.clear();
        let new: Vec<Digest> = std::mem::take(&mut self.new).into_iter().collect();
        self.images.discard_unused(&new)?;
        self.forget_blobs()
    }
}

/// The digest that a place in an OCI layout says.
fn promised(path: &Path) -> Option<Digest> {
    let hex = path.strip_prefix("blobs/sha256").ok()?.to_str()?;
    Digest::parse(&format!("sha256:{hex}")).ok()
}

/// Whether what came under a digest's name has it.
fn compare(expected: &Digest, hasher: Hasher) -> Result<()> {
    let found = hasher.finish();
    if found == *expected {
        return Ok(());
    }
    Err(wharf_store::StoreError::WrongDigest { expected: expected.clone(), found }.into())
}

/// What tells a tar: its magic, or that it is the empty one.
fn is_tar(start: &[u8]) -> bool {
    start.len() == BLOCK && (start[257..].starts_with(b"ustar") || start.iter().all(|byte| *byte == 0))
}

/// What tells a layer as registries have it: gzip or zstd.
fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b, 8]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// A path of an archive without what says nothing; `None` when it leads out.
fn normal(path: &str) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(normal)
}

/// What a layer is called while it comes, where its digest is not known yet.
fn place_of(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).or(path.file_name());
    folder.unwrap_or_default().to_string_lossy().chars().take(12).collect()
}
