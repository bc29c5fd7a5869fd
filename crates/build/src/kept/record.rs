//! What the index of a kept context says, and how it is written.
//!
//! ```text
//! "WHARFKC1", last use (i64), uses (u64), creation (i64), number of the contents' file (u32), their end (u64)
//! boot (text), place (text), count of records (u32)
//! for each: path (text), size (u64), two times, device (u64), inode (u64), offset (u64), SHA-256 (32 bytes)
//! ```
//!
//! Texts, times and numbers are as in a listing.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use wharf_reference::Digest;

use super::Mark;

pub(super) const INDEX: &str = "index";
const NEW: &str = "index.new";
const MAGIC: &[u8] = b"WHARFKC1";
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
    pub(super) offset: u64,
    pub(super) digest: Digest,
    /// A build has listed it since the context was opened.
    pub(super) seen: bool,
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

pub(super) fn read(dir: &Path) -> io::Result<(Header, HashMap<Vec<u8>, Record>)> {
    let bytes = fs::read(dir.join(INDEX))?;
    let mut rest = bytes.as_slice();
    let header = header(&mut rest)?;
    let count = u32::from_be_bytes(array(&mut rest)?);
    let mut records = HashMap::new();
    for _ in 0..count {
        let path = text(&mut rest)?.to_vec();
        let size = u64::from_be_bytes(array(&mut rest)?);
        let (modified, changed) = (time(&mut rest)?, time(&mut rest)?);
        let place = (u64::from_be_bytes(array(&mut rest)?), u64::from_be_bytes(array(&mut rest)?));
        let offset = u64::from_be_bytes(array(&mut rest)?);
        let digest = Digest::from_sha256(array(&mut rest)?);
        if offset.checked_add(size).is_none_or(|end| end > header.end) {
            return Err(bad());
        }
        let mark = Mark { size, modified, changed, place };
        records.insert(path, Record { mark, offset, digest, seen: false });
    }
    Ok((header, records))
}

/// Writes all of it, in one step for who reads it.
pub(super) fn write(dir: &Path, header: &Header, records: &HashMap<Vec<u8>, Record>) -> io::Result<()> {
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
        put(&mut bytes, path)?;
        bytes.extend(record.mark.size.to_be_bytes());
        for (seconds, nanoseconds) in [record.mark.modified, record.mark.changed] {
            bytes.extend(seconds.to_be_bytes());
            bytes.extend(nanoseconds.to_be_bytes());
        }
        bytes.extend(record.mark.place.0.to_be_bytes());
        bytes.extend(record.mark.place.1.to_be_bytes());
        bytes.extend(record.offset.to_be_bytes());
        for pair in record.digest.hex().as_bytes().chunks(2) {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
            bytes.push(pair.iter().fold(0, |byte, hex| byte << 4 | digit(*hex)));
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
