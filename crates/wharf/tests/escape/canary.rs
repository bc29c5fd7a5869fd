//! Something of the host's that no container may read or change, and a client's words.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::{Daemon, Said};

/// A directory of the host's with a secret in it.
pub(crate) struct Canary {
    dir: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

/// What must not be read.
pub(crate) const SECRET: &str = "the host's own secret";

impl Canary {
    pub(crate) fn new(below: &Path) -> Self {
        let dir = below.join("canary");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("file"), SECRET).unwrap();
        std::fs::write(dir.join("sub/file"), SECRET).unwrap();
        let before = snapshot(&dir);
        Self { dir, before }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join("file")
    }

    /// Its files are what they were, and there are no others.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        assert_eq!(snapshot(&self.dir), self.before, "the host's files were changed");
    }
}

fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let found = std::fs::symlink_metadata(&path).unwrap();
        let mut line = format!("{:o} {}:{} {}", found.mode(), found.uid(), found.gid(), found.mtime());
        if found.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_file() {
            line += &std::fs::read_to_string(&path).unwrap();
        }
        all.insert(path, line);
    }
    all
}

/// Runs a client's command whose words may have blanks in them.
pub(crate) fn say(d: &Daemon, words: &[&str]) -> Said {
    d.client().args(words).output().unwrap().into()
}

/// As [`say`], with our own client: Docker's does not know all of it.
pub(crate) fn wharf(d: &Daemon, words: &[&str]) -> Said {
    let socket = format!("unix://{}", d.socket().display());
    Command::new(crate::kit::WHARF).args(["-H", &socket]).args(words).output().unwrap().into()
}

/// Runs a script in a container that runs.
pub(crate) fn exec(d: &Daemon, container: &str, script: &str) -> Said {
    say(d, &["exec", container, "sh", "-c", script])
}
