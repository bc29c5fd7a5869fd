//! What stays when everything dies: one transactional database and blobs by digest.
//!
//! ```text
//! ROOT/lock            held while the store is open: one daemon per root
//! ROOT/format          which form the rest has: a later version's root is refused
//! ROOT/wharf.redb      everything that has a name or a reference
//! ROOT/wharf.reserve   room for the database when the disk has none
//! ROOT/oci-layout      the blobs are an OCI image layout, so that other tools can read them
//! ROOT/blobs/…         by algorithm and digest: content, complete or not there
//! ROOT/ingest/…        content on its way in
//! ```
//!
//! A thing is visible only when its transaction has committed or its file has been renamed; both are on the
//! disk by then. What a crash leaves in `ingest/` is swept when the store opens, but for partial blobs that
//! were asked to be kept: they resume.
//!
//! - [`Store`]: opens a root. [`Table`], [`ReadTx`], [`WriteTx`]: rows. [`Blobs`], [`BlobWriter`]: content;
//!   [`PartsWriter`]: content that comes in parts.
//! - [`Budget`]: how many bytes a root may take.
//! - [`fsck`]: what is found wrong, and what became of it.

mod backend;
mod blobs;
mod budget;
mod database;
mod error;
mod format;
pub mod fsck;
mod layout;
mod parts;
mod reserve;

pub use blobs::{BlobWriter, Blobs, Ingest};
pub use budget::{Budget, Keeper, Metered, Reserved};
pub use database::{ReadTx, Table, WriteTx};
pub use error::StoreError;
pub use layout::Store;
pub use parts::PartsWriter;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;
