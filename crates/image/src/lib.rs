//! Images: names, configurations, layers; pulled and pushed, saved and loaded.
//!
//! An image is known by the digest of its configuration, which names its layers by their diff IDs. What a registry
//! or an archive gave is kept byte for byte, so that it goes back as it came.
//!
//! - [`Images`]: all of a store, by name, digest or ID.
//! - [`ImageConfig`], [`ContainerConfig`]: what an image says of itself (OCI image-spec, "Image Configuration").
//! - In a file each: `names` (resolve, tag), `create` (also import), `remove` (also prune), `collect`, `save`,
//!   `load` (what comes in: `intake`), `pull` (each layer: `fetch`), `push`, `history`.

mod collect;
mod compression;
mod config;
mod create;
mod error;
mod fetch;
mod flight;
mod history;
mod images;
mod intake;
mod load;
mod names;
mod progress;
mod pull;
mod push;
mod remove;
mod rows;
mod save;

/// Whom images are pulled from and pushed to, and who asks.
pub mod registry {
    pub use wharf_distribution::{Client, ClientOptions, Credentials, DistributionError, Kind};
}

pub use compression::decompressed;
pub use config::{ContainerConfig, HistoryEntry, ImageConfig, RootFs};
pub use error::{ErrorKind, ImageError};
pub use history::HistoryItem;
pub use images::{ImageRecord, Images};
pub use progress::{Progress, ProgressSender};
pub use push::Pushed;
pub use remove::{Remove, Removed};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ImageError>;
