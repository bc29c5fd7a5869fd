//! Streams that are hashed on their way.

use std::io::{self, Read, Write};

use wharf_reference::{Digest, Hasher};

/// A reader that hashes what is read through it.
pub(crate) struct HashedReader<'a> {
    inner: &'a mut dyn Read,
    hasher: Hasher,
}

impl<'a> HashedReader<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read) -> Self {
        Self { inner, hasher: Hasher::new() }
    }

    /// Reads to the end: what follows an archive's end mark is part of the stream that was hashed. Answers with the
    /// digest and the number of bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        let count = self.hasher.count();
        Ok((self.hasher.finish(), count))
    }
}

impl Read for HashedReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
}

/// A writer that hashes and forgets.
#[derive(Default)]
pub(crate) struct Digester {
    hasher: Hasher,
}

impl Digester {
    pub(crate) fn finish(self) -> (Digest, u64) {
        let count = self.hasher.count();
        (self.hasher.finish(), count)
    }
}

impl Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
