//! Content by digest: complete and verified, or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wharf_reference::{Algorithm, Digest, Hasher};

use crate::{Budget, Result, StoreError};

/// Prefix of content that may go on later, by its digest (`parts`).
pub(crate) const PARTIAL: &str = "partial-";
/// A blob on its way in asks for room in steps of so many bytes.
pub(crate) const ROOM_STEP: u64 = 1 << 20;

/// The blobs of a store.
#[derive(Clone, Debug)]
pub struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    ingest: PathBuf,
    budget: Arc<Budget>,
    /// Names of content on its way in.
    next: AtomicU64,
}

impl Blobs {
    pub(crate) fn open(root: &Path, budget: Arc<Budget>) -> Result<Self> {
        let blobs = Self::unswept(root, budget);
        let ingest = blobs.ingest();
        let listing = fs::read_dir(ingest).map_err(StoreError::file("list", ingest))?;
        for entry in listing {
            let entry = entry.map_err(StoreError::file("list", ingest))?;
            // The lock is ours, so nobody is writing these.
            if !entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_file(entry.path()).map_err(StoreError::file("sweep", entry.path()))?;
            }
        }
        Ok(blobs)
    }

    /// As [`Self::open`], with what a crash has left.
    pub(crate) fn unswept(root: &Path, budget: Arc<Budget>) -> Self {
        let (blobs, ingest) = (root.join("blobs"), root.join("ingest"));
        Self { inner: Arc::new(Inner { blobs, ingest, budget, next: AtomicU64::new(0) }) }
    }

    pub(crate) fn dir(&self, algorithm: Algorithm) -> PathBuf {
        self.inner.blobs.join(algorithm.as_str())
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    pub(crate) fn ingest(&self) -> &Path {
        &self.inner.ingest
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir(digest.algorithm()).join(digest.hex())
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Bytes, or `None` when it is not there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|found| found.size())
    }

    /// Opens a blob to read.
    ///
    /// # Errors
    /// `NoBlob`.
    pub fn reader(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoBlob(digest.clone()),
            _ => StoreError::file("open", path)(error),
        })
    }

    /// Reads a blob of at most `max` bytes.
    ///
    /// # Errors
    /// `NoBlob`, `TooLarge`.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.reader(digest)?;
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(StoreError::file("read", self.path(digest)))?;
        if bytes.len() as u64 > max {
            return Err(StoreError::TooLarge(digest.clone(), max));
        }
        Ok(bytes)
    }

    /// Stores bytes and answers with their SHA-256. What is there is not written again.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        self.put_as(Algorithm::Sha256, bytes)
    }

    /// As [`Self::put`], by the digest of another algorithm.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn put_as(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(algorithm, bytes);
        if !self.contains(&digest) {
            let mut writer = self.writer(Some(&digest))?;
            // Rows and manifests are small, and stored with locks held that making room takes.
            writer.room = u64::MAX;
            writer.append(bytes)?;
            writer.finish()?;
        }
        Ok(digest)
    }

    /// Begins a blob; with `expected` it must turn out to have that digest. Its bytes are asked of the budget before they
    /// are written: not with a lock that removing takes.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn writer(&self, expected: Option<&Digest>) -> Result<BlobWriter> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.ingest.join(format!("{}-{number}", std::process::id()));
        let open = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path);
        let file = open.map_err(StoreError::file("create", &path))?;
        let algorithm = expected.map(Digest::algorithm).unwrap_or_default();
        Ok(BlobWriter::new(self, path, file, Hasher::with(algorithm), expected))
    }

    /// Removes what is there of blobs to be resumed that nobody has gone on with for so long. Bytes that are free again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sweep_partial(&self, unused: Duration) -> Result<u64> {
        let mut freed = 0;
        let dir = &self.inner.ingest;
        for entry in fs::read_dir(dir).map_err(StoreError::file("list", dir))? {
            let entry = entry.map_err(StoreError::file("list", dir))?;
            // It may be gone, or a blob, by now.
            let (Ok(found), Ok(file)) = (entry.metadata(), File::open(entry.path())) else { continue };
            let old = found.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age >= unused);
            let idle = || rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
            if !(entry.file_name().to_string_lossy().starts_with(PARTIAL) && old && idle()) {
                continue;
            }
            // Its writer may have made it a blob before it let go, and another one may have begun anew.
            let path = entry.path();
            let same = |now: fs::Metadata| (now.dev(), now.ino()) == (found.dev(), found.ino());
            if !fs::symlink_metadata(&path).is_ok_and(same) {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => freed += found.size(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::file("sweep", path)(error)),
            }
        }
        Ok(freed)
    }

    /// Files of content on its way in.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn ingests(&self) -> Result<Vec<Ingest>> {
        let dir = &self.inner.ingest;
        let mut all = Vec::new();
        for entry in fs::read_dir(dir).map_err(StoreError::file("list", dir))? {
            let entry = entry.map_err(StoreError::file("list", dir))?;
            // It may be a blob by now.
            let Ok(found) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with(&format!("{}-", std::process::id()));
            all.push(Ingest {
                partial: name.starts_with(PARTIAL),
                unwritten: !name.starts_with(PARTIAL) && !ours,
                name,
                bytes: found.blocks() * 512,
                idle: found.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default(),
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes a file of content on its way in that nobody writes to any more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_ingest(&self, name: &str) -> Result<()> {
        let path = self.inner.ingest.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::file("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Deletes a blob, and tells whether there was one. Whoever reads it goes on reading.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn delete(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            // Nothing of ours, and in the place of a blob all the same.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                fs::remove_dir_all(&path).map_err(StoreError::file("delete", path)).map(|()| true)
            }
            Err(error) => Err(StoreError::file("delete", path)(error)),
        }
    }

    /// All blobs. A file that is no digest is none of ours and left out.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let mut all = Vec::new();
        for algorithm in Algorithm::ALL {
            let dir = self.dir(algorithm);
            for entry in fs::read_dir(&dir).map_err(StoreError::file("list", &dir))? {
                let name = entry.map_err(StoreError::file("list", &dir))?.file_name();
                all.extend(Digest::parse(&format!("{algorithm}:{}", name.to_string_lossy())));
            }
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// A file of content on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// In the directory of such files.
    pub name: String,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Since when nobody has written to it.
    pub idle: Duration,
    /// It may go on later.
    pub partial: bool,
    /// It is neither: this process does not write it, and nobody goes on with it.
    pub unwritten: bool,
}

/// A blob on its way in. Dropped unfinished it is forgotten.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    expected: Option<Digest>,
    /// Bytes that there is room for, with those that are written.
    room: u64,
    done: bool,
}

impl BlobWriter {
    fn new(blobs: &Blobs, path: PathBuf, file: File, hasher: Hasher, expected: Option<&Digest>) -> Self {
        Self { blobs: blobs.clone(), path, file, hasher, expected: expected.cloned(), room: 0, done: false }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// `OverBudget`; `Full` when the disk is; the store itself is as before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.hasher.count() + bytes.len() as u64;
        if end > self.room {
            let more = ROOM_STEP.max(end - self.room);
            // For now only: once written they are on the disk, for all to see.
            drop(self.blobs.budget().reserve(more)?);
            self.room += more;
        }
        if let Err(error) = self.file.write_all(bytes) {
            if error.kind() == io::ErrorKind::StorageFull {
                return Err(StoreError::Full { path: self.path.clone(), needed: bytes.len() as u64 });
            }
            return Err(StoreError::file("write", &self.path)(error));
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Verifies and makes the blob visible; on the disk when it returns.
    ///
    /// # Errors
    /// `WrongDigest`; the bytes are then forgotten.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        let size = self.hasher.count();
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = self.expected.take().filter(|expected| *expected != digest) {
            return Err(StoreError::WrongDigest { expected, found: digest });
        }
        self.file.sync_all().map_err(StoreError::file("write", &self.path))?;
        let path = self.blobs.path(&digest);
        // Over a blob that came in meanwhile: the same bytes.
        fs::rename(&self.path, &path).map_err(StoreError::file("rename", &self.path))?;
        self.done = true;
        sync_dir(&self.blobs.dir(digest.algorithm()))?;
        Ok((digest, size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let other = |error: StoreError| match error.is_full() {
            true => io::Error::new(io::ErrorKind::StorageFull, error),
            false => io::Error::other(error),
        };
        self.append(bytes).map_err(other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.done {
            // What stays is swept when the store opens.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(StoreError::file("create", &temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(StoreError::file("rename", &temporary))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A rename is on the disk when its directory is.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|open| open.sync_all()).map_err(StoreError::file("write", dir))
}
