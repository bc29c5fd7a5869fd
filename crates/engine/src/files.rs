//! A container's files: copied out, compared with its image's, exported.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use wharf_archive::{PackOptions, pack, pack_as, pack_dir_as};
use wharf_rooted_path::{RootDir, RootError, follow};

use crate::container_root::{ContainerRoot, ids};
use crate::engine::Engine;
use crate::error::{EngineError, Result};

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

/// Where the kernel's own file systems are mounted.
const KERNEL_S: &[&str] = &["proc", "sys", "dev"];

/// A file that differs from the image's: 0 modified, 1 added, 2 deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    pub path: String,
    pub kind: u8,
}

impl Engine {
    /// What `path` is. Waits for the disk.
    ///
    /// # Errors
    /// `NotFound` with Docker's words.
    pub fn path_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let root = self.root_to_read(&*self.inner.slots.find(name)?)?;
        Ok(stat(&root, name, &Asked::new(path))?.0)
    }

    /// Writes the archive of `path`: the entry, under its own name, with all below it. Waits for disk and reader.
    ///
    /// # Errors
    /// `NotFound`; `System` when the output fails.
    pub fn archive_get(&self, name: &str, path: &str, output: &mut dyn Write) -> Result<()> {
        let root = self.root_to_read(&*self.inner.slots.find(name)?)?;
        let asked = Asked::new(path);
        let (_, kind) = stat(&root, name, &asked)?;
        let fail = |e: wharf_archive::ArchiveError| EngineError::from_source("cannot copy from the container", &e);
        // What the kernel makes up there is no file of the container's, and changes while it is read.
        let hollow = if asked.path.as_os_str().is_empty() { KERNEL_S } else { &[] };
        let options = PackOptions { ids: root.ids, hollow, ..PackOptions::default() };
        let own = asked.name();
        match kind {
            FileType::Directory => pack_dir_as(&root, &asked.path, &own, output, &options),
            _ => pack_as(&root, &asked.path, &own, output, &options),
        }
        .map_err(fail)?;
        self.tell(&root.record, "archive-path");
        Ok(())
    }

    /// Writes the archive of the whole root. Waits for disk and reader.
    ///
    /// # Errors
    /// `System` when the output fails.
    pub fn export(&self, name: &str, output: &mut dyn Write) -> Result<()> {
        let record = self.inspect(name)?;
        let dir = self.dir(&record.id);
        // The layers alone, and what Docker has in every container: what is mounted there is not its own.
        let (uppers, places) = ([dir.join("upper")], [self.inner.places.clone()]);
        let view = self.images().layers().stacked(&record.layers, &uppers, &places)?;
        let options = PackOptions { ids: ids(&record), ..PackOptions::default() };
        pack(&view, Path::new(""), output, &options)
            .map_err(|e| EngineError::from_source("cannot export the container", &e))?;
        self.tell(&record, "export");
        Ok(())
    }

    /// What a container has changed of its image's files. Waits for the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn changes(&self, name: &str) -> Result<Vec<Change>> {
        let record = self.inspect(name)?;
        let failed = |e: RootError| EngineError::from_source("cannot read the container's files", &e);
        let upper = RootDir::open(self.dir(&record.id).join("upper")).map_err(failed)?;
        let image = self.images().layers().view(&record.layers, None)?;
        compare(&upper, &image).map_err(failed)
    }
}

