//! A blob that comes in parts, in any order, and goes on after a crash with what is there of each.
//!
//! It is one file. Its bytes are at their places from the first on; behind the last place is a table of how much of
//! each part has come. Bytes are written before their number, so that a process that is killed loses sight of one
//! write at most. What a host that loses power has counted and not written shows when the whole is verified.
//!
//! ```text
//! 0 …        the blob, with holes where nothing has come yet
//! size       the table: MAGIC, size, length of a part (u64, little-endian), then for each part its bytes (u64)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use wharf_reference::{Digest, Hasher};

use crate::blobs::{Blobs, PARTIAL, ROOM_STEP, sync_dir};
use crate::{Result, StoreError};

const MAGIC: u64 = u64::from_le_bytes(*b"whrfprt1");
/// Words before the numbers of the parts.
const HEAD: u64 = 3;
/// More parts are not counted: of a larger blob each is larger. The table is half a MiB then.
const MAX_PARTS: u64 = 1 << 16;
/// Read at once of what has come before.
const READ: u64 = 256 << 10;

/// A blob on its way in, in parts. Dropped unfinished it is kept for the next attempt, if there is anything of it.
#[derive(Debug)]
pub struct PartsWriter {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    expected: Digest,
    size: u64,
    part: u64,
    /// Bytes of each part.
    have: Vec<u64>,
    /// Bytes that are here, and for which there is room.
    count: u64,
    room: u64,
    hasher: Hasher,
    resumed: bool,
    done: bool,
}

impl Blobs {
    /// Begins a blob of `size` bytes, in parts of `part` bytes, or goes on with what an earlier attempt has left of it,
    /// also after a crash.
    ///
    /// # Errors
    /// When the disk fails, or somebody else is writing the same blob.
    pub fn parts(&self, expected: &Digest, size: u64, part: u64) -> Result<PartsWriter> {
        let path = self.ingest().join(format!("{PARTIAL}{}", expected.hex()));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
        let file = open.map_err(StoreError::file("open", &path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| StoreError::file("lock", &path)(errno.into()))?;
        let part = part.max(size.div_ceil(MAX_PARTS)).max(1);
        let mut writer = PartsWriter {
            blobs: self.clone(),
            path,
            file,
            expected: expected.clone(),
            size,
            part,
            have: Vec::new(),
            count: 0,
            room: 0,
            hasher: Hasher::with(expected.algorithm()),
            resumed: false,
            done: false,
        };
        match writer.read_table().map_err(StoreError::file("read", &writer.path))? {
            Some((part, have)) => {
                writer.resumed = have.iter().any(|bytes| *bytes > 0);
                (writer.part, writer.have) = (part, have);
            }
            None => writer.begin()?,
        }
        writer.count = writer.have.iter().sum();
        writer.room = writer.count;
        Ok(writer)
    }
}

impl PartsWriter {
    /// The table of an earlier attempt; `None` when there is none that can be believed.
    fn read_table(&self) -> io::Result<Option<(u64, Vec<u64>)>> {
        let length = self.file.metadata()?.len();
        let Some(table) = length.checked_sub(self.size).filter(|bytes| *bytes >= 8 * HEAD && bytes % 8 == 0) else {
            return Ok(None);
        };
        if table > 8 * (HEAD + MAX_PARTS) {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(table).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, self.size)?;
        let mut words = bytes.as_chunks().0.iter().map(|word: &[u8; 8]| u64::from_le_bytes(*word));
        let head = [words.next(), words.next(), words.next()];
        let [Some(MAGIC), Some(size), Some(part @ 1..)] = head else { return Ok(None) };
        let have: Vec<u64> = words.collect();
        let right = size == self.size
            && have.len() as u64 == size.div_ceil(part)
            && have.iter().enumerate().all(|(at, bytes)| *bytes <= length_of(size, part, at));
        Ok(right.then_some((part, have)))
    }

