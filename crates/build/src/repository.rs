//! Repositories of git's: as the context of a build, and as what ADD names.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::path::Path;
use std::thread;

use wharf_archive::{PackOptions, pack};
use wharf_dockerfile::Copy;
use wharf_git::{Checkout, GitError, Options, Repository, checkout};

use crate::builder::Builder;
use crate::cancel::{Cancel, CancelOnDrop};
use crate::error::{BuildError, ErrorKind, Result};
use crate::scratch::{Scratch, random_id};
use crate::session::Session;
use crate::tree::{CheckedOut, Tree, moment};

/// Gets a repository into the empty directory `dir`. Nothing of this process's user counts but its proxies: who asks
/// may be somebody else.
pub(crate) fn get(
    repository: &Repository,
    name: &str,
    dir: &Path,
    keep_git_dir: bool,
    cancel: &Cancel,
) -> Result<Checkout> {
    let keep_git_dir = repository.keep_git_dir.unwrap_or(keep_git_dir);
    let called_off = || cancel.is_cancelled();
    checkout(repository, dir, &Options { name, apart: true, keep_git_dir, called_off: &called_off }).map_err(failed)
}

pub(crate) fn failed(error: GitError) -> BuildError {
    let kind = match &error {
        GitError::CalledOff => return BuildError::cancelled(),
        GitError::System(..) => ErrorKind::System,
        _ => ErrorKind::Invalid,
    };
    BuildError::new(kind, wharf_report::chain(&error))
}

/// A repository that ADD names: got at once to learn which commit it is, unless its address says that.
#[derive(Debug)]
pub(crate) struct Added {
    repository: Repository,
    address: String,
    keep_git_dir: bool,
    commit: String,
    tree: Option<Tree>,
}

impl Added {
    pub(crate) fn new(session: &Session<'_>, address: &str, copy: &Copy) -> Result<Self> {
        let mut repository = Repository::parse(address).map_err(failed)?;
        if let Some(sum) = &copy.checksum {
            let same = repository.checksum.as_ref().is_none_or(|own| own == sum);
            // A whole one may be all that says which commit it is.
            let good = sum.len() >= 7 && sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !same || !good {
                return Err(BuildError::invalid(format!("ADD {address}: {sum:?} is no name of its commit")));
            }
            repository.checksum = Some(sum.clone());
        }
        let keep_git_dir = repository.keep_git_dir.or(copy.keep_git_dir).unwrap_or(false);
        repository.keep_git_dir = Some(keep_git_dir);
        let commit = repository.commit().map(str::to_owned);
        let mut own = Self { repository, address: address.to_owned(), keep_git_dir, commit: String::new(), tree: None };
        match commit {
            Some(commit) => own.commit = commit,
            None => {
                let (commit, tree) = own.get(session)?;
                (own.commit, own.tree) = (commit, Some(tree));
            }
        }
        Ok(own)
    }

    fn get(&self, session: &Session<'_>) -> Result<(String, Tree)> {
        let dir = session.dir.sub(&format!("checkout-{}", session.number()))?;
        let got = get(&self.repository, &self.address, &dir, self.keep_git_dir, &session.cancel)?;
        let checked_out = CheckedOut { root: got.root, now: moment(jiff::Timestamp::now()) };
        Ok((got.commit, Tree::new(checked_out, false)))
    }

    /// The name of its commit.
    pub(crate) fn commit(&self) -> &str {
        &self.commit
    }

    /// Its files.
    pub(crate) fn tree(&self, session: &Session<'_>) -> Result<Tree> {
        match &self.tree {
            Some(tree) => Ok(tree.clone()),
            None => Ok(self.get(session)?.1),
        }
    }

    /// What decides which files these are. A commit names its files, wherever it comes from.
    pub(crate) fn key(&self) -> String {
        let subdir = self.repository.subdir.as_deref().unwrap_or_default();
        // With `.git` there comes the address, too.
        let address = if self.keep_git_dir { self.repository.remote.as_str() } else { "" };
        format!("{} {} {} {subdir:?} {address}", self.commit, self.keep_git_dir, self.repository.submodules)
    }
}

/// The archive of a checkout while it is written; dropped, the checkout goes.
struct Archive {
    reader: PipeReader,
    writing: Option<thread::JoinHandle<wharf_archive::Result<()>>>,
    _dir: Scratch,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl Read for Archive {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(bytes)?;
        if count == 0
            && let Some(writing) = self.writing.take()
        {
            // The part must not be taken for the whole.
            let written = writing.join().map_err(|_| io::Error::other("the packing of the checkout has crashed"))?;
            written.map_err(|error| io::Error::other(wharf_report::chain(&error)))?;
        }
        Ok(count)
    }
}

impl Builder {
    /// The archive of a repository's files, for a context. The checkout ends when this future is dropped.
    ///
    /// # Errors
    /// For an address that makes no sense; when there is no such repository, or no program `git`.
    pub async fn repository(&self, address: &str, keep_git_dir: bool) -> Result<Box<dyn Read + Send>> {
        let repository = Repository::parse(address).map_err(failed)?;
        let path = self.shared.builds().join(format!("b-{}", &random_id()?[..16]));
        let (cancel, name) = (Cancel::new()?, address.to_owned());
        let _guard = CancelOnDrop(cancel.clone());
        let done = tokio::task::spawn_blocking(move || {
            let dir = Scratch::new(path)?;
            let got = get(&repository, &name, &dir.sub("checkout")?, keep_git_dir, &cancel)?;
            let failing = |e: io::Error| BuildError::system("the checkout cannot be read", &e);
            let (reader, mut writer) = io::pipe().map_err(failing)?;
            let writing = thread::spawn(move || pack(&got.root, Path::new(""), &mut writer, &PackOptions::default()));
            Ok(Archive { reader, writing: Some(writing), _dir: dir })
        });
        let archive: Result<Archive> = done.await.map_err(|e| BuildError::system("the checkout has crashed", &e))?;
        Ok(Box::new(archive?))
    }
}
