//! A listing of a context: what is in it, without the contents of its files.
//!
//! ```text
//! "WHARFLS1", key (text), place (text), time of the listing (time)
//! for each entry, parents before what is in them and the first name of a file before others of it:
//!     kind (u8: f, d, l, h, c, b, p), mode (u16), time of the last change of the content (time)
//!     path (text), target of a link (text)
//!     f:    size (u64), time of the last change of the file (time), device (u64), inode (u64),
//!           count of attributes (u8), for each a name (text) and a value (text); whether its content follows (u8: 0, 1)
//!     c, b: major (u32), minor (u32)
//! text: length (u16), bytes; time: seconds (i64), nanoseconds (u32); numbers are big endian
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use wharf_archive::{Entry, Kind};
use wharf_reference::Digest;

use crate::cancel::{Cancel, Cancellable};
use crate::error::{BuildError, Result};
use crate::index::{Index, MAX_BYTES, MAX_ENTRIES, Place, invalid};
use crate::kept::{Kept, KeptContexts, Mark};
use crate::missing::{Answers, Missing};

pub(crate) const MAGIC: &[u8] = b"WHARFLS1";
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
        return Err(invalid("it is no listing"));
    }
    let key = fields.text().map_err(short)?;
    let place = String::from_utf8_lossy(fields.text().map_err(short)?).into_owned();
    let taken = fields.time().map_err(short)?;
    let kept = contexts.open(key, &place)?;
    fill(fields, taken, kept, &mut |entries, kept| Missing {
        answers: Arc::clone(answers),
        listing,
        entries,
        kept,
        cancel: cancel.clone(),
        coming: Mutex::default(),
    })
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
    while !fields.0.is_empty() {
        if number as usize >= MAX_ENTRIES {
            return Err(invalid(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let (entry, file) = fields.entry().map_err(short)?.ok_or_else(|| invalid("it has an entry of no kind"))?;
        let mut body = None;
        if let Some(file) = file {
            total = total.saturating_add(entry.size);
            if total > MAX_BYTES {
                return Err(invalid(format!("it has more than {MAX_BYTES} bytes of content")));
            }
            let mark = Mark { size: entry.size, modified: file.modified, changed: file.changed, place: file.place };
            let place = match kept.known(number, &entry.path, mark, taken) {
                // Of an empty one there is nothing to get.
                _ if entry.size == 0 => Some(Place { offset: 0, digest: Digest::sha256(b"") }),
                None => file.content.map(|content| kept.inline(number, content)).transpose()?,
                place => place,
            };
            body = Some(index.body(entry.size, place));
            entries.push(number);
        }
        index.add(&entry, body)?;
        number += 1;
    }
    index.lacks(missing(entries, kept));
    Ok(index)
}

/// What is listed of a file beside its entry.
struct Listed<'a> {
    modified: Time,
    changed: Time,
    /// Device and inode.
    place: (u64, u64),
    content: Option<&'a [u8]>,
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

    /// An entry; nothing when it is of no kind.
    fn entry(&mut self) -> io::Result<Option<(Entry, Option<Listed<'a>>)>> {
        let [kind] = self.array()?;
        let kind = match kind {
            b'f' => Kind::File,
            b'd' => Kind::Directory,
            b'l' => Kind::Symlink,
            b'h' => Kind::HardLink,
            b'c' => Kind::CharacterDevice,
            b'b' => Kind::BlockDevice,
            b'p' => Kind::Fifo,
            _ => return Ok(None),
        };
        let mode = u16::from_be_bytes(self.array()?) & 0o7777;
        let modified = self.time()?;
        let (path, link) = (self.text()?.to_vec(), self.text()?.to_vec());
        let mut entry = Entry {
            path,
            kind,
            mode: mode.into(),
            uid: 0,
            gid: 0,
            size: 0,
            // As in an archive of tar's, which tells no parts of seconds.
            mtime: (modified.0, 0),
            link,
            device: (0, 0),
            xattrs: BTreeMap::new(),
        };
        if matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
            entry.device = (u32::from_be_bytes(self.array()?), u32::from_be_bytes(self.array()?));
        }
        if kind != Kind::File {
            return Ok(Some((entry, None)));
        }
        entry.size = u64::from_be_bytes(self.array()?);
        let changed = self.time()?;
        let place = (u64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?));
        let [attributes] = self.array()?;
        for _ in 0..attributes {
            let (name, value) = (self.text()?.to_vec(), self.text()?.to_vec());
            entry.xattrs.insert(name, value);
        }
        let [follows] = self.array()?;
        let content = match follows {
            0 => None,
            _ => Some(self.take(usize::try_from(entry.size).map_err(|_| io::ErrorKind::UnexpectedEof)?)?),
        };
        Ok(Some((entry, Some(Listed { modified, changed, place, content }))))
    }
}
