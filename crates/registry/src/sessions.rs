//! Uploads that have begun: content without a name, on the disk from its first byte on, so that it can go on after the
//! connection, the registry or the machine has died.
//!
//! ```text
//! ROOT/uploads/ID         the bytes so far
//! ROOT/uploads/ID.json    which repository they are for
//! ```

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wharf_reference::{Algorithm, Digest, Hasher};
use wharf_store::Store;

use crate::error::{ApiError, Code};
use crate::inflow::Inflow;

type Result<T, E = ApiError> = std::result::Result<T, E>;

/// An upload that nobody has gone on with for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);
/// More uploads that have begun are somebody's mistake, whoever began them and whenever.
const MAX_SESSIONS: usize = if cfg!(test) { 20 } else { 10_000 };

/// The uploads of a registry.
#[derive(Debug)]
pub(crate) struct Sessions {
    dir: PathBuf,
    store: Store,
    open: Mutex<HashMap<String, Arc<Session>>>,
    /// Uploads on the disk, those from before a restart included.
    count: AtomicUsize,
}

/// One upload.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    repository: String,
    path: PathBuf,
    offset: AtomicU64,
    /// What is known of the bytes. Missing until it has been found out again after a restart.
    state: tokio::sync::Mutex<Option<Hasher>>,
    /// How often somebody has come who wants to go on while another was writing. That one stops then: its client's
    /// connection may be dead without a word.
    contenders: watch::Sender<u64>,
}

#[derive(Serialize, Deserialize)]
struct Note {
    repository: String,
}

impl Sessions {
    /// Opens the uploads of a store, and forgets the old ones. Blocking.
    pub(crate) fn open(store: &Store) -> io::Result<Self> {
        let dir = store.root().join("uploads");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let sessions = Self { dir, store: store.clone(), open: Mutex::default(), count: AtomicUsize::new(0) };
        sessions.sweep()?;
        Ok(sessions)
    }

    /// Forgets uploads that nobody has gone on with, and what a crash left of others. Blocking.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let whole = path.with_extension("").exists() && path.with_extension("json").exists();
            let old = fs::metadata(&path)
                .and_then(|found| found.modified())
                .is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > FORGOTTEN));
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            let is_data = path.extension().is_none();
            let busy = self.lock().get(&name).is_some_and(|session| session.state.try_lock().is_err());
            if !busy && ((is_data && old) || (!whole && !self.lock().contains_key(&name))) {
                self.forget(&name);
            }
        }
        let notes = fs::read_dir(&self.dir)?.flatten().filter(|entry| entry.path().extension().is_some());
        self.count.store(notes.count(), Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload to `repository`, whose digest will be of `algorithm`; of another one, it is read once more at
    /// its end. Blocking.
    pub(crate) fn create(&self, repository: &str, algorithm: Algorithm) -> Result<Arc<Session>> {
        if self.count.load(Ordering::Acquire) >= MAX_SESSIONS {
            return Err(Code::TooMany.into());
        }
        let id = random_id()?;
        let path = self.dir.join(&id);
        let note = serde_json::to_vec(&Note { repository: repository.to_owned() }).map_err(io::Error::from)?;
        let new = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        // The note first: bytes without one are nobody's. Neither is synced: a machine that dies begins again.
        new(&path.with_extension("json"))?.write_all_at(&note, 0)?;
        self.count.fetch_add(1, Ordering::AcqRel);
        new(&path)?;
        let session = Arc::new(Session {
            id: id.clone(),
            repository: repository.to_owned(),
            path,
            offset: AtomicU64::new(0),
            state: tokio::sync::Mutex::new(Some(Hasher::with(algorithm))),
            contenders: watch::Sender::new(0),
        });
        self.lock().insert(id, session.clone());
        Ok(session)
    }

    /// The upload `id` of `repository`. Blocking.
    ///
    /// # Errors
    /// `BLOB_UPLOAD_UNKNOWN`, also when it is another repository's.
    pub(crate) fn get(&self, repository: &str, id: &str) -> Result<Arc<Session>> {
        let unknown = || ApiError::new(Code::BlobUploadUnknown);
        if !is_id(id) {
            return Err(unknown());
        }
        let mut open = self.lock();
        if let Some(session) = open.get(id) {
            return if session.repository == repository { Ok(session.clone()) } else { Err(unknown()) };
        }
        let path = self.dir.join(id);
        let note = fs::read(path.with_extension("json")).map_err(|_| unknown())?;
        let note: Note = serde_json::from_slice(&note).map_err(|_| unknown())?;
        let size = fs::metadata(&path).map_err(|_| unknown())?.size();
        if note.repository != repository {
            return Err(unknown());
        }
        let session = Arc::new(Session {
            id: id.to_owned(),
            repository: note.repository,
            path,
            offset: AtomicU64::new(size),
            state: tokio::sync::Mutex::new(None),
            contenders: watch::Sender::new(0),
        });
        open.insert(id.to_owned(), session.clone());
        Ok(session)
    }

    /// Deletes an upload. Whoever is writing it writes to nowhere.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(session) = self.lock().remove(id) {
            session.contenders.send_modify(|count| *count = count.wrapping_add(1));
        }
        let path = self.dir.join(id);
        // What is left is swept.
        let _ = fs::remove_file(&path);
        if fs::remove_file(path.with_extension("json")).is_ok() {
            let _ = self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
        }
    }

    /// Makes an upload a blob: verified, synced, visible. Its digest must be `expected`; an upload that is another
    /// content is forgotten.
    pub(crate) async fn finish(self: &Arc<Self>, session: &Arc<Session>, expected: &Digest) -> Result<()> {
        let mut state = session.lock().await;
        state.take_if(|hasher| hasher.algorithm() != expected.algorithm());
        let hasher = session.take_state(&mut state, expected.algorithm()).await?;
        let (sessions, ending, expected) = (self.clone(), session.clone(), expected.clone());
        tokio::task::spawn_blocking(move || sessions.keep(&ending, hasher, &expected)).await?
    }

    fn keep(&self, session: &Session, hasher: Hasher, expected: &Digest) -> Result<()> {
        let found = hasher.finish();
        if found != *expected {
            self.forget(&session.id);
            let detail = format!("the content has digest {found}, not {expected}");
            return Err(ApiError::with_detail(Code::DigestInvalid, detail));
        }
        if !self.store.blobs().contains(expected) {
            // As the store does it for its own; a copy of what may be gigabytes would be the other way.
            File::open(&session.path)?.sync_all()?;
            let path = self.store.blobs().path(expected);
            fs::rename(&session.path, &path)?;
            path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())?;
        }
        self.forget(&session.id);
        Ok(())
    }
}

