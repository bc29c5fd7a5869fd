//! An EROFS image as what an archive is applied to. There is nothing outside of it that could be reached.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use wharf_erofs::{Attributes, ErofsError, Node, Writer};
use wharf_rooted_path::RootError;

use crate::directory::PIECE;
use crate::error::shown;
use crate::header::{Entry, Kind, may_carry};
use crate::names::normal;
use crate::reader::Reader;
use crate::record::{Content, Tap};
use crate::target::Target;
use crate::unpack::UnpackOptions;
use crate::xattrs;
use crate::{ArchiveError, Result};

/// Bytes of a path with its NUL that system calls take (`PATH_MAX`). Nobody would reach what lies deeper.
const MAX_PATH: usize = 4096;

pub(crate) struct Image<'a> {
    writer: &'a mut Writer,
    options: &'a UnpackOptions,
    piece: Vec<u8>,
}

impl<'a> Image<'a> {
    pub(crate) fn new(writer: &'a mut Writer, options: &'a UnpackOptions) -> Self {
        Self { writer, options, piece: vec![0; PIECE] }
    }

    fn attributes(&self, entry: &Entry) -> Result<Attributes> {
        let (uid, gid) = if self.options.same_owner { self.options.owner(entry) } else { (0, 0) };
        let mut attributes = Attributes { mode: entry.mode, uid, gid, mtime: entry.mtime, ..Attributes::default() };
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| may_carry(key)) {
            // The kernel would look at them when they are set. Here nobody sets them.
            match xattrs::check(entry.kind, key, value) {
                Ok(true) => drop(attributes.xattrs.insert(key.clone(), value.clone())),
                Ok(false) => {}
                Err(errno) => return Err(failed(entry, "set an attribute of", errno)),
            }
        }
        Ok(attributes)
    }

    fn file<R: Read>(&mut self, entry: &Entry, path: &Path, reader: &mut Reader<Tap<'_, R>>) -> Result<()> {
        let attributes = self.attributes(entry)?;
        let mut file = self.writer.file(path.as_os_str().as_bytes(), &attributes, entry.size).map_err(refused)?;
        reader.input_mut().begin_content();
        let mut left = entry.size;
        while left > 0 {
            let hole = reader.skip_hole();
            if hole > 0 {
                file.hole(hole).map_err(refused)?;
                left -= hole;
                continue;
            }
            let wanted = self.piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = reader.read(&mut self.piece[..wanted]).map_err(ArchiveError::Read)?;
            if count == 0 {
                return Err(ArchiveError::Truncated(shown(&entry.path)));
            }
            file.append(&self.piece[..count]).map_err(refused)?;
            left -= count as u64;
        }
        let ranges = file.finish().map_err(refused)?;
        let tap = reader.input_mut();
        if !ranges.is_empty() {
            tap.content(Content::Ranges(&ranges));
        }
        tap.end_of_content();
        Ok(())
    }
}

impl Target for Image<'_> {
    fn root(&mut self, entry: &Entry) -> Result<()> {
        self.writer.directory(b"", &self.attributes(entry)?).map_err(refused)
    }

    fn put<R: Read>(&mut self, entry: &Entry, path: &Path, reader: &mut Reader<Tap<'_, R>>) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        if name.len() >= MAX_PATH || entry.link.len() >= MAX_PATH {
            return Err(failed(entry, "create", Errno::NAMETOOLONG));
        }
        let node = |node| (node, self.attributes(entry));
        let (node, attributes) = match entry.kind {
            Kind::File => return self.file(entry, path, reader),
            Kind::Directory => return self.writer.directory(name, &self.attributes(entry)?).map_err(refused),
            Kind::Symlink => return self.writer.symlink(name, &entry.link, &self.attributes(entry)?).map_err(refused),
            Kind::HardLink => {
                let existing = normal(&entry.link).unwrap_or_default();
                return self.writer.hard_link(name, existing.as_os_str().as_bytes()).map_err(refused);
            }
            Kind::CharacterDevice => node(Node::CharacterDevice(entry.device.0, entry.device.1)),
            Kind::BlockDevice => node(Node::BlockDevice(entry.device.0, entry.device.1)),
            Kind::Fifo => node(Node::Fifo),
        };
        self.writer.node(name, node, &attributes?).map_err(refused)
    }

    fn whiteout(&mut self, _: &Entry, path: &Path) -> Result<()> {
        self.writer.whiteout(path.as_os_str().as_bytes()).map_err(refused)
    }

    fn opaque(&mut self, _: &Entry, path: &Path) -> Result<()> {
        self.writer.opaque(path.as_os_str().as_bytes()).map_err(refused)
    }

    /// The writer has the directories' times with their other attributes.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

fn failed(entry: &Entry, action: &'static str, errno: Errno) -> ArchiveError {
    let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path)).to_owned();
    ArchiveError::Unpack { name: shown(&entry.path), source: RootError { action, path, errno } }
}

/// The disk's fault is told from the archive's.
fn refused(error: ErofsError) -> ArchiveError {
    match error {
        ErofsError::Write { .. } => ArchiveError::Write(error.into()),
        error => ArchiveError::Image(error),
    }
}
