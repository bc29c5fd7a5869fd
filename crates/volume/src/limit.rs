//! Volumes of a size (`-o size=10g`): by a quota of a project where the file system holds projects to one, else as a file with
//! a file system of that size in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use serde::{Deserialize, Serialize};
use wharf_sys::{loop_device, quota};

use crate::volumes::DATA;
use crate::{Result, VolumeError, mounting};

/// Beside the content, which is in it.
const DISK: &str = "disk";
/// Less has no room for a file system.
const MIN: u64 = 1 << 20;
/// Where the programs of root are, whatever PATH says.
const SBIN: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// Projects of volumes; others choose small numbers.
const PROJECTS: std::ops::Range<u32> = 0x5741_0000..0x57ff_0000;

/// How large a volume may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub bytes: u64,
    /// The project that is held to it; none where a file has the content.
    pub project: Option<u32>,
}

/// Reads a size in Docker's words: a number and a unit of 1024 (`10g`, `1.5GiB`, `512k`).
pub(crate) fn parse(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("invalid size: '{text}'");
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let power = match unit.trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let bytes = number * 1024f64.powi(power);
    if !(MIN as f64..=(1u64 << 60) as f64).contains(&bytes) {
        return Err(format!("invalid size: '{text}': at least 1 MiB and at most 1 EiB"));
    }
    Ok(bytes as u64)
}

/// The size that a volume's options ask for, if they ask for one that can be read.
pub fn size_of(options: &BTreeMap<String, String>) -> Option<u64> {
    options.get("size").and_then(|text| parse(text).ok())
}

/// Sets up an empty volume in `dir`, which has its directory for the content already.
pub(crate) fn set_up(name: &str, dir: &Path, bytes: u64, taken: &[u32]) -> Result<Limit> {
    let data = dir.join(DATA);
    let open = File::open(&data).map_err(VolumeError::file("open", &data))?;
    if quota::is_enforced(open.as_fd()) {
        let failed = |errno: rustix::io::Errno| VolumeError::file("set the quota of", &data)(errno.into());
        let free = |project: &u32| {
            let known = quota::usage(open.as_fd(), *project).unwrap_or_default();
            !taken.contains(project) && known == quota::Usage::default()
        };
        let start = random()?;
        // One that a crash has left with this very directory is its own.
        let own = quota::project(open.as_fd()).ok().filter(|own| PROJECTS.contains(own) && !taken.contains(own));
        let project = own.or_else(|| PROJECTS.clone().cycle_from(start).find(free));
        let project = project.ok_or_else(|| failed(rustix::io::Errno::BUSY))?;
        // In this order: a limit without a directory that says whose it is would never be taken back after a crash.
        quota::set_project(open.as_fd(), project).map_err(failed)?;
        quota::set_limit(open.as_fd(), project, bytes).map_err(failed)?;
        return Ok(Limit { bytes, project: Some(project) });
    }
    make_disk(name, dir, bytes)?;
    Ok(Limit { bytes, project: None })
}

/// Takes back the limit of a volume that is going and whose row, if it ever had one, has gone: its directory says which
/// project it had. That is its content's word, which a container may have changed: one that is among `taken` stays.
pub(crate) fn forget_left(dir: &Path, taken: &[u32]) {
    let Ok(open) = File::open(dir.join(DATA)) else { return };
    let Ok(project) = quota::project(open.as_fd()) else { return };
    if PROJECTS.contains(&project)
        && !taken.contains(&project)
        && let Err(error) = quota::set_limit(open.as_fd(), project, 0)
    {
        tracing::warn!("project {project} keeps its quota: {error}");
    }
}

trait CycleFrom {
    fn cycle_from(self, start: u32) -> impl Iterator<Item = u32>;
}

