//! A repository of git's as a context. It is got here and not by the engine: the user's keys and settings are here.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use wharf_git::{Options, Repository};

use crate::failure::{Failure, Outcome};

/// A checkout; dropped, it goes.
#[derive(Debug)]
pub(super) struct Checkout {
    /// All of it.
    top: PathBuf,
    /// The part of it that is the context.
    pub(super) dir: PathBuf,
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let _ = wharf_rooted_path::remove_dir_all(&self.top);
    }
}

impl Checkout {
    /// Gets what an address names; `keep_git_dir` counts where that says nothing of it.
    pub(super) fn get(address: &str, keep_git_dir: bool) -> Outcome<Self> {
        let wrong = |error: wharf_git::GitError| Failure::new(wharf_report::chain(&error));
        let repository = Repository::parse(address).map_err(wrong)?;
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let top = std::env::temp_dir().join(format!("wharf-checkout-{name}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&top);
        made.map_err(|error| wharf_report::path("mkdir", &top, &error))?;
        let mut own = Self { dir: top.clone(), top };
        let options = Options {
            name: address,
            apart: false,
            keep_git_dir: repository.keep_git_dir.unwrap_or(keep_git_dir),
            called_off: &|| false,
        };
        let got = wharf_git::checkout(&repository, &own.top, &options).map_err(wrong)?;
        // By its real path: the repository may have made the directory a link, but never one that leads out.
        let dir = std::fs::read_link(got.root.proc_path());
        own.dir = dir.map_err(|error| wharf_report::path("readlink", &own.top, &error))?;
        Ok(own)
    }
}
