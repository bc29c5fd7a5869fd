//! Entries of a stream, one after another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::error::shown;
use crate::header::{self, BLOCK, Entry, Kind, Raw, real_id};
use crate::sparse::{Form, Piece, Sparse};
use crate::{ArchiveError, Result};

/// A name or an extended header that is longer serves no file system and fills our memory.
const MAX_EXTENDED: u64 = 1 << 20;

/// Attributes of an extended header by key.
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads an archive as a stream; never more of it in memory than one header.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Content of the current entry that is in the archive and has not been read, and its padding.
    left: u64,
    padding: u64,
    /// The holes between it.
    sparse: Option<Sparse>,
    name: String,
}

impl<R: Read> Reader<R> {
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0, sparse: None, name: String::new() }
    }

    pub(crate) fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// The next entry; what was not read of the last one is skipped.
    ///
    /// # Errors
    /// When the stream fails, ends early, or is no archive that this understands.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left)?;
        // The last content of an archive without an end may come without its padding, as Go has it.
        let padded = self.skip(self.padding);
        (self.left, self.padding, self.sparse) = (0, 0, None);
        if matches!(padded, Err(ArchiveError::Truncated(_))) {
            return Ok(None);
        }
        padded?;
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(Raw { flag, entry, block }) = self.block()? else { return Ok(None) };
            match flag {
                b'L' => long_name = Some(trim(self.extended(&entry)?)),
                b'K' => long_link = Some(trim(self.extended(&entry)?)),
                b'x' => records = parse_records(&self.extended(&entry)?)?,
                // What holds for all entries is at most a comment in archives that matter (git's commit ID).
                b'g' => drop(self.extended(&entry)?),
                _ => {
                    let form = if flag == b'S' { Form::old(&block, &mut self.input)? } else { Form::of(&records)? };
                    let mut entry = complete(flag, entry, records, long_name, long_link)?;
                    self.name = shown(&entry.path);
                    self.left = entry.size;
                    self.padding = (BLOCK as u64 - entry.size % BLOCK as u64) % BLOCK as u64;
                    if entry.kind == Kind::File
                        && let Some((sparse, taken)) = form.map(entry.size, &mut self.input)?
                    {
                        entry.size = sparse.size();
                        self.left -= taken;
                        self.sparse = Some(sparse);
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Bytes of the current entry that are in the archive, if it has holes between them.
    pub(crate) fn stored(&self) -> Option<u64> {
        self.sparse.as_ref().map(|_| self.left)
    }

    /// Skips the hole that comes next in the content, and says how many zeroes it stands for. Whoever does not ask reads
    /// them.
    pub fn skip_hole(&mut self) -> u64 {
        let Some(sparse) = &mut self.sparse else { return 0 };
        let Piece::Hole(count) = sparse.piece() else { return 0 };
        sparse.advance(count);
        count
    }

    /// Adds the rest of the content to the end of a file, holes as holes.
    ///
    /// # Errors
    /// When the archive ends early, or the file cannot be written.
    pub fn copy_to(&mut self, file: &mut File) -> Result<()> {
        let mut end = file.stream_position().map_err(ArchiveError::Write)?;
        let mut piece = vec![0; 128 << 10];
        loop {
            let hole = self.skip_hole();
            if hole > 0 {
                end += hole;
                file.seek(SeekFrom::Start(end)).map_err(ArchiveError::Write)?;
            }
            let count = self.read(&mut piece).map_err(ArchiveError::Read)?;
            if count == 0 {
                // A hole at the end has nothing after it that makes the file as long.
                return file.set_len(end).map_err(ArchiveError::Write);
            }
            file.write_all(&piece[..count]).map_err(ArchiveError::Write)?;
            end += count as u64;
        }
    }

    /// `None` at the end: two blocks of zeroes, or the end of the stream at a block's border.
    fn block(&mut self) -> Result<Option<Raw>> {
        let mut block = [0u8; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(ArchiveError::Damaged("it ends in the middle of a header")),
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        match header::parse(&block)? {
            Some(raw) => Ok(Some(raw)),
            None => {
                // Whoever writes into our end of a pipe must not be cut off in its padding.
                io::copy(&mut self.input, &mut io::sink()).map_err(ArchiveError::Read)?;
                Ok(None)
            }
        }
    }

    /// The content of an extended header.
    fn extended(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        if entry.size > MAX_EXTENDED {
            return Err(ArchiveError::Damaged("an extended header is larger than 1 MiB"));
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(entry.size).read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        if bytes.len() as u64 != entry.size {
            return Err(ArchiveError::Damaged("it ends in the middle of an extended header"));
        }
        self.skip((BLOCK as u64 - entry.size % BLOCK as u64) % BLOCK as u64)?;
        Ok(bytes)
    }

    fn skip(&mut self, count: u64) -> Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink()).map_err(ArchiveError::Read)?;
        if skipped < count {
            return Err(ArchiveError::Truncated(self.name.clone()));
        }
        Ok(())
    }
}

/// The content of the current entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = match self.sparse.as_mut().map(Sparse::piece) {
            Some(Piece::Hole(hole)) => {
                let count = bytes.len().min(usize::try_from(hole).unwrap_or(usize::MAX));
                bytes[..count].fill(0);
                self.sparse.iter_mut().for_each(|sparse| sparse.advance(count as u64));
                return Ok(count);
            }
            Some(Piece::Stored(stored)) => stored,
            Some(Piece::End) => 0,
            None => self.left,
        };
        let wanted = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut bytes[..wanted])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the archive ends in `{}`", self.name)));
        }
        self.left -= count as u64;
        self.sparse.iter_mut().for_each(|sparse| sparse.advance(count as u64));
        Ok(count)
    }
}

