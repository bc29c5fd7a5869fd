//! Opening a root: locked, complete, swept.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::blobs::{self, Blobs};
use crate::database::Rows;
use crate::{Budget, ReadTx, Result, StoreError, WriteTx, format};

/// OCI image-spec, "OCI Image Layout".
const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

const DATABASE: &str = "wharf.redb";

/// An open store. Cheap to clone; the root is free for another process when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    rows: Rows,
    blobs: Blobs,
    budget: Arc<Budget>,
    /// The kernel lets go of it when this process dies, however it dies.
    _lock: File,
}

impl Store {
    /// Opens the store at `root`, which is made where it is missing. Sweeps what a crash left unfinished.
    ///
    /// # Errors
    /// `InUse` when another process has it open; `Newer` when a later version has written it; otherwise when the root cannot be written or the database is
    /// of no known form.
    pub fn open(root: &Path) -> Result<Self> {
        make_dir(root)?;
        let lock = take_lock(root)?;
        format::settle(root)?;
        for dir in ["blobs/sha256", "blobs/sha512", "ingest"] {
            make_dir(&root.join(dir))?;
        }
        let marker = root.join("oci-layout");
        if !marker.exists() {
            blobs::write_whole(&marker, OCI_LAYOUT.as_bytes())?;
        }
        let rows = Rows::open(&root.join(DATABASE))?;
        let budget = Arc::new(Budget::default());
        let blobs = Blobs::open(root, Arc::clone(&budget))?;
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), rows, blobs, budget, _lock: lock }) })
    }

    /// Opens the store at `root` to look at it while no daemon does: nothing is made there, nothing swept. Says too whether
    /// its database was damaged; it is repaired then.
    ///
    /// # Errors
    /// `NoStore` when there is none; `Damaged` when its database is past repair; those of [`Self::open`].
    pub fn open_to_check(root: &Path) -> Result<(Self, bool)> {
        if !root.join(DATABASE).exists() {
            return Err(StoreError::NoStore(root.to_owned()));
        }
        let lock = take_lock(root)?;
        format::known(root)?;
        let (rows, damaged) = Rows::open_checked(&root.join(DATABASE))?;
        let budget = Arc::new(Budget::default());
        let blobs = Blobs::unswept(root, Arc::clone(&budget));
        Ok((Self { inner: Arc::new(Inner { root: root.to_owned(), rows, blobs, budget, _lock: lock }) }, damaged))
    }

    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// Bytes that the file system below the root has left.
    pub fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.inner.root).map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// The failure of a write of `needed` bytes that the disk had no room for, with how many of them are missing; `None`
    /// when it had, `free` of them, before.
    pub fn lacking(&self, needed: u64, free: u64) -> Option<StoreError> {
        let missing = needed.checked_sub(free).filter(|missing| *missing > 0)?;
        Some(StoreError::Full { path: self.inner.root.clone(), needed: missing })
    }

    /// How many bytes may be written. Nothing bounds them unless somebody sets a limit.
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Reads rows as they were at one moment.
    ///
    /// # Errors
    /// Those of `f`, and of the database.
    pub fn read<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&ReadTx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.inner.rows.read(f)
    }

    /// Changes rows, all or nothing; on the disk when it returns. Changes are one after another.
    ///
    /// # Errors
    /// Those of `f`, which undo the change, and of the database.
    pub fn write<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&WriteTx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.inner.rows.write(f, true)
    }

    /// As [`Self::write`], but on the disk only with the next durable change: for what can be found out again
    /// after a crash. All or nothing, and visible at once, all the same.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_soon<T, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&WriteTx) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.inner.rows.write(f, false)
    }

    /// Brings to the disk what [`Self::write_soon`] has changed.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn flush(&self) -> Result<()> {
        self.inner.rows.write(|_| Ok(()), true)
    }
}

fn make_dir(path: &Path) -> Result<()> {
    // Layers have set-user-ID files in them: nobody but root may reach them (CVE-2021-41091).
    fs::DirBuilder::new().recursive(true).mode(0o710).create(path).map_err(StoreError::file("create", path))
}

/// What a killed daemon held is let go of only when the kernel has taken it apart, and a process on its way to another
/// program holds what the one held that made it: so long the lock is asked for again.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// `WOULDBLOCK` when another has it and keeps it.
fn lock_soon(file: &File) -> std::result::Result<(), rustix::io::Errno> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(ASK_AGAIN),
            done => return done,
        }
    }
}

fn take_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options.map_err(StoreError::file("open", &path))?;
    if let Err(errno) = lock_soon(&file) {
        if errno != rustix::io::Errno::WOULDBLOCK {
            return Err(StoreError::File { action: "lock", path, source: errno.into() });
        }
        let mut pid = String::new();
        // Only for the message.
        let _ = file.read_to_string(&mut pid);
        return Err(StoreError::InUse { root: root.to_owned(), pid: pid.trim().to_owned() });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(StoreError::file("write", &path))?;
    Ok(file)
}