impl Session {
    /// Bytes so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Adds a body, which must begin at `start` if that is given. What has come stays, though the body may end early.
    ///
    /// # Errors
    /// `RANGE_INVALID` when the upload is not that far, or further; those of the body.
    pub(crate) async fn append(self: &Arc<Self>, inflow: Inflow, start: Option<u64>) -> Result<()> {
        let session = self.clone();
        // On its own, since a request is dropped in the middle of everything when its connection ends.
        tokio::spawn(async move { session.write(inflow, start).await }).await?
    }

    async fn write(self: Arc<Self>, mut inflow: Inflow, start: Option<u64>) -> Result<()> {
        let mut state = self.lock().await;
        let mut superseded = self.contenders.subscribe();
        let mut hasher = self.take_state(&mut state, Algorithm::default()).await?;
        if start.is_some_and(|start| start != hasher.count()) {
            *state = Some(hasher);
            return Err(Code::RangeInvalid.into());
        }
        let file =
            OpenOptions::new().write(true).open(&self.path).map_err(|_| ApiError::new(Code::BlobUploadUnknown))?;
        let file = Arc::new(file);
        let mut writing: Option<Writing> = None;
        let mut next: Option<Result<Option<Vec<Bytes>>>> = None;
        // The next piece comes in while the one before is hashed and written.
        let ended = loop {
            if writing.is_none()
                && let Some(piece) = next.take()
            {
                match piece {
                    Ok(Some(piece)) => {
                        let (file, hasher) = (file.clone(), std::mem::take(&mut hasher));
                        writing = Some(tokio::task::spawn_blocking(move || write_piece(&file, hasher, &piece)));
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
            tokio::select! {
                _ = superseded.changed(), if next.is_none() => {
                    next = Some(Err(ApiError::with_detail(Code::BlobUploadInvalid, "gone on with elsewhere")));
                }
                piece = inflow.piece(), if next.is_none() => next = Some(piece),
                Some(ended) = written(&mut writing) => {
                    writing = None;
                    let (back, written) = ended?;
                    hasher = back;
                    self.offset.store(hasher.count(), Ordering::Release);
                    if let Err(error) = written {
                        // A part of it may be there; it is not counted.
                        file.set_len(hasher.count())?;
                        break Err(error.into());
                    }
                }
            }
        };
        *state = Some(hasher);
        ended
    }

    /// The upload for oneself alone: whoever is writing stops.
    async fn lock(&self) -> tokio::sync::MutexGuard<'_, Option<Hasher>> {
        if let Ok(state) = self.state.try_lock() {
            return state;
        }
        self.contenders.send_modify(|count| *count = count.wrapping_add(1));
        self.state.lock().await
    }

    /// The state of the bytes so far; they are read again, for that algorithm, when it is not known.
    async fn take_state(&self, state: &mut Option<Hasher>, algorithm: Algorithm) -> Result<Hasher> {
        if let Some(hasher) = state.take() {
            return Ok(hasher);
        }
        let path = self.path.clone();
        let hasher = tokio::task::spawn_blocking(move || hash_file(&path, algorithm)).await??;
        self.offset.store(hasher.count(), Ordering::Release);
        Ok(hasher)
    }
}

/// A piece that is being written; it gives back the state of all bytes up to its end.
type Writing = tokio::task::JoinHandle<(Hasher, io::Result<()>)>;

async fn written(writing: &mut Option<Writing>) -> Option<Result<(Hasher, io::Result<()>), tokio::task::JoinError>> {
    match writing {
        Some(writing) => Some(writing.await),
        None => None,
    }
}

fn write_piece(file: &File, mut hasher: Hasher, piece: &[Bytes]) -> (Hasher, io::Result<()>) {
    let mut at = hasher.count();
    for bytes in piece {
        if let Err(error) = file.write_all_at(bytes, at) {
            return (hasher, Err(error));
        }
        at += bytes.len() as u64;
        hasher.update(bytes);
    }
    (hasher, Ok(()))
}

fn hash_file(path: &Path, algorithm: Algorithm) -> Result<Hasher> {
    let mut file = File::open(path).map_err(|_| ApiError::new(Code::BlobUploadUnknown))?;
    let mut hasher = Hasher::with(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Nobody guesses it: whoever knows the number of an upload may go on with it.
fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    // A UUID of version 4 (RFC 9562, section 5.4), which is what the header's name promises.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut id = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        id.push_str(&format!("{byte:02x}"));
    }
    Ok(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let sessions = Sessions::open(&store).unwrap();
        let session = sessions.create("a", Algorithm::default()).unwrap();
        fs::write(&session.path, b"abc").unwrap();
        assert!(is_id(&session.id));
        assert_eq!(sessions.get("b", &session.id).unwrap_err().code(), Code::BlobUploadUnknown);
        for bad in ["", "..", "../lock", &"x".repeat(36)] {
            assert!(sessions.get("a", bad).is_err(), "{bad}");
        }

        // After a restart.
        fs::write(sessions.dir.join("orphan.json"), "{}").unwrap();
        let sessions = Sessions::open(&store).unwrap();
        let again = sessions.get("a", &session.id).unwrap();
        assert_eq!(again.offset(), 3);
        assert!(!sessions.dir.join("orphan.json").exists());
        sessions.forget(&session.id);
        assert!(sessions.get("a", &session.id).is_err() && fs::read_dir(&sessions.dir).unwrap().next().is_none());
    }

    #[test]
    fn uploads_are_counted_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let sessions = Sessions::open(&store).unwrap();
        let first = sessions.create("a", Algorithm::default()).unwrap();
        for number in 1..MAX_SESSIONS {
            fs::write(sessions.dir.join(format!("{number}.json")), "{}").unwrap();
            fs::write(sessions.dir.join(number.to_string()), "").unwrap();
        }
        let sessions = Sessions::open(&store).unwrap();
        assert_eq!(sessions.create("a", Algorithm::default()).unwrap_err().code(), Code::TooMany);
        sessions.forget(&first.id);
        sessions.create("a", Algorithm::default()).unwrap();
        assert_eq!(sessions.create("a", Algorithm::default()).unwrap_err().code(), Code::TooMany);
    }

    #[test]
    fn old_uploads_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let sessions = Sessions::open(&store).unwrap();
        let [old, new] =
            [sessions.create("a", Algorithm::default()).unwrap(), sessions.create("a", Algorithm::default()).unwrap()];
        let past = SystemTime::now() - FORGOTTEN - Duration::from_secs(1);
        File::options().write(true).open(&old.path).unwrap().set_modified(past).unwrap();
        sessions.sweep().unwrap();
        assert!(sessions.get("a", &old.id).is_err() && sessions.get("a", &new.id).is_ok());
    }
}
