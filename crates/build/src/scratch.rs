//! Directories of builds that are under way, and the ones that outlive them.
//!
//! ```text
//! DATA_ROOT/build/b-…     one build: its context, and a directory per step; gone when it ends, swept after a crash
//! DATA_ROOT/build/cache/… directories of `RUN --mount=type=cache`
//! DATA_ROOT/build/contexts/… contexts as the last builds have left them
//! EXEC_ROOT/build/ID/     sockets and secrets of a command that runs
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wharf_cgroup::{Group, Hierarchies};

use crate::error::{BuildError, Result};

/// How long the start waits for what was killed to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// A new directory that is removed with all in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes the directory `path`; what is above it is made too.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        // Before it is there: what nobody is known to use is taken for left behind.
        live().insert(path.clone());
        let scratch = Self { path };
        let path = &scratch.path;
        // Layers have set-user-ID files in them: nobody but root may reach them (CVE-2021-41091).
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o710)
            .create(path)
            .map_err(|e| BuildError::system(format_args!("cannot make {}", path.display()), &e))?;
        Ok(scratch)
    }

    /// Makes a directory in it, with the permissions of a root file system.
    pub(crate) fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(|e| BuildError::system(format_args!("cannot make {}", path.display()), &e))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is swept at the next start.
        if let Err(error) = wharf_rooted_path::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
        live().remove(&self.path);
    }
}

/// Directories of builds that are under way.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a build that is under way has the directory.
pub(crate) fn is_live(path: &Path) -> bool {
    live().contains(path)
}

/// 64 hex digits that nobody has had before.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|e| BuildError::system("there is no randomness", &e))?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Directory of builds below the data root.
pub(crate) fn builds(data_root: &Path) -> PathBuf {
    data_root.join("build")
}

/// Directory of cache mounts below the data root.
pub(crate) fn caches(data_root: &Path) -> PathBuf {
    builds(data_root).join("cache")
}

/// Directory of contexts that are kept, below the data root.
pub(crate) fn contexts(data_root: &Path) -> PathBuf {
    builds(data_root).join("contexts")
}

/// Whether an entry of [`builds`] outlives builds.
pub(crate) fn outlives(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "cache" || name == "contexts")
}

/// Directory of running commands below the exec root.
pub(crate) fn commands(exec_root: &Path) -> PathBuf {
    exec_root.join("build")
}

/// The control group of a running command, unless the build asked for another parent.
pub(crate) fn group(cgroup_parent: &str, id: &str) -> String {
    format!("{}/build/{id}", cgroup_parent.trim_end_matches('/'))
}

/// Ends and removes what builds of an earlier process have left. What cannot be removed now is left for the next start:
/// it is in nobody's way, and no reason for a daemon not to start.
pub(crate) fn sweep(data_root: &Path, exec_root: &Path, cgroup_parent: &str) {
    let commands = list(&commands(exec_root));
    for dir in &commands {
        // A command whose builder has died goes on for nobody.
        if let Err(error) = wharf_monitor::client::signal(dir, Signal::KILL.as_raw(), true) {
            tracing::debug!("{} has no monitor any more: {error}", dir.display());
            end_group(&group(cgroup_parent, &dir.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
    let deadline = Instant::now() + PATIENCE;
    for dir in &commands {
        wait_for_monitor(dir, deadline);
        remove(dir, deadline);
    }
    for dir in list(&builds(data_root)) {
        if !outlives(&dir) {
            remove(&dir, deadline);
        }
    }
}

/// Ends what a monitor that was killed has left in its command's group.
fn end_group(path: &str) {
    let ended = Hierarchies::usable(path).and_then(|hierarchies| {
        let group = Group::open(&hierarchies, path)?;
        group.kill()?;
        group.remove()
    });
    if let Err(error) = ended {
        tracing::debug!("the group {path} cannot be removed: {error}");
    }
}

/// Waits until a command's monitor has gone, and with it the command and its group: it locks its directory as long as
/// it has any of them.
fn wait_for_monitor(dir: &Path, deadline: Instant) {
    let Ok(dir) = File::open(dir) else { return };
    while rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
        && Instant::now() < deadline
    {
        std::thread::sleep(PAUSE);
    }
}

pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!("what builds have left in {} cannot be listed: {error}", dir.display());
            }
            Vec::new()
        }
    }
}

/// Removes what may still be written to for a moment, which makes a directory that was emptied not empty.
fn remove(path: &Path, deadline: Instant) {
    loop {
        let directory = path.is_dir() && !path.is_symlink();
        match if directory { wharf_rooted_path::remove_dir_all(path) } else { fs::remove_file(path) } {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.exists() => return,
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(error) => {
                tracing::warn!("what a build has left stays until the next start: {}: {error}", path.display());
                return;
            }
            Ok(()) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_written_to_is_removed_when_its_monitor_has_gone() {
        let (data, exec) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (command, upper) = (exec.path().join("build/x"), data.path().join("build/b-x/upper"));
        fs::create_dir_all(&command).unwrap();
        fs::create_dir_all(&upper).unwrap();
        let monitor = File::open(&command).unwrap();
        rustix::fs::flock(&monitor, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let writing = std::thread::spawn({
            let upper = upper.clone();
            move || {
                for number in 0..200 {
                    let _ = fs::write(upper.join(number.to_string()), "x");
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(monitor);
            }
        });
        sweep(data.path(), exec.path(), "/wharf-no-such-group");
        assert!(writing.is_finished() && !command.exists() && !upper.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_left() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("build"), "no directory").unwrap();
        sweep(data.path(), data.path(), "/wharf-no-such-group");
    }
}
