//! Reading a log: entries of several files in order, from a place near the end, on and on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::entry::{Decoder, Entry, Stream};
use crate::error::{LogError, Result};
use crate::packed::{made_of, packed, unpack};
use crate::tail;
use crate::writer::numbered;

/// Bytes that are read at a time.
const BLOCK: usize = 128 << 10;
/// A line longer than this is no entry of ours (16 KiB that are all escaped are 96 KiB) and is passed over.
const MAX_ENTRY: usize = 1 << 20;
/// How often the files are listed anew when the log was rotated meanwhile.
const LISTINGS: usize = 100;

/// What of a log is wanted.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last so many entries, of either stream; `None` is all.
    pub tail: Option<u64>,
    /// What comes later, in files that are not there yet, too, is wanted as well.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { since: None, until: None, tail: None, follow: false, stdout: true, stderr: true }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    inode: u64,
    packed: Option<Packed>,
    /// Where the next byte is read.
    pub(crate) position: u64,
}

/// That a file is compressed.
#[derive(Debug)]
struct Packed {
    /// The inode of what it was made of, if that is known.
    made_of: Option<u64>,
    /// Its content, while somebody reads it.
    content: Option<File>,
}

impl Source {
    /// The log's file of that number, as it is or compressed. `None` when there is no such file.
    fn open(log: &Path, number: u32) -> Result<Option<Self>> {
        let plain = numbered(log, number);
        if let Some(found) = open(&plain)? {
            return Self::of(found, false).map_err(LogError::file("open", &plain)).map(Some);
        }
        let packed = packed(&plain);
        match open(&packed)? {
            Some(found) if number > 0 => Self::of(found, true).map_err(LogError::file("open", &packed)).map(Some),
            _ => Ok(None),
        }
    }

    fn of(file: File, is_packed: bool) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let packed = is_packed.then(|| Packed { made_of: made_of(&file), content: None });
        Ok(Self { file, inode, packed, position: 0 })
    }

    /// Whether it is that file, or was made of it.
    fn is(&self, inode: u64) -> bool {
        self.inode == inode || self.packed.as_ref().is_some_and(|packed| packed.made_of == Some(inode))
    }

    /// What is in it, from any place.
    pub(crate) fn content(&mut self, log: &Path) -> io::Result<&File> {
        match &mut self.packed {
            None => Ok(&self.file),
            Some(Packed { content: Some(content), .. }) => Ok(content),
            Some(packed) => Ok(packed.content.insert(unpack(&self.file, log)?)),
        }
    }

    /// Keeps no content that can be had again.
    pub(crate) fn put_away(&mut self) {
        if let Some(packed) = &mut self.packed {
            packed.content = None;
        }
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(LogError::file("open", path)),
    }
}

/// Entries of a log, oldest first.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    options: ReadOptions,
    /// The file that is read now, and those after it.
    sources: VecDeque<Source>,
    /// Where the last of them ended when it was opened, if what comes later is not wanted: a container may write as fast as
    /// somebody reads.
    end: Option<u64>,
    buffer: Vec<u8>,
    /// What of the buffer has been given out.
    start: usize,
    /// What of it is known to have no line feed.
    scanned: usize,
    /// In the middle of a line that is too long.
    skipping: bool,
    decoder: Decoder,
    done: bool,
}

impl Reader {
    /// Opens the log at `path` with what has been rotated away from it. A log that is not there is empty.
    ///
    /// # Errors
    /// `File`.
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self> {
        let mut sources = files(path)?;
        let newest = sources.back().filter(|source| !options.follow && source.packed.is_none());
        let end = newest.map(|source| source.file.metadata().map(|found| found.len())).transpose();
        let end = end.map_err(LogError::file("read", path))?;
        if let Some(tail) = options.tail {
            tail::keep_last(&mut sources, tail, path, end).map_err(LogError::file("read", path))?;
        }
        Ok(Self {
            path: path.into(),
            options,
            sources,
            end,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            skipping: false,
            decoder: Decoder::default(),
            done: false,
        })
    }

