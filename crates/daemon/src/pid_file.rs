//! The daemon's number in a file, for scripts; gone when the daemon ends by itself.

use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct PidFile<'a>(Option<&'a Path>);

impl<'a> PidFile<'a> {
    /// Finds out whether it can be written, and leaves what is there as it is.
    ///
    /// # Errors
    /// The message for the user.
    pub(crate) fn try_out(path: &Path) -> Result<(), String> {
        if !Self::is_replaceable(path) {
            return Ok(());
        }
        let beside = Self::beside(path)?;
        std::fs::remove_file(&beside).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The message for the user.
    pub(crate) fn write(path: &'a Path) -> Result<Self, String> {
        if !Self::is_replaceable(path) {
            std::fs::write(path, format!("{}\n", std::process::id()))
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            return Ok(Self(None));
        }
        let beside = Self::beside(path)?;
        std::fs::rename(&beside, path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(Self(Some(path)))
    }

    /// `/dev/null` and what leads to it stay what they are.
    fn is_replaceable(path: &Path) -> bool {
        std::fs::metadata(path).map_or(true, |found| found.is_file())
    }

    fn beside(path: &Path) -> Result<PathBuf, String> {
        let fail = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, format!("{}\n", std::process::id())).map_err(fail)?;
        Ok(beside.into())
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // It may be that of the next one by now.
        let own = std::process::id().to_string();
        if let Some(path) = self.0
            && std::fs::read_to_string(path).is_ok_and(|text| text.trim() == own)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a/pid"), dir.path().join("link"));
        PidFile::try_out(&file).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
        let held = PidFile::write(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", std::process::id()));
        PidFile::try_out(&file).unwrap();
        assert!(file.exists());
        drop(held);
        assert!(!file.exists());
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        drop(PidFile::write(&link).unwrap());
        assert!(link.is_symlink());
    }
}
