//! What can be wrong with an archive.

use std::io;

use wharf_erofs::ErofsError;
use wharf_rooted_path::RootError;

/// A failed read, unpack or pack. Names of entries are shown without control characters.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    #[error("the archive cannot be written")]
    Write(#[source] io::Error),
    #[error("the archive ends in the middle of `{0}`")]
    Truncated(String),
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    #[error("`{name}`: {why}")]
    Entry { name: String, why: &'static str },
    #[error("the archive has more than {0} entries")]
    TooMany(u64),
    #[error("the archive has more than {0} bytes of content")]
    TooLarge(u64),
    #[error("`{name}` cannot be unpacked")]
    Unpack {
        name: String,
        #[source]
        source: RootError,
    },
    #[error("the archive cannot become an image")]
    Image(#[source] ErofsError),
    #[error("`{name}` cannot be packed")]
    Pack {
        name: String,
        #[source]
        source: RootError,
    },
}

/// A name as a message can show it.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).take(200).collect()
}
