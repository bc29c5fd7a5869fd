//! `tmpcopyup`: a tmpfs begins with what the image has in its place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Timespec, Timestamps};
use rustix::io::Errno;
use wharf_rooted_path::{RootDir, RootError};

/// An image's directory may be deep; nothing of a container's is deeper.
const MAX_DEPTH: usize = 64;

/// Copies all below `from` to `to`: kinds, owners, modes, times. Nothing runs in either yet.
pub(crate) fn copy_up(from: &RootDir, to: &RootDir) -> Result<(), Errno> {
    copy(from, to, Path::new("."), 0).map_err(|error| error.errno)
}

fn copy(from: &RootDir, to: &RootDir, dir: &Path, depth: usize) -> Result<(), RootError> {
    if depth > MAX_DEPTH {
        return Err(RootError { action: "copy", path: dir.into(), errno: Errno::NAMETOOLONG });
    }
    for name in from.read_dir(dir)? {
        let path = dir.join(&name);
        let stat = from.metadata(&path, false)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                to.mkdir_all(&path, 0o700)?;
                copy(from, to, &path, depth + 1)?;
            }
            FileType::RegularFile => {
                let mut file = to.create_file(&path, 0o600)?;
                let failed = |error: std::io::Error| RootError {
                    action: "copy",
                    path: path.clone(),
                    errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
                };
                std::io::copy(&mut from.open_file(&path)?, &mut file).map_err(failed)?;
            }
            FileType::Symlink => {
                let target = from.read_link(&path)?;
                to.symlink(std::ffi::OsStr::from_bytes(target.as_bytes()), &path)?;
            }
            kind => to.mknod(&path, kind, 0o600, stat.st_rdev)?,
        }
        to.set_owner(&path, stat.st_uid, stat.st_gid)?;
        to.set_mode(&path, stat.st_mode & 0o7777)?;
        let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
        let times = Timestamps {
            last_access: time(stat.st_atime as i64, stat.st_atime_nsec as i64),
            last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        };
        to.set_times(&path, &times)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_its_links_and_modes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "text").unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/etc/passwd", from.path().join("l")).unwrap();
        copy_up(&RootDir::open(from.path()).unwrap(), &RootDir::open(to.path()).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "text");
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().permissions().mode() & 0o7777, 0o4711);
        assert_eq!(fs::read_link(to.path().join("l")).unwrap(), Path::new("/etc/passwd"));
    }
}
