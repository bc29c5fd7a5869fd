//! The file under the database, on a disk that may become full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::reserve::Reserve;

/// A file that has its blocks before it is written to: a full disk is met when the file grows, and never where what
/// is there already is changed. Locks are the store's own business.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    file: File,
    failed: Arc<AtomicBool>,
    reserve: Arc<Reserve>,
}

impl DatabaseFile {
    /// `failed` is set with the first operation that fails, and none succeeds from then on: the database does not know
    /// what it has written, and must be opened again.
    pub(crate) fn new(file: File, failed: Arc<AtomicBool>, reserve: Arc<Reserve>) -> Self {
        Self { file, failed, reserve }
    }

    fn guard<T>(&self, operation: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("the database has failed before, and is to be opened again"));
        }
        operation(&self.file).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.guard(|file| Ok(file.metadata()?.len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.guard(|file| file.read_exact_at(out, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.guard(|file| {
            let old = file.metadata()?.len();
            if len > old && extend(file, old, len).is_err() {
                self.reserve.lend();
                extend(file, old, len)?;
            }
            file.set_len(len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.guard(File::sync_data)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.guard(|file| file.write_all_at(data, offset))
    }
}

fn extend(file: &File, old: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), old, len - old) {
        // A file system that cannot promise blocks.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => {
            // Part of them may be there already, for others to have.
            file.set_len(old)?;
            Err(errno.into())
        }
    }
}