/// GNU ends its long names with a NUL.
fn trim(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it (POSIX.1-2001, "pax Extended Header").
fn parse_records(mut bytes: &[u8]) -> Result<Records> {
    let bad = || ArchiveError::Damaged("an extended header is not of its form");
    let mut records = Records::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&bytes[..blank]).ok().and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match records.get_mut(key) {
            // The places of a sparse file, one after another.
            Some(before) if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") => {
                before.push(b',');
                before.extend(value);
            }
            _ => drop(records.insert(key.to_vec(), value.to_vec())),
        }
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// The entry with what its extended headers say.
fn complete(
    flag: u8,
    mut entry: Entry,
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
) -> Result<Entry> {
    entry.path = long_name.unwrap_or(entry.path);
    entry.link = long_link.unwrap_or(entry.link);
    // Of a sparse file; its path is made up.
    let mut name = None;
    for (key, value) in records {
        let number = || std::str::from_utf8(&value).ok().and_then(|n| n.parse::<u64>().ok());
        let bad = || ArchiveError::Damaged("a value of an extended header is no number in range");
        match key.as_slice() {
            b"path" => entry.path = value,
            b"linkpath" => entry.link = value,
            b"size" => entry.size = number().filter(|n| i64::try_from(*n).is_ok()).ok_or_else(bad)?,
            b"uid" => entry.uid = number().and_then(|n| u32::try_from(n).ok()).map(real_id).ok_or_else(bad)?,
            b"gid" => entry.gid = number().and_then(|n| u32::try_from(n).ok()).map(real_id).ok_or_else(bad)?,
            b"mtime" => entry.mtime = parse_time(&value).ok_or_else(bad)?,
            b"GNU.sparse.name" => name = Some(value),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    entry.xattrs.insert(name.to_vec(), value);
                }
            }
        }
    }
    entry.path = name.unwrap_or(entry.path);
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(ArchiveError::Entry { name: shown(&entry.path), why: "its name has a NUL in it" });
    }
    let kind = match flag {
        // An old tar marks a directory by its name alone.
        b'0' | 0 | b'7' if entry.path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => return Ok(entry),
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharacterDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return Err(ArchiveError::Entry { name: shown(&entry.path), why: "its type is not known" }),
    };
    // These have no content whatever they say; GNU tar writes a hard link's size all the same.
    Ok(Entry { kind, size: 0, ..entry })
}

/// `SECONDS[.FRACTION]`, possibly negative.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 64 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9.9}").parse().ok()?;
    let whole: i64 = seconds.parse().ok()?;
    if seconds.starts_with('-') && nanoseconds > 0 {
        return Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((whole, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_the_epoch() {
        assert_eq!(parse_time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(parse_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time(b"7"), Some((7, 0)));
        assert_eq!(parse_time(b"x"), None);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        assert_eq!(parse_records(b"9 path=a\n").unwrap()[&b"path".to_vec()], b"a");
        for bad in [&b"99 path=a\n"[..], b"3 a\n", b"path=a\n", b"0 a=b\n", b"9 path:a\n"] {
            assert!(parse_records(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_large_extended_header_is_refused_before_it_is_read() {
        let mut entry = crate::header::parse(&header_of(b"x", b'0')).unwrap().unwrap().entry;
        entry.size = 1 << 40;
        let mut reader = Reader::new(io::repeat(0));
        assert!(reader.extended(&entry).is_err());
    }

    fn header_of(name: &[u8], flag: u8) -> [u8; BLOCK] {
        let entry = Entry {
            path: name.to_vec(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
        };
        crate::header::write(&entry, flag)
    }
}
