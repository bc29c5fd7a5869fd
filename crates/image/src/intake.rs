//! An archive of images on its way in: plain layers become layers at once, and the rest is put aside until the
//! archive's end says what it is.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_archive::{ArchiveError, Entry, Kind, Reader};
use wharf_reference::Digest;
use wharf_rooted_path::{RootDir, RootError};
use wharf_snapshot::Hold;

use crate::images::{Images, MAX_CONFIG};
use crate::progress::Progress;
use crate::{ImageError, Result};

/// Prefix of folders where parts of archives are put aside.
pub(crate) const TEMPORARY: &str = "load-";
/// An archive of images has a handful of entries for each layer; a bomb has more.
const MAX_ENTRIES: u64 = 200_000;
/// Most bytes of an archive. Larger than any that anybody moves, and an end to what inflates without one.
const MAX_BYTES: u64 = 1 << 40;
/// A header, which is what a tar begins with.
const BLOCK: usize = 512;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Removes what a crash has left.
pub(crate) fn sweep(root: &Path) -> Result<()> {
    let fail = |e| ImageError::Io("cannot sweep what a load has left", e);
    for entry in fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            wharf_rooted_path::remove_dir_all(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}

/// What is in an archive.
pub(crate) struct Intake<'a> {
    images: &'a Images,
    progress: &'a dyn Fn(Progress),
    root: RootDir,
    _folder: Folder,
    /// Layers by their places in the archive.
    layers: HashMap<PathBuf, Digest>,
    /// What keeps them from being collected.
    held: Vec<Hold>,
    /// Those that were not here before.
    new: BTreeSet<Digest>,
}

impl<'a> Intake<'a> {
    /// Reads the archive to its end.
    pub(crate) fn read(images: &'a Images, input: impl Read, progress: &'a dyn Fn(Progress)) -> Result<Self> {
        let folder = Folder::new(images.store().root())?;
        let root =
            RootDir::open(&folder.0).map_err(|e| ImageError::Io("cannot open the archive's folder", e.into()))?;
        let mut intake = Self {
            images,
            progress,
            root,
            _folder: folder,
            layers: HashMap::new(),
            held: Vec::new(),
            new: BTreeSet::new(),
        };
        match intake.entries(input) {
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
            self.layers.remove(&path);
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
                    (_, Some(existing)) => match self.layers.get(&existing).cloned() {
                        Some(diff_id) => {
                            self.layers.insert(path.to_owned(), diff_id);
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
        if is_tar(&start) {
            return self.layer(entry.size, path, &mut start.chain(content));
        }
        let fail = |error: RootError| ImageError::Io("cannot put a part of the archive aside", error.into());
        self.make_room(path).map_err(fail)?;
        let mut file = self.root.create_file(path, 0o600).map_err(fail)?;
        file.write_all(&start).map_err(|e| ImageError::Io("cannot put a part of the archive aside", e))?;
        Ok(content.copy_to(&mut file)?)
    }

    /// A plain tar is a layer, and goes to its place without a stay on the disk in between.
    fn layer(&mut self, size: u64, path: &Path, content: &mut impl Read) -> Result<()> {
        let layers = self.images.layers();
        // By the name that it has in an OCI layout: what is here is not even read.
        let promised = path.strip_prefix("blobs/sha256").ok().and_then(Path::to_str);
        let promised = promised.and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        if let Some(diff_id) = &promised {
            // First held, then looked for: what is found stays.
            self.held.push(self.images.hold(std::slice::from_ref(diff_id)));
            if layers.contains(diff_id) {
                self.layers.insert(path.to_owned(), diff_id.clone());
                return Ok(());
            }
        }
        let before = if promised.is_none() { layers.list()? } else { Vec::new() };
        let id = promised.as_ref().map_or_else(|| place_of(path), |digest| digest.short().to_owned());
        self.images.store().budget().require(size)?;
        (self.progress)(Progress::bytes(&id, "Loading layer", 0, size));
        let mut counted = Counted { input: content, id: &id, progress: self.progress, have: 0, told: 0, total: size };
        let free = self.images.store().free();
        let layer = layers.import(&mut counted, promised.as_ref());
        let layer = layer.map_err(|error| ImageError::from(error).with_missing(self.images.store(), size, free))?;
        let diff_id = layer.diff_id.clone();
        (self.progress)(Progress::bytes(&id, "Loading layer", size, size));
        if promised.is_none() {
            self.held.push(self.images.hold(std::slice::from_ref(&diff_id)));
        }
        if before.iter().all(|known| known.diff_id != diff_id) {
            self.new.insert(diff_id.clone());
        }
        self.layers.insert(path.to_owned(), diff_id);
        Ok(())
    }

    /// The layer at a place in the archive, if a plain one was there.
    pub(crate) fn layer_at(&self, path: &str) -> Option<&Digest> {
        let path = normal(path)?;
        if let Some(diff_id) = self.layers.get(&path) {
            return Some(diff_id);
        }
        let target = self.root.read_link(&path).ok()?;
        let mut joined = path.parent()?.to_owned();
        for part in Path::new(&target).components() {
            match part {
                Component::Normal(name) => joined.push(name),
                Component::ParentDir => drop(joined.pop()),
                Component::RootDir => joined.clear(),
                _ => {}
            }
        }
        self.layers.get(&joined)
    }

    pub(crate) fn open(&self, path: &str) -> Result<File> {
        self.root.open_file(path).map_err(|e| ImageError::Invalid(format!("the archive has no {path}: {}", e.errno)))
    }

    /// A file that is read whole, if it is there.
    pub(crate) fn small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.root.read_small(path, MAX_CONFIG) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(ImageError::Invalid(format!("{path} of the archive cannot be read: {}", error.errno))),
        }
    }

    /// Removes the layers that came with this archive and that no image has.
    pub(crate) fn undo(self) -> Result<()> {
        drop(self.held);
        let new: Vec<Digest> = self.new.into_iter().collect();
        self.images.discard_unused(&new)
    }
}

/// What tells a tar: its magic, or that it is the empty one.
fn is_tar(start: &[u8]) -> bool {
    start.len() == BLOCK && (start[257..].starts_with(b"ustar") || start.iter().all(|byte| *byte == 0))
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

/// A stream that says how far it is.
struct Counted<'a, R> {
    input: R,
    id: &'a str,
    progress: &'a dyn Fn(Progress),
    have: u64,
    told: u64,
    total: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.have += count as u64;
        if self.have - self.told >= STEP {
            self.told = self.have;
            (self.progress)(Progress::bytes(self.id, "Loading layer", self.have, self.total));
        }
        Ok(count)
    }
}

/// A folder for parts of an archive, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|e| ImageError::Io("cannot make a folder for the archive", e))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is swept when the images are opened.
        let _ = wharf_rooted_path::remove_dir_all(&self.0);
    }
}
