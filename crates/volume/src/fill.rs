//! Filling a volume from an image ("copy-up").

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use wharf_archive::{ArchiveError, PackOptions, UnpackOptions, Whiteouts};
use wharf_rooted_path::{RootDir, RootError};

use crate::{Result, VolumeError};

/// Beside the content while it is copied: half of an image's files must not be taken for what a user left.
pub(crate) const FILLING: &str = ".filling";

/// Copies `path` of `source` into the directory `part` of the volume at `data`, if that is there and empty, or was left half
/// filled by a crash, which `mark` tells of.
pub(crate) fn fill(name: &str, data: &Path, mark: &Path, part: &Path, source: &RootDir, path: &Path) -> Result<()> {
    let whole = RootDir::open(data)?;
    if let Ok(half) = fs::read(mark) {
        // One without a word in it is none that was written whole: nothing can be said of what it stood for.
        if !half.is_empty()
            && let Some(half) = directory(&whole, Path::new(OsStr::from_bytes(&half)))?
        {
            clear(&half)?;
        }
        fs::remove_file(mark).map_err(VolumeError::file("remove", mark))?;
    }
    // What is not there, or no directory, is told of when it is to be mounted.
    let Some(target) = directory(&whole, part)? else { return Ok(()) };
    if !target.read_dir("")?.is_empty() {
        return Ok(());
    }
    match source.metadata(path, true) {
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Directory => {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(VolumeError::File { action: "mount a volume over", path: path.to_owned(), source });
        }
        Ok(_) => {}
    }
    let directory = source.open_dir(path)?;
    put_mark(mark, part).map_err(VolumeError::file("create", mark))?;
    let copied = copy(&directory, &target).map_err(|source| VolumeError::Copy {
        name: name.to_owned(),
        path: path.display().to_string(),
        source: Box::new(source),
    });
    let filled = copied.and_then(|()| own_attributes(&directory, &target));
    if filled.is_err() {
        // Now, while nobody but this copy has written there: the next one would not know.
        clear(&target)?;
    }
    fs::remove_file(mark).map_err(VolumeError::file("remove", mark))?;
    filled
}

/// Removes what is in a directory.
fn clear(directory: &RootDir) -> Result<()> {
    for name in directory.read_dir("")? {
        directory.remove_all(name)?;
    }
    Ok(())
}

/// Says which part is being filled, whole or not at all: by this mark things are removed after a crash.
fn put_mark(mark: &Path, part: &Path) -> io::Result<()> {
    let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
    let new = mark.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(part.as_os_str().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, mark)?;
    File::open(mark.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A directory of the volume, unless there is none at this path, or it leads out of the volume.
fn directory(whole: &RootDir, part: &Path) -> Result<Option<RootDir>> {
    let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
    let found = match whole.handle_beneath(part) {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP) => {
            return Ok(None);
        }
        found => found?,
    };
    let kind = rustix::fs::fstat(&found).map(|found| FileType::from_raw_mode(found.st_mode));
    Ok((kind == Ok(FileType::Directory)).then(|| RootDir::from_fd(found)))
}

/// Through an archive in a pipe: owners, modes, times, attributes and second names are kept as they are in layers.
fn copy(from: &RootDir, to: &RootDir) -> std::result::Result<(), ArchiveError> {
    let (input, output) = io::pipe().map_err(ArchiveError::Read)?;
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let mut output = io::BufWriter::with_capacity(64 << 10, output);
            let packed = wharf_archive::pack(
                from,
                Path::new(""),
                &mut output,
                &PackOptions { holes: true, ..PackOptions::default() },
            );
            packed.and_then(|()| output.flush().map_err(ArchiveError::Write))
        });
        let options = UnpackOptions { whiteouts: Whiteouts::Literal, ..UnpackOptions::default() };
        // Takes its end of the pipe with it when it is done or fails, so that the packer never waits for ever.
        let unpacked = wharf_archive::unpack(io::BufReader::with_capacity(64 << 10, input), to, &options);
        let packed = match packer.join() {
            Ok(packed) => packed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (unpacked, packed) {
            // A reader that has gone breaks the writer's pipe: because it failed, and then it knows the reason, or
            // because it saw the archive's end before the last bytes of padding.
            (unpacked, Ok(()) | Err(ArchiveError::Write(_))) => unpacked.map(drop),
            (_, Err(error)) => Err(error),
        }
    })
}

/// The directory itself: an archive of its content does not say whose it is.
fn own_attributes(from: &RootDir, to: &RootDir) -> Result<()> {
    let found = from.metadata("", true)?;
    to.set_owner("", found.st_uid, found.st_gid)?;
    to.set_mode("", found.st_mode & 0o7777)?;
    for (key, value) in from.xattrs("")? {
        // What overlayfs keeps for itself is not the directory's.
        if key.as_bytes().starts_with(b"user.") {
            match rustix::fs::setxattr(to.proc_path(), &key, &value, XattrFlags::empty()) {
                // A file system without them.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(RootError { action: "set an attribute of", path: "".into(), errno }.into()),
            }
        }
    }
    let time = Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec.cast_signed() };
    Ok(to.set_times("", &Timestamps { last_access: time, last_modification: time })?)
}
