//! One entry, and its header block (POSIX.1-2001, "ustar Interchange Format"; tar(5)).

use std::collections::BTreeMap;

use crate::{ArchiveError, Result};

/// Size of a block; headers are one, contents are padded to whole ones.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry of an archive. Names are bytes: a file system does not know of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-ID and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of content that follow, holes included.
    pub size: u64,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link.
    pub link: Vec<u8>,
    pub device: (u32, u32),
    /// Extended attributes by their full names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A header as its block has it, before extended headers change it.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) flag: u8,
    pub(crate) entry: Entry,
    /// For what only some kinds of entry have in it.
    pub(crate) block: [u8; BLOCK],
}

/// Field positions of a ustar header.
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..263;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// The number that no user has says nothing about the owner (chown(2)): what is unpacked stays whose it was made, which is root's.
pub(crate) fn real_id(id: u32) -> u32 {
    if id == u32::MAX { 0 } else { id }
}

/// Reads a header block; `None` for a block of zeroes, which ends an archive.
pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Option<Raw>> {
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if octal(&block[CHECKSUM])? != u64::from(checksum(block)) {
        return Err(ArchiveError::Damaged("a header's checksum is wrong"));
    }
    let mut path = text(&block[NAME]).to_vec();
    // GNU's magic has a blank where ustar has a NUL, and no prefix.
    let prefix = text(&block[PREFIX]);
    if &block[MAGIC] == b"ustar\0" && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    let number = |range: std::ops::Range<usize>| numeric(&block[range]);
    let id = |range: std::ops::Range<usize>| -> Result<u32> {
        // An ID that does not fit must not wrap to another's (CVE-2024-40635).
        let id = u32::try_from(number(range)?).map_err(|_| ArchiveError::Damaged("an ID is out of range"))?;
        Ok(real_id(id))
    };
    let mtime = number(MTIME)?;
    let size = u64::try_from(number(SIZE)?).map_err(|_| ArchiveError::Damaged("a size is negative"))?;
    let device = |range| u32::try_from(number(range).unwrap_or(0)).unwrap_or(0);
    let entry = Entry {
        path,
        kind: Kind::File,
        mode: u32::try_from(number(MODE)?).unwrap_or(0) & 0o7777,
        uid: id(UID)?,
        gid: id(GID)?,
        size,
        mtime: (mtime, 0),
        link: text(&block[LINK]).to_vec(),
        device: (device(MAJOR), device(MINOR)),
        xattrs: BTreeMap::new(),
    };
    Ok(Some(Raw { flag: block[FLAG], entry, block: *block }))
}

/// Writes a ustar header. What does not fit its field is in an extended header before it; the field then has
/// as much of it as fits.
pub(crate) fn write(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let put = |block: &mut [u8; BLOCK], range: std::ops::Range<usize>, bytes: &[u8]| {
        let length = bytes.len().min(range.len());
        block[range.start..range.start + length].copy_from_slice(&bytes[..length]);
    };
    let digits = |n: u64, width: usize| format!("{:0width$o}", n & ((1 << (3 * width)) - 1), width = width);
    put(&mut block, NAME, &entry.path);
    put(&mut block, MODE, digits(entry.mode.into(), 7).as_bytes());
    put(&mut block, UID, digits(entry.uid.into(), 7).as_bytes());
    put(&mut block, GID, digits(entry.gid.into(), 7).as_bytes());
    put(&mut block, SIZE, digits(entry.size, 11).as_bytes());
    put(&mut block, MTIME, digits(entry.mtime.0.max(0).cast_unsigned(), 11).as_bytes());
    block[FLAG] = flag;
    put(&mut block, LINK, &entry.link);
    put(&mut block, MAGIC, b"ustar\0");
    block[MAGIC.end..MAGIC.end + 2].copy_from_slice(b"00");
    put(&mut block, MAJOR, digits(entry.device.0.into(), 7).as_bytes());
    put(&mut block, MINOR, digits(entry.device.1.into(), 7).as_bytes());
    let sum = format!("{:06o}\0 ", checksum(&block));
    put(&mut block, CHECKSUM, sum.as_bytes());
    block
}

/// Whether all of an entry fits a ustar header, so that it needs no extended one.
pub(crate) fn fits(entry: &Entry) -> bool {
    const SMALL: u32 = 0o7_777_777;
    entry.path.len() <= NAME.len()
        && entry.link.len() <= LINK.len()
        && entry.uid <= SMALL
        && entry.gid <= SMALL
        && entry.size <= 0o77_777_777_777
        && (0..=0o77_777_777_777).contains(&entry.mtime.0)
        && entry.mtime.1 == 0
        && entry.xattrs.is_empty()
}

/// Whether an archive may carry the extended attribute `key`, in either direction: capabilities, access control lists,
/// and users' own. `trusted.*` and `user.overlay.*` would steer overlayfs itself.
pub fn may_carry(key: &[u8]) -> bool {
    matches!(key, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."))
}

/// The sum of all bytes, the checksum's own taken as blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let own = CHECKSUM;
    block.iter().enumerate().map(|(at, byte)| if own.contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn octal(field: &[u8]) -> Result<u64> {
    let digits = text(field);
    let digits = digits.trim_ascii();
    digits
        .iter()
        .try_fold(0u64, |sum, byte| match byte {
            b'0'..=b'7' => sum.checked_mul(8).and_then(|sum| sum.checked_add(u64::from(byte - b'0'))),
            _ => None,
        })
        .ok_or(ArchiveError::Damaged("a number in a header is not octal"))
}

/// Octal, or GNU's base 256 for what does not fit.
pub(crate) fn numeric(field: &[u8]) -> Result<i64> {
    let first = field[0];
    if first & 0x80 == 0 {
        return i64::try_from(octal(field)?).map_err(|_| ArchiveError::Damaged("a number in a header is too large"));
    }
    let negative = first & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 && !negative { byte & 0x3f } else { *byte };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| ArchiveError::Damaged("a number in a header is too large"))
}
