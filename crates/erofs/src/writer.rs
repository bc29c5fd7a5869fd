//! Takes the entries of a layer, and makes an image of them.

use std::fs::File;

use crate::Result;
use crate::attributes::{Attributes, Node};
use crate::directories;
use crate::error::{ErofsError, Refusal};
use crate::file::FileWriter;
use crate::format::{BLOCK, Inode, Kind, Layout, link_count};
use crate::image::Image;
use crate::metadata::Metadata;
use crate::tree::{self, Entry, ROOT, Tree};
use crate::xattrs::{self, Kept};

/// Longest target of a symbolic link (`PATH_MAX`, its NUL left out).
const MAX_TARGET: usize = 4095;
/// Numbers of files have 32 bits.
const MAX_FILES: u32 = u32::MAX - 1;

/// An image that is being written.
///
/// Paths are relative to the image's root, parts separated by `/`; empty parts and `.` are left out. A symbolic link on
/// the way of a path is followed inside the image, as when an archive is unpacked. Directories on the way that nobody
/// told of are made, with mode 0755, owned by root. What a path names already is replaced, a directory with all below it;
/// only a directory stays for a directory, and gets the new attributes.
///
/// An entry that is refused changes nothing but missing directories on its way. After an error of the disk the image is
/// lost, and all calls fail.
#[derive(Debug)]
pub struct Writer {
    pub(crate) image: Image,
    pub(crate) metadata: Metadata,
    pub(crate) tree: Tree,
    kept: Kept,
    /// The image's own time, which inodes of the short form have: that of the first file.
    pub(crate) time: Option<(i64, u32)>,
    /// Whether there are files with holes.
    pub(crate) chunks: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image. What it takes on the disk is less by holes of files.
    pub bytes: u64,
    /// Files of all kinds, a file with several names once.
    pub inodes: u64,
}

impl Writer {
    /// Begins an image in `file`, which must be empty and open for writing.
    ///
    /// # Errors
    /// `NotEmpty`, `Write`.
    pub fn new(file: File) -> Result<Self> {
        let mut image = Image::new(file)?;
        // The superblock and the root come last.
        image.leave_out(BLOCK as u64)?;
        Ok(Self {
            image,
            metadata: Metadata::new(),
            tree: Tree::new(),
            kept: Kept::default(),
            time: None,
            chunks: false,
        })
    }

    /// Tells of a directory. Its attributes are the latest that were told. In place of a whiteout it hides what is below
    /// (`opaque`).
    ///
    /// # Errors
    /// `Entry`.
    pub fn directory(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        let refused = |why| ErofsError::entry(path, why);
        check_time(attributes).map_err(refused)?;
        let xattrs = self.kept.keep(&attributes.xattrs).map_err(refused)?;
        let (number, hidden) = match self.tree.place(path).map_err(refused)? {
            None => (ROOT, false),
            Some((parent, name)) => self.make_directory(parent, name).map_err(refused)?,
        };
        let directory = self.tree.directory_mut(number);
        directory.mode = attributes.mode;
        directory.uid = attributes.uid;
        directory.gid = attributes.gid;
        directory.mtime = Some(attributes.mtime);
        directory.xattrs = xattrs;
        directory.opaque |= hidden || xattrs::is_opaque(&attributes.xattrs);
        Ok(())
    }

    /// The directory of a name, and whether a whiteout was there.
    fn make_directory(&mut self, parent: u32, name: &[u8]) -> Result<(u32, bool), Refusal> {
        match self.tree.get(parent, name) {
            Some(Entry::Directory(number)) => Ok((number, false)),
            Some(Entry::Other(file)) => {
                let hidden = self.tree.files[file as usize].whiteout;
                self.tree.remove(parent, name);
                Ok((self.tree.make_directory(parent, name)?, hidden))
            }
            None => Ok((self.tree.make_directory(parent, name)?, false)),
        }
    }

