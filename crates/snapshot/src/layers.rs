//! The layers of a store.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use wharf_archive::{PackOptions, UnpackOptions, Whiteouts, pack, unpack};
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;
use wharf_store::{Store, Table};

use crate::tar::{Digester, HashedReader};
use crate::view::View;
use crate::{Result, SnapshotError};

const LAYERS: Table = Table::new("layer");
/// Prefix of a tree that is not a layer yet, or no longer.
const TEMPORARY: &str = "tmp-";
/// OCI image-spec, "Media Types".
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The level of most tools: 6 costs twice the time for a few percent.
const LEVEL: u32 = 4;

/// A layer that is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar stream.
    pub size: u64,
    /// Compressed forms that are in the blob store, or were.
    pub blobs: Vec<LayerBlob>,
    /// Times of its entries are no later than this (seconds since the epoch): what writes its tar again needs it.
    #[serde(default)]
    clamp_mtime: Option<i64>,
    /// Its tar was written by us, so packing the tree again gives the same bytes.
    #[serde(default)]
    packed: bool,
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
}

impl Layers {
    /// Opens the layers of a store, and removes what a crash has left unfinished.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(store: Store) -> Result<Self> {
        let dir = store.root().join("layers");
        // Layers have set-user-ID files in them: nobody but root may reach them (CVE-2021-41091).
        fs::DirBuilder::new().recursive(true).mode(0o710).create(&dir).map_err(SnapshotError::file("make", &dir))?;
        let layers = Self { inner: Arc::new(Inner { store, dir, next: AtomicU64::new(0) }) };
        layers.sweep()?;
        Ok(layers)
    }

    /// Removes trees without a row, and rows without a tree.
    fn sweep(&self) -> Result<()> {
        let dir = &self.inner.dir;
        let rows: Vec<(String, Layer)> = self.inner.store.read(|tx| tx.list(LAYERS))?;
        for entry in fs::read_dir(dir).map_err(SnapshotError::file("list", dir))? {
            let entry = entry.map_err(SnapshotError::file("list", dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(TEMPORARY) || !rows.iter().any(|(_, layer)| layer.diff_id.hex() == name) {
                fs::remove_dir_all(entry.path()).map_err(SnapshotError::file("sweep", entry.path()))?;
            }
        }
        for (key, layer) in rows {
            if !self.tree(&layer.diff_id).exists() {
                self.inner.store.write(|tx| tx.delete(LAYERS, &key))?;
            }
        }
        Ok(())
    }

    /// Where a layer's tree is, or would be.
    fn tree(&self, diff_id: &Digest) -> PathBuf {
        self.inner.dir.join(diff_id.hex()).join("root")
    }

    pub fn contains(&self, diff_id: &Digest) -> bool {
        self.tree(diff_id).exists()
    }

    /// A layer, if it is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        Ok(self.inner.store.read(|tx| tx.get(LAYERS, diff_id.as_str()))?)
    }

    fn require(&self, diff_id: &Digest) -> Result<Layer> {
        self.get(diff_id)?.ok_or_else(|| SnapshotError::NotFound(diff_id.clone()))
    }

    /// All layers.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Layer>> {
        let rows: Vec<(String, Layer)> = self.inner.store.read(|tx| tx.list(LAYERS))?;
        Ok(rows.into_iter().map(|(_, layer)| layer).collect())
    }

    /// Makes a layer of an uncompressed tar stream. What is here already is read to its end and not kept twice.
    ///
    /// # Errors
    /// `WrongDiffId` when it is not `expected`; for an archive that is hostile or damaged, and for what the disk
    /// refuses. Then nothing of it stays.
    pub fn import(&self, tar: &mut dyn Read, expected: Option<&Digest>) -> Result<Layer> {
        match expected {
            Some(_) => self.import_only(tar, expected),
            // Nobody has the stream in another form: it is kept.
            None => self.import_kept(tar, None),
        }
    }

    fn import_only(&self, tar: &mut dyn Read, expected: Option<&Digest>) -> Result<Layer> {
        if let Some(layer) = expected.map(|diff_id| self.get(diff_id)).transpose()?.flatten()
            && self.contains(&layer.diff_id)
        {
            let (found, _) = HashedReader::new(tar).finish().map_err(SnapshotError::Input)?;
            check(expected, &found)?;
            return Ok(layer);
        }
        let temporary = self.temporary()?;
        let root = RootDir::open(temporary.path.join("root"))?;
        let mut reader = HashedReader::new(tar);
        let options = UnpackOptions { whiteouts: Whiteouts::Overlay, ..UnpackOptions::default() };
        unpack(&mut reader, &root, &options)?;
        let (diff_id, size) = reader.finish().map_err(SnapshotError::Input)?;
        check(expected, &diff_id)?;
        self.keep(temporary, Layer { diff_id, size, blobs: Vec::new(), clamp_mtime: None, packed: false })
    }

    /// As [`Self::import`], and keeps the stream, compressed, unless packing the tree gives the same bytes: for a tar
    /// that came without a blob and must be given back as it is.
    ///
    /// # Errors
    /// As [`Self::import`].
    pub fn import_exact(&self, tar: &mut dyn Read, expected: &Digest) -> Result<Layer> {
        self.import_kept(tar, Some(expected))
    }

    fn import_kept(&self, tar: &mut dyn Read, expected: Option<&Digest>) -> Result<Layer> {
        let writer = io::BufWriter::with_capacity(1 << 20, self.inner.store.blobs().writer(None)?);
        let gzip = GzBuilder::new().mtime(0).write(writer, Compression::new(LEVEL));
        let mut kept = Tee { input: tar, copy: gzip };
        let layer = self.import_only(&mut kept, expected)?;
        if !layer.blobs.is_empty() || layer.packed {
            return Ok(layer);
        }
        let writer = kept.copy.finish().map_err(SnapshotError::Output)?;
        let writer = writer.into_inner().map_err(|error| SnapshotError::Output(error.into_error()))?;
        let (digest, size) = writer.finish()?;
        self.note_blob(&layer.diff_id, LayerBlob { digest, size, media_type: GZIP.into() })?;
        self.require(&layer.diff_id)
    }

    /// Makes a layer of the files of a tar stream, whatever its bytes: what it gives back is a tar of ours, with a diff
    /// ID of its own. Whiteouts in it are files like others.
    ///
    /// # Errors
    /// For an archive that is hostile or damaged, and for what the disk refuses.
    pub fn adopt(&self, tar: &mut dyn Read) -> Result<Layer> {
        let temporary = self.temporary()?;
        let place = temporary.path.join("root");
        let options = UnpackOptions { whiteouts: Whiteouts::Literal, ..UnpackOptions::default() };
        unpack(tar, &RootDir::open(&place)?, &options)?;
        self.commit(&place, None)
    }

    /// Makes a layer of what a container, or a step of a build, has written to its upper directory, which stays.
    ///
    /// # Errors
    /// When something cannot be read or the disk refuses.
    pub fn commit(&self, upper: &Path, clamp_mtime: Option<i64>) -> Result<Layer> {
        // Packed and unpacked at once: the tree that is kept is that of the tar, not one that may still change.
        let temporary = self.temporary()?;
        let root = RootDir::open(temporary.path.join("root"))?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| SnapshotError::Output(errno.into()))?;
        let source = RootDir::open(upper)?;
        let options = PackOptions { overlay_whiteouts: true, clamp_mtime };
        let packing = std::thread::spawn(move || {
            let mut writer = io::BufWriter::with_capacity(1 << 20, File::from(writer));
            pack(&source, Path::new(""), &mut writer, &options)?;
            writer.flush().map_err(wharf_archive::ArchiveError::Write)
        });
        let mut input = File::from(reader);
        let mut hashed = HashedReader::new(&mut input);
        let how = UnpackOptions { whiteouts: Whiteouts::Overlay, ..UnpackOptions::default() };
        let unpacked = unpack(&mut hashed, &root, &how);
        let finished = hashed.finish();
        drop(input);
        let packed = packing.join().map_err(|_| SnapshotError::Input(io::Error::other("the packing failed")))?;
        // The cause first: a failed packing shows as a truncated archive on this side.
        packed?;
        unpacked?;
        let (diff_id, size) = finished.map_err(SnapshotError::Input)?;
        if let Some(layer) = self.get(&diff_id)?
            && self.contains(&diff_id)
        {
            return Ok(layer);
        }
        self.keep(temporary, Layer { diff_id, size, blobs: Vec::new(), clamp_mtime, packed: true })
    }

    /// Makes a tree a layer: on the disk, in its place, then in the database.
    fn keep(&self, mut temporary: Temporary, layer: Layer) -> Result<Layer> {
        // One syncfs(2) instead of an fsync for each of thousands of files.
        let dir = File::open(&temporary.path).map_err(SnapshotError::file("open", &temporary.path))?;
        rustix::fs::syncfs(&dir).map_err(|e| SnapshotError::file("write", &temporary.path)(e.into()))?;
        let place = self.inner.dir.join(layer.diff_id.hex());
        match fs::rename(&temporary.path, &place) {
            Ok(()) => temporary.kept = true,
            // Somebody else has made the same layer meanwhile.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                if let Some(layer) = self.get(&layer.diff_id)? {
                    return Ok(layer);
                }
            }
            Err(error) => return Err(SnapshotError::file("rename", &temporary.path)(error)),
        }
        File::open(&self.inner.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(SnapshotError::file("write", &self.inner.dir))?;
        self.inner.store.write(|tx| tx.put(LAYERS, layer.diff_id.as_str(), &layer))?;
        Ok(layer)
    }

    fn temporary(&self) -> Result<Temporary> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.dir.join(format!("{TEMPORARY}{number}"));
        let root = path.join("root");
        fs::create_dir_all(&root).map_err(SnapshotError::file("make", &root))?;
        // The root of a container, where no layer says otherwise.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).map_err(SnapshotError::file("make", &root))?;
        Ok(Temporary { path, kept: false })
    }

    /// Writes a layer's tar stream, the very bytes of its diff ID.
    ///
    /// # Errors
    /// `NotFound`; `WrongDiffId` when neither a blob nor the tree gives them any more.
    pub fn write_tar(&self, diff_id: &Digest, output: &mut dyn Write) -> Result<()> {
        let layer = self.require(diff_id)?;
        let blobs = self.inner.store.blobs();
        if let Some(blob) = layer.blobs.iter().find(|blob| blobs.contains(&blob.digest)) {
            let file = io::BufReader::with_capacity(1 << 20, blobs.reader(&blob.digest)?);
            let mut tar = decompress(file, &blob.media_type)?;
            io::copy(&mut tar, output).map_err(SnapshotError::Output)?;
            return Ok(());
        }
        let root = RootDir::open(self.tree(diff_id))?;
        let options = PackOptions { overlay_whiteouts: true, clamp_mtime: layer.clamp_mtime };
        if !layer.packed {
            // Another tool's tar: whether ours is the same shows only when it is done.
            let mut digester = Digester::default();
            pack(&root, Path::new(""), &mut digester, &options)?;
            check(Some(diff_id), &digester.finish().0)?;
        }
        Ok(pack(&root, Path::new(""), output, &options)?)
    }

    /// Notes that a compressed form of a layer is in the blob store.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn note_blob(&self, diff_id: &Digest, blob: LayerBlob) -> Result<()> {
        let key = diff_id.as_str();
        self.inner.store.write(|tx| {
            let mut layer: Layer = tx.get(LAYERS, key)?.ok_or_else(|| SnapshotError::NotFound(diff_id.clone()))?;
            if !layer.blobs.contains(&blob) {
                layer.blobs.push(blob);
                tx.put(LAYERS, key, &layer)?;
            }
            Ok(())
        })
    }

    /// The layer as a compressed blob: one that is there, else made now. The same layer gives the same bytes.
    ///
    /// # Errors
    /// `NotFound`, and for what the disk refuses.
    pub fn compressed(&self, diff_id: &Digest) -> Result<LayerBlob> {
        let layer = self.require(diff_id)?;
        let blobs = self.inner.store.blobs();
        if let Some(blob) = layer.blobs.iter().find(|blob| blobs.contains(&blob.digest)) {
            return Ok(blob.clone());
        }
        let writer = io::BufWriter::with_capacity(1 << 20, blobs.writer(None)?);
        // Without name and time, which would be in the bytes.
        let mut gzip = GzBuilder::new().mtime(0).write(writer, Compression::new(LEVEL));
        self.write_tar(diff_id, &mut gzip)?;
        let writer = gzip.finish().map_err(SnapshotError::Output)?;
        let writer = writer.into_inner().map_err(|error| SnapshotError::Output(error.into_error()))?;
        let (digest, size) = writer.finish()?;
        let blob = LayerBlob { digest, size, media_type: GZIP.into() };
        self.note_blob(diff_id, blob.clone())?;
        Ok(blob)
    }

    /// The trees of layers given base first, the topmost first as overlayfs wants them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn lowers(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>> {
        let tree = |diff_id: &Digest| {
            let tree = self.tree(diff_id);
            if tree.exists() { Ok(tree) } else { Err(SnapshotError::NotFound(diff_id.clone())) }
        };
        // The same layer twice is seen once, where it lies topmost; overlayfs refuses the second.
        let mut all: Vec<PathBuf> = Vec::new();
        for diff_id in diff_ids.iter().rev() {
            let path = tree(diff_id)?;
            if !all.contains(&path) {
                all.push(path);
            }
        }
        if all.is_empty() {
            all.push(self.empty()?);
        }
        Ok(all)
    }

    /// A directory with nothing in it: below an image without layers.
    fn empty(&self) -> Result<PathBuf> {
        let path = self.inner.store.root().join("empty");
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

    /// The layers with further trees on top (the topmost first), read-only: a container's files while it runs, whose
    /// upper directory cannot be mounted for writing a second time.
    ///
    /// # Errors
    /// `NotFound`, `Mount`.
    pub fn stacked(&self, diff_ids: &[Digest], above: &[PathBuf]) -> Result<View> {
        let mut all = above.to_vec();
        all.extend(self.lowers(diff_ids)?);
        self.mount(all, None)
    }

    fn mount(&self, mut lowers: Vec<PathBuf>, writable: Option<(&Path, &Path)>) -> Result<View> {
        if lowers.len() == 1 && writable.is_none() {
            // Its whiteouts hide nothing, and must not be seen either.
            lowers.push(self.empty()?);
        }
        if lowers.len() == 2 && lowers[0] == lowers[1] {
            return View::of_directory(&lowers[0]);
        }
        View::mount(&lowers, writable)
    }

    /// Removes a layer, and tells whether it was here. Whoever has it mounted keeps it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, diff_id: &Digest) -> Result<bool> {
        // The row first: a tree without one is swept.
        let there = self.inner.store.write(|tx| tx.delete(LAYERS, diff_id.as_str()))?;
        let place = self.inner.dir.join(diff_id.hex());
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let going = self.inner.dir.join(format!("{TEMPORARY}gone-{number}"));
        match fs::rename(&place, &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(there),
            done => done.map_err(SnapshotError::file("rename", &place))?,
        }
        fs::remove_dir_all(&going).map_err(SnapshotError::file("remove", &going))?;
        Ok(true)
    }
}

/// A reader that copies what is read through it.
struct Tee<'a, W> {
    input: &'a mut dyn Read,
    copy: W,
}

impl<W: Write> Read for Tee<'_, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.copy.write_all(&bytes[..count])?;
        Ok(count)
    }
}

/// A tree on its way in; removed unless it was kept.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is swept when the layers are opened.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn check(expected: Option<&Digest>, found: &Digest) -> Result<()> {
    match expected {
        Some(expected) if expected != found => {
            Err(SnapshotError::WrongDiffId { expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

/// The tar stream of a compressed blob, by its media type.
fn decompress<'a>(input: impl io::BufRead + 'a, media_type: &str) -> Result<Box<dyn Read + 'a>> {
    Ok(if media_type.ends_with("gzip") {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if media_type.ends_with("zstd") {
        Box::new(zstd::Decoder::with_buffer(input).map_err(SnapshotError::Input)?)
    } else {
        Box::new(input)
    })
}