    /// The next entry that is wanted; `None` when there is none now. With `follow` there may be one later: ask again when
    /// a [`crate::Watcher`], which was made before this reader, tells that something has happened.
    ///
    /// # Errors
    /// `File`.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.done {
            return Ok(None);
        }
        while let Some(end) = self.line()? {
            let entry = self.decoder.decode(&self.buffer[self.start..end]);
            self.start = end + 1;
            self.scanned = self.start;
            let Some(entry) = entry else { continue };
            if self.options.until.is_some_and(|until| entry.time > until) {
                self.done = true;
                return Ok(None);
            }
            if self.wanted(&entry) {
                return Ok(Some(entry));
            }
        }
        self.done = !self.options.follow;
        self.rest();
        Ok(None)
    }

    /// Whether nothing comes any more, for it would be later than is wanted.
    pub fn is_over(&self) -> bool {
        self.done
    }

    /// Keeps no more memory than it needs while nothing comes.
    fn rest(&mut self) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.shrink_to_fit();
    }

    /// Whether [`Self::next_entry`] has something to look at without waiting. What it finds may not be wanted.
    pub fn has_more(&mut self) -> bool {
        !self.done && matches!(self.line(), Ok(Some(_)))
    }

    fn wanted(&self, entry: &Entry) -> bool {
        let stream = match entry.stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        stream && self.options.since.is_none_or(|since| entry.time >= since)
    }

    /// Where the next whole line ends in the buffer, reading as far as there is something now.
    fn line(&mut self) -> Result<Option<usize>> {
        loop {
            if let Some(at) = find_line_feed(&self.buffer[self.scanned..]) {
                let end = self.scanned + at;
                if !std::mem::take(&mut self.skipping) {
                    self.scanned = end;
                    return Ok(Some(end));
                }
                self.start = end + 1;
                self.scanned = self.start;
                continue;
            }
            if self.buffer.len() - self.start > MAX_ENTRY {
                self.skipping = true;
                self.start = self.buffer.len();
            }
            self.scanned = self.buffer.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads more; false when there is nothing more now.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if self.read()? {
                return Ok(true);
            }
            if self.sources.len() > 1 {
                self.sources.pop_front();
                self.forget();
                continue;
            }
            if !self.options.follow || !self.moved_on()? {
                return Ok(false);
            }
        }
    }

    fn read(&mut self) -> Result<bool> {
        let end = self.end.filter(|_| self.sources.len() == 1).unwrap_or(u64::MAX);
        let Some(source) = self.sources.front_mut() else { return Ok(false) };
        let position = source.position;
        let most = usize::try_from(end.saturating_sub(position)).unwrap_or(BLOCK).min(BLOCK);
        let file = source.content(&self.path).map_err(LogError::file("read", &self.path))?;
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        let have = self.buffer.len();
        self.buffer.resize(have + most, 0);
        let got = loop {
            match file.read_at(&mut self.buffer[have..], position) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                got => break got,
            }
        };
        self.buffer.truncate(have + *got.as_ref().unwrap_or(&0));
        let got = got.map_err(LogError::file("read", &self.path))?;
        source.position += got as u64;
        Ok(got > 0)
    }

    /// What is left of a line at the end of a file will not be ended by the next one.
    fn forget(&mut self) {
        self.buffer.clear();
        (self.start, self.scanned, self.skipping) = (0, 0, false);
    }

    /// At the end of the last file: whether there is a new one, or it has been emptied.
    fn moved_on(&mut self) -> Result<bool> {
        let now = match std::fs::metadata(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            found => found.map_err(LogError::file("read", &self.path))?,
        };
        let Some(source) = self.sources.front_mut() else {
            self.sources = files(&self.path)?;
            return Ok(!self.sources.is_empty());
        };
        if now.ino() == source.inode {
            if now.len() >= source.position {
                return Ok(false);
            }
            source.position = 0;
            self.forget();
            return Ok(true);
        }
        // It was written to before it was renamed, so now it is whole: once more to its end, then the files after it.
        let inode = source.inode;
        if self.read()? {
            return Ok(true);
        }
        let mut later = files(&self.path)?;
        // One that has been removed is older than all that is there. Its number may have been another's before, which only
        // older ones were made of: it is this one's as long as it is open here.
        if let Some(own) = later.iter().rposition(|file| file.is(inode)) {
            later.drain(..=own);
        }
        self.forget();
        self.sources = later;
        Ok(!self.sources.is_empty())
    }
}

fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    // In blocks, so that the compiler can look at many bytes at once.
    const STEP: usize = 64;
    let mut at = 0;
    for block in bytes.chunks(STEP) {
        if block.iter().fold(false, |found, b| found | (*b == b'\n')) {
            return block.iter().position(|b| *b == b'\n').map(|n| at + n);
        }
        at += STEP;
    }
    None
}

/// All files of the log, oldest first.
///
/// A listing during which a new file has begun may have them in another order.
fn files(path: &Path) -> Result<VecDeque<Source>> {
    let mut found = listed(path)?;
    for _ in 0..LISTINGS {
        let newest = Source::open(path, 0)?.map(|source| source.inode);
        if newest == found.back().map(|source| source.inode) {
            break;
        }
        found = listed(path)?;
    }
    Ok(found)
}

/// What is there, by the numbers, each once. While files are renamed, the highest number first, each stays ahead of who
/// looks from below; where it was is a gap for a moment.
fn listed(path: &Path) -> Result<VecDeque<Source>> {
    let mut found: VecDeque<Source> = VecDeque::new();
    let mut gap = false;
    for n in 0.. {
        match Source::open(path, n)? {
            Some(source) => {
                gap = false;
                if !found.iter().any(|known| known.inode == source.inode) {
                    found.push_front(source);
                }
            }
            None if !gap => gap = true,
            None => break,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_just_renamed_hides_none_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for n in [0, 2, 3] {
            std::fs::write(numbered(&path, n), format!("{n}")).unwrap();
        }
        assert_eq!(files(&path).unwrap().len(), 3);
        std::fs::rename(&path, numbered(&path, 1)).unwrap();
        assert_eq!(files(&path).unwrap().len(), 3);
    }
}
