//! How old the repository is that a directory is in.

use std::path::Path;

use crate::checkout::Options;
use crate::command::run;

/// When the newest commit of the repository that `dir` is in was made, in seconds since the epoch; none where it is in no
/// repository, in one without a commit, or in another user's, of which git says nothing.
pub fn committed(dir: &Path) -> Option<i64> {
    let dir = dir.canonicalize().ok()?;
    // Seldom does a program have to be asked.
    dir.ancestors().find(|above| above.join(".git").exists())?;
    let options = Options { name: "", apart: false, keep_git_dir: true, called_off: &|| false };
    // No `git log`: a repository's own settings make that run programs.
    seconds(&run(&dir, &["cat-file", "commit", "HEAD"], &options).ok()?)
}

/// Of a commit object: `committer NAME <ADDRESS> SECONDS ZONE`.
fn seconds(commit: &str) -> Option<i64> {
    let header = commit.split("\n\n").next()?;
    let line = header.lines().find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit_once("> ")?.1.split(' ').next()?.parse().ok().filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committer_s_time_counts() {
        let commit = "tree 1\nauthor A <a@b> 5 +0000\ncommitter C > D <c@d> 1700000000 -0130\ngpgsig x\n y\n\ncommitter E <e> 7 +0000\n";
        assert_eq!(seconds(commit), Some(1_700_000_000));
        for bad in ["", "tree 1\n\ncommitter E <e> 7 +0000", "committer E <e> -7 +0000\n\n", "committer E\n\n"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_repository_has_no_commit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(committed(dir.path()), None);
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(committed(dir.path()), None);
        assert_eq!(committed(&dir.path().join("nowhere")), None);
    }
}
