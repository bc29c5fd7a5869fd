//! A command that several builds want at once: it runs for all of them. Each hears all that it writes, each fails with it, and it
//! goes on until the last of them is cancelled.
//!
//! The build that came first runs it, with its own mounts and on its own thread, and so ends no sooner than the command does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wharf_reference::Digest;

use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Result};
use crate::frames::Piece;
use crate::said::{Place, Said};

/// How soon one that waits sees that it was cancelled.
const PAUSE: Duration = Duration::from_millis(100);
/// The stream of what its own build alone is told.
pub(crate) const OWN: u8 = 0;
const MORE: &str = "\n[more is written, and shown by the build that runs it]\n";
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// The commands that run.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    running: Mutex<BTreeMap<String, Arc<Together>>>,
}

#[derive(Debug)]
struct Together {
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the command.
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct State {
    /// What it has written, from the beginning.
    said: Said,
    /// Builds that hear it beside its own.
    followers: usize,
    /// Its own build has been cancelled, or is heard no more.
    deserted: bool,
    ended: bool,
    failure: Option<BuildError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a build that wants a command.
pub(crate) enum Joined<'a> {
    /// It is to run it.
    Own(Running<'a>),
    /// Another runs it.
    Other(Heard),
}

/// Held by the build that runs a command.
pub(crate) struct Running<'a> {
    claim: Option<Claim<'a>>,
    together: Arc<Together>,
    /// The build's own.
    cancel: Cancel,
    /// So far its own build was told.
    told: Mutex<Place>,
}

struct Claim<'a> {
    commands: &'a Commands,
    key: String,
    deserting: Deserting<'a>,
}

/// What a build does that ends before a command of it, as others want that.
pub(crate) type Deserting<'a> = Box<dyn Fn() + Send + Sync + 'a>;

/// Held by a build that hears a command of another.
#[derive(Debug)]
pub(crate) struct Heard {
    together: Arc<Together>,
    place: Place,
    /// It knows that it does not hear all.
    warned: bool,
}

impl Commands {
    /// Claims a command, or joins the build that runs it.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub(crate) fn join<'a>(&'a self, key: &Digest, cancel: &Cancel, deserting: Deserting<'a>) -> Result<Joined<'a>> {
        let mut running = lock(&self.running);
        if let Some(together) = running.get(key.as_str()) {
            lock(&together.state).followers += 1;
            let together = Arc::clone(together);
            return Ok(Joined::Other(Heard { together, place: Place::default(), warned: false }));
        }
        let own = Running::new(Some(Claim { commands: self, key: key.to_string(), deserting }), cancel)?;
        running.insert(key.to_string(), Arc::clone(&own.together));
        Ok(Joined::Own(own))
    }
}

impl<'a> Running<'a> {
    /// One that nobody joins.
    ///
    /// # Errors
    /// As [`Commands::join`].
    pub(crate) fn alone(cancel: &Cancel) -> Result<Self> {
        Self::new(None, cancel)
    }

    fn new(claim: Option<Claim<'a>>, cancel: &Cancel) -> Result<Self> {
        let together = Together { state: Mutex::default(), changed: Condvar::new(), cancel: Cancel::new()? };
        Ok(Self { claim, together: Arc::new(together), cancel: cancel.clone(), told: Mutex::default() })
    }

    /// Whether other builds hear it.
    pub(crate) fn is_followed(&self) -> bool {
        lock(&self.together.state).followers > 0
    }

    /// Whether its own build still hears it.
    pub(crate) fn is_heard(&self) -> bool {
        !lock(&self.together.state).deserted
    }

    /// Its own build has been cancelled, or is heard no more.
    ///
    /// # Errors
    /// When nobody else wants it.
    pub(crate) fn desert(&self) -> Result<()> {
        let mut state = lock(&self.together.state);
        let first = !std::mem::replace(&mut state.deserted, true);
        if state.followers == 0 {
            self.together.cancel.cancel();
            return Err(BuildError::cancelled());
        }
        drop(state);
        if let Some(claim) = self.claim.as_ref().filter(|_| first) {
            (claim.deserting)();
        }
        Ok(())
    }

