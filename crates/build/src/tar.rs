//! The archive of a layer that is made of a plan and not of a directory (POSIX.1-2001, "ustar" and "pax" formats).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use wharf_archive::extended::{record, time};

use crate::error::{BuildError, Result};
use crate::tree::{Attributes, Kind};

/// Size of a block; headers are one, contents are padded to whole ones.
const BLOCK: usize = 512;
/// Fields of a header that has not enough room get what does not fit in an extended header before it.
const NAME: usize = 100;
const MAX_ID: u32 = 0o7_777_777;
const MAX_NUMBER: u64 = 0o77_777_777_777;

/// Writes entries in the caller's order; nothing in the bytes but what is given.
pub(crate) struct Tar<'a> {
    output: &'a mut dyn Write,
    /// For contents: a small one would make as many calls of the kernel.
    buffer: Vec<u8>,
}

/// What differs between kinds of entries.
#[derive(Default)]
struct Special<'a> {
    size: u64,
    link: &'a [u8],
    device: Option<u64>,
    flag: u8,
}

impl<'a> Tar<'a> {
    pub(crate) fn new(output: &'a mut dyn Write) -> Self {
        Self { output, buffer: vec![0; 128 << 10] }
    }

    /// A directory or FIFO.
    pub(crate) fn entry(&mut self, path: &Path, attributes: &Attributes) -> Result<()> {
        let flag = if attributes.kind == Kind::Directory { b'5' } else { b'6' };
        self.header(path, attributes, &Special { flag, ..Special::default() })
    }

    pub(crate) fn file(
        &mut self,
        path: &Path,
        size: u64,
        content: &mut dyn Read,
        attributes: &Attributes,
    ) -> Result<()> {
        self.header(path, attributes, &Special { flag: b'0', size, ..Special::default() })?;
        let mut left = size;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = content
                .read(&mut self.buffer[..wanted])
                .map_err(|e| BuildError::system(format_args!("/{} cannot be copied", path.display()), &e))?;
            if count == 0 {
                return Err(BuildError::invalid(format!("/{} became shorter while it was copied", path.display())));
            }
            put(self.output, &self.buffer[..count])?;
            left -= count as u64;
        }
        self.pad(size)
    }

    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr, attributes: &Attributes) -> Result<()> {
        self.header(path, attributes, &Special { flag: b'2', link: target.as_bytes(), ..Special::default() })
    }

    /// A second name for the file `first`.
    pub(crate) fn hard_link(&mut self, path: &Path, first: &Path, attributes: &Attributes) -> Result<()> {
        let attributes = Attributes { xattrs: Vec::new(), ..attributes.clone() };
        let link = first.as_os_str().as_bytes();
        self.header(path, &attributes, &Special { flag: b'1', link, ..Special::default() })
    }

    pub(crate) fn device(&mut self, path: &Path, device: u64, attributes: &Attributes) -> Result<()> {
        let flag = if attributes.kind == Kind::BlockDevice { b'4' } else { b'3' };
        self.header(path, attributes, &Special { flag, device: Some(device), ..Special::default() })
    }

    /// Ends the archive.
    pub(crate) fn finish(self) -> Result<()> {
        put(self.output, &[0; 2 * BLOCK])
    }

    fn header(&mut self, path: &Path, attributes: &Attributes, special: &Special<'_>) -> Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if attributes.kind == Kind::Directory {
            name.push(b'/');
        }
        let records = records(&name, attributes, special);
        if !records.is_empty() {
            // Nothing of the entry's own, which could be too large again.
            let own = Attributes {
                kind: Kind::File,
                mode: 0o644,
                owner: (0, 0),
                mtime: (attributes.mtime.0.max(0), 0),
                xattrs: Vec::new(),
            };
            let size = records.len() as u64;
            let special = Special { flag: b'x', size, ..Special::default() };
            put(self.output, &block(b"PaxHeaders/entry", &own, &special))?;
            put(self.output, &records)?;
            self.pad(size)?;
        }
        put(self.output, &block(&name, attributes, special))
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { put(self.output, &[0; BLOCK][over..]) }
    }
}

fn put(output: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).map_err(|e| BuildError::system("the layer cannot be written", &e))
}

