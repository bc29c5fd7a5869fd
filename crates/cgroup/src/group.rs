//! One group, in every hierarchy of the host at the same path.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use crate::detect::Hierarchies;
use crate::limits;
use crate::usage::Usage;
use crate::{CgroupError, Result};

/// A control group. Dropping the value leaves the group; [`Group::remove`] removes it.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchies: Hierarchies,
    /// Below each mount point, without the leading slash.
    path: PathBuf,
}

/// After a SIGKILL the processes are gone soon; a group with some left is busy.
const REMOVE_TRIES: u32 = 50;

impl Group {
    /// Makes the group `path` (absolute, as `/wharf/ID`) where it is not there already, with its parents.
    ///
    /// # Errors
    /// When the path is not of that form, or a hierarchy cannot be written.
    pub fn create(hierarchies: &Hierarchies, path: &str) -> Result<Self> {
        let group = Self::open(hierarchies, path)?;
        for dir in group.directories() {
            make_parents(&dir)?;
        }
        if let Some(root) = group.hierarchies.v1("cpuset") {
            inherit_cpuset(root, &group.path)?;
        }
        if group.hierarchies.is_v2()
            && let Some(root) = group.hierarchies.v2()
        {
            delegate(root, &group.path);
        }
        Ok(group)
    }

    /// Names a group without making it.
    ///
    /// # Errors
    /// When the path is not absolute or leaves its hierarchy.
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self> {
        let bad = || CgroupError::Path(path.into());
        let inside = Path::new(path).strip_prefix("/").map_err(|_| bad())?;
        let plain = inside.components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || inside.as_os_str().is_empty() {
            return Err(bad());
        }
        Ok(Self { hierarchies: hierarchies.clone(), path: inside.to_owned() })
    }

    /// The group's path below each hierarchy's root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group's directory in each hierarchy, each once.
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> = self.hierarchies.all_v1().map(|(_, root)| root.join(&self.path)).collect();
        all.extend(self.hierarchies.v2().map(|root| root.join(&self.path)));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The group's directory for a v1 controller.
    pub fn v1_dir(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchies.v1(controller).map(|root| root.join(&self.path))
    }

    /// The group's directory in the unified hierarchy.
    pub fn v2_dir(&self) -> Option<PathBuf> {
        self.hierarchies.v2().map(|root| root.join(&self.path))
    }

    /// The unified directory as an fd, for a process to be born in (`CLONE_INTO_CGROUP`); `None` on a pure v1 host.
    ///
    /// # Errors
    /// When the group has gone.
    pub fn birth_fd(&self) -> Result<Option<OwnedFd>> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&dir, flags, Mode::empty()).map(Some).map_err(|errno| CgroupError::File {
            action: "open",
            path: dir,
            source: errno.into(),
        })
    }

    /// Moves a process into the group, in every hierarchy; into the unified one only when `unified` is set, as
    /// a process may have been born there.
    ///
    /// # Errors
    /// When a hierarchy refuses.
    pub fn add(&self, pid: i32, unified: bool) -> Result<()> {
        let mut dirs: Vec<PathBuf> = self.hierarchies.all_v1().map(|(_, root)| root.join(&self.path)).collect();
        if unified {
            dirs.extend(self.v2_dir());
        }
        dirs.sort_unstable();
        dirs.dedup();
        dirs.iter().try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Sets the limits of `resources`; what they do not mention stays.
    ///
    /// # Errors
    /// When a limit cannot be set: its controller is missing, or the kernel refuses the value.
    pub fn limit(&self, resources: &LinuxResources) -> Result<()> {
        limits::apply(self, resources)
    }

    pub(crate) fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Stops every process of the group where it is (`freeze`) or lets it go on.
    ///
    /// # Errors
    /// When the host has no freezer.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        if let Some(dir) = self.v1_dir("freezer") {
            return write(&dir.join("freezer.state"), if freeze { "FROZEN" } else { "THAWED" });
        }
        let dir =
            self.v2_dir().ok_or(CgroupError::NoController { controller: "freezer", limit: "pausing a container" })?;
        write(&dir.join("cgroup.freeze"), if freeze { "1" } else { "0" })
    }

    /// The processes in the group.
    ///
    /// # Errors
    /// When the group has gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let dir = self.v1_dir("pids").or_else(|| self.v1_dir("memory")).or_else(|| self.v2_dir());
        let path = dir.ok_or(CgroupError::NoHierarchy)?.join("cgroup.procs");
        let text = read(&path)?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends SIGKILL to every process of the group and of those below it.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn kill(&self) -> Result<()> {
        if let Some(dir) = self.v2_dir()
            && write(&dir.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        for pid in self.processes()? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        Ok(())
    }

    /// What the group has used so far.
    pub fn usage(&self) -> Usage {
        Usage::read(self)
    }

    /// Removes the group with the groups below it. A group that is not there is no error.
    ///
    /// On v1 this waits for an RCU grace period, some milliseconds: not for the hot path.
    ///
    /// # Errors
    /// `Busy` when processes stay.
    pub fn remove(&self) -> Result<()> {
        let mut tries = 0;
        for dir in self.directories() {
            loop {
                match remove_tree(&dir) {
                    Ok(()) => break,
                    Err(e) if e.kind() == ErrorKind::NotFound => break,
                    Err(e) if e.kind() == ErrorKind::ResourceBusy => {
                        tries += 1;
                        if tries > REMOVE_TRIES {
                            return Err(CgroupError::Busy(REMOVE_TRIES));
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(source) => return Err(CgroupError::File { action: "remove", path: dir, source }),
                }
            }
        }
        Ok(())
    }
}

fn make_parents(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| CgroupError::File { action: "create", path: dir.into(), source })
}

/// Children first. Only directories can be removed; the files go with them.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: those of its parent.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<()> {
    let mut here = root.to_owned();
    for part in path {
        let parent = here.clone();
        here.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&here.join(file))?.trim().is_empty() {
                write(&here.join(file), read(&parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

/// Hands the controllers down to the group; one that cannot be handed down shows when a limit needs it.
fn delegate(root: &Path, path: &Path) {
    let mut here = root.to_owned();
    for part in path {
        let available = fs::read_to_string(here.join("cgroup.controllers")).unwrap_or_default();
        for controller in available.split_whitespace() {
            let _ = write(&here.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
        here.push(part);
    }
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| CgroupError::File { action: "read", path: path.into(), source })
}

/// Writes a control file. It is there or the host does not have it: none is ever made.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CgroupError::File { action: "write", path: path.into(), source })
}
