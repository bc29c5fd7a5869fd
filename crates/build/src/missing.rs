//! Contents that a listing names and that are still with whoever sent it: they are asked for when a step needs them.

use std::io::{BufReader, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use wharf_reference::Hasher;

use crate::cancel::{Cancel, Cancellable};
use crate::error::{BuildError, Result};
use crate::index::{Body, Place, failing, invalid, sum};
use crate::kept::Kept;
use crate::listing::xattrs;

/// Whoever has sent listings of contexts and has their files.
pub trait Answers: Send + Sync {
    /// Asks for the contents of these entries of the listing of that number (that of the context is 0, and those of
    /// named ones follow in their order), and has them read: one right behind the other, each with its extended attributes
    /// before it and as long as it was listed.
    ///
    /// # Errors
    /// When nobody hears it any more, and those of `read`.
    fn ask(
        &self,
        listing: usize,
        wanted: &[Range<u32>],
        read: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()>;

    /// Asks for a listing of all of the context, which has this number, where the first was a part.
    ///
    /// # Errors
    /// As [`Self::ask`].
    fn ask_whole(&self, number: usize) -> Result<Box<dyn Read + Send>>;
}

/// How the contents of one listing are got.
pub(crate) struct Missing {
    pub(crate) answers: Arc<dyn Answers>,
    pub(crate) listing: usize,
    /// The entry of each body.
    pub(crate) entries: Vec<u32>,
    pub(crate) kept: Kept,
    pub(crate) cancel: Cancel,
    /// Held while contents come.
    pub(crate) coming: Mutex<()>,
}

impl std::fmt::Debug for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Missing").field("listing", &self.listing).finish_non_exhaustive()
    }
}

/// So much is written at once.
const BUFFER: usize = 1 << 20;

impl Missing {
    /// Gets these bodies, but for those that have come meanwhile.
    pub(crate) fn bring(&self, bodies: &[Body], mut wanted: Vec<usize>) -> Result<()> {
        let _coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.retain(|body| bodies[*body].place.get().is_none());
        wanted.sort_unstable_by_key(|body| self.entries[*body]);
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let total = wanted.iter().map(|body| bodies[*body].size).sum();
        let begin = self.kept.room(total);
        self.answers.ask(self.listing, &self.ranges(&wanted), &mut |input| self.take(input, bodies, &wanted, begin))
    }

    fn ranges(&self, wanted: &[usize]) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for body in wanted {
            let entry = self.entries[*body];
            match ranges.last_mut() {
                Some(last) if last.end == entry => last.end += 1,
                _ => ranges.push(entry..entry + 1),
            }
        }
        ranges
    }

    fn take(&self, input: &mut dyn Read, bodies: &[Body], wanted: &[usize], begin: u64) -> Result<()> {
        let mut input = BufReader::new(Cancellable { inner: input, cancel: self.cancel.clone() });
        let mut output = self.kept.writer(begin, BUFFER);
        let mut offset = begin;
        let mut buffer = vec![0; 1 << 17];
        let mut places = Vec::with_capacity(wanted.len());
        for body in wanted {
            let xattrs = xattrs(&mut |count| {
                let mut bytes = vec![0; count];
                input.read_exact(&mut bytes).map(|()| bytes)
            });
            self.cancel.check()?;
            let xattrs = xattrs.map_err(|e| BuildError::system("the context cannot be read", &e))?;
            let mut hasher = Hasher::new();
            let mut left = bodies[*body].size;
            while left > 0 {
                let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = input.read(&mut buffer[..piece]);
                self.cancel.check()?;
                let count = count.map_err(|e| BuildError::system("the context cannot be read", &e))?;
                if count == 0 {
                    return Err(invalid("it ends in the middle of a file"));
                }
                hasher.update(&buffer[..count]);
                output.write(&buffer[..count]).map_err(failing)?;
                left -= count as u64;
            }
            places.push((*body, Place { offset, digest: sum(&hasher.finish()), xattrs }));
            offset += bodies[*body].size;
        }
        if input.read(&mut [0]).map_err(|e| BuildError::system("the context cannot be read", &e))? != 0 {
            return Err(invalid("more was sent than was asked for"));
        }
        output.flush().map_err(failing)?;
        // Only what is whole is there, and only what is there is kept.
        for (body, place) in places {
            self.kept.note(self.entries[body], &place);
            let _ = bodies[body].place.set(place);
        }
        Ok(())
    }
}