/// One header; what does not fit its field is cut, as the extended header has it whole.
fn block(name: &[u8], attributes: &Attributes, special: &Special<'_>) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, width: usize, bytes: &[u8]| {
        let length = bytes.len().min(width);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    let octal = |n: u64, width: usize| format!("{:0width$o}", n & ((1 << (3 * width)) - 1)).into_bytes();
    put(0, NAME, name);
    put(100, 8, &octal(attributes.mode.into(), 7));
    put(108, 8, &octal(attributes.owner.0.into(), 7));
    put(116, 8, &octal(attributes.owner.1.into(), 7));
    put(124, 12, &octal(special.size, 11));
    put(136, 12, &octal(attributes.mtime.0.max(0).cast_unsigned(), 11));
    put(148, 8, b"        ");
    put(156, 1, &[special.flag]);
    put(157, NAME, special.link);
    put(257, 8, b"ustar\x0000");
    if let Some(device) = special.device {
        put(329, 8, &octal(rustix::fs::major(device).into(), 7));
        put(337, 8, &octal(rustix::fs::minor(device).into(), 7));
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The extended header: all that a ustar header cannot say, sorted by key.
fn records(name: &[u8], attributes: &Attributes, special: &Special<'_>) -> Vec<u8> {
    let mut all: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut add = |key: &str, value: Vec<u8>| drop(all.insert(key.as_bytes().to_vec(), value));
    if name.len() > NAME {
        add("path", name.to_vec());
    }
    if special.link.len() > NAME {
        add("linkpath", special.link.to_vec());
    }
    for (key, id) in [("uid", attributes.owner.0), ("gid", attributes.owner.1)] {
        if id > MAX_ID {
            add(key, id.to_string().into_bytes());
        }
    }
    if special.size > MAX_NUMBER {
        add("size", special.size.to_string().into_bytes());
    }
    let (seconds, nanoseconds) = attributes.mtime;
    let fits = u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_NUMBER);
    if nanoseconds != 0 || !fits {
        add("mtime", time(seconds, nanoseconds).into_bytes());
    }
    for (key, value) in &attributes.xattrs {
        all.insert([b"SCHILY.xattr.", key.as_bytes()].concat(), value.clone());
    }
    all.iter().flat_map(|(key, value)| record(key, value)).collect()
}

#[cfg(test)]
mod tests {
    use wharf_archive::{Kind as EntryKind, Reader};

    use super::*;

    fn attributes(kind: Kind) -> Attributes {
        Attributes { kind, mode: 0o4755, owner: (7, 3_000_000), mtime: (-2, 750_000_000), xattrs: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut bytes = Vec::new();
        let mut tar = Tar::new(&mut bytes);
        let long = "d/".repeat(80) + "file";
        let file = Attributes { xattrs: vec![("user.k".into(), b"v\0\n".to_vec())], ..attributes(Kind::File) };
        tar.entry(Path::new("dir"), &attributes(Kind::Directory)).unwrap();
        tar.file(Path::new(&long), 3, &mut &b"abc"[..], &file).unwrap();
        tar.hard_link(Path::new("second"), Path::new(&long), &file).unwrap();
        tar.symlink(Path::new("link"), OsStr::new(&long), &attributes(Kind::Symlink)).unwrap();
        let device = rustix::fs::makedev(259, 7);
        tar.device(Path::new("dev"), device, &attributes(Kind::BlockDevice)).unwrap();
        tar.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = Reader::new(bytes.as_slice());
        let mut next = || reader.next_entry().unwrap();
        let dir = next().unwrap();
        assert_eq!((dir.path.as_slice(), dir.kind, dir.mode), (&b"dir/"[..], EntryKind::Directory, 0o4755));
        assert_eq!((dir.uid, dir.gid, dir.mtime), (7, 3_000_000, (-2, 750_000_000)));
        let file = next().unwrap();
        assert_eq!((file.path, file.size, file.xattrs.len()), (long.clone().into_bytes(), 3, 1));
        let second = next().unwrap();
        assert_eq!((second.kind, second.link), (EntryKind::HardLink, long.clone().into_bytes()));
        assert_eq!(next().unwrap().link, long.into_bytes());
        let node = next().unwrap();
        assert_eq!((node.kind, node.device), (EntryKind::BlockDevice, (259, 7)));
        assert!(next().is_none());
    }

    #[test]
    fn a_file_must_have_the_size_that_was_said() {
        let mut bytes = Vec::new();
        let mut tar = Tar::new(&mut bytes);
        assert!(tar.file(Path::new("f"), 5, &mut &b"abc"[..], &attributes(Kind::File)).is_err());
    }
}
