//! Reads an image by the format's description (Linux, `fs/erofs/erofs_fs.h`), and fails for whatever the kernel would
//! stumble over, also where it looks only at times.

use std::collections::BTreeMap;

use crate::seen::{DIRECTORY, FILE, SYMLINK, Seen, TYPE, Tree, join};

const BLOCK: usize = 4096;

pub(crate) struct Image<'a> {
    bytes: &'a [u8],
    time: (i64, u32),
    xattrs: usize,
}

struct Inode {
    layout: u16,
    seen: Seen,
    place: u32,
    /// What follows the inode and its extended attributes.
    after: usize,
}

/// The tree of an image.
pub(crate) fn tree(bytes: &[u8]) -> Tree {
    let image = Image::open(bytes);
    let superblock = &bytes[1024..1152];
    let mut tree = Tree::new();
    let mut names: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let root = u64::from(short(superblock, 14));
    let mut left = vec![(Vec::new(), root, root)];
    while let Some((path, number, parent)) = left.pop() {
        let mut inode = image.inode(number);
        names.entry(number).or_default().push(path.clone());
        let mut content = image.content(&inode);
        if inode.seen.mode & TYPE == DIRECTORY {
            assert_eq!(names[&number].len(), 1, "a directory has one name");
            let entries = entries(&content);
            let directories = entries.iter().filter(|(_, _, kind)| *kind == 2).count();
            assert_eq!(inode.seen.links as usize, directories, "links of {path:?}");
            for (name, below, kind) in entries {
                match name.as_slice() {
                    b"." => assert_eq!((below, kind), (number, 2)),
                    b".." => assert_eq!((below, kind), (parent, 2)),
                    _ => {
                        let mode = image.inode(below).seen.mode & TYPE;
                        let types = [FILE, DIRECTORY, 0o2_0000, 0o6_0000, 0o1_0000, 0o14_0000, SYMLINK];
                        assert_eq!(mode, types[usize::from(kind) - 1], "type of {name:?}");
                        left.push((join(&path, &name), below, number));
                    }
                }
            }
            content = Vec::new();
            inode.seen.size = 0;
        }
        tree.insert(path, Seen { content, ..inode.seen });
    }
    assert_eq!(names.len() as u64, long(superblock, 16), "inodes");
    for (number, mut paths) in names {
        paths.sort();
        for path in &paths {
            let seen = tree.get_mut(path).unwrap();
            seen.first.clone_from(&paths[0]);
            if seen.mode & TYPE != DIRECTORY {
                assert_eq!(seen.links as usize, paths.len(), "links of {number}");
            }
        }
    }
    tree
}

impl<'a> Image<'a> {
    fn open(bytes: &'a [u8]) -> Self {
        let block = &bytes[1024..BLOCK];
        assert_eq!(word(block, 0), 0xe0f5_e1e2, "magic");
        let mut summed = block.to_vec();
        summed[4..8].fill(0);
        assert_eq!(word(block, 4), checksum(&summed), "checksum");
        assert_eq!(word(block, 8), 3, "compatible features");
        assert_eq!(block[12], 12, "bits of a block");
        assert_eq!(word(block, 36) as usize * BLOCK, bytes.len(), "blocks");
        assert_eq!(word(block, 40), 0, "where inodes begin");
        assert_eq!(word(block, 80) & !4, 0, "incompatible features");
        Self { bytes, time: (long(block, 24) as i64, word(block, 32)), xattrs: word(block, 44) as usize * BLOCK }
    }

