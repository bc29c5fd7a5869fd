//! Contexts as the last build of each has left them, so that only files that have changed are sent again.
//!
//! ```text
//! DATA_ROOT/build/contexts/ID/index       which contents are here, of which files (`kept::record`)
//! DATA_ROOT/build/contexts/ID/contents-N  the contents; what comes is written behind what is there
//! ```
//!
//! A content stands for a file as long as size, times, device and inode of that are the same, the time of its last
//! change among them, which no program can set. The index is written when a build ends, after the contents and by a
//! rename: what a killed process has half received is in no index, and is cut off when the context is opened again.
//! Nothing is synced; a context counts only until the host starts anew.

mod record;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_reference::Digest;

use crate::cache::CacheRecord;
use crate::error::{BuildError, Result};
use crate::index::Place;
use crate::listing::{Content, Time};
use crate::scratch;
use record::{Header, Record, Records};

/// Keys of kept contexts among those of steps begin with it.
pub const KEPT_CONTEXT: &str = "context-";
/// Directories of contexts for one build alone begin with it.
const ONCE: &str = "once-";
/// All kept contexts together have at most so many bytes, and a tenth of what the file system has.
const MOST: u64 = 16 << 30;
/// So much that is needed no more may stay before the rest is copied away from it.
const MOST_UNUSED: u64 = 64 << 20;
/// So many files that no build has listed may stay beside twice those that one has.
const MOST_UNLISTED: usize = 1024;
/// So many files may stay that no build has listed, where builds list parts.
const MOST_OF_PARTS: usize = 1_000_000;
/// The kernel's clock for files has steps of up to 10 ms; file systems that tell whole seconds have up to two.
const STEP: i64 = 20_000_000;
const COARSE_STEP: i64 = 2_000_000_000;

/// What a file was when its content was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    pub(crate) modified: Time,
    /// Of anything of it (`st_ctim`).
    pub(crate) changed: Time,
    /// Device and inode.
    pub(crate) place: (u64, u64),
}

impl Mark {
    /// Whether any change after `taken` will show in it. One that was changed in the clock's same step may be changed
    /// again without a trace.
    fn tells_changes_after(&self, taken: Time) -> bool {
        let nanoseconds = |(seconds, rest): Time| seconds.saturating_mul(1_000_000_000).saturating_add(rest.into());
        let step = if self.modified.1 == 0 && self.changed.1 == 0 { COARSE_STEP } else { STEP };
        nanoseconds(self.changed).saturating_add(step) < nanoseconds(taken)
    }
}

/// All kept contexts of a data root.
#[derive(Debug)]
pub(crate) struct KeptContexts {
    dir: PathBuf,
    /// Those that builds under way use, and how many do.
    live: Mutex<HashMap<String, (Arc<Inner>, usize)>>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    contents: Arc<File>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    header: Header,
    /// What the index on the disk says.
    old: Records,
    /// What has come since.
    new: HashMap<Vec<u8>, Record>,
    /// Whether the index on the disk says less.
    changed: bool,
    /// A build has listed all of the context since it was opened.
    whole: bool,
}

/// A context that a build uses.
#[derive(Debug)]
pub(crate) struct Kept {
    contexts: Arc<KeptContexts>,
    id: String,
    inner: Arc<Inner>,
    /// Files whose contents are not here, by entry; those whose marks tell every later change.
    coming: Mutex<HashMap<u32, (Vec<u8>, Mark)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failing(error: io::Error) -> BuildError {
    BuildError::system("the context cannot be kept", &error)
}

impl KeptContexts {
    /// Those that an earlier process has kept. What it had for one build alone goes.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let own = |dir: &PathBuf| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ONCE));
        for left in scratch::list(&dir).into_iter().filter(own) {
            let _ = wharf_rooted_path::remove_dir_all(left);
        }
        Self { dir, live: Mutex::default() }
    }

