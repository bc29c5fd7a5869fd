//! Contents of an index's files: where they are, and what they carry.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use wharf_reference::Digest;

/// A SHA-256. A digest is a text of its own; of contexts' files there are too many for that.
pub(crate) type Sum = [u8; 32];

/// The bytes of a digest by SHA-256.
pub(crate) fn sum(digest: &Digest) -> Sum {
    let mut sum = [0; 32];
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    for (byte, pair) in sum.iter_mut().zip(digest.hex().as_bytes().chunks(2)) {
        *byte = pair.iter().fold(0, |byte, hex| byte << 4 | digit(*hex));
    }
    sum
}

/// A file's content.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) size: u64,
    /// There is another name for it.
    pub(super) several: bool,
    /// Nothing as long as it is not here.
    pub(crate) place: OnceLock<Place>,
}

/// Where a content is, and what comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) digest: Sum,
    /// Extended attributes of a file that was listed: they change no sooner than the time of its last change does, so they
    /// come with the content and are not asked about each time. Those of an archive's entry are in its attributes.
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Body {
    pub(super) fn new(size: u64, place: Option<Place>) -> Self {
        Self { size, several: false, place: place.map_or_else(OnceLock::new, OnceLock::from) }
    }
}

/// A content, read.
#[derive(Debug)]
pub(crate) struct IndexFile<'a> {
    pub(super) file: &'a File,
    pub(super) at: u64,
    pub(super) left: u64,
}

impl Read for IndexFile<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let wanted = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut bytes[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
