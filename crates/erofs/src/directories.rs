//! Directories, which come last: each needs the numbers of all that is in it.

use crate::error::ErofsError;
use crate::format::{self, BLOCK, Inode, Kind, Layout, SLOT, Superblock};
use crate::image::Image;
use crate::tree::{Directory, Entry, ROOT, Tree};
use crate::writer::Writer;
use crate::{Result, xattrs};

/// Bytes of an entry without its name.
const ENTRY: usize = 12;
/// Inodes of directories are gathered to this many bytes.
const GATHERED: usize = 256 << 10;

/// What is left to be written.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) directories: u64,
    /// The first block, with the root in it.
    block: Box<[u8; BLOCK]>,
    /// First block of the extended attributes that stand apart.
    xattrs: u32,
}

/// Where a directory goes, and in what form.
#[derive(Clone, Copy, Debug)]
struct Plan {
    number: u32,
    size: u64,
    inline: bool,
}

/// Writes all directories but the root's inode.
pub(crate) fn write(writer: &mut Writer) -> Result<Last> {
    let Writer { image, metadata, tree, time, .. } = writer;
    let order = order(tree);
    let mut last = Last { directories: order.len() as u64, block: Box::new([0; BLOCK]), xattrs: 0 };
    let root_xattrs = root_xattrs(tree, image, &mut last)?;
    metadata.open_rest();

    // First all places, as directories name each other.
    let begin = image.align()?;
    let mut end = begin;
    let mut places = vec![0; tree.bound()];
    let mut plans = Vec::with_capacity(order.len());
    for &number in &order {
        let directory = tree.directory(number);
        let size = size(directory.listing(number).map(|(name, _)| name.len()));
        let own = own_xattrs(directory);
        let xattrs = if number == ROOT { &root_xattrs } else { &own };
        let inode = inode(directory, size, xattrs);
        let mut length = inode.length(inode.is_compact(*time));
        let rest = (size % BLOCK as u64) as usize;
        let room = if number == ROOT { BLOCK - format::ROOT } else { BLOCK };
        let inline = rest > 0 && length + rest <= room;
        length += if inline { rest } else { 0 };
        places[number as usize] = if number == ROOT {
            format::ROOT as u64
        } else if let Some(place) = metadata.reserve(length) {
            place
        } else {
            let left = BLOCK - (end % BLOCK as u64) as usize;
            let place = if length > left { end.next_multiple_of(BLOCK as u64) } else { end };
            end = (place + length as u64).next_multiple_of(SLOT as u64);
            place
        };
        plans.push(Plan { number, size, inline });
    }
    let end = end.next_multiple_of(BLOCK as u64);
    if end > begin {
        image.leave_out(end - begin)?;
    }

    // Then what they have in them.
    let mut gathered = Gathered { place: begin, bytes: Vec::new() };
    let mut bytes = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        let directory = tree.directory(plan.number);
        let own = own_xattrs(directory);
        let xattrs = if plan.number == ROOT { &root_xattrs } else { &own };
        let mut inode = inode(directory, plan.size, xattrs);
        inode.number = ((tree.files.len() + at) as u32).wrapping_add(1);
        inode.layout = if plan.inline { Layout::Inline } else { Layout::Plain };
        inode.place = (image.end() / BLOCK as u64) as u32;
        let rest = blocks(tree, plan.number, &places, |block| image.append(block))?;
        if !plan.inline {
            image.append(&rest)?;
            image.align()?;
        }
        bytes.clear();
        inode.encode(inode.is_compact(*time), *time, &mut bytes);
        if plan.inline {
            bytes.extend_from_slice(&rest);
        }
        let place = places[plan.number as usize];
        if plan.number == ROOT {
            last.block[format::ROOT..format::ROOT + bytes.len()].copy_from_slice(&bytes);
        } else if !metadata.fill(place, &bytes) {
            gathered.put(image, place, &bytes)?;
        }
    }
    gathered.flush(image)?;
    metadata.finish(image)?;
    Ok(last)
}

impl Last {
    /// The first block of an image of so many bytes and inodes.
    pub(crate) fn first_block(
        mut self,
        bytes: u64,
        inodes: u64,
        time: (i64, u32),
        uuid: [u8; 16],
        chunks: bool,
    ) -> Box<[u8; BLOCK]> {
        let blocks = (bytes / BLOCK as u64) as u32;
        Superblock { inodes, time, blocks, xattrs: self.xattrs, uuid, chunks }.encode(&mut self.block);
        self.block
    }
}

