//! Files that were rotated away, compressed: `PATH.N.gz`, as Docker names them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

/// What stands before the number of the file that one was made of, in its comment.
const MADE_OF: &str = "inode ";

/// What has been written to a log's file, compressed beside it as it comes: a rotation has nothing left to do, and nobody
/// else is needed for it.
#[derive(Debug)]
pub(crate) struct Packing {
    /// `None` when it has its last name.
    path: Option<PathBuf>,
    encoder: GzEncoder<File>,
}

impl Packing {
    /// Begins with what is in `file` already.
    ///
    /// # Errors
    /// As when the disk is full.
    pub(crate) fn begin(log: &Path, file: &mut File) -> io::Result<Self> {
        let path = with(log, ".gz.new");
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
        // So that who reads on in the file knows it again.
        let comment = CString::new(format!("{MADE_OF}{}", file.metadata()?.ino()))?;
        let encoder = GzBuilder::new().comment(comment).write(to, Compression::fast());
        let mut packing = Self { path: Some(path), encoder };
        file.seek(SeekFrom::Start(0))?;
        io::copy(file, &mut packing.encoder)?;
        Ok(packing)
    }

    /// # Errors
    /// As when the disk is full: then it is of no use any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.encoder.write_all(bytes)
    }

    /// Makes it the file of that name.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn keep(mut self, name: &Path) -> io::Result<()> {
        self.encoder.try_finish()?;
        if let Some(path) = &self.path {
            fs::rename(path, name)?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// The compressed form of a file.
pub(crate) fn packed(file: &Path) -> PathBuf {
    with(file, ".gz")
}

/// The inode of the file that it was made of, if it says so.
pub(crate) fn made_of(file: &File) -> Option<u64> {
    let decoder = GzDecoder::new(BufReader::new(file));
    let comment = String::from_utf8_lossy(decoder.header()?.comment()?).into_owned();
    comment.strip_prefix(MADE_OF)?.parse().ok()
}

/// Its content, in a file without a name in the directory of the log. Of one that is damaged as much as can be read.
///
/// # Errors
/// As when the disk is full.
pub(crate) fn unpack(file: &File, log: &Path) -> io::Result<File> {
    let dir = log.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let to =
        rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).or_else(|_| memfd_create(c"log", MemfdFlags::CLOEXEC))?;
    let mut to = File::from(to);
    let mut from = file;
    from.seek(SeekFrom::Start(0))?;
    let mut decoder = GzDecoder::new(BufReader::new(from));
    let mut block = vec![0; 128 << 10];
    // What cannot be read ends it; what cannot be written is an error.
    while let Ok(read @ 1..) = decoder.read(&mut block) {
        to.write_all(&block[..read])?;
    }
    Ok(to)
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