    /// Whether anybody wants what it makes.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.together.cancel.is_cancelled() && (!self.cancel.is_cancelled() || self.desert().is_ok())
    }

    /// Keeps a piece for those who hear it; `dir` takes the file. False when it is not kept.
    pub(crate) fn keep(&self, piece: &Piece, dir: &Path) -> bool {
        if self.claim.is_none() {
            return false;
        }
        let kept = lock(&self.together.state).said.add(piece, dir);
        self.together.changed.notify_all();
        kept
    }

    /// Whether its own build was not told all that was kept.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.told).read < lock(&self.together.state).said.written
    }

    /// Its own build was told all that was kept.
    pub(crate) fn all_is_told(&self) {
        lock(&self.told).read = lock(&self.together.state).said.written;
    }

    /// The next piece that its own build was not told, if there is one, and what [`Self::is_told`] is given when it was.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn untold(&self) -> Result<Option<(Piece, u64)>> {
        let (file, written) = {
            let state = lock(&self.together.state);
            (state.said.file(), state.said.written)
        };
        let Some(file) = file else { return Ok(None) };
        lock(&self.told).peek(&file, written).map_err(|e| unreadable(&e))
    }

    pub(crate) fn is_told(&self, to: u64) {
        lock(&self.told).read = to;
    }

    /// Waits until there is something to read. False when there is nothing after so long.
    ///
    /// # Errors
    /// `Cancelled` when nobody wants the command any more.
    pub(crate) fn wait_readable(&self, fd: BorrowedFd<'_>, patience: Option<Duration>) -> Result<bool> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        loop {
            let mut fds =
                vec![PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::new(&self.together.cancel, PollFlags::IN)];
            let heard = self.is_heard();
            if heard {
                fds.push(PollFd::from_borrowed_fd(self.cancel.as_fd(), PollFlags::IN));
            }
            let ready = match poll(&mut fds, patience.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done.map_err(|e| BuildError::system("the command cannot be waited for", &e))?,
            };
            self.together.cancel.check()?;
            if heard && self.cancel.is_cancelled() {
                self.desert()?;
            }
            if ready == 0 || !fds[0].revents().is_empty() {
                return Ok(ready > 0);
            }
        }
    }

    /// It has failed, for all who hear it if it was the command that did: of what else went wrong each finds out by itself.
    pub(crate) fn fail(&self, error: &BuildError) {
        if error.kind == ErrorKind::Command {
            lock(&self.together.state).failure = Some(error.clone());
        }
    }
}

impl Running<'_> {
    /// It has ended, and what it made is there: whoever waits for it waits no more.
    pub(crate) fn end(&self) {
        let ended = std::mem::replace(&mut lock(&self.together.state).ended, true);
        if let Some(Claim { commands, key, .. }) = self.claim.as_ref().filter(|_| !ended) {
            lock(&commands.running).remove(key);
        }
        self.together.changed.notify_all();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl Heard {
    /// What it has written since the last call; waits for a moment if that is nothing. None when it has ended well, or others
    /// have to run it.
    ///
    /// # Errors
    /// That of the command.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        let (file, written) = {
            let mut state = lock(&self.together.state);
            let is_silent = |state: &State| state.said.written == self.place.read && (self.warned || !state.said.full);
            if is_silent(&state) && !state.ended {
                let waited = self.together.changed.wait_timeout(state, PAUSE);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if is_silent(&state) {
                return match (state.ended, &state.failure) {
                    (true, Some(failure)) => Err(failure.clone()),
                    (true, None) => Ok(None),
                    (false, _) => Ok(Some(Vec::new())),
                };
            }
            (state.said.file(), state.said.written)
        };
        if written == self.place.read {
            self.warned = true;
            return Ok(Some(vec![Piece { stream: 1, bytes: MORE.into() }]));
        }
        let Some(file) = file else { return Ok(Some(Vec::new())) };
        let mut pieces = self.place.pieces(&file, written, CHUNK).map_err(|e| unreadable(&e))?;
        pieces.retain(|piece| piece.stream != OWN);
        Ok(Some(pieces))
    }
}

fn unreadable(error: &std::io::Error) -> BuildError {
    BuildError::system("what a command has written cannot be read", error)
}

