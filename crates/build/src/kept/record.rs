//! What the index of a kept context says, and how it is written.
//!
//! ```text
//! "WHARFKC2", last use (i64), uses (u64), creation (i64), number of the contents' file (u32), their end (u64)
//! boot (text), place (text), count of records (u32)
//! for each: path (text), size (u64), two times, device (u64), inode (u64), offset (u64), SHA-256 (32 bytes),
//!     count of extended attributes (u8), for each a name (text) and a value (text)
//! ```
//!
//! Texts, times and numbers are as in a listing, and records are in its order: so a build that lists the same files reads
//! them one after another where they are, and takes none of them apart before it is asked for.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Mark;
use crate::index::Place;

pub(super) const INDEX: &str = "index";
const NEW: &str = "index.new";
const MAGIC: &[u8] = b"WHARFKC2";
/// More than a header has.
const HEADER: u64 = 8 << 10;

/// What is said of a context as a whole.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Seconds since the epoch.
    pub(super) last_used: i64,
    pub(super) uses: u64,
    /// Seconds since the epoch.
    pub(super) created: i64,
    /// Which file has the contents.
    pub(super) number: u32,
    /// Where they end.
    pub(super) end: u64,
    /// The start of the host that they were written under.
    pub(super) boot: String,
    pub(super) place: String,
}

/// A content that is here.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) mark: Mark,
    pub(super) place: Place,
    /// A build has listed it since the context was opened.
    pub(super) seen: bool,
}

/// The order of a listing: what is in a directory follows it.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => key(a).cmp(&key(b)),
        None => a.len().cmp(&b.len()),
    }
}

/// Records as an index has them.
#[derive(Debug, Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// Of each, whether a build has listed it since, or it is no longer so.
    pub(super) seen: Vec<bool>,
    pub(super) gone: Vec<bool>,
    /// The one that will be asked for next, if the same files are listed.
    next: usize,
}

