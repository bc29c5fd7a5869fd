//! Which form the data root has: said in a file of its own, as what a later version writes an older one may take for
//! left behind, and sweep.

use std::fs;
use std::io;
use std::path::Path;

use crate::{Result, StoreError, blobs};

/// The form that this version writes. It becomes another when an older version would harm what a newer one has written.
pub(crate) const FORMAT: u32 = 2;
/// The file that says it: a number and a line's end.
const FILE: &str = "format";
/// More is no number of ours.
const MOST: usize = 16;

/// Refuses a root that only a later version knows, and brings one of an earlier version to [`FORMAT`]. To be called with
/// the root's lock, and before anything in it is looked at.
///
/// # Errors
/// `Newer`; `Format` for a file that says no number.
pub(crate) fn settle(root: &Path) -> Result<()> {
    if known(root)? < FORMAT {
        // A later change of what is written goes here. It must be one that can be made twice: the number comes last, and
        // a kill before it begins all over. From 0 to 1 nothing changes but that images of layers may be there; from 1 to
        // 2, that tables of image indexes may: an older version moves a name and leaves them as they are.
        blobs::write_whole(&root.join(FILE), format!("{FORMAT}\n").as_bytes())?;
    }
    Ok(())
}

/// The format of a root, where it is one that this version knows.
///
/// # Errors
/// Those of [`settle`].
pub(crate) fn known(root: &Path) -> Result<u32> {
    let path = root.join(FILE);
    let found = match fs::read(&path) {
        Ok(bytes) => {
            let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MOST);
            let number = text.and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| StoreError::Format(path.clone()))?
        }
        // From before there was such a file, or a root that is just made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(StoreError::file("read", &path)(error)),
    };
    if found > FORMAT {
        return Err(StoreError::Newer { root: root.to_owned(), found, known: FORMAT });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_broken_off_is_done_again() {
        let root = tempfile::tempdir().unwrap();
        // What a kill leaves of the upgrade.
        fs::write(root.path().join("format.new"), "").unwrap();
        settle(root.path()).unwrap();
        settle(root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(FILE)).unwrap(), format!("{FORMAT}\n"));
        assert!(!root.path().join("format.new").exists());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "one", "-1", "1 2", "99999999999999999999", "1\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"] {
            fs::write(root.path().join(FILE), text).unwrap();
            assert!(matches!(settle(root.path()), Err(StoreError::Format(_))), "{text:?}");
        }
    }
}