/// All directories that are there, each followed by those in it: as who looks at all of them goes.
fn order(tree: &Tree) -> Vec<u32> {
    let mut order = Vec::new();
    let mut left = vec![ROOT];
    while let Some(number) = left.pop() {
        order.push(number);
        let from = left.len();
        left.extend(tree.directory(number).subdirectories());
        left[from..].reverse();
    }
    order
}

/// The inode of a directory; where its entries are is not known yet.
fn inode<'x>(directory: &Directory, size: u64, xattrs: &'x [u8]) -> Inode<'x> {
    Inode {
        kind: Kind::Directory,
        mode: directory.mode,
        uid: directory.uid,
        gid: directory.gid,
        mtime: directory.mtime,
        links: 2 + directory.subdirectories().count() as u32,
        size,
        layout: Layout::Plain,
        place: 0,
        number: 0,
        xattrs,
    }
}

/// Encoded extended attributes of a directory, with overlayfs's mark.
fn entries(directory: &Directory) -> Vec<u8> {
    let mut entries = directory.xattrs.as_deref().unwrap_or_default().to_vec();
    if directory.opaque {
        // A name and value of ours that have their place.
        entries.extend(xattrs::entries([(xattrs::OPAQUE, b"y".as_slice())]).unwrap_or_default());
    }
    entries
}

fn own_xattrs(directory: &Directory) -> Vec<u8> {
    xattrs::body(&entries(directory))
}

/// The root has room in the first block only. What is longer stands apart.
fn root_xattrs(tree: &Tree, image: &mut Image, last: &mut Last) -> Result<Vec<u8>> {
    let entries = entries(tree.directory(ROOT));
    let body = xattrs::body(&entries);
    let longest = inode(tree.directory(ROOT), 0, &body).length(false);
    if longest <= BLOCK - format::ROOT {
        return Ok(body);
    }
    last.xattrs = (image.align()? / BLOCK as u64) as u32;
    image.append(&entries)?;
    image.align()?;
    xattrs::body_apart(&entries).map_err(|why| ErofsError::entry(b"/", why))
}

/// Bytes of a directory with names of these lengths.
fn size(names: impl Iterator<Item = usize>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        if used + ENTRY + name > BLOCK {
            full += BLOCK as u64;
            used = 0;
        }
        used += ENTRY + name;
    }
    full + used as u64
}

/// Tells `full` of all blocks of a directory but the last, which is the answer, without what fills it up.
fn blocks(tree: &Tree, number: u32, places: &[u64], mut full: impl FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    let mut here: Vec<(&[u8], Entry)> = Vec::new();
    let mut used = 0;
    for (name, entry) in tree.directory(number).listing(number) {
        if used + ENTRY + name.len() > BLOCK {
            encode(tree, &here, places, &mut block);
            block.resize(BLOCK, 0);
            full(&block)?;
            here.clear();
            used = 0;
        }
        used += ENTRY + name.len();
        here.push((name, entry));
    }
    encode(tree, &here, places, &mut block);
    Ok(block)
}

/// A block: entries of a fixed length, then their names.
fn encode(tree: &Tree, entries: &[(&[u8], Entry)], places: &[u64], block: &mut Vec<u8>) {
    block.clear();
    let mut offset = entries.len() * ENTRY;
    for (name, entry) in entries {
        let (place, kind) = match entry {
            Entry::Directory(number) => (places[*number as usize], Kind::Directory),
            Entry::Other(number) => {
                let file = &tree.files[*number as usize];
                (file.place, file.kind)
            }
        };
        block.extend((place / SLOT as u64).to_le_bytes());
        block.extend((offset as u16).to_le_bytes());
        block.extend([kind as u8, 0]);
        offset += name.len();
    }
    for (name, _) in entries {
        block.extend_from_slice(name);
    }
}

/// Writes what comes in the order of its places in larger pieces.
#[derive(Debug)]
struct Gathered {
    place: u64,
    bytes: Vec<u8>,
}

impl Gathered {
    fn put(&mut self, image: &mut Image, place: u64, bytes: &[u8]) -> Result<()> {
        if self.bytes.len() >= GATHERED {
            self.flush(image)?;
        }
        self.bytes.resize((place - self.place) as usize, 0);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, image: &mut Image) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        image.write_at(self.place, &self.bytes)?;
        self.place += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}
