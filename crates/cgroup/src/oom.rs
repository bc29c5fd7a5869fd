//! Who was out of memory when the kernel ended a process of a group: the group itself, one above it, or the host.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};

use crate::below;
use crate::group::Group;

/// Watches a group's processes being ended for want of memory.
#[derive(Debug)]
pub struct Oom {
    dir: Option<PathBuf>,
    v1: bool,
    kills: u64,
    /// The group and those above it, from the inside out.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    path: PathBuf,
    limit: Limit,
}

/// How it is known that a group's own limit was reached to the point where a process had to go.
#[derive(Debug)]
enum Limit {
    /// v1 tells the group and all those below it (cgroup-v1/memory.rst, "OOM Control").
    Bell(Option<OwnedFd>),
    /// v2 counts (cgroup-v2.rst, "memory.events.local").
    Count { file: PathBuf, seen: u64 },
}

impl Limit {
    fn of(dir: &Path, v1: bool) -> Self {
        if v1 {
            return Self::Bell(bell(dir).ok());
        }
        let file = dir.join("memory.events.local");
        Self::Count { seen: count(&file, "oom"), file }
    }

    /// How often it was reached since the last time; on v1 with those above it.
    fn times(&mut self) -> u64 {
        match self {
            Self::Bell(bell) => {
                let mut rung = [0; 8];
                let read = bell.as_ref().is_some_and(|bell| rustix::io::read(bell, &mut rung).is_ok());
                if read { u64::from_ne_bytes(rung) } else { 0 }
            }
            Self::Count { file, seen } => {
                let before = std::mem::replace(seen, count(file, "oom"));
                seen.saturating_sub(before)
            }
        }
    }
}

fn bell(dir: &Path) -> std::io::Result<OwnedFd> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = std::fs::File::open(dir.join("memory.oom_control"))?;
    let mut file = std::fs::OpenOptions::new().write(true).open(dir.join("cgroup.event_control"))?;
    file.write_all(format!("{} {}", bell.as_raw_fd(), control.as_raw_fd()).as_bytes())?;
    Ok(bell)
}

/// Processes were ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// How many, since the last look.
    pub processes: u64,
    /// The group whose limit was reached, `/parent/child`: the one that is watched, or the nearest one above. `None` when
    /// it was neither: one below had a limit of its own, or the host had no memory left.
    pub group: Option<PathBuf>,
}

impl Oom {
    /// Begins to watch; what was before does not count.
    pub fn watch(group: &Group) -> Self {
        let v1 = group.v1_dir("memory");
        let is_v1 = v1.is_some();
        let dir = v1.or_else(|| group.v2_dir());
        let mut levels = Vec::new();
        if let Some(dir) = &dir {
            let above = dir.ancestors().zip(group.path().ancestors());
            // The root has no limit.
            for (dir, path) in above.take_while(|(_, path)| !path.as_os_str().is_empty()) {
                levels.push(Level { path: Path::new("/").join(path), limit: Limit::of(dir, is_v1) });
            }
        }
        let kills = dir.as_deref().map_or(0, |dir| kills(dir, is_v1));
        Self { dir, v1: is_v1, kills, levels }
    }

    /// What has happened since the last look; `None` when nothing has.
    pub fn look(&mut self) -> Option<OutOfMemory> {
        let now = kills(self.dir.as_deref()?, self.v1);
        let processes = now.saturating_sub(self.kills);
        // Fewer than before when a group below has been removed with its count.
        self.kills = now;
        if processes == 0 {
            return None;
        }
        let times: Vec<u64> = self.levels.iter_mut().map(|level| level.limit.times()).collect();
        // The limits above may have been reached before, for the sake of others than this group.
        let own = |at: usize| {
            let above = if self.v1 { times.get(at + 1).copied().unwrap_or(0) } else { 0 };
            times[at] > above
        };
        let group = (0..times.len()).find(|at| own(*at)).map(|at| self.levels[at].path.clone());
        Some(OutOfMemory { processes, group })
    }
}

/// How often processes of the group and of those below it were ended. v2 counts the ones below with it
/// (cgroup-v2.rst, "memory.events"), v1 does not.
fn kills(dir: &Path, v1: bool) -> u64 {
    if !v1 {
        return count(&dir.join("memory.events"), "oom_kill");
    }
    let mut all = 0;
    below::visit(dir, |group| all += number(&below::read(group, c"memory.oom_control"), "oom_kill"));
    all
}

fn count(path: &Path, key: &str) -> u64 {
    number(&std::fs::read_to_string(path).unwrap_or_default(), key)
}

fn number(text: &str, key: &str) -> u64 {
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key);
    found.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}
