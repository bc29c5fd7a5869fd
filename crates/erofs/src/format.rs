//! Structures as they are on the disk (Linux, `fs/erofs/erofs_fs.h`). All numbers are little endian.

use crate::checksum::crc32c;

pub(crate) const BLOCK_BITS: u8 = 12;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 1 << BLOCK_BITS;
/// An inode begins at a multiple of this; its number (nid) is the multiple.
pub(crate) const SLOT: usize = 32;
/// Blocks have numbers of 32 bits.
pub(crate) const MAX_BYTES: u64 = 1 << (32 + BLOCK_BITS);
/// Longest name.
pub(crate) const MAX_NAME: usize = 255;
/// Where the superblock is, and how long.
const SUPERBLOCK: usize = 1024;
const SUPERBLOCK_LENGTH: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;
/// Where the root's inode is: its number has 16 bits only, so it has room in the first block.
pub(crate) const ROOT: usize = SUPERBLOCK + SUPERBLOCK_LENGTH;

/// Kinds of files in `st_mode` (inode(7)), and in directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File = 1,
    Directory = 2,
    CharacterDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl Kind {
    fn mode(self) -> u16 {
        match self {
            Self::Fifo => 0o01_0000,
            Self::CharacterDevice => 0o02_0000,
            Self::Directory => 0o04_0000,
            Self::BlockDevice => 0o06_0000,
            Self::File => 0o10_0000,
            Self::Symlink => 0o12_0000,
            Self::Socket => 0o14_0000,
        }
    }
}

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks that follow each other.
    Plain = 0,
    /// As `Plain`, but for the last, incomplete block, which follows the inode.
    Inline = 2,
    /// In chunks, the numbers of whose first blocks follow the inode.
    Chunks = 4,
}

/// An inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inode<'a> {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// `None` is the image's time.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) layout: Layout,
    /// First block, device number or form of the chunks.
    pub(crate) place: u32,
    /// For `stat` of 32 bits.
    pub(crate) number: u32,
    /// Extended attributes as they follow the inode.
    pub(crate) xattrs: &'a [u8],
}

/// Bytes of the two forms of an inode.
const COMPACT: usize = 32;
const EXTENDED: usize = 64;

impl Inode<'_> {
    /// Whether it fits the short form, which has no time of its own.
    pub(crate) fn is_compact(&self, time: Option<(i64, u32)>) -> bool {
        (self.mtime.is_none() || self.mtime == time)
            && self.uid <= u32::from(u16::MAX)
            && self.gid <= u32::from(u16::MAX)
            && self.links <= u32::from(u16::MAX)
            && self.size <= u64::from(u32::MAX)
    }

    /// Bytes of the inode and its extended attributes.
    pub(crate) fn length(&self, compact: bool) -> usize {
        (if compact { COMPACT } else { EXTENDED }) + self.xattrs.len()
    }

    /// Appends it to `to`. `time` is the image's.
    pub(crate) fn encode(&self, compact: bool, time: Option<(i64, u32)>, to: &mut Vec<u8>) {
        let format = u16::from(!compact) | (self.layout as u16) << 1;
        // A header of 12 bytes counts as one, each four bytes after it as one.
        let xattrs = self.xattrs.len().checked_sub(12).map_or(0, |length| length / 4 + 1) as u16;
        let mode = self.kind.mode() | (self.mode & 0o7777) as u16;
        let short = |to: &mut Vec<u8>, value: u16| to.extend(value.to_le_bytes());
        let long = |to: &mut Vec<u8>, value: u32| to.extend(value.to_le_bytes());
        short(to, format);
        short(to, xattrs);
        short(to, mode);
        if compact {
            short(to, self.links as u16);
            long(to, self.size as u32);
            long(to, 0);
            long(to, self.place);
            long(to, self.number);
            short(to, self.uid as u16);
            short(to, self.gid as u16);
            long(to, 0);
        } else {
            let (seconds, nanoseconds) = self.mtime.or(time).unwrap_or_default();
            short(to, 0);
            to.extend(self.size.to_le_bytes());
            long(to, self.place);
            long(to, self.number);
            long(to, self.uid);
            long(to, self.gid);
            to.extend(seconds.to_le_bytes());
            long(to, nanoseconds);
            long(to, self.links);
            to.extend([0; 16]);
        }
        to.extend_from_slice(self.xattrs);
    }
}

/// Where an inode's link count is in it, and what it is there.
pub(crate) fn link_count(compact: bool, links: u32) -> (u64, Vec<u8>) {
    if compact { (6, (links as u16).to_le_bytes().to_vec()) } else { (44, links.to_le_bytes().to_vec()) }
}

/// What the superblock says.
#[derive(Debug)]
pub(crate) struct Superblock {
    pub(crate) inodes: u64,
    pub(crate) time: (i64, u32),
    pub(crate) blocks: u32,
    /// First block of the extended attributes that stand apart.
    pub(crate) xattrs: u32,
    pub(crate) uuid: [u8; 16],
    /// Whether there are files with holes.
    pub(crate) chunks: bool,
}

impl Superblock {
    /// Writes it to the first block, which has all else that belongs there, as the checksum is of all.
    pub(crate) fn encode(&self, block: &mut [u8; BLOCK]) {
        let mut put = |at: usize, bytes: &[u8]| block[SUPERBLOCK + at..][..bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS, 0]);
        put(14, &((ROOT / SLOT) as u16).to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(24, &self.time.0.to_le_bytes());
        put(32, &self.time.1.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        // Inodes count from the image's begin, so that they can be anywhere in it.
        put(40, &0u32.to_le_bytes());
        put(44, &self.xattrs.to_le_bytes());
        put(48, &self.uuid);
        put(80, &(if self.chunks { INCOMPAT_CHUNKED_FILE } else { 0 }).to_le_bytes());
        let checksum = crc32c(&block[SUPERBLOCK..]);
        block[SUPERBLOCK + 4..][..4].copy_from_slice(&checksum.to_le_bytes());
    }
}
