//! A command that several builds want at once: it runs for all of them. Each hears all that it writes, each fails with it, and it
//! goes on until the last of them is cancelled.
//!
//! The build that came first runs it, with its own mounts and on its own thread, and so ends no sooner than the command does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wharf_reference::Digest;

use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Result};
use crate::frames::Piece;

/// How soon one that waits sees that it was cancelled.
const PAUSE: Duration = Duration::from_millis(100);
/// Of a piece in the file: its stream, and its length (32 bits, little endian).
const HEADER: usize = 5;
/// So much is kept of a command for others: one that writes without end is not to fill the disk.
const MOST: u64 = 64 << 20;
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
    /// What it has written, from the beginning. None before it writes, and where that cannot be kept.
    said: Option<Arc<File>>,
    written: u64,
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
#[derive(Debug)]
pub(crate) struct Running<'a> {
    commands: Option<(&'a Commands, String)>,
    together: Arc<Together>,
    /// The build's own.
    cancel: Cancel,
}

/// Held by a build that hears a command of another.
#[derive(Debug)]
pub(crate) struct Heard {
    together: Arc<Together>,
    read: u64,
}

impl Commands {
    /// Claims a command, or joins the build that runs it.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    pub(crate) fn join(&self, key: &Digest, cancel: &Cancel) -> Result<Joined<'_>> {
        let mut running = lock(&self.running);
        if let Some(together) = running.get(key.as_str()) {
            lock(&together.state).followers += 1;
            return Ok(Joined::Other(Heard { together: Arc::clone(together), read: 0 }));
        }
        let own = Running::new(Some((self, key.to_string())), cancel)?;
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

    fn new(commands: Option<(&'a Commands, String)>, cancel: &Cancel) -> Result<Self> {
        let together = Together { state: Mutex::default(), changed: Condvar::new(), cancel: Cancel::new()? };
        Ok(Self { commands, together: Arc::new(together), cancel: cancel.clone() })
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
        state.deserted = true;
        if state.followers == 0 {
            self.together.cancel.cancel();
            return Err(BuildError::cancelled());
        }
        Ok(())
    }

    /// Whether anybody wants what it makes.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.together.cancel.is_cancelled() && (!self.cancel.is_cancelled() || self.desert().is_ok())
    }

    /// Keeps a piece for those who hear it; `dir` takes the file. What cannot be kept they do not hear.
    pub(crate) fn keep(&self, piece: &Piece, dir: &Path) {
        if self.commands.is_none() {
            return;
        }
        let mut state = lock(&self.together.state);
        if state.written == 0 {
            state.said = nameless(&dir.join("said")).ok().map(Arc::new);
        }
        let Some(said) = state.said.clone() else { return };
        let Ok(length) = u32::try_from(piece.bytes.len()) else { return };
        if state.written >= MOST {
            return;
        }
        let mut bytes = [&[piece.stream][..], &length.to_le_bytes(), &piece.bytes[..]].concat();
        if state.written + bytes.len() as u64 >= MOST {
            bytes.extend([&[1][..], &(MORE.len() as u32).to_le_bytes(), MORE.as_bytes()].concat());
        }
        match said.write_all_at(&bytes, state.written) {
            Ok(()) => state.written += bytes.len() as u64,
            Err(_) => state.said = None,
        }
        drop(state);
        self.together.changed.notify_all();
    }

    /// Waits until there is something to read.
    ///
    /// # Errors
    /// `Cancelled` when nobody wants the command any more.
    pub(crate) fn wait_readable(&self, fd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds =
                vec![PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::new(&self.together.cancel, PollFlags::IN)];
            let heard = self.is_heard();
            if heard {
                fds.push(PollFd::from_borrowed_fd(self.cancel.as_fd(), PollFlags::IN));
            }
            let none: Option<&Timespec> = None;
            match poll(&mut fds, none) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done.map_err(|e| BuildError::system("the command cannot be waited for", &e))?,
            };
            self.together.cancel.check()?;
            if heard && self.cancel.is_cancelled() {
                self.desert()?;
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
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

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some((commands, key)) = &self.commands {
            lock(&commands.running).remove(key);
        }
        lock(&self.together.state).ended = true;
        self.together.changed.notify_all();
    }
}

