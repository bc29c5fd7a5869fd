//! What containers write: kept, bounded, read back.
//!
//! - [`Writer`]: lines as JSON objects in a file, in Docker's own form (`json-file`), rotated by size.
//! - [`Reader`]: entries of such files, also the last few, also as they come; [`Watcher`] tells when.
//! - [`Remote`]: lines that are sent to syslog, Graylog, Fluentd or the journal.
//!
//! The driver `local` is a name that Docker's users know for a bounded log; here it is the same form in the same
//! file, with bounds by default. `none` keeps nothing.

mod entry;
mod error;
mod follow;
mod lines;
mod packed;
mod reader;
pub mod remote;
mod tail;
mod writer;

pub use entry::{Entry, Stream};
pub use error::{LogError, Result};
pub use follow::{Watched, Watcher};
pub use reader::{ReadOptions, Reader};
pub use remote::{Remote, RemoteConfig};
pub use writer::{Driver, LogOptions, Writer};
