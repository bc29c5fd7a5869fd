//! The image's file: appended to, with places that are left out and written later.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::{BLOCK, MAX_BYTES};
use crate::{ErofsError, Result};

/// What is gathered before it is written: large enough that the calls do not count.
const BUFFER: usize = 256 << 10;
/// What is long enough to be written as it is.
const LONG: usize = 64 << 10;
/// Zeroes of which more are a hole of the file than are written.
const LONG_ZEROES: u64 = 64 << 10;

fn are_zeroes(bytes: &[u8]) -> bool {
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    bytes.chunks(BLOCK).all(|block| *block == ZEROES[..block.len()])
}

/// A file that was empty, so that what is left out reads as zeroes.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    /// Where the buffer belongs.
    start: u64,
    buffer: Vec<u8>,
    written: u64,
    failed: Option<io::ErrorKind>,
}

impl Image {
    pub(crate) fn new(file: File) -> Result<Self> {
        let length = file.metadata().map_err(|source| ErofsError::Write { written: 0, source })?.len();
        if length > 0 {
            return Err(ErofsError::NotEmpty(length));
        }
        Ok(Self { file, start: 0, buffer: Vec::with_capacity(BUFFER), written: 0, failed: None })
    }

    /// Where the next byte goes.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.room(bytes.len() as u64)?;
        if bytes.len() >= LONG || self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= LONG {
            if !are_zeroes(bytes) {
                self.put(self.start, bytes)?;
            }
            self.start += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Appends zeroes, which take no room on the disk if they are many.
    pub(crate) fn zeroes(&mut self, count: u64) -> Result<()> {
        if count > LONG_ZEROES {
            return self.leave_out(count).map(drop);
        }
        self.room(count)?;
        if self.buffer.len() + count as usize > BUFFER {
            self.flush()?;
        }
        self.buffer.resize(self.buffer.len() + count as usize, 0);
        Ok(())
    }

    /// Goes on at a block's begin, which is answered.
    pub(crate) fn align(&mut self) -> Result<u64> {
        let end = self.end();
        self.zeroes(end.next_multiple_of(BLOCK as u64) - end)?;
        Ok(self.end())
    }

    /// Leaves a place out that is written by [`Self::write_at`], or not at all. It answers where that is.
    pub(crate) fn leave_out(&mut self, count: u64) -> Result<u64> {
        self.room(count)?;
        self.flush()?;
        let place = self.start;
        self.start += count;
        Ok(place)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        // Files that are full of zeroes come with them.
        let hole = buffer.len() as u64 > LONG_ZEROES && are_zeroes(&buffer);
        let put = if hole { Ok(()) } else { self.put(self.start, &buffer) };
        if put.is_ok() {
            self.start += buffer.len() as u64;
        }
        self.buffer = buffer;
        self.buffer.clear();
        put
    }

    /// Writes to a place that was left out, or that has been flushed.
    pub(crate) fn write_at(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        debug_assert!(place + bytes.len() as u64 <= self.start, "a place that may be overwritten by the buffer");
        self.put(place, bytes)
    }

    /// Gives the file its length in whole blocks, and answers with it.
    pub(crate) fn finish(&mut self) -> Result<u64> {
        let end = self.align()?;
        self.flush()?;
        let failed = self.file.set_len(end);
        failed.map_err(|source| self.failure(source))?;
        Ok(end)
    }

    fn room(&self, count: u64) -> Result<()> {
        // A block less, so that the end can still be aligned.
        match self.end().checked_add(count) {
            Some(end) if end <= MAX_BYTES - BLOCK as u64 => Ok(()),
            _ => Err(ErofsError::TooLarge(MAX_BYTES)),
        }
    }

    fn put(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        // What comes after a failure would be taken as whole.
        if let Some(kind) = self.failed {
            return Err(ErofsError::Write { written: self.written, source: kind.into() });
        }
        self.file.write_all_at(bytes, place).map_err(|source| self.failure(source))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn failure(&mut self, source: io::Error) -> ErofsError {
        self.failed = Some(source.kind());
        ErofsError::Write { written: self.written, source }
    }
}
