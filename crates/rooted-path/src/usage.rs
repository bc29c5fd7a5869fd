//! What a tree takes on the disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, statat};

use crate::RootDir;

/// Bytes on the disk of a file, or of a directory with all below it, as du(1) counts them: in blocks, a file with several
/// names once, and nothing of what is mounted there. Links are not followed, so who writes in the tree meanwhile leads
/// nowhere else. What is not there, or goes meanwhile, takes nothing.
pub fn disk_usage(path: impl AsRef<Path>) -> u64 {
    let path = path.as_ref();
    let Ok(top) = rustix::fs::lstat(path) else { return 0 };
    let mut total = bytes(&top);
    if !is_directory(&top) {
        return total;
    }
    let Ok(root) = RootDir::open(path) else { return total };
    let mut seen = HashSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let at = if dir.as_os_str().is_empty() { Path::new(".") } else { &dir };
        let Ok(open) = root.open_at(at, flags, rustix::fs::Mode::empty()) else { continue };
        let Ok(entries) = Dir::read_from(&open) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(found) = statat(&open, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if found.st_dev != top.st_dev {
                continue;
            }
            if is_directory(&found) {
                left.push(dir.join(OsStr::from_bytes(name.to_bytes())));
            } else if found.st_nlink > 1 && !seen.insert(found.st_ino) {
                continue;
            }
            total += bytes(&found);
        }
    }
    total
}

fn is_directory(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::Directory
}

/// stat(2): blocks are of 512 bytes, whatever the file system's own.
fn bytes(found: &Stat) -> u64 {
    u64::try_from(found.st_blocks).unwrap_or(0) * 512
}
