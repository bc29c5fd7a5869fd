//! Layers as file systems.
//!
//! A layer is known by its diff ID, the digest of its uncompressed tar stream (OCI image-spec, "Layer DiffID"). It
//! does not know what lies below it: one layer serves every image that has it.
//!
//! ```text
//! DATA_ROOT/layers/HEX/root      the tree, in the form that overlayfs has in an upper directory
//! DATA_ROOT/layers/tmp-…         on its way in or out; swept when the layers are opened
//! ```
//!
//! - [`Layers`]: imported from tar, committed from a container's changes, written as the exact tar again, removed.
//! - [`View`]: layers on top of each other, mounted for us alone.

mod error;
mod layers;
mod tar;
mod view;

pub use error::SnapshotError;
pub use layers::{Layer, LayerBlob, Layers};
pub use view::View;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, SnapshotError>;
