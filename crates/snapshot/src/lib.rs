//! Layers as file systems.
//!
//! A layer is known by its diff ID, the digest of its uncompressed tar stream (OCI image-spec, "Layer DiffID"). It
//! does not know what lies below it: one layer serves every image that has it.
//!
//! ```text
//! DATA_ROOT/layers/HEX/image     an EROFS image, where the kernel mounts one from here; or
//! DATA_ROOT/layers/HEX/root      the tree, in the form that overlayfs has in an upper directory
//! DATA_ROOT/layers/HEX/recipe    what the tar had beside the files' contents: with both its bytes can be made again
//! DATA_ROOT/layers/HEX/kept      of a tree: contents that the tar itself replaced further on; seldom there
//! DATA_ROOT/layers/tmp-…         on its way in or out; swept when the layers are opened
//! ```
//!
//! - [`Layers`]: imported from tar, committed from a container's changes, written as the exact tar again, removed.
//! - [`Storage`]: how their files are kept, chosen by what the kernel can.
//! - [`Hold`]: layers that somebody counts on before a row says so.
//! - [`ArchiveTimes`]: what their archives say of times, where files have others here.
//! - [`Lower`]: one of them as overlayfs takes it.
//! - `fsck`: layers that are not what they are said to be.
//! - [`View`]: layers on top of each other, mounted for us alone.

mod archive_times;
mod content;
mod error;
mod fsck;
mod group_sync;
mod hashed;
mod hold;
mod import;
mod layers;
mod lower;
mod recipe;
mod storage;
mod temporary;
mod view;

pub use archive_times::{ArchiveTimes, Clamped, DatedView, MARK, Time};
pub use content::Form;
pub use error::SnapshotError;
pub use hold::{Hold, Holds};
pub use import::{Dating, RealTimes};
pub use layers::{Discarded, Layer, LayerBlob, Layers};
pub use lower::{Image, Lower};
pub use storage::Storage;
pub use view::View;

/// Result of this crate.
pub type Result<T, E = SnapshotError> = std::result::Result<T, E>;