    /// The context that clients call `key`, with what is kept of it; `place` is for people. One without a key is for this
    /// build alone: nobody could find it again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn open(self: &Arc<Self>, key: &[u8], place: &str) -> Result<Kept> {
        let id = match key {
            [] => format!("{ONCE}{}", scratch::random_id()?),
            key => Digest::sha256(key).hex().to_owned(),
        };
        let mut live = lock(&self.live);
        let inner = match live.get_mut(&id) {
            Some((inner, users)) => {
                *users += 1;
                Arc::clone(inner)
            }
            None => {
                let inner = Arc::new(Inner::open(self.dir.join(&id), place).map_err(failing)?);
                live.insert(id.clone(), (Arc::clone(&inner), 1));
                inner
            }
        };
        drop(live);
        Ok(Kept { contexts: Arc::clone(self), id, inner, coming: Mutex::default() })
    }

    fn release(&self, id: &str) {
        let mut live = lock(&self.live);
        let Some((inner, users)) = live.get_mut(id) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        if id.starts_with(ONCE) {
            let _ = wharf_rooted_path::remove_dir_all(&inner.dir);
            live.remove(id);
            return;
        }
        // Under the lock: who opens it next reads what is written here.
        let most = self.most();
        let saved = lock(&inner.state).save(&inner.dir, &inner.contents, most);
        if let Err(error) = saved {
            tracing::warn!("the context of a build cannot be kept: {error}");
            let _ = wharf_rooted_path::remove_dir_all(&inner.dir);
        }
        live.remove(id);
        self.bound(&live, most);
    }

    fn most(&self) -> u64 {
        let tenth = rustix::fs::statvfs(&self.dir).map_or(MOST, |fs| fs.f_blocks.saturating_mul(fs.f_frsize) / 10);
        MOST.min(tenth)
    }

    /// Removes those that were used longest ago until the rest is within bounds.
    fn bound(&self, live: &HashMap<String, (Arc<Inner>, usize)>, most: u64) {
        let mut all = self.list();
        all.sort_by_key(|(_, record)| std::cmp::Reverse(record.last_used));
        let mut total = 0u64;
        for (name, record) in all {
            total = total.saturating_add(record.size);
            let id = name.trim_start_matches(KEPT_CONTEXT);
            if total > most && !live.contains_key(id) {
                let _ = wharf_rooted_path::remove_dir_all(self.dir.join(id));
            }
        }
    }

    /// All that are on the disk, as records of the cache.
    pub(crate) fn list(&self) -> Vec<(String, CacheRecord)> {
        let mut all = Vec::new();
        for dir in scratch::list(&self.dir) {
            let Ok(header) = record::read_header(&dir) else { continue };
            let files = scratch::list(&dir);
            let size = files.iter().filter_map(|path| fs::symlink_metadata(path).ok());
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = CacheRecord {
                layer: None,
                size: size.map(|metadata| metadata.blocks() * 512).sum(),
                description: format!("local source for {}", header.place),
                created: header.created,
                nanoseconds: 0,
                date: None,
                last_used: header.last_used,
                uses: header.uses,
                secrets: Vec::new(),
                again: None,
            };
            all.push((format!("{KEPT_CONTEXT}{id}"), record));
        }
        all
    }

    /// Removes those of these names that no build uses; their names, and the bytes that have become free.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn remove(&self, names: &[String]) -> Result<(Vec<String>, u64)> {
        let live = lock(&self.live);
        let (mut gone, mut freed) = (Vec::new(), 0);
        for (name, record) in self.list() {
            let id = name.trim_start_matches(KEPT_CONTEXT);
            if names.contains(&name) && !live.contains_key(id) {
                wharf_rooted_path::remove_dir_all(self.dir.join(id))
                    .map_err(|e| BuildError::system("a context cannot be removed", &e))?;
                freed += record.size;
                gone.push(name);
            }
        }
        Ok((gone, freed))
    }
}

impl Inner {
    fn open(dir: PathBuf, place: &str) -> io::Result<Self> {
        // Others' files are in it.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let kept = record::read(&dir).and_then(|(header, records)| {
            let contents = File::options().read(true).write(true).open(dir.join(header.contents()))?;
            let whole = contents.metadata()?.len() >= header.end && header.boot == record::boot()?;
            // What a killed process has half received.
            if whole { contents.set_len(header.end).map(|()| (header, records, contents)) } else { Err(record::bad()) }
        });
        let fresh = kept.is_err();
        let (header, records, contents) = match kept {
            Ok(kept) => kept,
            Err(_) => {
                wharf_rooted_path::remove_dir_all(&dir)?;
                fs::DirBuilder::new().mode(0o700).create(&dir)?;
                let header = Header::new(place)?;
                let contents =
                    File::options().read(true).write(true).create_new(true).open(dir.join(header.contents()))?;
                (header, Records::default(), contents)
            }
        };
        for path in scratch::list(&dir) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name != record::INDEX && name != header.contents() {
                fs::remove_file(&path)?;
            }
        }
        let state = Mutex::new(State { header, old: records, new: HashMap::new(), changed: fresh, whole: false });
        Ok(Self { dir, contents: Arc::new(contents), state })
    }
}

impl State {
    fn save(&mut self, dir: &std::path::Path, contents: &File, most: u64) -> io::Result<()> {
        self.header.uses += 1;
        self.header.last_used = jiff::Timestamp::now().as_second();
        // What has been listed, and what is kept.
        let (mut seen, mut kept) = ((0, 0u64), (0, 0u64));
        for at in (0..self.old.len()).filter(|at| !self.old.gone[*at]) {
            let size = self.old.size(at);
            kept = (kept.0 + 1, kept.1 + size);
            seen = if self.old.seen[at] { (seen.0 + 1, seen.1 + size) } else { seen };
        }
        for record in self.new.values() {
            let size = record.mark.size;
            kept = (kept.0 + 1, kept.1 + size);
            seen = if record.seen { (seen.0 + 1, seen.1 + size) } else { seen };
        }
        if seen.1 > most {
            return wharf_rooted_path::remove_dir_all(dir);
        }
        // What a listing of everything does not have is there no more; what one of a part does not have may be what another
        // Dockerfile names.
        let bound = if self.whole { 2 * seen.0 + MOST_UNLISTED } else { MOST_OF_PARTS.max(2 * seen.0) };
        let forgets = kept.0 > bound || kept.1 > most || (self.whole && self.is_wasted(seen.1));
        if !self.changed && !forgets && !self.is_wasted(kept.1) {
            return record::touch(dir, &self.header);
        }
        let mut records = self.all()?;
        if forgets {
            records.retain(|(_, record)| record.seen);
        }
        if forgets || self.is_wasted(kept.1) {
            self.compact(dir, contents, &mut records)?;
        }
        record::write(dir, &self.header, records)
    }

