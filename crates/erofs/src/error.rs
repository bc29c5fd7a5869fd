//! What can be wrong with an image.

use std::io;

/// A failed image. Names of entries are shown without control characters.
#[derive(Debug, thiserror::Error)]
pub enum ErofsError {
    /// The disk refused. What was asked for later fails as well.
    #[error("the image cannot be written further than {written} bytes")]
    Write {
        /// Bytes that have been written until then.
        written: u64,
        #[source]
        source: io::Error,
    },
    #[error("an image needs a file that is empty; this one has {0} bytes")]
    NotEmpty(u64),
    #[error("`{path}`: {why}")]
    Entry { path: String, why: Refusal },
    #[error("the image has more than {0} bytes, which EROFS cannot address")]
    TooLarge(u64),
    #[error("the image has more than {0} files")]
    TooMany(u32),
}

/// Why an entry cannot be in an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a name is longer than 255 bytes")]
    NameTooLong,
    #[error("a name is `..` or has a NUL in it")]
    BadName,
    #[error("the root can only be a directory")]
    Root,
    #[error("something on its way is no directory")]
    NotADirectory,
    #[error("its way has too many symbolic links")]
    Loop,
    #[error("it links to what is not there")]
    LinkToNothing,
    #[error("it links to a directory, which can have one name only")]
    LinkToDirectory,
    #[error("it links to itself")]
    LinkToItself,
    #[error("it would be name number {0} of one file")]
    TooManyLinks(u32),
    #[error("a symbolic link's target must have 1 to 4095 bytes, and no NUL")]
    BadTarget,
    #[error("a device has a major number of 12 and a minor one of 20 bits")]
    BadDevice,
    #[error("a time has nanoseconds below a thousand million")]
    BadTime,
    #[error("EROFS has no place for the extended attribute `{0}`")]
    XattrName(String),
    #[error("the extended attribute `{0}` is longer than 65535 bytes")]
    XattrTooLong(String),
    #[error("its extended attributes take more than {0} bytes")]
    XattrsTooLong(usize),
    #[error("the extended attributes of all directories take more than {0} bytes")]
    DirectoryXattrs(usize),
    #[error("the names of the image take more than {0} bytes of memory")]
    TooManyNames(u64),
    #[error("its content is longer than the {0} bytes that were announced")]
    ContentTooLong(u64),
    #[error("its content ends after {has} of {wanted} bytes")]
    ContentTooShort { has: u64, wanted: u64 },
}

impl ErofsError {
    pub(crate) fn entry(path: &[u8], why: Refusal) -> Self {
        Self::Entry { path: shown(path), why }
    }
}

impl From<ErofsError> for io::Error {
    /// Keeps the kind, so that a full disk is told from others.
    fn from(error: ErofsError) -> Self {
        let kind = match &error {
            ErofsError::Write { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// A name as a message can show it.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).take(200).collect()
}
