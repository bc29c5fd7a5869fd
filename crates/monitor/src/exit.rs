//! The container's end, kept for a daemon that is not there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::state::Exit;

/// Writes `exit.json`, whole or not at all. It comes back so that it can be synced when those who wait have been
/// told: a sync takes longer than everything else at a container's end, and what it guards against, a crash of the
/// host in between, leaves no more than an end whose code is not known.
///
/// # Errors
/// As when the disk is full, or the container has been removed.
pub(crate) fn write(dir: &Path, exit: &Exit) -> io::Result<File> {
    let temporary = dir.join("exit.json.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(exit)?)?;
    fs::rename(&temporary, dir.join("exit.json"))?;
    Ok(file)
}
