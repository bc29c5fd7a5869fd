//! One group, in every hierarchy of the host at the same path.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use crate::detect::Hierarchies;
use crate::usage::Usage;
use crate::{CgroupError, Result};
use crate::{below, limits};

/// A control group. Dropping the value leaves the group; [`Group::remove`] removes it.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchies: Hierarchies,
    /// Below each mount point, without the leading slash.
    path: PathBuf,
}

/// After a SIGKILL the processes are gone soon; a group with some left is busy.
const REMOVE_TRIES: u32 = 50;
/// Milliseconds; a process in the middle of a slow system call takes its time to stop.
const FREEZE_TRIES: u32 = 2000;

impl Group {
    /// Makes the group `path` (absolute, as `/wharf/ID`) where it is not there already, with its parents.
    ///
    /// # Errors
    /// When the path is not of that form, or a hierarchy cannot be written.
    pub fn create(hierarchies: &Hierarchies, path: &str) -> Result<Self> {
        Self::open(hierarchies, path)?.make()
    }

    /// Makes a group that was only named, as [`Group::create`] does.
    ///
    /// # Errors
    /// When a hierarchy cannot be written.
    pub fn make(self) -> Result<Self> {
        for dir in self.directories() {
            make_parents(&dir)?;
        }
        if let Some(root) = self.hierarchies.v1("cpuset") {
            inherit_cpuset(root, &self.path)?;
        }
        if let Some(root) = self.hierarchies.v2() {
            delegate(root, &self.path);
        }
        Ok(self)
    }

    /// Whether it is there, in any hierarchy.
    pub fn is_made(&self) -> bool {
        self.directories().iter().any(|dir| dir.is_dir())
    }

