//! Directories of builds that are under way, and the ones that outlive them.
//!
//! ```text
//! DATA_ROOT/build/b-…     one build: its context, and a directory per step; gone when it ends, swept after a crash
//! DATA_ROOT/build/cache/… directories of `RUN --mount=type=cache`
//! EXEC_ROOT/build/ID/     sockets and secrets of a command that runs
//! ```

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::error::{BuildError, Result};

/// A new directory that is removed with all in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Makes the directory `path`; what is above it is made too.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        // Layers have set-user-ID files in them: nobody but root may reach them (CVE-2021-41091).
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o710)
            .create(&path)
            .map_err(|e| BuildError::system(format_args!("cannot make {}", path.display()), &e))?;
        Ok(Self { path })
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
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
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

/// Directory of running commands below the exec root.
pub(crate) fn commands(exec_root: &Path) -> PathBuf {
    exec_root.join("build")
}

/// Ends and removes what builds of an earlier process have left.
pub(crate) fn sweep(data_root: &Path, exec_root: &Path) -> Result<()> {
    for dir in list(&commands(exec_root))? {
        // A command whose builder has died goes on for nobody.
        if let Err(error) = wharf_monitor::client::signal(&dir, Signal::KILL.as_raw(), true) {
            tracing::debug!("{} has no monitor any more: {error}", dir.display());
        }
        remove(&dir)?;
    }
    for dir in list(&builds(data_root))? {
        if dir.file_name().is_some_and(|name| name != "cache") {
            remove(&dir)?;
        }
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let failing = |e: std::io::Error| BuildError::system(format_args!("cannot list {}", dir.display()), &e);
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(failing)?.map(|entry| entry.map(|entry| entry.path()).map_err(failing)).collect(),
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BuildError::system(format_args!("cannot remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
