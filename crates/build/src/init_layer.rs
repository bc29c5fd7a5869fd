//! Places for a command's mounts, in a layer of their own between the stage and what the command writes.
//!
//! Nothing is made in the stage's files, and so nothing has to be taken away there afterwards, which would have to
//! be done by name in a tree that the command has changed (CVE-2024-23652).

use std::path::{Path, PathBuf};

use wharf_rooted_path::RootDir;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::plan::{Content, Entry, Plan};
use crate::tree::{Attributes, Kind};

/// What every command has mounted.
const DIRECTORIES: &[&str] = &["/proc", "/sys", "/dev"];

/// Writes the layer into the empty directory `into`; tells whether there is anything in it. `files` are ours, whose places are
/// where they are said to be, and those that are asked for, which go where links lead.
///
/// # Errors
/// When a place cannot be made, because something on the way is no directory.
pub(crate) fn make(
    below: &RootDir,
    directories: &[&str],
    files: [&[&str]; 2],
    mtime: (i64, u32),
    into: &Path,
    cancel: &Cancel,
) -> Result<bool> {
    let mut plan = Plan::new(below, (0, 0), mtime);
    for path in DIRECTORIES.iter().chain(directories) {
        let real = plan.resolve(Path::new(path))?;
        if plan.kind(&real)?.is_none() {
            plan.directory(&real)?;
        }
    }
    let file = || Attributes { kind: Kind::File, mode: 0o644, owner: (0, 0), mtime, xattrs: Vec::new() };
    let [own, asked] = files;
    for path in own {
        let path = Path::new(path);
        let above = plan.resolve(path.parent().unwrap_or(Path::new("/")))?;
        let Some(name) = path.file_name() else { continue };
        let place: PathBuf = above.join(name);
        // A link in this place leads somewhere that the command does not have; a file of ours hides it.
        if plan.kind(&place)? != Some(Kind::File) {
            plan.put(&place, Entry { attributes: file(), content: Content::Bytes(Vec::new()) })?;
        }
    }
    for path in asked {
        let real = plan.resolve(Path::new(path))?;
        if plan.kind(&real)?.is_none() {
            plan.put(&real, Entry { attributes: file(), content: Content::Bytes(Vec::new()) })?;
        }
    }
    if plan.is_empty() {
        return Ok(false);
    }
    plan.write(&RootDir::open(into)?, cancel)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let stage = tempfile::tempdir().unwrap();
        let at = |path: &str| stage.path().join(path);
        for dir in ["proc", "dev", "etc", "run"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        std::fs::write(at("etc/hosts"), "x").unwrap();
        std::os::unix::fs::symlink("../run/resolv", at("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink("run", at("var")).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", at("there")).unwrap();
        std::os::unix::fs::symlink("etc/new", at("dangling")).unwrap();
        let into = tempfile::tempdir().unwrap();
        let below = RootDir::open(stage.path()).unwrap();
        let files = ["/etc/hosts", "/etc/resolv.conf"];
        let asked = ["/there", "/dangling"];
        let files = [files.as_slice(), asked.as_slice()];
        let made = make(&below, &["/var/cache/x"], files, (5, 0), into.path(), &Cancel::new().unwrap()).unwrap();
        assert!(made);
        let layer = RootDir::open(into.path()).unwrap();
        assert_eq!(layer.read_dir("").unwrap(), ["etc", "run", "sys"]);
        assert_eq!(layer.read_dir("etc").unwrap(), ["new", "resolv.conf"]);
        assert!(layer.open_dir("run/cache/x").is_ok());
    }
}
