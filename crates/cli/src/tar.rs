//! Archives of local files, written entry by entry: for `docker cp` and for a build's context.
//!
//! Entries are sorted and carry nothing that is not asked for, so that the same tree gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use wharf_archive::{Entry, Kind};
use wharf_dockerfile::{Ignore, Verdict};

const BLOCK: usize = 512;

/// Writes an archive.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes the header of an entry. Its content, `entry.size` bytes of it, must follow.
    pub(crate) fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let extended = extended(entry);
        if !extended.is_empty() {
            let own = Entry {
                path: b"PaxHeaders/entry".to_vec(),
                kind: Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: extended.len() as u64,
                mtime: (0, 0),
                link: Vec::new(),
                device: (0, 0),
                xattrs: BTreeMap::new(),
            };
            self.output.write_all(&block(&own, b'x'))?;
            self.content(&mut extended.as_slice(), extended.len() as u64)?;
        }
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharacterDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.output.write_all(&block(entry, flag))
    }

    /// Writes the content of the last entry.
    pub(crate) fn content(&mut self, content: &mut impl Read, size: u64) -> io::Result<()> {
        let copied = io::copy(&mut content.take(size), &mut self.output)?;
        if copied != size {
            return Err(io::Error::other("a file became shorter while it was read"));
        }
        let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.output.write_all(&[0; BLOCK][..padding])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Octal digits behind zeros; what does not fit its field is in the extended header.
fn octal(value: u64, width: usize) -> String {
    let most = (1u64 << (3 * width)) - 1;
    format!("{:0width$o}\0", value.min(most))
}

fn block(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, length: usize, bytes: &[u8]| {
        let length = length.min(bytes.len());
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, &entry.path);
    put(100, 8, octal(entry.mode.into(), 7).as_bytes());
    put(108, 8, octal(entry.uid.into(), 7).as_bytes());
    put(116, 8, octal(entry.gid.into(), 7).as_bytes());
    put(124, 12, octal(entry.size, 11).as_bytes());
    put(136, 12, octal(u64::try_from(entry.mtime.0).unwrap_or(0), 11).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[flag]);
    put(157, 100, &entry.link);
    put(257, 8, b"ustar\x0000");
    put(329, 8, octal(entry.device.0.into(), 7).as_bytes());
    put(337, 8, octal(entry.device.1.into(), 7).as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The records of an extended header (pax), for what the plain one cannot say.
fn extended(entry: &Entry) -> Vec<u8> {
    const SMALL_ID: u32 = 0o7_777_777;
    const SMALL_SIZE: u64 = 0o77_777_777_777;
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| {
        // The length counts itself.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.push(b' ');
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    if entry.path.len() > 100 {
        add(b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        add(b"linkpath", &entry.link);
    }
    if entry.size > SMALL_SIZE {
        add(b"size", entry.size.to_string().as_bytes());
    }
    if entry.uid > SMALL_ID {
        add(b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > SMALL_ID {
        add(b"gid", entry.gid.to_string().as_bytes());
    }
    if !u64::try_from(entry.mtime.0).is_ok_and(|seconds| seconds <= SMALL_SIZE) {
        add(b"mtime", entry.mtime.0.to_string().as_bytes());
    }
    for (key, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", key.as_slice()].concat(), value);
    }
    records
}

/// What of a directory goes into an archive.
#[derive(Debug, Default)]
pub(crate) struct Pack<'a> {
    /// Only this entry of the directory, and what is below it; `.` is the directory itself.
    pub(crate) only: Option<&'a OsStr>,
    /// What the entry is called in the archive.
    pub(crate) rename: Option<&'a OsStr>,
    /// What is left out.
    pub(crate) ignore: Option<&'a Ignore>,
    /// Everything belongs to root.
    pub(crate) as_root: bool,
}

/// Why a tree cannot be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// A file cannot be read.
    #[error("{}", wharf_report::path(.call, .path, .source))]
    Read { call: &'static str, path: PathBuf, source: io::Error },
    /// The archive cannot be written.
    #[error("{0}")]
    Write(#[from] io::Error),
}

/// Packs a directory.
pub(crate) fn pack<W: Write>(dir: &Path, options: &Pack<'_>, output: W) -> Result<W, PackError> {
    let mut packer = Packer { root: dir, options, writer: Writer::new(output), links: HashMap::new() };
    match options.only {
        Some(only) if only == "." => {
            packer.entry(Path::new("."), &Verdict::default())?;
            packer.children(Path::new(""), &Verdict::default())?;
        }
        Some(only) => packer.tree(Path::new(only), &Verdict::default())?,
        None => packer.children(Path::new(""), &Verdict::default())?,
    }
    Ok(packer.writer.finish()?)
}

struct Packer<'a, W> {
    root: &'a Path,
    options: &'a Pack<'a>,
    writer: Writer<W>,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    /// Writes an entry; a file is at `path`.
    fn take(&mut self, entry: &Entry, path: &Path) -> Result<(), PackError> {
        if entry.kind != Kind::File {
            return Ok(self.writer.header(entry)?);
        }
        let failed = |source| PackError::Read { call: "open", path: path.to_owned(), source };
        let mut file = fs::File::open(path).map_err(failed)?;
        self.writer.header(entry)?;
        Ok(self.writer.content(&mut file, entry.size)?)
    }

    fn children(&mut self, relative: &Path, above: &Verdict) -> Result<(), PackError> {
        let dir = self.root.join(relative);
        let failed = |source| PackError::Read { call: "open", path: dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        names.into_iter().try_for_each(|name| self.tree(&relative.join(name), above))
    }

    fn tree(&mut self, relative: &Path, above: &Verdict) -> Result<(), PackError> {
        let verdict = match self.options.ignore {
            Some(ignore) => ignore.decide(above, &relative.to_string_lossy()),
            None => Verdict::default(),
        };
        let is_dir = if verdict.ignored {
            // Something below may be kept all the same.
            let looks = self.options.ignore.is_some_and(Ignore::keeps_some);
            looks && fs::symlink_metadata(self.root.join(relative)).is_ok_and(|meta| meta.is_dir())
        } else {
            self.entry(relative, &verdict)?
        };
        if is_dir { self.children(relative, &verdict) } else { Ok(()) }
    }

    /// Writes one entry; whether it is a directory.
    fn entry(&mut self, relative: &Path, _: &Verdict) -> Result<bool, PackError> {
        let path = self.root.join(relative);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // It went away since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.options.only.is_none() => return Ok(false),
            Err(source) => return Err(PackError::Read { call: "lstat", path, source }),
        };
        let name = self.name(relative);
        let Some(mut entry) = describe(&path, &meta, name, self.options.as_root)? else { return Ok(false) };
        let is_dir = entry.kind == Kind::Directory;
        if !is_dir && meta.nlink() > 1 {
            let key = (meta.dev(), meta.ino());
            match self.links.get(&key) {
                Some(first) => {
                    entry.kind = Kind::HardLink;
                    entry.size = 0;
                    entry.link.clone_from(first);
                    self.take(&entry, &path)?;
                    return Ok(false);
                }
                None => {
                    self.links.insert(key, entry.path.clone());
                }
            }
        }
        self.take(&entry, &path)?;
        Ok(is_dir)
    }

    /// The name in the archive, the entry's own name replaced where that was asked for.
    fn name(&self, relative: &Path) -> Vec<u8> {
        let (Some(only), Some(rename)) = (self.options.only, self.options.rename) else {
            return relative.as_os_str().as_bytes().to_vec();
        };
        // The directory itself is `.` and its children are named without it.
        let below = if only == "." && relative != Path::new(".") { Ok(relative) } else { relative.strip_prefix(only) };
        match below {
            Ok(rest) if rest.as_os_str().is_empty() => rename.as_bytes().to_vec(),
            Ok(rest) => Path::new(rename).join(rest).into_os_string().as_bytes().to_vec(),
            Err(_) => relative.as_os_str().as_bytes().to_vec(),
        }
    }
}

/// The header of a file; none for a socket, which no archive has.
fn describe(path: &Path, meta: &Metadata, mut name: Vec<u8>, as_root: bool) -> Result<Option<Entry>, PackError> {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_file() => Kind::File,
        () if kind.is_symlink() => Kind::Symlink,
        () if kind.is_fifo() => Kind::Fifo,
        () if kind.is_char_device() => Kind::CharacterDevice,
        () if kind.is_block_device() => Kind::BlockDevice,
        () => return Ok(None),
    };
    if kind == Kind::Directory && !name.ends_with(b"/") {
        name.push(b'/');
    }
    let link = if kind == Kind::Symlink {
        let target = fs::read_link(path).map_err(|source| PackError::Read {
            call: "readlink",
            path: path.to_owned(),
            source,
        })?;
        target.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let device = match kind {
        Kind::CharacterDevice | Kind::BlockDevice => (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())),
        _ => (0, 0),
    };
    Ok(Some(Entry {
        path: name,
        kind,
        mode: meta.mode() & 0o7777,
        uid: if as_root { 0 } else { meta.uid() },
        gid: if as_root { 0 } else { meta.gid() },
        size: if kind == Kind::File { meta.len() } else { 0 },
        mtime: (meta.mtime(), 0),
        link,
        device,
        xattrs: capability(path, kind),
    }))
}

/// A file's capabilities: the one attribute that must survive.
fn capability(path: &Path, kind: Kind) -> BTreeMap<Vec<u8>, Vec<u8>> {
    const NAME: &str = "security.capability";
    let mut attributes = BTreeMap::new();
    let mut value = [0u8; 64];
    if kind == Kind::File
        && let Ok(length) = rustix::fs::lgetxattr(path, NAME, &mut value)
    {
        attributes.insert(NAME.as_bytes().to_vec(), value[..length.min(value.len())].to_vec());
    }
    attributes
}

/// Copies an archive, the first occurrence of a name in each path replaced by another.
pub(crate) fn rename(input: impl Read, old: &[u8], new: &[u8], output: impl Write) -> io::Result<()> {
    let mut reader = wharf_archive::Reader::new(input);
    let mut writer = Writer::new(output);
    while let Some(mut entry) = reader.next_entry().map_err(io::Error::other)? {
        entry.path = replace(&entry.path, old, new);
        if entry.kind == Kind::HardLink {
            entry.link = replace(&entry.link, old, new);
        }
        writer.header(&entry)?;
        if entry.kind == Kind::File {
            writer.content(&mut reader, entry.size)?;
        }
    }
    writer.finish().map(|_| ())
}

fn replace(path: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let found = if old.is_empty() { Some(0) } else { path.windows(old.len()).position(|window| window == old) };
    match found {
        Some(at) => [&path[..at], new, &path[at + old.len()..]].concat(),
        None => path.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut reader = wharf_archive::Reader::new(archive);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8_lossy(&entry.path).into_owned());
        }
        names
    }

    #[test]
    fn trees() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "content").unwrap();
        fs::write(dir.path().join(&long), "x").unwrap();
        fs::hard_link(dir.path().join("a/b/c"), dir.path().join("z")).unwrap();
        std::os::unix::fs::symlink("target", dir.path().join("link")).unwrap();
        let archive = pack(dir.path(), &Pack { as_root: true, ..Pack::default() }, Vec::new()).unwrap();
        assert_eq!(names(&archive), ["a/", "a/b/", "a/b/c", "link", &long, "z"]);
        assert_eq!(archive, pack(dir.path(), &Pack { as_root: true, ..Pack::default() }, Vec::new()).unwrap());
        let one = Pack { only: Some(OsStr::new("a")), rename: Some(OsStr::new("q")), ..Pack::default() };
        let archive = pack(dir.path(), &one, Vec::new()).unwrap();
        assert_eq!(names(&archive), ["q/", "q/b/", "q/b/c"]);
        let mut renamed = Vec::new();
        rename(archive.as_slice(), b"q", b"other", &mut renamed).unwrap();
        assert_eq!(names(&renamed), ["other/", "other/b/", "other/b/c"]);
    }

    #[test]
    fn ignored() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        for file in ["a.log", "b", "sub/a", "sub/keep", "sub/deep/x.log"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let ignore = Ignore::parse("*.log\nsub\n!sub/keep\n").unwrap();
        let archive = pack(dir.path(), &Pack { ignore: Some(&ignore), ..Pack::default() }, Vec::new()).unwrap();
        assert_eq!(names(&archive), ["b", "sub/keep"]);
    }
}
