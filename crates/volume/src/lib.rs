//! Volumes: what outlives a container.
//!
//! ```text
//! DATA_ROOT/volumes/NAME/_data        the content; what a container mounts
//! DATA_ROOT/volumes/NAME/.filling     there while an image's files are being copied in
//! DATA_ROOT/volumes/NAME/disk         a file system of the volume's size, which is mounted on _data
//! DATA_ROOT/volumes/NAME/.snapshots/  what it had at some times
//! DATA_ROOT/volumes/.making-…         content on its way in: a copy, an import
//! DATA_ROOT/volumes/.removing-NAME…   on its way out
//! ```
//!
//! A volume is there when its row is. A directory without a row is never deleted while there is anything in it: what
//! is in a volume is the user's, and the only copy.
//!
//! A volume with the options of a mount has it on `_data` while a container uses it.
//!
//! A plugin's volume is where the plugin says, and its directory here has room for what is ours; which containers a plugin
//! has mounted it for is in a table of its own, so that it hears of their end from the next daemon, too.
//!
//! - [`Volumes`]: creates, lists, removes, mounts, and fills from an image. [`Volume`]: one of them.
//! - [`Staged`]: content that becomes a volume, a snapshot, or what a volume has from then on. [`Origin`]: what is copied.
//! - [`Plugins`]: drivers of volumes that are programs of others.

mod copy;
mod driven;
mod error;
mod fill;
mod fsck;
mod limit;
mod lookup;
mod mounting;
mod name;
mod plugin;
mod record;
mod staged;
mod using;
mod volumes;

pub use error::{ErrorKind, VolumeError};
pub use limit::{Limit, size_of};
pub use lookup::Lookup;
pub use plugin::Plugins;
pub use record::{CreateVolume, Origin, Snapshot, Volume};
pub use staged::Staged;
pub use volumes::Volumes;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, VolumeError>;
