//! Repositories of git's as contexts of builds and as sources of `ADD`.
//!
//! - [`Repository`]: what an address says: the repository, which commit of it, which directory.
//! - [`committed`]: how old the repository is that a directory is in.
//! - [`checkout`]: its files, got with the program `git` of this host, which is asked for nothing that a repository or
//!   an address could use to run something: no hooks, no filters of its own, no transports but `http(s)`, `git` and `ssh`.

mod address;
mod checkout;
mod command;
mod committed;

pub use address::Repository;
pub use checkout::{Checkout, Options, checkout};
pub use committed::committed;

/// What went wrong, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The address makes no sense, or asks for what is not permitted.
    #[error("{0}")]
    Address(String),
    /// There is no program `git`.
    #[error("{0} is a git repository, and the program git is not here: install git, or give a directory or an archive")]
    NoProgram(String),
    /// git has failed; with what it said.
    #[error("{0}")]
    Failed(String),
    /// Nobody waits for it any more.
    #[error("the checkout was called off")]
    CalledOff,
    /// The host failed.
    #[error("{0}: {source}", source = wharf_report::os(.1))]
    System(&'static str, #[source] std::io::Error),
}

/// Shorthand for the results of this crate.
pub type Result<T> = std::result::Result<T, GitError>;
