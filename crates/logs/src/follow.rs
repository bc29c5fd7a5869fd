//! Being told that logs grow.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::error::{LogError, Result};

/// Watches the directories of any number of logs with one inotify instance: a user has 128 of them
/// (`fs.inotify.max_user_instances`), and many followers.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    /// Written to when nobody is to wait any more.
    end: OwnedFd,
}

/// A directory that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watched(i32);

impl Watcher {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When this user has too many instances already (inotify_init(2)).
    pub fn new() -> std::io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, end: eventfd(0, EventfdFlags::CLOEXEC)? })
    }

    /// Watches the directory that a log is in: its growing, its being renamed, a new one in its place. A directory that
    /// is watched already is the same.
    ///
    /// # Errors
    /// `File`, when it is not there or this user watches too many (inotify_add_watch(2)).
    pub fn add(&self, log: &Path) -> Result<Watched> {
        let dir = log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&self.inotify, dir, what).map(Watched).map_err(LogError::file("watch", dir))
    }

    /// Watches it no more. One that has been removed is watched no more by itself.
    pub fn remove(&self, watched: Watched) {
        let _ = inotify::remove_watch(&self.inotify, watched.0);
    }

    /// Waits until something has happened. False when it never will: it was told to end.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self) -> std::io::Result<bool> {
        loop {
            let mut both = [&self.inotify, &self.end].map(|fd| PollFd::new(fd, PollFlags::IN));
            match poll(&mut both, None) {
                Err(Errno::INTR) => {}
                done => {
                    done?;
                    return Ok(both[1].revents().is_empty());
                }
            }
        }
    }

    /// Ends all waiting, now and later.
    pub fn end(&self) {
        // A number that is not zero; nobody reads it, so there is room for it.
        let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
    }

    /// Tells what has happened, without waiting for more: where, or `None` when so much has that it could be anywhere.
    ///
    /// # Errors
    /// As read(2).
    pub fn take(&self, mut tell: impl FnMut(Option<Watched>)) -> std::io::Result<()> {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => tell(None),
                Ok(event) => tell(Some(Watched(event.wd()))),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_happens_in_a_directory_is_told_until_it_is_not_watched() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let watcher = Watcher::new().unwrap();
        let first = watcher.add(&one.path().join("log")).unwrap();
        let second = watcher.add(&two.path().join("log")).unwrap();
        assert_eq!(watcher.add(&one.path().join("other")).unwrap(), first);
        let told = || {
            let mut all = Vec::new();
            watcher.take(|watched| all.push(watched.unwrap())).unwrap();
            all.dedup();
            all
        };
        assert!(told().is_empty());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| watcher.wait().unwrap());
            std::fs::write(two.path().join("other"), "x").unwrap();
            assert!(waiting.join().unwrap());
        });
        assert_eq!(told(), [second]);
        let mut file = std::fs::File::create(two.path().join("log")).unwrap();
        assert_eq!(told(), [second]);
        file.write_all(b"x").unwrap();
        assert_eq!(told(), [second]);
        std::fs::write(one.path().join("log"), "x").unwrap();
        std::fs::rename(two.path().join("log"), two.path().join("log.1")).unwrap();
        assert_eq!(told(), [first, second]);
        watcher.remove(second);
        told();
        file.write_all(b"x").unwrap();
        assert!(told().is_empty());
        assert!(watcher.add(Path::new("/nowhere/log")).is_err());
        watcher.end();
        assert!(!watcher.wait().unwrap() && !watcher.wait().unwrap());
    }
}
