//! Extended attributes as they follow an inode.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::Result;
use crate::error::{Refusal, shown};

/// Prefixes that are a number on the disk, with that number. The access control lists are whole names.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];
/// Bytes before the entries: a filter that is not used, the number of attributes that stand apart, a reserve.
const HEADER: usize = 12;
/// Bytes of all entries of an inode: they are counted in fours, by 16 bits, with the header as one.
const MAX_ENTRIES: usize = (u16::MAX as usize - 1) * 4;
/// Attributes of directories are kept in memory until the end, each different set once. A million directories with a
/// label of their own each take less.
const MAX_KEPT: usize = 64 << 20;
/// Attributes that stand apart are counted by a byte.
const MAX_APART: usize = 255;

/// What makes overlayfs hide what is below a directory (Linux, `Documentation/filesystems/overlayfs.rst`).
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Whether a directory's attributes have overlayfs's mark.
pub(crate) fn is_opaque(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
    xattrs.get(OPAQUE).is_some_and(|value| value == b"y")
}

/// One after the other, each aligned to four bytes; empty for none.
pub(crate) fn entries<'a>(all: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    for (name, value) in all {
        let (prefix, index) = PREFIXES
            .iter()
            .find(|(prefix, _)| if prefix.ends_with(b".") { name.starts_with(prefix) } else { name == *prefix })
            .ok_or_else(|| Refusal::XattrName(shown(name)))?;
        let rest = &name[prefix.len()..];
        let whole = rest.is_empty() != prefix.ends_with(b".");
        let length = u8::try_from(rest.len()).ok().filter(|_| whole && !rest.contains(&0));
        let length = length.ok_or_else(|| Refusal::XattrName(shown(name)))?;
        let size = u16::try_from(value.len()).map_err(|_| Refusal::XattrTooLong(shown(name)))?;
        bytes.extend([length, *index]);
        bytes.extend(size.to_le_bytes());
        bytes.extend_from_slice(rest);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if bytes.len() > MAX_ENTRIES {
            return Err(Refusal::XattrsTooLong(MAX_ENTRIES));
        }
    }
    Ok(bytes)
}

/// All that follows an inode: nothing for no entries.
pub(crate) fn body(entries: &[u8]) -> Vec<u8> {
    if entries.is_empty() { Vec::new() } else { [&[0; HEADER], entries].concat() }
}

/// As [`body`], of attributes that stand apart, `entries` first of those.
pub(crate) fn body_apart(entries: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut body = vec![0; HEADER];
    let mut here = 0;
    let mut count = 0;
    while here < entries.len() {
        body.extend(((here / 4) as u32).to_le_bytes());
        let value = u16::from_le_bytes([entries[here + 2], entries[here + 3]]);
        here += (4 + usize::from(entries[here]) + usize::from(value)).next_multiple_of(4);
        count += 1;
    }
    if count > MAX_APART {
        return Err(Refusal::XattrsTooLong(MAX_ENTRIES));
    }
    body[4] = count as u8;
    Ok(body)
}

/// Keeps each set of attributes once.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    sets: HashSet<Arc<[u8]>>,
    bytes: usize,
}

impl Kept {
    /// Entries of a directory, but for the mark that overlayfs looks for ([`is_opaque`]).
    pub(crate) fn keep(&mut self, xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Option<Arc<[u8]>>, Refusal> {
        let opaque = is_opaque(xattrs);
        let others = xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let entries = entries(others.filter(|(name, _)| !opaque || *name != OPAQUE))?;
        if entries.is_empty() {
            return Ok(None);
        }
        // With the mark it must fit as well.
        if entries.len() + 64 > MAX_ENTRIES {
            return Err(Refusal::XattrsTooLong(MAX_ENTRIES));
        }
        if let Some(set) = self.sets.get(entries.as_slice()) {
            return Ok(Some(Arc::clone(set)));
        }
        self.bytes += entries.len();
        if self.bytes > MAX_KEPT {
            return Err(Refusal::DirectoryXattrs(MAX_KEPT));
        }
        let set: Arc<[u8]> = entries.into();
        self.sets.insert(Arc::clone(&set));
        Ok(Some(set))
    }
}
