//! A listing of a context: what is in it, without the contents of its files.
//!
//! ```text
//! "WHARFLS3", key (text), place (text), time of the listing (time), whether only what the Dockerfile names is in it (u8)
//! for each entry, a directory right before what is in it, the first name of a file before others of it:
//!     kind (u8: f, d, l, h, c, b, p; i for a directory of which nothing is said), how many directories it is in (u16),
//!     its own name (text)
//!     f, d, l, c, b, p: mode (u16), time of the last change of the content (time)
//!     l:    target (text)
//!     h:    path of the first name (text)
//!     f:    size (u64), time of the last change of the file (time), device (u64), inode (u64),
//!           whether its content follows (u8: 0, 1)
//!     c, b: major (u32), minor (u32)
//! content: count of extended attributes (u8), for each a name (text) and a value (text); the file's bytes
//! text: length (u16), bytes; time: seconds (i64), nanoseconds (u32); numbers are big endian
//! ```
//!
//! Extended attributes come with the content, as they change no sooner than the time of the file's last change: a listing
//! need not look for them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, Mutex};

use wharf_archive::may_carry;
use wharf_reference::Digest;

use crate::cancel::{Cancel, Cancellable};
use crate::error::{BuildError, Result};
use crate::index::{Index, MAX_BYTES, MAX_ENTRIES, MAX_PATH, Node, Place, invalid, sum};
use crate::kept::{Kept, KeptContexts, Mark};
use crate::missing::{Answers, Missing};
use crate::tree::{Attributes, Kind};

pub(crate) const MAGIC: &[u8] = b"WHARFLS3";
/// As many entries as a context may have, with names as long as those of people are.
const MAX_LISTING: u64 = 1 << 30;

/// A time: seconds since the epoch, and nanoseconds.
pub(crate) type Time = (i64, u32);

/// Reads a listing. What is kept of an earlier one is taken from there; the rest comes when it is needed.
///
/// # Errors
/// For a listing that is hostile or damaged.
pub(crate) fn read(
    input: Box<dyn Read + Send>,
    listing: usize,
    answers: &Arc<dyn Answers>,
    contexts: &Arc<KeptContexts>,
    cancel: &Cancel,
) -> Result<Index> {
    let mut bytes = Vec::new();
    let mut input = Cancellable { inner: input, cancel: cancel.clone() }.take(MAX_LISTING + 1);
    let read = input.read_to_end(&mut bytes);
    cancel.check()?;
    read.map_err(|e| BuildError::system("the context cannot be read", &e))?;
    if bytes.len() as u64 > MAX_LISTING {
        return Err(invalid(format!("its listing has more than {MAX_LISTING} bytes")));
    }
    let short = |_: io::Error| invalid("its listing ends in the middle");
    let mut fields = Fields(&bytes);
    if fields.take(MAGIC.len()).map_err(short)? != MAGIC {
        return Err(invalid("it is no listing as this engine reads them: is the command line of another version?"));
    }
    let key = fields.text().map_err(short)?;
    let place = String::from_utf8_lossy(fields.text().map_err(short)?).into_owned();
    let taken = fields.time().map_err(short)?;
    let [partial] = fields.array().map_err(short)?;
    let kept = contexts.open(key, &place)?;
    if partial == 0 {
        kept.lists_all();
    }
    let mut index = fill(fields, taken, kept, &mut |entries, kept| Missing {
        answers: Arc::clone(answers),
        listing,
        entries,
        kept,
        cancel: cancel.clone(),
        coming: Mutex::default(),
    })?;
    index.partial = partial != 0;
    Ok(index)
}