    fn begin(&mut self) -> Result<()> {
        let parts = usize::try_from(self.size.div_ceil(self.part)).unwrap_or(usize::MAX);
        self.have = vec![0; parts];
        let mut table: Vec<u8> = [MAGIC, self.size, self.part].iter().flat_map(|word| word.to_le_bytes()).collect();
        table.resize(table.len() + 8 * parts, 0);
        self.file.set_len(0).map_err(StoreError::file("write", &self.path))?;
        self.file.write_all_at(&table, self.size).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::StorageFull {
            return StoreError::Full { path: self.path.clone(), needed: self.size - self.count() };
        }
        StoreError::file("write", &self.path)(error)
    }

    /// Where the bytes are until the blob is finished.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are here.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Asks for room for so many more bytes. For now only: once written they are on the disk, for all to see.
    fn ask_for(&mut self, bytes: u64) -> Result<()> {
        let end = self.count + bytes;
        if end > self.room {
            let more = ROOM_STEP.max(end - self.room);
            drop(self.blobs.budget().reserve(more)?);
            self.room += more;
        }
        Ok(())
    }

    /// Whether an earlier attempt has left something.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// What is not here, in order; no piece of it is longer than a part.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let parts = self.have.iter().enumerate();
        let rest = parts.map(|(at, have)| {
            let start = at as u64 * self.part;
            start + have..start + length_of(self.size, self.part, at)
        });
        rest.filter(|range| !range.is_empty()).collect()
    }

    /// Puts bytes at their place. Within a part they come in order; what is here already is passed over. Tells whether
    /// they were verified at once, since all before them had been: whoever reads the blob from its begin has them in
    /// memory then. All others come by [`Self::verified`].
    ///
    /// # Errors
    /// `OverBudget`; `Full` when the disk is; `WrongSize` for bytes behind the end, or with a gap before them.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<bool> {
        let (mut next, mut rest) = (offset, bytes);
        let mut known = false;
        while !rest.is_empty() {
            let at = usize::try_from(next / self.part).unwrap_or(usize::MAX);
            let start = at as u64 * self.part;
            // The last part ends with the blob, in the middle of where others would go on.
            let here = self.have.get(at).copied().filter(|have| next < self.size && start + have >= next);
            let Some(have) = here else {
                return Err(StoreError::WrongSize { expected: self.size, found: next + rest.len() as u64 });
            };
            let room = start + length_of(self.size, self.part, at) - next;
            let (piece, after) = rest.split_at(usize::try_from(room).unwrap_or(usize::MAX).min(rest.len()));
            let passed = (start + have - next).min(piece.len() as u64);
            known |= passed > 0;
            next += piece.len() as u64;
            rest = after;
            let new = &piece[usize::try_from(passed).unwrap_or(0)..];
            if !new.is_empty() {
                self.ask_for(new.len() as u64)?;
                self.file.write_all_at(new, start + have).map_err(|error| self.failed(error))?;
                self.have[at] = have + new.len() as u64;
                self.count += new.len() as u64;
                let place = self.size + 8 * (HEAD + at as u64);
                let number = self.have[at].to_le_bytes();
                self.file.write_all_at(&number, place).map_err(|error| self.failed(error))?;
            }
        }
        let in_order = !known && offset == self.hasher.count();
        if in_order {
            self.hasher.update(bytes);
        }
        Ok(in_order)
    }

    /// The next bytes of the blob that were not verified when they came, from the disk; `None` when the next one has not
    /// come yet.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn verified(&mut self) -> Result<Option<Vec<u8>>> {
        let from = self.hasher.count();
        let at = usize::try_from(from / self.part).unwrap_or(usize::MAX);
        let here = self.have.get(at).map_or(0, |have| (at as u64 * self.part + have).saturating_sub(from));
        if here == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(here.min(READ)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from).map_err(StoreError::file("read", &self.path))?;
        self.hasher.update(&bytes);
        Ok(Some(bytes))
    }

    /// Makes the blob visible, when all of it was verified; on the disk when it returns.
    ///
    /// # Errors
    /// `WrongDigest`, `WrongSize`; nothing is kept of it then: more bytes cannot help.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        let found = self.hasher.count();
        if found != self.size {
            return Err(StoreError::WrongSize { expected: self.size, found });
        }
        let digest = std::mem::take(&mut self.hasher).finish();
        if digest != self.expected {
            self.forget();
            return Err(StoreError::WrongDigest { expected: self.expected.clone(), found: digest });
        }
        self.file.set_len(self.size).map_err(StoreError::file("write", &self.path))?;
        self.file.sync_all().map_err(StoreError::file("write", &self.path))?;
        // Over a blob that came in meanwhile: the same bytes.
        fs::rename(&self.path, self.blobs.path(&digest)).map_err(StoreError::file("rename", &self.path))?;
        self.done = true;
        sync_dir(&self.blobs.dir(self.expected.algorithm()))?;
        Ok((digest, self.size))
    }

    /// Removes what is here.
    pub fn forget(&mut self) {
        self.done = true;
        // What stays is swept when it is old.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for PartsWriter {
    fn drop(&mut self) {
        if !self.done && self.count() == 0 {
            self.forget();
        }
    }
}