impl CycleFrom for std::ops::Range<u32> {
    fn cycle_from(self, start: u32) -> impl Iterator<Item = u32> {
        let first = self.start + start % (self.end - self.start);
        (first..self.end).chain(self.start..first)
    }
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(VolumeError::Random)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// A file that takes no room yet, with an empty file system in it.
fn make_disk(name: &str, dir: &Path, bytes: u64) -> Result<()> {
    let refused = |why: String| VolumeError::NoLimit { name: name.to_owned(), why };
    let path_dirs = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path_dirs).chain(SBIN.iter().map(PathBuf::from));
    let program = dirs.map(|dir| dir.join("mkfs.ext4")).find(|path| path.is_file()).ok_or_else(|| {
        refused(
            "the file system of the data root has no project quota (mount it with prjquota), and for a file of its own there \
             is no mkfs.ext4: install e2fsprogs"
                .into(),
        )
    })?;
    let disk = dir.join(DISK);
    let make = || -> io::Result<File> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&disk)?;
        file.set_len(bytes)?;
        Ok(file)
    };
    let file = make().map_err(VolumeError::file("create", &disk))?;
    let mut command = Command::new(program);
    // Nobody but the volume's users has room there, and the file stays sparse.
    command.args(["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", "-O", "^resize_inode"]).arg(&disk);
    let output = command.stdin(Stdio::null()).output().map_err(VolumeError::file("make a file system in", &disk))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let _ = fs::remove_file(&disk);
        return Err(refused(format!("mkfs.ext4: {said}")));
    }
    file.sync_all().map_err(VolumeError::file("write to the disk", &disk))?;
    // What it begins with would keep the image's content from coming in.
    let data = dir.join(DATA);
    mount_disk(dir)?;
    let removed = fs::remove_dir(data.join("lost+found"));
    mounting::unmount(&data).map_err(VolumeError::file("unmount", &data))?;
    removed.map_err(VolumeError::file("empty", &data))
}

/// Mounts the file on the directory for the content.
pub(crate) fn mount_disk(dir: &Path) -> Result<()> {
    let (disk, data) = (dir.join(DISK), dir.join(DATA));
    let file = File::options().read(true).write(true).open(&disk).map_err(VolumeError::file("open", &disk))?;
    let failed = |what: &str| {
        let what = format!("{what} {}", disk.display());
        let path = data.clone();
        move |errno: rustix::io::Errno| VolumeError::Mount { path, what, source: errno.into() }
    };
    // The device is the mount's alone when this fd is closed, and goes with it.
    let (_device, path) = loop_device::attach(file.as_fd()).map_err(failed("no loop device for"))?;
    mount(path, &data, "ext4", MountFlags::empty(), None).map_err(failed("mount"))
}

impl Limit {
    /// Bytes that are taken of it.
    pub(crate) fn used(&self, dir: &Path) -> u64 {
        let data = dir.join(DATA);
        match self.project {
            Some(project) => {
                File::open(&data)
                    .ok()
                    .and_then(|open| quota::usage(open.as_fd(), project).ok())
                    .unwrap_or_default()
                    .bytes
            }
            None if mounting::is_mounted(&data) => rustix::fs::statvfs(&data)
                .map_or(0, |found| found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize)),
            None => fs::metadata(dir.join(DISK)).map_or(0, |found| found.blocks() * 512),
        }
    }

    /// Its volume goes: nobody has the project any more.
    pub(crate) fn forget(&self, volumes: &Path) {
        let Some(project) = self.project else { return };
        let done = File::open(volumes).map(|open| quota::set_limit(open.as_fd(), project, 0));
        if !matches!(done, Ok(Ok(()))) {
            tracing::warn!("project {project} keeps its quota");
        }
    }
}

/// The right that lets its holder go beyond hard limits (quotactl(2)), taken from the calling thread for as long as this is
/// there: the engine has it, most containers have not.
#[derive(Debug)]
struct Bound(CapabilitySets);

impl Bound {
    fn new() -> Option<Self> {
        let before = capabilities(None).ok().filter(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))?;
        let without = before.effective - CapabilitySet::SYS_RESOURCE;
        let bound = CapabilitySets { effective: without, ..before };
        set_capabilities(None, bound).ok().map(|()| Self(before))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // It is permitted still.
        if let Err(error) = set_capabilities(None, self.0) {
            tracing::warn!("a thread has lost CAP_SYS_RESOURCE: {error}");
        }
    }
}

/// Does `write` held to the limit of where it writes, by this thread alone.
pub(crate) fn within<T>(limit: Option<Limit>, write: impl FnOnce() -> T) -> T {
    let _bound = limit.filter(|limit| limit.project.is_some()).and_then(|_| Bound::new());
    write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10g", 10 << 30), ("1.5GiB", 3 << 29), ("2048k", 2 << 20), ("5MB", 5 << 20), ("1048576", 1 << 20)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "g", "-1g", "1x", "1k", "10gg", "nan", "1e30p"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