impl Records {
    fn new(bytes: Vec<u8>, mut rest_at: usize, end: u64) -> io::Result<Self> {
        let mut rest = &bytes[rest_at..];
        let count = u32::from_be_bytes(array(&mut rest)?) as usize;
        // No record is shorter than a hundred bytes: a count that is a lie costs nothing.
        let mut starts = Vec::with_capacity(count.min(bytes.len() / 100));
        rest_at += 4;
        for _ in 0..count {
            starts.push(rest_at);
            let before = rest.len();
            text(&mut rest)?;
            let fields = take(&mut rest, FIXED)?;
            let (size, offset) = (number(&fields[..8]), number(&fields[48..56]));
            if offset.checked_add(size).is_none_or(|reached| reached > end) {
                return Err(bad());
            }
            xattrs(&mut rest)?;
            rest_at += before - rest.len();
        }
        let none = vec![false; starts.len()];
        Ok(Self { bytes, starts, seen: none.clone(), gone: none, next: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    fn path(&self, at: usize) -> &[u8] {
        let mut rest = &self.bytes[self.starts[at]..];
        text(&mut rest).unwrap_or_default()
    }

    /// The record of a path.
    pub(super) fn find(&mut self, path: &[u8]) -> Option<usize> {
        let at = match self.next < self.len() && self.path(self.next) == path {
            true => self.next,
            false => {
                let mut range = 0..self.len();
                loop {
                    let middle = range.start + range.len() / 2;
                    if range.is_empty() {
                        return None;
                    }
                    match order(self.path(middle), path) {
                        Ordering::Less => range.start = middle + 1,
                        Ordering::Equal => break middle,
                        Ordering::Greater => range.end = middle,
                    }
                }
            }
        };
        self.next = at + 1;
        Some(at)
    }

    /// What was said of a file, and where its content is.
    pub(super) fn get(&self, at: usize) -> io::Result<(&[u8], Mark, Place)> {
        let mut rest = &self.bytes[self.starts[at]..];
        let path = text(&mut rest)?;
        let size = u64::from_be_bytes(array(&mut rest)?);
        let (modified, changed) = (time(&mut rest)?, time(&mut rest)?);
        let place = (u64::from_be_bytes(array(&mut rest)?), u64::from_be_bytes(array(&mut rest)?));
        let offset = u64::from_be_bytes(array(&mut rest)?);
        let digest = array(&mut rest)?;
        let xattrs = xattrs(&mut rest)?;
        Ok((path, Mark { size, modified, changed, place }, Place { offset, digest, xattrs }))
    }

    /// The size of a content, without more.
    pub(super) fn size(&self, at: usize) -> u64 {
        let mut rest = &self.bytes[self.starts[at]..];
        let size = text(&mut rest).and_then(|_| array(&mut rest));
        size.map(u64::from_be_bytes).unwrap_or_default()
    }
}

/// Bytes of a record between its path and its attributes.
const FIXED: usize = 8 + 2 * 12 + 2 * 8 + 8 + 32;

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn xattrs(rest: &mut &[u8]) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let [count] = array(rest)?;
    let mut pair = || Ok((OsString::from_vec(text(rest)?.to_vec()), text(rest)?.to_vec()));
    (0..count).map(|_| pair()).collect()
}

impl Header {
    pub(super) fn new(place: &str) -> io::Result<Self> {
        let now = jiff::Timestamp::now().as_second();
        let place = place.chars().take(1000).collect();
        Ok(Self { last_used: now, uses: 0, created: now, number: 0, end: 0, boot: boot()?, place })
    }

    pub(super) fn contents(&self) -> String {
        format!("contents-{}", self.number)
    }
}

/// Names this start of the host (random(4)).
pub(super) fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub(super) fn bad() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the index of a context is damaged")
}

pub(super) fn read_header(dir: &Path) -> io::Result<Header> {
    let mut bytes = Vec::new();
    File::open(dir.join(INDEX))?.take(HEADER).read_to_end(&mut bytes)?;
    header(&mut bytes.as_slice())
}

pub(super) fn read(dir: &Path) -> io::Result<(Header, Records)> {
    let bytes = fs::read(dir.join(INDEX))?;
    let mut rest = bytes.as_slice();
    let header = header(&mut rest)?;
    let (at, end) = (bytes.len() - rest.len(), header.end);
    Ok((header, Records::new(bytes, at, end)?))
}

/// Writes all of it, in one step for who reads it.
pub(super) fn write(dir: &Path, header: &Header, mut records: Vec<(Vec<u8>, Record)>) -> io::Result<()> {
    records.sort_unstable_by(|(a, _), (b, _)| order(a, b));
    let mut bytes = Vec::with_capacity(256 + records.len() * 160);
    bytes.extend(MAGIC);
    bytes.extend(header.last_used.to_be_bytes());
    bytes.extend(header.uses.to_be_bytes());
    bytes.extend(header.created.to_be_bytes());
    bytes.extend(header.number.to_be_bytes());
    bytes.extend(header.end.to_be_bytes());
    put(&mut bytes, header.boot.as_bytes())?;
    put(&mut bytes, header.place.as_bytes())?;
    bytes.extend(u32::try_from(records.len()).map_err(|_| bad())?.to_be_bytes());
    for (path, record) in records {
        put(&mut bytes, &path)?;
        bytes.extend(record.mark.size.to_be_bytes());
        for (seconds, nanoseconds) in [record.mark.modified, record.mark.changed] {
            bytes.extend(seconds.to_be_bytes());
            bytes.extend(nanoseconds.to_be_bytes());
        }
        bytes.extend(record.mark.place.0.to_be_bytes());
        bytes.extend(record.mark.place.1.to_be_bytes());
        bytes.extend(record.place.offset.to_be_bytes());
        bytes.extend(record.place.digest);
        bytes.push(u8::try_from(record.place.xattrs.len()).map_err(|_| bad())?);
        for (name, value) in &record.place.xattrs {
            put(&mut bytes, name.as_bytes())?;
            put(&mut bytes, value)?;
        }
    }
    let new = dir.join(NEW);
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    fs::rename(new, dir.join(INDEX))?;
    // What a compaction has left.
    for path in crate::scratch::list(dir) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name != INDEX && name != header.contents() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Notes a use, and nothing else.
pub(super) fn touch(dir: &Path, header: &Header) -> io::Result<()> {
    let file = File::options().write(true).open(dir.join(INDEX))?;
    let bytes = [header.last_used.to_be_bytes(), header.uses.to_be_bytes()].concat();
    file.write_all_at(&bytes, MAGIC.len() as u64)
}

fn header(rest: &mut &[u8]) -> io::Result<Header> {
    if take(rest, MAGIC.len())? != MAGIC {
        return Err(bad());
    }
    Ok(Header {
        last_used: i64::from_be_bytes(array(rest)?),
        uses: u64::from_be_bytes(array(rest)?),
        created: i64::from_be_bytes(array(rest)?),
        number: u32::from_be_bytes(array(rest)?),
        end: u64::from_be_bytes(array(rest)?),
        boot: String::from_utf8_lossy(text(rest)?).into_owned(),
        place: String::from_utf8_lossy(text(rest)?).into_owned(),
    })
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    bytes.extend(u16::try_from(text.len()).map_err(|_| bad())?.to_be_bytes());
    bytes.extend(text);
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> io::Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count).ok_or_else(bad)?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    array.copy_from_slice(take(rest, N)?);
    Ok(array)
}

fn text<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let length = u16::from_be_bytes(array(rest)?);
    take(rest, length.into())
}

fn time(rest: &mut &[u8]) -> io::Result<(i64, u32)> {
    Ok((i64::from_be_bytes(array(rest)?), u32::from_be_bytes(array(rest)?)))
}