fn fill(
    mut fields: Fields<'_>,
    taken: Time,
    kept: Kept,
    missing: &mut dyn FnMut(Vec<u32>, Kept) -> Missing,
) -> Result<Index> {
    let short = |_: io::Error| invalid("its listing ends in the middle");
    let contents: Arc<File> = kept.file();
    let mut index = Index::empty(contents);
    let (mut entries, mut total, mut number) = (Vec::new(), 0u64, 0u32);
    let mut above = Above::default();
    while !fields.0.is_empty() {
        if number as usize >= MAX_ENTRIES {
            return Err(invalid(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let [kind] = fields.array().map_err(short)?;
        let depth = u16::from_be_bytes(fields.array().map_err(short)?);
        let name = fields.text().map_err(short)?;
        let parent = above.enter(depth.into(), name).ok_or_else(|| invalid("an entry of its listing has no place"))?;
        let node = match kind {
            b'i' => Node::implied(),
            b'h' => {
                let link = fields.text().map_err(short)?;
                let name = String::from_utf8_lossy(&above.path);
                index.linked(link).map_err(|why| invalid(format!("`{name}` links to {why}")))?
            }
            _ => {
                let listed = fields.listed(kind).map_err(short)?;
                let (mut node, file) = listed.ok_or_else(|| invalid("it has an entry of no kind"))?;
                if let Some(file) = file {
                    let size = file.mark.size;
                    total = total.saturating_add(size);
                    if total > MAX_BYTES {
                        return Err(invalid(format!("it has more than {MAX_BYTES} bytes of content")));
                    }
                    let place = match kept.known(number, &above.path, file.mark, taken) {
                        None => file.content.map(|content| kept.inline(number, content)).transpose()?,
                        place => place,
                    };
                    node.content = Some(index.body(size, place));
                    entries.push(number);
                }
                node
            }
        };
        let directory = node.attributes.kind == Kind::Directory;
        let at = index.put(parent, OsStr::from_bytes(name).to_owned(), node);
        if directory {
            above.within.push((at, above.path.len()));
        }
        number += 1;
    }
    index.comes_from(missing(entries, kept));
    Ok(index)
}

/// The directories that an entry is in.
struct Above {
    /// The numbers of their nodes, and how much of the path is theirs.
    within: Vec<(usize, usize)>,
    /// Of the last entry.
    path: Vec<u8>,
}

impl Default for Above {
    fn default() -> Self {
        Self { within: vec![(0, 0)], path: Vec::new() }
    }
}

impl Above {
    /// Goes to an entry that is in so many directories; the number of the last of these. None: it can be in none.
    fn enter(&mut self, depth: usize, name: &[u8]) -> Option<usize> {
        let (parent, length) = *self.within.get(depth)?;
        self.within.truncate(depth + 1);
        self.path.truncate(length);
        if depth > 0 {
            self.path.push(b'/');
        }
        self.path.extend(name);
        let bad = name.is_empty() || name == b"." || name == b".." || name.iter().any(|byte| matches!(byte, b'/' | 0));
        (!bad && self.path.len() <= MAX_PATH).then_some(parent)
    }
}

/// What is listed of a file beside its attributes.
struct Listed<'a> {
    mark: Mark,
    content: Option<Content<'a>>,
}

/// A content that has come, with what belongs to it.
pub(crate) struct Content<'a> {
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
    pub(crate) bytes: &'a [u8],
}

impl Content<'_> {
    /// Where it is once it has been written there.
    pub(crate) fn at(&self, offset: u64) -> Place {
        Place { offset, digest: sum(&Digest::sha256(self.bytes)), xattrs: self.xattrs.clone() }
    }
}

/// Extended attributes as they come before a content. `take` gives the next so many bytes.
pub(crate) fn xattrs(take: &mut dyn FnMut(usize) -> io::Result<Vec<u8>>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let count = take(1)?.first().copied().unwrap_or(0);
    let mut text = || {
        let length = take(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        take(length)
    };
    let mut all = BTreeMap::new();
    for _ in 0..count {
        let (name, value) = (text()?, text()?);
        if may_carry(&name) {
            all.insert(name, value);
        }
    }
    Ok(all.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect())
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn text(&mut self) -> io::Result<&'a [u8]> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(length.into())
    }

    fn time(&mut self) -> io::Result<Time> {
        Ok((i64::from_be_bytes(self.array()?), u32::from_be_bytes(self.array()?)))
    }

    fn number(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The rest of an entry; nothing when it is of no kind.
    fn listed(&mut self, kind: u8) -> io::Result<Option<(Node, Option<Listed<'a>>)>> {
        let kind = match kind {
            b'f' => Kind::File,
            b'd' => Kind::Directory,
            b'l' => Kind::Symlink,
            b'c' => Kind::CharacterDevice,
            b'b' => Kind::BlockDevice,
            b'p' => Kind::Fifo,
            _ => return Ok(None),
        };
        let mode = u32::from(u16::from_be_bytes(self.array()?) & 0o7777);
        let modified = self.time()?;
        let mut node = Node::implied();
        // Owners are not those of whoever sent it.
        node.attributes = Attributes { kind, mode, owner: (0, 0), mtime: modified, xattrs: Vec::new() };
        node.implied = false;
        let mut file = None;
        match kind {
            Kind::Symlink => node.link = OsString::from_vec(self.text()?.to_vec()),
            Kind::CharacterDevice | Kind::BlockDevice => {
                let (major, minor) = (u32::from_be_bytes(self.array()?), u32::from_be_bytes(self.array()?));
                node.device = rustix::fs::makedev(major, minor);
            }
            Kind::File => {
                let size = self.number()?;
                let changed = self.time()?;
                let mark = Mark { size, modified, changed, place: (self.number()?, self.number()?) };
                let [follows] = self.array()?;
                let content = match follows {
                    0 => None,
                    _ => {
                        let xattrs = xattrs(&mut |count| self.take(count).map(<[u8]>::to_vec))?;
                        let size = usize::try_from(size).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                        Some(Content { xattrs, bytes: self.take(size)? })
                    }
                };
                file = Some(Listed { mark, content });
            }
            Kind::Directory | Kind::Fifo => {}
        }
        Ok(Some((node, file)))
    }
}

#[cfg(test)]
mod tests;
