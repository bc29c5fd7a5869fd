//! What an archive was made of, told while it is unpacked.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use wharf_rooted_path::RootDir;

/// Hears what an archive is made of, so that its very bytes can be written again from the tree.
pub trait Recorder {
    /// Bytes that are no file's content: headers, paddings, what follows the end.
    fn bytes(&mut self, bytes: &[u8]);

    /// Here are bytes that are not told, as they are in what was made of the archive.
    fn content(&mut self, content: Content<'_>);

    /// Of a directory: the file or directory `name` in `parent`, which is `path` below the root, makes room for a later entry. True
    /// when it has been moved elsewhere; false when it may be removed.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn replaced(&mut self, parent: &RootDir, name: &OsStr, path: &Path) -> io::Result<bool>;
}

/// Where bytes of an archive are found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The `size` bytes of the regular file `path`, which is below the root and has no link in it.
    File { path: &'a Path, size: u64 },
    /// These bytes of the image's file, one range after another. They stay there, also when a later entry replaces what
    /// they belong to.
    Ranges(&'a [Range<u64>]),
}

/// The input on its way to the reader, with somebody who listens.
pub(crate) struct Tap<'a, R> {
    input: R,
    recorder: Option<&'a mut dyn Recorder>,
    /// What goes by is a file's content, and is in the tree.
    content: bool,
}

impl<'a, R> Tap<'a, R> {
    pub(crate) fn new(input: R, recorder: Option<&'a mut dyn Recorder>) -> Self {
        Self { input, recorder, content: false }
    }

    pub(crate) fn recorder(&mut self) -> Option<&mut (dyn Recorder + 'a)> {
        self.recorder.as_deref_mut()
    }

    /// What follows is a file's content, until [`Self::end_of_content`].
    pub(crate) fn begin_content(&mut self) {
        self.content = true;
    }

    /// Tells where content is that is on its way, or that was.
    pub(crate) fn content(&mut self, content: Content<'_>) {
        if let Some(recorder) = self.recorder.as_deref_mut() {
            recorder.content(content);
        }
    }

    pub(crate) fn end_of_content(&mut self) {
        self.content = false;
    }
}

impl<R: Read> Read for Tap<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        if let Some(recorder) = self.recorder.as_deref_mut().filter(|_| !self.content) {
            recorder.bytes(&bytes[..count]);
        }
        Ok(count)
    }
}
