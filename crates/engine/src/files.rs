//! A container's files: copied out and in, compared with its image's, exported.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use wharf_archive::{PackOptions, UnpackOptions, Whiteouts, pack, pack_as, unpack};
use wharf_rooted_path::{RootDir, RootError};
use wharf_snapshot::View;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::Container;

/// What a path in a container is, as `X-Docker-Container-Path-Stat` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// In Go's `os.FileMode` bits.
    pub mode: u32,
    pub mtime: String,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// How an archive is put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    pub no_overwrite_dir_non_dir: bool,
    /// Files belong to the archive's owners instead of to root.
    pub copy_uid_gid: bool,
}

/// A file that differs from the image's: 0 modified, 1 added, 2 deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    pub path: String,
    pub kind: u8,
}

/// A container's root as seen from outside: through its first process while it runs, else a mount of its layers.
enum Root {
    Running(RootDir),
    Stopped(View),
}

impl Deref for Root {
    type Target = RootDir;
    fn deref(&self) -> &RootDir {
        match self {
            Self::Running(root) => root,
            Self::Stopped(view) => view,
        }
    }
}

impl Engine {
    fn root(&self, record: &Container) -> Result<Root> {
        // With its volumes, as it sees them itself.
        if let Ok(process) = Process::of(record)
            && let Ok(root) = RootDir::open(process.path("root"))
            && process.lives().is_ok()
        {
            return Ok(Root::Running(root));
        }
        let dir = self.dir(&record.id);
        let view = self.images().layers().view(&record.layers, Some((&dir.join("upper"), &dir.join("work"))))?;
        Ok(Root::Stopped(view))
    }

    /// What `path` is. Waits for the disk.
    ///
    /// # Errors
    /// `NotFound` with Docker's words.
    pub fn path_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let record = self.inspect(name)?;
        let root = self.root(&record)?;
        stat(&root, name, path)
    }

    /// Writes the archive of `path`: the entry, under its own name, with all below it. Waits for disk and reader.
    ///
    /// # Errors
    /// `NotFound`; `System` when the output fails.
    pub fn archive_get(&self, name: &str, path: &str, output: &mut dyn Write) -> Result<()> {
        let record = self.inspect(name)?;
        let root = self.root(&record)?;
        let found = stat(&root, name, path)?;
        let fail = |e: wharf_archive::ArchiveError| EngineError::from_source("cannot copy from the container", &e);
        let options = PackOptions::default();
        let inner = clean(path);
        // `path/.` means the directory's content, under the name `.`.
        if inner.as_os_str().is_empty() {
            return pack(&root, Path::new(""), output, &options).map_err(fail);
        }
        // The name of the link, the content of what it means, when the path ends in a slash.
        let followed = path.ends_with('/') && !found.link_target.is_empty();
        let target = if followed { clean(&found.link_target) } else { inner };
        pack_as(&root, &target, OsStr::new(&found.name), output, &options).map_err(fail)
    }

    /// Applies an archive to the directory `path`. Waits for disk and writer.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory, `InvalidParameter` when it is none, `Forbidden` when the
    /// container's root or the mount there is read-only.
    pub fn archive_put(&self, name: &str, path: &str, input: impl Read, options: PutOptions) -> Result<()> {
        let record = self.inspect(name)?;
        let root = self.root(&record)?;
        let at = clean(path);
        let missing = |error: RootError| {
            if error.is_not_found() {
                return EngineError::not_found(format!("Could not find the file {path} in container {name}"));
            }
            EngineError::invalid(format!("extraction point is not a directory: {path}"))
        };
        let target = root.open_dir(&at).map_err(missing)?;
        let read_only = record.host.readonly_rootfs
            || record.mounts.iter().any(|m| !m.rw && Path::new("/").join(&at).starts_with(&m.destination));
        if read_only {
            return Err(EngineError::new(
                crate::ErrorKind::Forbidden,
                "container rootfs is marked read-only, or the volume at that path is",
            ));
        }
        let how = UnpackOptions {
            whiteouts: Whiteouts::Literal,
            same_owner: options.copy_uid_gid,
            no_overwrite_dir_non_dir: options.no_overwrite_dir_non_dir,
            ..UnpackOptions::default()
        };
        unpack(input, &target, &how).map(drop).map_err(|e| EngineError::from_source("cannot copy to the container", &e))
    }

    /// Writes the archive of the whole root. Waits for disk and reader.
    ///
    /// # Errors
    /// `System` when the output fails.
    pub fn export(&self, name: &str, output: &mut dyn Write) -> Result<()> {
        let record = self.inspect(name)?;
        let dir = self.dir(&record.id);
        // The layers alone: what is mounted in the container is not its own.
        let uppers = [dir.join("upper")];
        let view = self.images().layers().stacked(&record.layers, &uppers)?;
        pack(&view, Path::new(""), output, &PackOptions::default())
            .map_err(|e| EngineError::from_source("cannot export the container", &e))
    }

    /// What a container has changed of its image's files. Waits for the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn changes(&self, name: &str) -> Result<Vec<Change>> {
        let record = self.inspect(name)?;
        let upper = self.dir(&record.id).join("upper");
        let image = self.images().layers().view(&record.layers, None)?;
        let mut all = Vec::new();
        compare(&upper, &image, Path::new(""), &mut all)
            .map_err(|e| EngineError::from_source("cannot read the container's files", &e))?;
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }
}