    fn inode(&self, number: u64) -> Inode {
        let place = number as usize * 32;
        let inode = &self.bytes[place..];
        let format = short(inode, 0);
        assert_eq!(format & !0xf, 0, "format");
        let extended = format & 1 == 1;
        let mode = u32::from(short(inode, 4));
        let (length, size, uid, gid, mtime, links) = if extended {
            let mtime = (long(inode, 32) as i64, word(inode, 40));
            (64, long(inode, 8), word(inode, 24), word(inode, 28), mtime, word(inode, 44))
        } else {
            assert_eq!((word(inode, 12), word(inode, 28)), (0, 0), "reserved");
            let (uid, gid) = (short(inode, 24).into(), short(inode, 26).into());
            (32, word(inode, 8).into(), uid, gid, self.time, short(inode, 6).into())
        };
        let own = word(inode, 16);
        let is_device = matches!(mode & TYPE, 0o2_0000 | 0o6_0000);
        let device = if is_device { (own >> 8 & 0xfff, own & 0xff | own >> 12 & 0xfff00) } else { (0, 0) };
        let count = usize::from(short(inode, 2));
        let body = if count == 0 { 0 } else { 12 + 4 * (count - 1) };
        assert_ne!(count, 1, "a header without attributes");
        let xattrs = self.xattrs(&inode[length..length + body]);
        let first = Vec::new();
        let seen = Seen { mode, uid, gid, mtime, links, device, size, xattrs, content: Vec::new(), first };
        Inode { layout: format >> 1, seen, place: own, after: place + length + body }
    }

    fn xattrs(&self, body: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        if body.is_empty() {
            return all;
        }
        let apart = usize::from(body[4]);
        let mut left = &body[12..];
        for _ in 0..apart {
            let at = self.xattrs + word(left, 0) as usize * 4;
            let (name, value, _) = xattr(&self.bytes[at..]);
            assert!(all.insert(name, value).is_none());
            left = &left[4..];
        }
        while !left.is_empty() {
            let (name, value, length) = xattr(left);
            assert!(all.insert(name, value).is_none());
            left = &left[length..];
        }
        all
    }

    fn content(&self, inode: &Inode) -> Vec<u8> {
        if !matches!(inode.seen.mode & TYPE, FILE | DIRECTORY | SYMLINK) {
            return Vec::new();
        }
        let size = inode.seen.size as usize;
        let start = inode.place as usize * BLOCK;
        match inode.layout {
            0 => self.bytes[start..start + size].to_vec(),
            2 => {
                let (whole, rest) = (size / BLOCK * BLOCK, size % BLOCK);
                assert!(inode.after % BLOCK + rest <= BLOCK, "an end that crosses a block's border");
                [&self.bytes[start..start + whole], &self.bytes[inode.after..inode.after + rest]].concat()
            }
            4 => {
                assert_eq!(word(self.bytes, 1024 + 80), 4, "chunks are a feature");
                let chunk = BLOCK << inode.place;
                let mut content = Vec::new();
                for number in 0..size.div_ceil(chunk) {
                    let block = word(self.bytes, inode.after + 4 * number);
                    let length = chunk.min(size - content.len());
                    if block == u32::MAX {
                        content.resize(content.len() + length, 0);
                    } else {
                        let at = block as usize * BLOCK;
                        content.extend_from_slice(&self.bytes[at..at + length]);
                    }
                }
                content
            }
            other => panic!("layout {other}"),
        }
    }
}

/// Name, value and length of an extended attribute.
fn xattr(bytes: &[u8]) -> (Vec<u8>, Vec<u8>, usize) {
    let (name, value) = (usize::from(bytes[0]), usize::from(short(bytes, 2)));
    let prefix: &[u8] = match bytes[1] {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        other => panic!("prefix {other}"),
    };
    let full = [prefix, &bytes[4..4 + name]].concat();
    (full, bytes[4 + name..4 + name + value].to_vec(), (4 + name + value).next_multiple_of(4))
}

/// Names, numbers and types of a directory, which must be in order.
fn entries(content: &[u8]) -> Vec<(Vec<u8>, u64, u8)> {
    let mut all: Vec<(Vec<u8>, u64, u8)> = Vec::new();
    for block in content.chunks(BLOCK) {
        let count = usize::from(short(block, 8)) / 12;
        for at in 0..count {
            let entry = &block[at * 12..];
            let end = if at + 1 < count { short(entry, 20).into() } else { block.len() };
            let name = &block[short(entry, 8).into()..end];
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            assert!((1..=255).contains(&name.len()));
            assert!(all.last().is_none_or(|(last, ..)| last.as_slice() < name), "order");
            all.push((name.to_vec(), long(entry, 0), entry[10]));
        }
    }
    all
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// CRC-32C bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
