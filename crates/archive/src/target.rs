//! What an archive is applied to: a directory, or an image that is being written.

use std::io::Read;
use std::path::Path;

use crate::Result;
use crate::header::Entry;
use crate::reader::Reader;
use crate::record::Tap;

/// Takes entries one after another. Names are below the root by the time that they come here, sizes are within their
/// bounds, and whiteouts name one file: all of that is the same whatever the target is.
pub(crate) trait Target {
    /// The root itself: an archive may say who owns it.
    fn root(&mut self, entry: &Entry) -> Result<()>;

    /// Anything else, with its content; what is there already makes room.
    fn put<R: Read>(&mut self, entry: &Entry, path: &Path, reader: &mut Reader<Tap<'_, R>>) -> Result<()>;

    /// A removal of `path`.
    fn whiteout(&mut self, entry: &Entry, path: &Path) -> Result<()>;

    /// The mark that what was below the directory `path` is hidden.
    fn opaque(&mut self, entry: &Entry, path: &Path) -> Result<()>;

    /// The archive has ended.
    fn finish(&mut self) -> Result<()>;
}