fn compare(upper: &Path, image: &RootDir, at: &Path, all: &mut Vec<Change>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(upper.join(at))? {
        let entry = entry?;
        let path = at.join(entry.file_name());
        let below = image.metadata(&path, false).ok();
        let found = entry.metadata()?;
        let removed = found.file_type().is_char_device() && std::os::unix::fs::MetadataExt::rdev(&found) == 0;
        let kind = match (&below, removed) {
            (None, true) => continue,
            (_, true) => 2,
            (Some(_), _) => 0,
            (None, _) => 1,
        };
        all.push(Change { path: format!("/{}", path.display()), kind });
        if found.is_dir() {
            compare(upper, image, &path, all)?;
        }
    }
    Ok(())
}

/// Without `.` and leading slashes; `..` stays, as it is resolved inside the root.
fn clean(path: &str) -> PathBuf {
    Path::new(path)
        .components()
        .filter(|part| !matches!(part, std::path::Component::RootDir | std::path::Component::CurDir))
        .collect()
}

fn stat(root: &RootDir, container: &str, path: &str) -> Result<PathStat> {
    let inner = clean(path);
    let missing =
        |_: RootError| EngineError::not_found(format!("Could not find the file {path} in container {container}"));
    let found = root.metadata(&inner, false).map_err(missing)?;
    let name = match inner.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => "/".into(),
    };
    let link_target = match FileType::from_raw_mode(found.st_mode) {
        FileType::Symlink => {
            let target = root.read_link(&inner).map_err(missing)?;
            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
            let above = inner.parent().unwrap_or(Path::new(""));
            normal(&Path::new("/").join(above).join(target)).to_string_lossy().into_owned()
        }
        _ => String::new(),
    };
    let time =
        jiff::Timestamp::new(found.st_mtime, i32::try_from(found.st_mtime_nsec).unwrap_or(0)).unwrap_or_default();
    Ok(PathStat { name, size: found.st_size, mode: go_mode(found.st_mode), mtime: time.to_string(), link_target })
}

/// A path without `.` and `..`, by its words alone.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// Go's `os.FileMode`: permission bits, and its own bits for the kind.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)].iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(mode & 0o777 | kind, |all, (_, bit)| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_go_s() {
        assert_eq!(go_mode(0o040_755), 0x8000_01ed);
        assert_eq!(go_mode(0o100_4755 & 0o177_777 | 0o4000), 0o755 | 1 << 23);
        assert_eq!(go_mode(0o120_777), 0o777 | 1 << 27);
    }

    #[test]
    fn paths_lose_what_means_nothing() {
        assert_eq!(clean("/a/./b/"), Path::new("a/b"));
        assert_eq!(clean("/"), Path::new(""));
        assert_eq!(normal(Path::new("/a/../../b")), Path::new("/b"));
    }
}
