//! Paths that are resolved inside a directory and never leave it.
//!
//! A root file system, a layer or a build context is hostile: its links point anywhere and change while
//! we look. Every operation here opens what a path means with `openat2(RESOLVE_IN_ROOT |
//! RESOLVE_NO_MAGICLINKS)` (openat2(2)) and then works on that fd, or on one literal name in a
//! directory that was opened so. No path is resolved twice, and no link is followed out of the root.
//!
//! - [`RootDir`]: the root, and what can be done below it.
//! - [`follow`]: where a path leads, as a name.
//! - [`remove_dir_all`]: a whole tree, however deep. [`disk_usage`]: what one takes.

mod follow;
mod remove;
mod root;
mod usage;

pub use follow::follow;
pub use remove::remove_dir_all;
pub use root::{RootDir, RootError};
pub use usage::disk_usage;

/// Result of an operation below a root.
pub type Result<T> = std::result::Result<T, RootError>;
