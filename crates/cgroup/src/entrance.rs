//! Into a group by itself.
//!
//! Whoever writes another process's number into `cgroup.procs` waits until no process anywhere forks or ends: a lock
//! for the whole system, which costs an RCU grace period, some milliseconds. A process with one thread that moves that
//! thread, itself, needs no such lock (`cgroup_procs_write_start` in the kernel's `kernel/cgroup/cgroup.c`). cgroup2 has
//! `CLONE_INTO_CGROUP` for the same end; v1 has this.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::group::Group;
use crate::{CgroupError, Result};

/// The doors of a group in each hierarchy, opened by who has the right to.
#[derive(Debug)]
pub struct Entrance(Vec<(PathBuf, OwnedFd)>);

impl Group {
    /// Opens the group for one process that goes there by itself; the unified hierarchy only when `unified` is set, as
    /// a process may be born there ([`Group::birth_fd`]).
    ///
    /// # Errors
    /// When the group has gone, or may not be written.
    pub fn entrance(&self, unified: bool) -> Result<Entrance> {
        let mut files: Vec<PathBuf> =
            self.hierarchies().all_v1().map(|(_, root)| root.join(self.path()).join("tasks")).collect();
        files.extend(self.v2_dir().filter(|_| unified).map(|dir| dir.join("cgroup.procs")));
        // A hierarchy with several controllers is named by each.
        files.sort_unstable();
        files.dedup();
        // The freezer last: in a frozen group whoever goes in stops there, and is to have its limits by then.
        let freezer = self.v1_dir("freezer").map(|dir| dir.join("tasks"));
        files.sort_by_key(|file| Some(file) == freezer.as_ref());
        let open = |path: PathBuf| match rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok((path, fd)),
            Err(errno) => Err(CgroupError::File { action: "open", path, source: errno.into() }),
        };
        files.into_iter().map(open).collect::<Result<_>>().map(Entrance)
    }
}

impl Entrance {
    /// Moves the calling process, which must have one thread: of several, v1 would move this one alone.
    ///
    /// # Errors
    /// When a hierarchy refuses; with the file that was written.
    pub fn enter(&self) -> std::result::Result<(), (&std::path::Path, Errno)> {
        self.0.iter().try_for_each(|(path, file)| {
            rustix::io::write(file, b"0").map(drop).map_err(|errno| (path.as_path(), errno))
        })
    }
}