    /// Names a group below this one.
    ///
    /// # Errors
    /// When the path leaves this group, or no such group is there.
    pub fn below(&self, path: &str) -> Result<Self> {
        let inside = Path::new(path.trim_start_matches('/'));
        if !inside.components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(CgroupError::Path(path.into()));
        }
        let group = Self { hierarchies: self.hierarchies.clone(), path: self.path.join(inside) };
        match group.directories().into_iter().find(|dir| !dir.is_dir()) {
            Some(missing) => {
                Err(CgroupError::File { action: "join", path: missing, source: rustix::io::Errno::NOENT.into() })
            }
            None => Ok(group),
        }
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
        self.v2_dir().map(open_directory).transpose()
    }

    /// As [`Group::birth_fd`], of the group below this one that a process is in; `None` when it is in no such group.
    ///
    /// # Errors
    /// When that group has gone.
    pub fn birth_fd_beside(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // cgroups(7), "/proc/[pid]/cgroup"
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let (Some(root), Some(own)) = (self.hierarchies.v2(), own) else { return Ok(None) };
        if !Path::new(own).starts_with(&self.path) {
            return Ok(None);
        }
        open_directory(root.join(own)).map(Some)
    }

    /// Sets the limits of `resources`; what they do not mention stays.
    ///
    /// # Errors
    /// When a limit cannot be set: its controller is missing, or the kernel refuses the value.
    pub fn limit(&self, resources: &LinuxResources) -> Result<()> {
        limits::apply(self, resources)
    }

    /// Whether the group, which must be there, can have a weight of block IO. The root of a hierarchy has none on any
    /// kernel, so that it does not tell.
    pub fn weighs(&self) -> bool {
        limits::weighs(self)
    }

    /// Whether the group, which must be there, can have weights for single block devices. The root of a hierarchy has none
    /// on any kernel, so that it does not tell.
    pub fn weighs_devices(&self) -> bool {
        limits::weighs_devices(self)
    }

    /// What the host had mounted when the group was named.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Stops every process of the group where it is (`freeze`), and waits until it has; or lets them go on.
    ///
    /// # Errors
    /// When the host has no freezer, or a process cannot be stopped.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        let none = CgroupError::NoController { controller: "freezer", limit: "pausing a container" };
        let v1 = self.v1_dir("freezer").map(|dir| dir.join("freezer.state"));
        let (file, on, off) = match &v1 {
            Some(file) => (file.clone(), "FROZEN", "THAWED"),
            None => (self.v2_dir().ok_or(none)?.join("cgroup.freeze"), "1", "0"),
        };
        for _ in 0..FREEZE_TRIES {
            write(&file, if freeze { on } else { off })?;
            if self.freezer_state() == Some(freeze) {
                return Ok(());
            }
            // A process that is made meanwhile keeps v1 freezing until it is asked again.
            std::thread::sleep(Duration::from_millis(1));
        }
        if freeze {
            write(&file, off)?;
        }
        Err(CgroupError::Unsupported("the processes of the container could not be stopped in time"))
    }

    /// Moves its processes into its own group of v1's freezer, as somebody may have taken them to another one: there they
    /// would not even die. For a group that is being ended; one that has gone by itself is no error.
    pub fn take_back_from_freezers(&self) {
        let Some(dir) = self.v1_dir("freezer") else { return };
        for pid in self.all_processes() {
            let _ = write(&dir.join("cgroup.procs"), &pid.to_string());
        }
    }

    /// Whether its processes are stopped, or about to be.
    pub fn is_frozen(&self) -> bool {
        match self.v1_dir("freezer") {
            Some(dir) => fs::read_to_string(dir.join("freezer.state")).is_ok_and(|state| state.trim() != "THAWED"),
            None => self.freezer_state() == Some(true),
        }
    }

    /// `None`: on the way.
    fn freezer_state(&self) -> Option<bool> {
        if let Some(dir) = self.v1_dir("freezer") {
            return match fs::read_to_string(dir.join("freezer.state")).ok()?.trim() {
                "FROZEN" => Some(true),
                "THAWED" => Some(false),
                _ => None,
            };
        }
        let events = fs::read_to_string(self.v2_dir()?.join("cgroup.events")).ok()?;
        Some(events.lines().any(|line| line == "frozen 1"))
    }

    /// The processes in the group.
    ///
    /// # Errors
    /// When the group has gone.
    pub fn processes(&self) -> Result<Vec<i32>> {
        if self.hierarchies.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.v1_dir("pids").or_else(|| self.v1_dir("memory")).or_else(|| self.v2_dir());
        let path = dir.ok_or(CgroupError::NoHierarchy)?.join("cgroup.procs");
        let text = read(&path)?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The processes in the group and in those below it, each once. A group that is not there has none.
    pub fn all_processes(&self) -> Vec<i32> {
        // One hierarchy may have groups below that another has not.
        let mut all = Vec::new();
        for dir in self.directories() {
            below::visit(&dir, |group| {
                let text = below::read(group, c"cgroup.procs");
                all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Sends SIGKILL to every process of the group and of those below it.
    ///
    /// # Errors
    /// None that is not that of a process that has ended by itself.
    pub fn kill(&self) -> Result<()> {
        if let Some(dir) = self.v2_dir()
            && write(&dir.join("cgroup.kill"), "1").is_ok()
            && self.hierarchies.is_v2()
        {
            return Ok(());
        }
        for pid in self.all_processes() {
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

    /// Removes the group as [`Group::remove`] does if no process is in it and no group below it; false when it is not so.
    ///
    /// # Errors
    /// When a hierarchy refuses for another reason.
    pub fn remove_empty(&self) -> Result<bool> {
        for dir in self.directories() {
            match fs::remove_dir(&dir) {
                Err(e) if e.kind() == ErrorKind::ResourceBusy => return Ok(false),
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(CgroupError::File { action: "remove", path: dir, source: e });
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Removes the group with the groups below it. A group that is not there is no error.
    ///
    /// On v1 this waits for an RCU grace period, some milliseconds: not for the hot path.
    ///
    /// # Errors
    /// `Busy` when processes stay.
    pub fn remove(&self) -> Result<()> {
        let (mut tries, mut failure) = (0, None);
        for dir in self.directories() {
            loop {
                let error = match below::remove(&dir) {
                    Ok(()) => break,
                    Err(e) if e.kind() == ErrorKind::NotFound => break,
                    Err(e) if e.kind() == ErrorKind::ResourceBusy && tries < REMOVE_TRIES => {
                        tries += 1;
                        std::thread::sleep(Duration::from_millis(2));
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::ResourceBusy => CgroupError::Busy(REMOVE_TRIES),
                    Err(source) => CgroupError::File { action: "remove", path: dir, source },
                };
                // Those of the other hierarchies go all the same.
                failure = failure.or(Some(error));
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn make_parents(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| CgroupError::File { action: "create", path: dir.into(), source })
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: those of its parent.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (mut here, mut above) = (root.to_owned(), None);
        for part in path {
            let parent = here.clone();
            here.push(part);
            let mut own = read(&here.join(file))?;
            if own.trim().is_empty() {
                own = match above {
                    Some(above) => above,
                    None => read(&parent.join(file))?,
                };
                write(&here.join(file), own.trim())?;
            }
            above = Some(own);
        }
    }
    Ok(())
}

/// Hands the controllers down to the group; one that cannot be handed down shows when a limit needs it.
fn delegate(root: &Path, path: &Path) {
    let controllers = |dir: &Path| fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let mut here = root.to_owned();
    let mut available = controllers(&here);
    for part in path {
        let below = here.join(part);
        let mut handed = controllers(&below);
        let missing = |handed: &str| -> Vec<String> {
            let has = |wanted: &&str| handed.split_whitespace().any(|controller| controller == *wanted);
            available.split_whitespace().filter(|wanted| !has(wanted)).map(str::to_owned).collect()
        };
        let lacks = missing(&handed);
        for controller in &lacks {
            let _ = write(&here.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
        if !lacks.is_empty() {
            handed = controllers(&below);
        }
        (here, available) = (below, handed);
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
fn open_directory(dir: PathBuf) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&dir, flags, Mode::empty()).map_err(|errno| CgroupError::File {
        action: "open",
        path: dir,
        source: errno.into(),
    })
}
