//! A repository's files at one commit.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Timespec, Timestamps};
use wharf_rooted_path::RootDir;

use crate::address::{Repository, is_hex};
use crate::command::run;
use crate::{GitError, Result};

/// How a repository is got.
pub struct Options<'a> {
    /// The address, for messages.
    pub name: &'a str,
    /// Nothing of the user's counts: no configuration, no keys, no agent. For a daemon, whose user is not who asks.
    pub apart: bool,
    /// `.git` stays.
    pub keep_git_dir: bool,
    /// Asked again and again whether nobody waits any more.
    pub called_off: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What was got.
#[derive(Debug)]
pub struct Checkout {
    /// The commit's whole name.
    pub commit: String,
    /// When it was made, in seconds since the epoch. All files have this time.
    pub time: i64,
    /// The directory that was asked for. No link in the repository leads out of the whole.
    pub root: RootDir,
}

/// Gets a repository into `dir`, an empty directory.
///
/// Only the commit itself comes where the server lets one choose. Submodules come with it.
///
/// # Errors
/// When there is no `git`, no such repository, commit or directory; for a commit that is not the one of the checksum.
pub fn checkout(repository: &Repository, dir: &Path, options: &Options<'_>) -> Result<Checkout> {
    let git = |words: &[&str]| run(dir, words, options);
    let about = |error: GitError| match error {
        GitError::Failed(said) => GitError::Failed(format!("cannot get {}: {said}", options.name)),
        other => other,
    };
    git(&["init", "--quiet", "--template="]).map_err(about)?;
    git(&["remote", "add", "origin", &repository.remote]).map_err(about)?;
    let wanted = repository.reference.as_deref().or(repository.commit()).unwrap_or("HEAD");
    let head = fetch(&git, wanted).map_err(about)?;
    git(&["checkout", "--quiet", "--force", "--detach", &head]).map_err(about)?;
    let commit = git(&["rev-parse", "--verify", "HEAD"]).map_err(about)?.trim().to_owned();
    // Of an annotated tag either name is one that `git ls-remote` shows.
    let is_tag = |sum: &str| git(&["rev-parse", "--verify", "FETCH_HEAD"]).is_ok_and(|tag| tag.starts_with(sum));
    if let Some(sum) = &repository.checksum
        && !commit.starts_with(sum.as_str())
        && !(head.starts_with("FETCH_HEAD") && is_tag(sum))
    {
        let reason = format!("expected checksum to match {sum}, got {commit}");
        return Err(GitError::Failed(format!("cannot get {}: {reason}", options.name)));
    }
    let time = git(&["show", "--no-patch", "--format=%ct", "HEAD"]).map_err(about)?;
    let time = time.trim().parse::<i64>().unwrap_or(0);
    if repository.submodules && fs::symlink_metadata(dir.join(".gitmodules")).is_ok_and(|meta| meta.is_file()) {
        let shallow = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
        if let Err(GitError::Failed(_)) = git(&shallow) {
            git(&shallow[..shallow.len() - 1]).map_err(about)?;
        }
    }
    if options.keep_git_dir {
        keep_tag(&git, repository.reference.as_deref());
        tidy(dir, &git).map_err(about)?;
    } else {
        remove_git_dirs(dir)?;
    }
    let failing = |error: wharf_rooted_path::RootError| {
        GitError::Failed(format!("cannot get {}: {}", options.name, wharf_report::chain(&error)))
    };
    let root = RootDir::open(dir).map_err(failing)?;
    date(&root, time).map_err(failing)?;
    let root = match &repository.subdir {
        Some(subdir) => root.open_dir(Path::new(subdir.trim_matches('/'))).map_err(|error| {
            let reason = format!("it has no directory {subdir:?}: {}", wharf_report::chain(&error));
            GitError::Failed(format!("cannot get {}: {reason}", options.name))
        })?,
        None => root,
    };
    Ok(Checkout { commit, time, root })
}

/// Fetches what is asked for; the value names it.
fn fetch(git: &dyn Fn(&[&str]) -> Result<String>, wanted: &str) -> Result<String> {
    const HEAD: &str = "FETCH_HEAD^{commit}";
    let simple = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--depth=1", "origin", wanted];
    let first = match git(&simple) {
        Ok(_) => return Ok(HEAD.into()),
        Err(error @ GitError::Failed(_)) => error,
        Err(error) => return Err(error),
    };
    // A server without shallow clones, as one of plain files is.
    let whole = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "origin", wanted];
    if git(&whole).is_ok() {
        return Ok(HEAD.into());
    }
    // One that gives no commits by their names, or a name that is a part of one: all branches and tags, and then it.
    if !(wanted.len() >= 7 && is_hex(wanted)) {
        return Err(first);
    }
    git(&["fetch", "--quiet", "--no-recurse-submodules", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"])?;
    Ok(format!("{wanted}^{{commit}}"))
}

/// Has the tag in `.git` that was asked for, as BuildKit does: `git describe` gives programs their versions. Any other name is
/// no tag there, and nothing is done.
fn keep_tag(git: &dyn Fn(&[&str]) -> Result<String>, reference: Option<&str>) {
    let name = reference.map(|name| name.strip_prefix("refs/tags/").unwrap_or(name));
    if let Some(name) = name.filter(|name| !name.starts_with("refs/")) {
        let tag = format!("+refs/tags/{name}:refs/tags/{name}");
        for depth in [&["--depth=1"][..], &[]] {
            let fetch = [&["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"], depth, &["origin", &tag]];
            if git(&fetch.concat()).is_ok() {
                return;
            }
        }
    }
}

/// Takes out of `.git` what depends on the moment: the same commit gives the same files.
fn tidy(dir: &Path, git: &dyn Fn(&[&str]) -> Result<String>) -> Result<()> {
    // An index without what the file system said of the files.
    git(&["read-tree", "HEAD"])?;
    let own = dir.join(".git");
    for name in ["FETCH_HEAD", "ORIG_HEAD", "logs", "hooks", "description", "info"] {
        remove(&own.join(name))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(GitError::System("a part of the checkout cannot be removed", error))
        }
        _ => Ok(()),
    }
}

/// Removes `.git` here and in submodules. Links are not followed.
fn remove_git_dirs(dir: &Path) -> Result<()> {
    let failing = |error| GitError::System("the checkout cannot be read", error);
    // A stack instead of recursion: a tree may be deeper than ours.
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        remove(&dir.join(".git"))?;
        for entry in fs::read_dir(dir).map_err(failing)? {
            let entry = entry.map_err(failing)?;
            if entry.file_type().map_err(failing)?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Gives all files the commit's time, and the modes that git knows: whoever checks out has a umask.
fn date(root: &RootDir, seconds: i64) -> std::result::Result<(), wharf_rooted_path::RootError> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for name in root.read_dir(&dir)? {
            let below = dir.join(name);
            let stat = root.metadata(&below, false)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    root.set_mode(&below, 0o755)?;
                    root.set_times(&below, &times)?;
                    left.push(below);
                }
                FileType::RegularFile => {
                    root.set_mode(&below, if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 })?;
                    root.set_times(&below, &times)?;
                }
                _ => root.set_times(&below, &times)?,
            }
        }
    }
    Ok(())
}
