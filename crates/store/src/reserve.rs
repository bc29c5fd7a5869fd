//! Room that is kept for the moment when the disk is full.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// More than the smallest database grows by.
const LEAST: u64 = 1 << 20;

/// A file that has nothing in it but room. The database gets it when the disk has no more: whoever then removes images
/// and containers to make room needs some for the change that forgets them.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    lent: AtomicBool,
}

impl Reserve {
    /// Nothing is kept before the first [`Self::restore`].
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, lent: AtomicBool::new(true) }
    }

    /// Whether the room has been given away.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.load(Ordering::Acquire)
    }

    /// Gives the room away; false when that has happened before.
    pub(crate) fn lend(&self) -> bool {
        !self.lent.swap(true, Ordering::AcqRel) && self.open().and_then(|file| file.set_len(0)).is_ok()
    }

    /// Keeps as much room as a database of so many bytes may need, which is as much again. False when the disk has not.
    pub(crate) fn restore(&self, database: u64) -> bool {
        let size = database.max(LEAST);
        let kept = self.open().and_then(|file| match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // A file system that cannot promise room has none to keep.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => {
                file.set_len(0)?;
                Err(errno.into())
            }
        });
        self.lent.store(kept.is_err(), Ordering::Release);
        kept.is_ok()
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)
    }
}
