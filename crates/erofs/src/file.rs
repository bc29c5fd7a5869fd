//! The content of one regular file, on its way into the image.

use std::io::{self, Write};
use std::ops::Range;

use crate::Result;
use crate::attributes::Attributes;
use crate::chunks::{self, Chunks};
use crate::error::{ErofsError, Refusal};
use crate::format::{BLOCK, Inode, Kind, Layout, MAX_BYTES};
use crate::writer::Writer;

/// Takes the content of one file: by [`Write`], and by [`Self::hole`] where it has nothing.
///
/// Content goes to the image as it comes. A file without holes is in blocks that follow each other, its end beside its
/// inode if there is room. A file in which a hole covers a whole chunk is in chunks (of 4 KiB up to 64 MiB of size, of
/// more above), and such holes stay holes; shorter ones are zeroes, which are left out of the image's file if they are
/// many.
#[derive(Debug)]
pub struct FileWriter<'a> {
    writer: &'a mut Writer,
    path: &'a [u8],
    parent: u32,
    name: &'a [u8],
    inode: Inode<'static>,
    xattrs: Vec<u8>,
    /// Bytes of content that have come, holes with them.
    done: u64,
    /// Bytes that go to blocks; what follows goes beside the inode.
    blocks: u64,
    end: Vec<u8>,
    chunks: Option<Chunks>,
    /// Where in the image, and where in `end`, the bytes are that were written.
    written: Vec<Range<u64>>,
    written_end: Vec<Range<u64>>,
}

impl<'a> FileWriter<'a> {
    pub(crate) fn new(
        writer: &'a mut Writer,
        path: &'a [u8],
        parent: u32,
        name: &'a [u8],
        attributes: &Attributes,
        size: u64,
    ) -> Result<Self> {
        if size > MAX_BYTES {
            return Err(ErofsError::TooLarge(MAX_BYTES));
        }
        let xattrs = writer.xattrs(path, attributes)?;
        let start = writer.image.align()?;
        let inode = Inode { size, place: (start / BLOCK as u64) as u32, ..writer.inode(Kind::File, attributes, &[]) };
        let end = size % BLOCK as u64;
        let beside = inode.length(inode.is_compact(writer.time)) + xattrs.len() + end as usize <= BLOCK;
        let blocks = if beside { size - end } else { size };
        let (chunks, written, written_end) = (None, Vec::new(), Vec::new());
        let end = Vec::new();
        Ok(Self { writer, path, parent, name, inode, xattrs, done: 0, blocks, end, chunks, written, written_end })
    }

    /// Tells that the next `length` bytes of the file are a hole.
    ///
    /// # Errors
    /// `Entry` if the file becomes longer than it may; `TooLarge`, `Write`.
    pub fn hole(&mut self, length: u64) -> Result<()> {
        self.check(length)?;
        let (size, chunk) = (self.inode.size, chunks::length(self.inode.size));
        if self.chunks.is_none() && self.done.next_multiple_of(chunk) + chunk <= self.done + length {
            self.chunks = Some(Chunks::new(size, self.inode.place, self.done));
        }
        let mut left = length;
        while left > 0 {
            let at = self.done % chunk;
            let piece = match &mut self.chunks {
                Some(chunks) if at == 0 && left >= chunk.min(size - self.done) => {
                    chunks.push_hole();
                    chunk.min(size - self.done)
                }
                Some(_) => {
                    self.begin_chunk(at);
                    let piece = left.min(chunk - at);
                    self.writer.image.zeroes(piece)?;
                    piece
                }
                None if self.done < self.blocks => {
                    let piece = left.min(self.blocks - self.done);
                    self.writer.image.zeroes(piece)?;
                    piece
                }
                None => {
                    self.end.resize(self.end.len() + left as usize, 0);
                    left
                }
            };
            self.done += piece;
            left -= piece;
        }
        Ok(())
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// `Entry` if the file becomes longer than it may; `TooLarge`, `Write`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.check(bytes.len() as u64)?;
        let chunk = chunks::length(self.inode.size);
        let mut left = bytes;
        while !left.is_empty() {
            let room = match self.chunks {
                Some(_) => {
                    let at = self.done % chunk;
                    self.begin_chunk(at);
                    chunk - at
                }
                None => self.blocks.saturating_sub(self.done),
            };
            let piece;
            if room == 0 {
                let at = self.end.len() as u64;
                note(&mut self.written_end, at..at + left.len() as u64);
                self.end.extend_from_slice(left);
                (piece, left) = (left.len(), &[]);
            } else {
                piece = left.len().min(usize::try_from(room).unwrap_or(usize::MAX));
                let at = self.writer.image.end();
                self.writer.image.append(&left[..piece])?;
                note(&mut self.written, at..at + piece as u64);
                left = &left[piece..];
            }
            self.done += piece as u64;
        }
        Ok(())
    }

    /// Ends the file and gives it its name. The answer is where in the image the bytes are that were written, in order
    /// and without the holes: who has the image's file reads them there, also when a later entry takes the name.
    ///
    /// # Errors
    /// `Entry` if content is missing; `TooMany`, `TooLarge`, `Write`.
    pub fn finish(mut self) -> Result<Vec<Range<u64>>> {
        let (has, wanted) = (self.done, self.inode.size);
        if has != wanted {
            return Err(ErofsError::entry(self.path, Refusal::ContentTooShort { has, wanted }));
        }
        self.writer.image.align()?;
        let mut inode = Inode { xattrs: &self.xattrs, ..self.inode };
        if let Some(chunks) = self.chunks {
            let (form, map) = chunks.finish();
            inode.layout = Layout::Chunks;
            inode.place = form;
            self.writer.chunks = true;
            self.writer.put(self.parent, self.name, &inode, &map, None)?;
        } else {
            inode.layout = if self.end.is_empty() { Layout::Plain } else { Layout::Inline };
            if self.blocks == 0 {
                inode.place = 0;
            }
            let place = self.writer.put(self.parent, self.name, &inode, &self.end, None)?;
            self.written.extend(self.written_end.iter().map(|range| range.start + place..range.end + place));
        }
        Ok(self.written)
    }

    fn check(&self, more: u64) -> Result<()> {
        let size = self.inode.size;
        if more > size - self.done {
            return Err(ErofsError::entry(self.path, Refusal::ContentTooLong(size)));
        }
        Ok(())
    }

    /// Notes where a chunk is, if one begins `at` this place in it.
    fn begin_chunk(&mut self, at: u64) {
        if let Some(chunks) = self.chunks.as_mut().filter(|_| at == 0) {
            chunks.push((self.writer.image.end() / BLOCK as u64) as u32);
        }
    }
}

/// Appends a range, or makes the last one longer.
fn note(ranges: &mut Vec<Range<u64>>, next: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => ranges.push(next),
    }
}

impl Write for FileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    /// What has come is written to the file with what follows.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
