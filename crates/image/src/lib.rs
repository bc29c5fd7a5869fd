//! Images: names, configurations, layers; pulled and pushed, saved and loaded.
//!
//! An image is known by the digest of its configuration, which names its layers by their diff IDs. What a registry
//! or an archive gave is kept byte for byte, so that it goes back as it came.
//!
//! - [`Images`]: all of a store, by name, digest or ID.
//! - [`ImageConfig`], [`ContainerConfig`]: what an image says of itself (OCI image-spec, "Image Configuration").
//! - In a file each: `names` (resolve, tag), `create` (also import), `remove` (also prune: `prune_plan` only says what it
//!   would do), `collect`, `compare`, `save`, `save_stated` (with attestations), `seal` (what is said of what was built), `summary` (lists), `pin` and `keep` (what stays), `fsck` (what does not fit), `load` (what
//!   comes in: `intake`), `pull` (each layer: `fetch`), `push`, `history`.

mod aside;
mod attestations;
mod collect;
mod compare;
mod config;
mod create;
mod error;
mod fetch;
mod flight;
mod fsck;
mod fsck_indexes;
mod history;
mod images;
mod index;
mod intake;
mod keep;
mod landing;
mod load;
mod load_old;
mod names;
mod parents;
mod passing;
mod pin;
mod progress;
mod prune_plan;
mod pull;
mod push;
mod remove;
mod rows;
mod save;
mod save_stated;
mod seal;
mod side_by_side;
mod statement_files;
mod summary;
mod transfer;

/// Whom images are pulled from and pushed to, and who asks.
pub mod registry {
    pub use wharf_distribution::{
        Client, ClientOptions, Credentials, Descriptor, DistributionError, Kind, Platform, ProxyOptions, Repository,
        Resolver,
    };
}

pub use attestations::Statement;
pub use compare::{Comparison, LayerDifference};
pub use config::{ContainerConfig, HistoryEntry, ImageConfig, RootFs};
pub use error::{ErrorKind, ImageError};
pub use history::HistoryItem;
pub use images::{ImageRecord, Images};
pub use index::{ImageIndex, IndexEntry};
pub use keep::Keep;
pub use passing::{is_passing, passing_name};
pub use progress::{Progress, ProgressSender};
pub use prune_plan::PrunePlan;
pub use push::Pushed;
pub use remove::{Remove, Removed};
pub use save::Packing;
pub use seal::{Part, SealNames, package_url};
pub use statement_files::StatementFile;
pub use summary::ImageSummary;
pub use wharf_snapshot::Form;

/// A stream without its compression: none, gzip, zstd, xz or bzip2.
///
/// # Errors
/// When the stream cannot be read.
pub fn decompressed<'a>(input: impl std::io::Read + 'a) -> Result<Box<dyn std::io::Read + 'a>> {
    wharf_archive::decompressed(input).map_err(|e| ImageError::Io("the archive cannot be read", e))
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ImageError>;