    /// Begins a regular file of `size` bytes, which are written to the answer. It is there once
    /// [`FileWriter::finish`] has been called; dropped before, it has left nothing but room that nobody uses.
    ///
    /// # Errors
    /// `Entry`, `TooMany`, `TooLarge`, `Write`.
    pub fn file<'a>(&'a mut self, path: &'a [u8], attributes: &Attributes, size: u64) -> Result<FileWriter<'a>> {
        let (parent, name) = self.place(path, attributes)?;
        FileWriter::new(self, path, parent, name, attributes, size)
    }

    /// A symbolic link. It has no permissions of its own; its mode is 0777.
    ///
    /// # Errors
    /// `Entry`, `TooMany`, `TooLarge`, `Write`.
    pub fn symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<()> {
        let (parent, name) = self.place(path, attributes)?;
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(ErofsError::entry(path, Refusal::BadTarget));
        }
        let xattrs = self.xattrs(path, attributes)?;
        let mut inode = self.inode(Kind::Symlink, attributes, &xattrs);
        inode.mode = 0o777;
        inode.size = target.len() as u64;
        if inode.length(inode.is_compact(self.time)) + target.len() <= BLOCK {
            inode.layout = Layout::Inline;
            self.add(parent, name, &inode, target, Some(target))
        } else {
            inode.place = (self.image.align()? / BLOCK as u64) as u32;
            self.image.append(target)?;
            self.image.align()?;
            self.add(parent, name, &inode, &[], Some(target))
        }
    }

    /// A device, a FIFO or a socket.
    ///
    /// # Errors
    /// `Entry`, `TooMany`, `TooLarge`, `Write`.
    pub fn node(&mut self, path: &[u8], node: Node, attributes: &Attributes) -> Result<()> {
        let (parent, name) = self.place(path, attributes)?;
        let (kind, device) = match node {
            Node::CharacterDevice(major, minor) => (Kind::CharacterDevice, Some((major, minor))),
            Node::BlockDevice(major, minor) => (Kind::BlockDevice, Some((major, minor))),
            Node::Fifo => (Kind::Fifo, None),
            Node::Socket => (Kind::Socket, None),
        };
        let xattrs = self.xattrs(path, attributes)?;
        let mut inode = self.inode(kind, attributes, &xattrs);
        let device = device_number(device.unwrap_or_default());
        inode.place = device.ok_or_else(|| ErofsError::entry(path, Refusal::BadDevice))?;
        self.add(parent, name, &inode, &[], None)
    }

    /// Gives the file `existing`, which is no directory, another name. A symbolic link gets another name itself.
    ///
    /// # Errors
    /// `Entry`.
    pub fn hard_link(&mut self, path: &[u8], existing: &[u8]) -> Result<()> {
        let refused = |why| ErofsError::entry(path, why);
        let (parent, name) = self.tree.place(path).map_err(refused)?.ok_or_else(|| refused(Refusal::Root))?;
        self.tree.link(parent, name, existing).map_err(refused)
    }

    /// Hides `path` of the layers below, as overlayfs has it: by a character device 0:0. Where this layer has something
    /// itself that stays, and a directory hides what is below it.
    ///
    /// # Errors
    /// `Entry`, `TooMany`, `TooLarge`, `Write`.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let refused = |why| ErofsError::entry(path, why);
        let (parent, name) = self.tree.place(path).map_err(refused)?.ok_or_else(|| refused(Refusal::Root))?;
        match self.tree.get(parent, name) {
            Some(Entry::Directory(number)) => {
                self.tree.directory_mut(number).opaque = true;
                Ok(())
            }
            Some(Entry::Other(_)) => Ok(()),
            None => {
                let inode = Inode { mtime: None, ..self.inode(Kind::CharacterDevice, &Attributes::default(), &[]) };
                self.put(parent, name, &inode, &[], None).map(drop)
            }
        }
    }

    /// Hides what the layers below have in the directory `path`, by overlayfs's attribute `trusted.overlay.opaque`. A link
    /// at its end is followed.
    ///
    /// # Errors
    /// `Entry`, if something else is there.
    pub fn opaque(&mut self, path: &[u8]) -> Result<()> {
        let refused = |why| ErofsError::entry(path, why);
        // Where a name in it would be.
        let below = [path, b"/x"].concat();
        let number = self.tree.place(&below).map_err(refused)?.map_or(ROOT, |(number, _)| number);
        self.tree.directory_mut(number).opaque = true;
        Ok(())
    }

    /// Writes the directories and all that could not be known before. The caller syncs the file. `uuid` tells this image
    /// from others, best by what is in it: overlayfs finds by it where a file was copied up from.
    ///
    /// # Errors
    /// `TooLarge`, `Write`, and `Entry` if the root has more than 255 extended attributes that do not fit one block.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<Summary> {
        let last = directories::write(&mut self)?;
        self.image.flush()?;
        for file in self.tree.files.iter().filter(|file| file.links > 1) {
            let (at, bytes) = link_count(file.compact, file.links);
            self.image.write_at(file.place + at, &bytes)?;
        }
        let files = self.tree.files.iter().filter(|file| file.links > 0).count() as u64;
        let bytes = self.image.finish()?;
        let inodes = files + last.directories;
        let block = last.first_block(bytes, inodes, self.time.unwrap_or_default(), uuid, self.chunks);
        self.image.write_at(0, block.as_slice())?;
        Ok(Summary { bytes, inodes })
    }

    /// Where an entry that is no directory goes. The first one's time becomes the image's.
    fn place<'p>(&mut self, path: &'p [u8], attributes: &Attributes) -> Result<(u32, &'p [u8])> {
        let refused = |why| ErofsError::entry(path, why);
        check_time(attributes).map_err(refused)?;
        let place = self.tree.place(path).map_err(refused)?.ok_or_else(|| refused(Refusal::Root))?;
        // Older kernels take it as a number without a sign.
        if self.time.is_none() && attributes.mtime.0 >= 0 {
            self.time = Some(attributes.mtime);
        }
        Ok(place)
    }

    pub(crate) fn xattrs(&self, path: &[u8], attributes: &Attributes) -> Result<Vec<u8>> {
        if attributes.xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let all = attributes.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        let entries = xattrs::entries(all).map_err(|why| ErofsError::entry(path, why))?;
        Ok(xattrs::body(&entries))
    }

    /// An inode of one name, without content.
    pub(crate) fn inode<'x>(&self, kind: Kind, attributes: &Attributes, xattrs: &'x [u8]) -> Inode<'x> {
        Inode {
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: Some(attributes.mtime),
            links: 1,
            size: 0,
            layout: Layout::Plain,
            place: 0,
            number: self.tree.files.len() as u32 + 1,
            xattrs,
        }
    }

    fn add(&mut self, parent: u32, name: &[u8], inode: &Inode<'_>, after: &[u8], target: Option<&[u8]>) -> Result<()> {
        self.put(parent, name, inode, after, target).map(drop)
    }

    /// Writes an inode with what follows it, and gives it its name. The answer is where `after` is.
    pub(crate) fn put(
        &mut self,
        parent: u32,
        name: &[u8],
        inode: &Inode<'_>,
        after: &[u8],
        target: Option<&[u8]>,
    ) -> Result<u64> {
        if self.tree.files.len() >= MAX_FILES as usize {
            return Err(ErofsError::TooMany(MAX_FILES));
        }
        let compact = inode.is_compact(self.time);
        let mut bytes = Vec::with_capacity(inode.length(compact) + after.len());
        inode.encode(compact, self.time, &mut bytes);
        bytes.extend_from_slice(after);
        let place = self.metadata.put(&mut self.image, &bytes)?;
        let whiteout = inode.kind == Kind::CharacterDevice && inode.place == 0;
        let file = tree::File { place, links: 1, kind: inode.kind, compact, whiteout };
        self.tree.add(parent, name, file, target).map_err(|why| ErofsError::entry(name, why))?;
        Ok(place + inode.length(compact) as u64)
    }
}

fn check_time(attributes: &Attributes) -> Result<(), Refusal> {
    if attributes.mtime.1 < 1_000_000_000 { Ok(()) } else { Err(Refusal::BadTime) }
}

/// As `new_encode_dev` of the kernel (`include/linux/kdev_t.h`).
fn device_number((major, minor): (u32, u32)) -> Option<u32> {
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}