/// Bytes of a part: all are of one length but the last.
fn length_of(size: u64, part: u64, at: usize) -> u64 {
    part.min(size - (at as u64 * part).min(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn all(writer: &mut PartsWriter) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(more) = writer.verified().unwrap() {
            bytes.extend_from_slice(&more);
        }
        bytes
    }

    #[test]
    fn parts_come_in_any_order_and_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::sha256(b"one two three");
        let mut writer = store.blobs().parts(&digest, 13, 4).unwrap();
        assert_eq!(writer.missing(), [0..4, 4..8, 8..12, 12..13]);
        assert!(store.blobs().parts(&digest, 13, 4).is_err(), "two at once would mix their bytes");
        assert!(!writer.write(8, b"thr").unwrap());
        assert!(writer.write(0, b"on").unwrap());
        assert!(writer.write(5, b"w").is_err(), "a gap");
        assert!(writer.write(12, b"ex").is_err(), "behind the end");
        drop(writer);
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        // The next one may have other wishes: what is there decides.
        let mut writer = store.blobs().parts(&digest, 13, 5).unwrap();
        assert!(writer.is_resumed());
        assert_eq!((writer.missing(), writer.count()), (vec![2..4, 4..8, 11..12], 6));
        assert_eq!(all(&mut writer), b"on");
        // Of a registry that knows no ranges all comes again, and is passed over.
        assert!(!writer.write(0, b"one two th").unwrap());
        assert_eq!(all(&mut writer), b"e two thr");
        assert!(!writer.write(10, b"ree").unwrap());
        assert_eq!(all(&mut writer), b"ee");
        assert_eq!(writer.finish().unwrap(), (digest.clone(), 13));
        assert_eq!(store.blobs().read(&digest, 13).unwrap(), b"one two three");
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_the_blob_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::sha256(b"right");
        let left = || fs::read_dir(dir.path().join("ingest")).unwrap().count();
        let mut writer = store.blobs().parts(&digest, 5, 8).unwrap();
        assert!(writer.write(0, b"wrong").unwrap());
        assert!(matches!(writer.finish(), Err(StoreError::WrongDigest { .. })));
        drop(store.blobs().parts(&digest, 5, 8).unwrap());
        assert_eq!(left(), 0, "of nothing nothing is kept");
        // A file of another form, or of another size, is begun again.
        let path = dir.path().join("ingest").join(format!("partial-{}", digest.hex()));
        for bytes in [b"ri".to_vec(), vec![0xff; 64]] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(store.blobs().parts(&digest, 5, 8).unwrap().count(), 0);
        }
        let mut writer = store.blobs().parts(&digest, 5, 8).unwrap();
        writer.write(0, b"rig").unwrap();
        assert!(matches!(writer.finish(), Err(StoreError::WrongSize { expected: 5, found: 3 })));
        assert_eq!(left(), 1, "what came is kept");
        assert_eq!(store.blobs().parts(&digest, 6, 8).unwrap().count(), 0);
        let empty = Digest::sha256(b"");
        assert_eq!(store.blobs().parts(&empty, 0, 8).unwrap().finish().unwrap(), (empty, 0));
    }
}
