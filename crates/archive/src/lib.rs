//! Tar: read from anybody, written the same every time.
//!
//! An archive is hostile until it has been unpacked. Every name is resolved inside the target
//! ([`wharf_rooted_path`]), every size is bounded before it is believed, and what is not understood is an
//! error that names the entry.
//!
//! - [`decompressed`]: a stream without its compression.
//! - [`Reader`]: entries of a stream (POSIX.1-2001 pax, ustar, GNU long names, GNU sparse files).
//! - [`unpack`]: applies a stream to a directory, with the whiteouts of image layers. [`unpack_recorded`] tells a
//!   [`Recorder`] what the stream was made of; [`unpack_image`] makes an EROFS image instead.
//! - [`Writer`]: a stream of single files.
//! - [`pack`], [`pack_as`], [`pack_dir_as`]: the stream of a directory, or of one entry; the same tree gives the same bytes.

mod decompress;
mod directory;
mod error;
pub mod extended;
mod header;
mod holes;
mod ids;
mod image;
mod names;
mod pack;
mod reader;
mod record;
mod sparse;
mod target;
mod unpack;
mod xattrs;

pub use decompress::decompressed;
pub use error::ArchiveError;
pub use header::{Entry, Kind, may_carry};
pub use ids::IdRange;
pub use names::normal;
pub use pack::{PackOptions, Upper, Writer, pack, pack_as, pack_dir_as, pack_upper};
pub use reader::Reader;
pub use record::{Content, Recorder};
pub use unpack::{
    OtherTimes, UnpackOptions, Unpacked, Whiteouts, unpack, unpack_at, unpack_image, unpack_recorded,
    unpack_telling_implied,
};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ArchiveError>;
