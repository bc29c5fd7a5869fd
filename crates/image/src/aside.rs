//! Folders where parts of archives are put aside until it is known what they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{ImageError, Result};

/// Prefix of their names.
pub(crate) const TEMPORARY: &str = "load-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Removes what a crash has left.
pub(crate) fn sweep(root: &Path) -> Result<()> {
    let fail = |e| ImageError::Io("cannot sweep what a load has left", e);
    for entry in fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            wharf_rooted_path::remove_dir_all(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}

/// A folder for parts of an archive, gone with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|e| ImageError::Io("cannot make a folder for the archive", e))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is swept when the images are opened.
        let _ = wharf_rooted_path::remove_dir_all(&self.0);
    }
}