impl Heard {
    /// What it has written since the last call; waits for a moment if that is nothing. None when it has ended well, or others
    /// have to run it.
    ///
    /// # Errors
    /// That of the command.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Piece>>> {
        let (said, written) = {
            let mut state = lock(&self.together.state);
            // What could not be kept is heard no more.
            let silent = state.said.is_none() || state.written == self.read;
            if silent && !state.ended {
                let waited = self.together.changed.wait_timeout(state, PAUSE);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.said.is_none() || state.written == self.read {
                return match (state.ended, &state.failure) {
                    (true, Some(failure)) => Err(failure.clone()),
                    (true, None) => Ok(None),
                    (false, _) => Ok(Some(Vec::new())),
                };
            }
            (state.said.clone(), state.written)
        };
        let Some(said) = said else { return Ok(Some(Vec::new())) };
        let pieces = self.pieces(&said, written);
        pieces
            .map(Some)
            .map_err(|e| BuildError::system("what a command of another build has written cannot be read", &e))
    }

    /// At least one, up to where the file is written.
    fn pieces(&mut self, said: &File, written: u64) -> io::Result<Vec<Piece>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while self.read < written && bytes < CHUNK {
            let mut header = [0; HEADER];
            said.read_exact_at(&mut header, self.read)?;
            let [stream, length @ ..] = header;
            let mut content = vec![0; u32::from_le_bytes(length) as usize];
            said.read_exact_at(&mut content, self.read + HEADER as u64)?;
            self.read += (HEADER + content.len()) as u64;
            bytes += content.len();
            pieces.push(Piece { stream, bytes: content });
        }
        Ok(pieces)
    }
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

/// A file that goes with who has it open.
fn nameless(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
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

    fn all() -> (Commands, Digest, tempfile::TempDir) {
        (Commands::default(), Digest::sha256(b"key"), tempfile::tempdir().unwrap())
    }

    #[test]
    fn who_comes_later_hears_all_from_the_beginning() {
        let (commands, key, dir) = all();
        let cancel = Cancel::new().unwrap();
        let Joined::Own(own) = commands.join(&key, &cancel).unwrap() else { panic!("nobody else has it") };
        own.keep(&piece("one\n"), dir.path());
        let Joined::Other(mut heard) = commands.join(&key, &cancel).unwrap() else { panic!("one has it") };
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "one\n");
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "");
        own.keep(&piece("two\n"), dir.path());
        own.fail(&BuildError::invalid("what only this one knows"));
        own.fail(&BuildError::command("false", 1));
        drop(own);
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "two\n");
        assert_eq!(heard.next().unwrap_err().exit_code, Some(1));
        assert!(matches!(commands.join(&key, &cancel).unwrap(), Joined::Own(_)));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn the_last_who_wants_it_ends_it() {
        let (commands, key, _dir) = all();
        let (first, second) = (Cancel::new().unwrap(), Cancel::new().unwrap());
        let Joined::Own(own) = commands.join(&key, &first).unwrap() else { panic!("nobody else has it") };
        let Joined::Other(heard) = commands.join(&key, &second).unwrap() else { panic!("one has it") };
        first.cancel();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(own.is_wanted());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| own.wait_readable(ours.as_fd()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(heard);
            assert_eq!(waiting.join().unwrap().unwrap_err().kind, ErrorKind::Cancelled);
        });
        assert!(!own.is_wanted());
        drop(theirs);
    }

    #[test]
    fn what_cannot_be_kept_is_waited_for() {
        let (commands, key, dir) = all();
        let cancel = Cancel::new().unwrap();
        let Joined::Own(own) = commands.join(&key, &cancel).unwrap() else { panic!("nobody else has it") };
        own.keep(&piece("one"), dir.path());
        let Joined::Other(mut heard) = commands.join(&key, &cancel).unwrap() else { panic!("one has it") };
        // As where the disk is full.
        lock(&own.together.state).said = None;
        let began = std::time::Instant::now();
        assert_eq!(texts(heard.next().unwrap()).unwrap(), "");
        assert!(began.elapsed() >= PAUSE);
        drop(own);
        assert!(heard.next().unwrap().is_none());
    }
}