impl Drop for Heard {
    fn drop(&mut self) {
        let mut state = lock(&self.together.state);
        state.followers -= 1;
        if state.followers == 0 && state.deserted {
            self.together.cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str) -> Piece {
        Piece { stream: 1, bytes: text.into() }
    }

    fn texts(pieces: Option<Vec<Piece>>) -> Option<String> {
        pieces.map(|pieces| pieces.into_iter().map(Piece::classic).collect())
    }

    fn join<'a>(commands: &'a Commands, key: &Digest, cancel: &Cancel) -> Result<Joined<'a>> {
        commands.join(key, cancel, Box::new(|| ()))
    }

    fn all() -> (Commands, Digest, tempfile::TempDir) {
        (Commands::default(), Digest::sha256(b"key"), tempfile::tempdir().unwrap())
    }

    #[test]
    fn who_comes_later_hears_all_from_the_beginning() {
        let (commands, key, dir) = all();
        let cancel = Cancel::new().unwrap();
        let Joined::Own(own) = join(&commands, &key, &cancel).unwrap() else { panic!("nobody else has it") };
        own.keep(&piece("one\n"), dir.path());
        let Joined::Other(mut heard) = join(&commands, &key, &cancel).unwrap() else { panic!("one has it") };
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "one\n");
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "");
        own.keep(&piece("two\n"), dir.path());
        own.fail(&BuildError::invalid("what only this one knows"));
        own.fail(&BuildError::command("false", 1));
        drop(own);
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "two\n");
        assert_eq!(heard.next().unwrap_err().exit_code, Some(1));
        assert!(matches!(join(&commands, &key, &cancel).unwrap(), Joined::Own(_)));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn the_last_who_wants_it_ends_it() {
        let (commands, key, _dir) = all();
        let (first, second) = (Cancel::new().unwrap(), Cancel::new().unwrap());
        let Joined::Own(own) = join(&commands, &key, &first).unwrap() else { panic!("nobody else has it") };
        let Joined::Other(heard) = join(&commands, &key, &second).unwrap() else { panic!("one has it") };
        first.cancel();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(own.is_wanted());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| own.wait_readable(ours.as_fd(), None));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(heard);
            assert_eq!(waiting.join().unwrap().unwrap_err().kind, ErrorKind::Cancelled);
        });
        assert!(!own.is_wanted());
        drop(theirs);
    }

    #[test]
    fn what_is_not_kept_is_waited_for_and_its_own_build_is_told_what_was() {
        let (commands, key, dir) = all();
        let cancel = Cancel::new().unwrap();
        let Joined::Own(own) = join(&commands, &key, &cancel).unwrap() else { panic!("nobody else has it") };
        assert!(own.keep(&Piece { stream: OWN, bytes: b"its own".into() }, dir.path()));
        assert!(own.keep(&piece("one"), dir.path()) && own.is_behind());
        let Joined::Other(mut heard) = join(&commands, &key, &cancel).unwrap() else { panic!("one has it") };
        // As where the disk is full.
        lock(&own.together.state).said.full = true;
        assert!(!own.keep(&piece("two"), dir.path()));
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "one");
        assert_eq!(texts(heard.next().unwrap()).unwrap(), MORE);
        let began = std::time::Instant::now();
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "");
        assert!(began.elapsed() >= PAUSE);
        own.end();
        assert!(heard.next().unwrap().is_none());
        let told = [0, 1].map(|_| {
            let (piece, next) = own.untold().unwrap().unwrap();
            own.is_told(next);
            piece.classic()
        });
        assert_eq!((told, own.is_behind()), (["its own".to_owned(), "one".to_owned()], false));
    }

    #[test]
    fn a_build_learns_once_that_its_command_goes_on_without_it() {
        let (commands, key, _dir) = all();
        let cancel = Cancel::new().unwrap();
        let count = std::sync::atomic::AtomicUsize::new(0);
        let deserting = || _ = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Joined::Own(own) = commands.join(&key, &cancel, Box::new(deserting)).unwrap() else { panic!("its own") };
        let Joined::Other(heard) = join(&commands, &key, &cancel).unwrap() else { panic!("one has it") };
        own.desert().unwrap();
        own.desert().unwrap();
        drop(heard);
        assert!(own.desert().is_err());
        drop(own);
        assert_eq!(count.into_inner(), 1);
    }
}
