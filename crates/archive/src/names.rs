//! Where names of an archive lead: never out of the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::shown;
use crate::header::{Entry, Kind};
use crate::{ArchiveError, Result};

/// The entry's path below the root. `..` ends there, as Go's `Clean("/" + name)` has it. Only a directory can be the
/// root itself.
pub(crate) fn inside(entry: &Entry) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(&entry.path)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    if path.as_os_str().is_empty() && entry.kind != Kind::Directory {
        return Err(ArchiveError::Entry { name: shown(&entry.path), why: "it would replace the root" });
    }
    Ok(path)
}

/// Refuses a hard link to what is outside.
pub(crate) fn check_link(entry: &Entry) -> Result<()> {
    let inside = normal(&entry.link).is_some_and(|path| !path.as_os_str().is_empty());
    if entry.kind == Kind::HardLink && !inside {
        let why = "it is a link to something outside of the archive";
        return Err(ArchiveError::Entry { name: shown(&entry.path), why });
    }
    Ok(())
}

/// What a link of an archive leads to, below its root; `None` when that is outside.
pub fn normal(bytes: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(bytes)).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(path)
}