    /// Whether so much of the contents' file is of no use that the rest is copied away from it, if `used` bytes are.
    fn is_wasted(&self, used: u64) -> bool {
        let unused = self.header.end - used.min(self.header.end);
        unused > MOST_UNUSED.max(used)
    }

    /// All that is here, by path.
    fn all(&mut self) -> io::Result<Vec<(Vec<u8>, Record)>> {
        let mut all: Vec<(Vec<u8>, Record)> = self.new.drain().collect();
        for at in (0..self.old.len()).filter(|at| !self.old.gone[*at]) {
            let (path, mark, place) = self.old.get(at)?;
            all.push((path.to_vec(), Record { mark, place, seen: self.old.seen[at] }));
        }
        Ok(all)
    }

    /// Copies what the last builds have used to a new file.
    fn compact(&mut self, dir: &std::path::Path, contents: &File, records: &mut [(Vec<u8>, Record)]) -> io::Result<()> {
        self.header.number = self.header.number.wrapping_add(1);
        let new = File::options().write(true).create_new(true).open(dir.join(self.header.contents()))?;
        records.sort_unstable_by_key(|(_, record)| record.place.offset);
        let mut end = 0;
        for (_, record) in records {
            let (mut from, mut left) = (record.place.offset, record.mark.size);
            record.place.offset = end;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
                let count = rustix::fs::copy_file_range(contents, Some(&mut from), &new, Some(&mut end), most)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= count as u64;
            }
        }
        self.header.end = end;
        Ok(())
    }
}

impl Kept {
    /// What the contents are in.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.inner.contents)
    }

    /// All of the context is listed now.
    pub(crate) fn lists_all(&self) {
        lock(&self.inner.state).whole = true;
    }

    /// The content of a file that is still what it was. Nothing: it has to be sent.
    pub(crate) fn known(&self, entry: u32, path: &[u8], mark: Mark, taken: Time) -> Option<Place> {
        let mut state = lock(&self.inner.state);
        let State { old, new, changed, .. } = &mut *state;
        if !new.is_empty()
            && let Some(record) = new.get_mut(path)
        {
            if record.mark == mark {
                record.seen = true;
                return Some(record.place.clone());
            }
            new.remove(path);
            *changed = true;
        } else if let Some(at) = old.find(path).filter(|at| !old.gone[*at]) {
            match old.get(at) {
                Ok((_, before, place)) if before == mark => {
                    old.seen[at] = true;
                    return Some(place);
                }
                _ => (old.gone[at], old.seen[at], *changed) = (true, false, true),
            }
        }
        drop(state);
        if mark.tells_changes_after(taken) {
            lock(&self.coming).insert(entry, (path.to_vec(), mark));
        }
        None
    }

    /// Takes a content that came with its listing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn inline(&self, entry: u32, content: Content<'_>) -> Result<Place> {
        let offset = self.room(content.bytes.len() as u64);
        self.inner.contents.write_all_at(content.bytes, offset).map_err(failing)?;
        let place = content.at(offset);
        self.note(entry, &place);
        Ok(place)
    }

    /// Sets so many bytes of the file aside; where they begin.
    pub(crate) fn room(&self, bytes: u64) -> u64 {
        let mut state = lock(&self.inner.state);
        let begin = state.header.end;
        state.header.end += bytes;
        begin
    }

    /// Writes to the file from `begin` on.
    pub(crate) fn writer(&self, begin: u64, buffer: usize) -> At<'_> {
        At { file: &self.inner.contents, at: begin, buffer: Vec::with_capacity(buffer) }
    }

    /// Keeps a content that has come whole.
    pub(crate) fn note(&self, entry: u32, place: &Place) {
        let Some((path, mark)) = lock(&self.coming).remove(&entry) else { return };
        let mut state = lock(&self.inner.state);
        let State { old, new, changed, .. } = &mut *state;
        // Another build may have got it at the same time.
        if let Some(at) = old.find(&path) {
            (old.gone[at], old.seen[at]) = (true, false);
        }
        new.insert(path, Record { mark, place: place.clone(), seen: true });
        *changed = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.contexts.release(&self.id);
    }
}

/// Writes from some place of a file on.
#[derive(Debug)]
pub(crate) struct At<'a> {
    file: &'a File,
    at: u64,
    buffer: Vec<u8>,
}

impl At<'_> {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > self.buffer.capacity() {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
