//! EROFS images, written while a layer streams in.
//!
//! EROFS is Linux's read-only file system (Linux, `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`).
//! From 6.12 the kernel mounts an image from a file, without a loop device.
//!
//! - [`Writer`]: takes the entries of a layer in the order in which they come; later ones replace earlier ones.
//! - [`FileWriter`]: takes the content of one regular file, with its holes.
//!
//! What is written is written once, in one pass: contents go straight to their blocks, inodes with the short ends of
//! files follow as they come, directories and the superblock are last. In memory are names alone. The same calls give
//! the same bytes.
//!
//! An image has blocks of 4 KiB and uses what Linux 5.4 has, files with holes what 5.15 has.

mod attributes;
mod checksum;
mod chunks;
mod directories;
mod error;
mod file;
mod format;
mod image;
mod metadata;
mod tree;
mod writer;
mod xattrs;

pub use attributes::{Attributes, Node};
pub use error::{ErofsError, Refusal};
pub use file::FileWriter;
pub use writer::{Summary, Writer};

/// Result of this crate.
pub type Result<T, E = ErofsError> = std::result::Result<T, E>;