/// The container may run, and put a link in the place of a directory: what is below is looked for inside. A stack instead
/// of recursion: it makes directories as deep as it likes.
fn compare(upper: &RootDir, image: &RootDir) -> Result<Vec<Change>, RootError> {
    let (mut all, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(at) = left.pop() {
        let names = match upper.read_dir(&at) {
            // It is no directory any more.
            Err(error) if !at.as_os_str().is_empty() && (error.is_not_found() || error.errno == Errno::NOTDIR) => {
                continue;
            }
            names => names?,
        };
        for name in names {
            let path = at.join(name);
            let found = match upper.metadata(&path, false) {
                Err(error) if error.is_not_found() => continue,
                found => found?,
            };
            let kind = FileType::from_raw_mode(found.st_mode);
            let removed = kind == FileType::CharacterDevice && found.st_rdev == 0;
            let change = match (image.metadata(&path, false).ok(), removed) {
                (None, true) => continue,
                (_, true) => 2,
                (Some(_), _) => 0,
                (None, _) => 1,
            };
            all.push(Change { path: format!("/{}", path.display()), kind: change });
            if kind == FileType::Directory {
                left.push(path);
            }
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

/// A path of a request. As in Docker its end has a meaning: `dir/.` is what is in the directory, and a slash follows
/// a link.
pub(crate) struct Asked<'a> {
    text: &'a str,
    /// Below the root, by its words.
    pub(crate) path: PathBuf,
    /// It ends in `.`.
    dot: bool,
    /// It ends in `.` or a slash.
    follow: bool,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let path = normal(Path::new(text)).strip_prefix("/").map(Path::to_owned).unwrap_or_default();
        let dot = text.trim_end_matches('/').rsplit('/').next() == Some(".");
        Self { text, path, dot, follow: dot || text.ends_with('/') }
    }

    /// What it is called in an archive (Go's `filepath.Base`).
    fn name(&self) -> OsString {
        match self.path.file_name() {
            _ if self.dot => ".".into(),
            Some(name) => name.to_owned(),
            None => "/".into(),
        }
    }
}

fn stat(root: &ContainerRoot, container: &str, asked: &Asked<'_>) -> Result<(PathStat, FileType)> {
    root.check(&root.follow(&asked.path))?;
    stat_in(root, container, asked)
}

fn stat_in(root: &RootDir, container: &str, asked: &Asked<'_>) -> Result<(PathStat, FileType)> {
    let missing = |error: RootError| match error.is_not_found() {
        true => EngineError::not_found(format!("Could not find the file {} in container {container}", asked.text)),
        false => EngineError::from_source(&format!("lstat {}", asked.text), &error.errno),
    };
    let found = root.metadata(&asked.path, asked.follow).map_err(missing)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if asked.follow && kind != FileType::Directory {
        return Err(EngineError::from_source(&format!("lstat {}", asked.text), &Errno::NOTDIR));
    }
    let link_target = match kind {
        FileType::Symlink => follow(&asked.path, |link| root.read_link(link).ok()).to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let time =
        jiff::Timestamp::new(found.st_mtime, i32::try_from(found.st_mtime_nsec).unwrap_or(0)).unwrap_or_default();
    let stat = PathStat {
        name: asked.name().to_string_lossy().into_owned(),
        size: found.st_size,
        mode: go_mode(found.st_mode),
        mtime: time.to_string(),
        link_target,
    };
    Ok((stat, kind))
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
        assert_eq!(normal(Path::new("/a/../../b")), Path::new("/b"));
        for (text, path, name, follow) in [
            ("/a/./b", "a/b", "b", false),
            ("a/b/", "a/b", "b", true),
            ("/a/b/.", "a/b", ".", true),
            ("/a/./", "a", ".", true),
            ("/a/..", "", "/", false),
            ("/", "", "/", true),
            ("/.", "", ".", true),
            ("a/.b", "a/.b", ".b", false),
        ] {
            let asked = Asked::new(text);
            assert_eq!((asked.path.as_path(), asked.follow), (Path::new(path), follow), "{text}");
            assert_eq!(asked.name(), name, "{text}");
        }
    }

    #[test]
    fn what_is_looked_at_is_what_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        link("d/../../d", "two");
        link("gone/x", "three");
        let root = RootDir::open(dir.path()).unwrap();
        let asked = Asked::new("/three/");
        assert_eq!(stat_in(&root, "c", &asked).unwrap_err().message, "Could not find the file /three/ in container c");
        assert_eq!(stat_in(&root, "c", &Asked::new("two/.")).unwrap().0.name, ".");
        assert_eq!(stat_in(&root, "c", &Asked::new("two")).unwrap().0.link_target, "/d");
    }
}
