//! Where the Dockerfile of a context is.

use std::path::{Component, Path, PathBuf};

use crate::failure::Outcome;

const NAME: &str = "Dockerfile";

/// A Dockerfile that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its path in the context.
    Inside(String),
    /// A file elsewhere.
    Outside(PathBuf),
}

/// Finds the Dockerfile for a context directory, which has no links in its path.
pub(super) fn find(dir: &Path, given: &str) -> Outcome<Found> {
    let path = if given.is_empty() {
        let usual = dir.join(NAME);
        let lower = dir.join(NAME.to_lowercase());
        let missing = std::fs::symlink_metadata(&usual).is_err();
        if missing && std::fs::symlink_metadata(&lower).is_ok() { lower } else { usual }
    } else {
        // As for every program: from the working directory, not from the context.
        let absolute = std::path::absolute(given);
        absolute.map_err(|error| format!("unable to get absolute path to Dockerfile: {}", wharf_report::os(&error)))?
    };
    let real = std::fs::canonicalize(&path).map_err(|error| {
        format!("unable to evaluate symlinks in Dockerfile path: {}", wharf_report::path("lstat", &path, &error))
    })?;
    match real.strip_prefix(dir) {
        Ok(relative) if relative.components().all(|part| matches!(part, Component::Normal(_))) => {
            Ok(Found::Inside(relative.to_string_lossy().into_owned()))
        }
        _ => Ok(Found::Outside(real)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let dir = tempfile::tempdir().unwrap();
        let dir = std::fs::canonicalize(dir.path()).unwrap();
        assert!(find(&dir, "").unwrap_err().text.starts_with("unable to evaluate symlinks in Dockerfile path: lstat "));
        std::fs::write(dir.join("dockerfile"), "").unwrap();
        assert_eq!(find(&dir, "").unwrap(), Found::Inside("dockerfile".to_owned()));
        std::fs::write(dir.join("Dockerfile"), "").unwrap();
        assert_eq!(find(&dir, "").unwrap(), Found::Inside("Dockerfile".to_owned()));
        let below = dir.join("sub");
        std::fs::create_dir(&below).unwrap();
        let given = dir.join("Dockerfile").display().to_string();
        assert_eq!(find(&below, &given).unwrap(), Found::Outside(dir.join("Dockerfile")));
        std::os::unix::fs::symlink("../Dockerfile", below.join("Dockerfile")).unwrap();
        assert_eq!(find(&below, "").unwrap(), Found::Outside(dir.join("Dockerfile")));
    }
}
