//! Streams that are hashed on their way.

use std::io::{self, Read, Write};

use wharf_reference::{Digest, Hasher};

/// A reader that hashes what is read through it, up to a bound.
pub(crate) struct HashedReader<'a> {
    inner: &'a mut dyn Read,
    hasher: Hasher,
    most: u64,
}

impl<'a> HashedReader<'a> {
    pub(crate) fn new(inner: &'a mut dyn Read, most: u64) -> Self {
        Self { inner, hasher: Hasher::new(), most }
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
        if self.hasher.count() > self.most {
            let text = format!("it has more than {} bytes when it is unpacked", self.most);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(count)
    }
}

/// A writer that hashes what is written through it.
pub(crate) struct HashedWriter<'a> {
    inner: &'a mut dyn Write,
    hasher: Hasher,
}

impl<'a> HashedWriter<'a> {
    pub(crate) fn new(inner: &'a mut dyn Write) -> Self {
        Self { inner, hasher: Hasher::new() }
    }

    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl Write for HashedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
