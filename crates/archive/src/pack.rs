//! The archive of a directory: the same tree gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use wharf_rooted_path::{RootDir, RootError};

use crate::error::shown;
use crate::extended::records;
use crate::header::{self, BLOCK, Entry, Kind};
use crate::holes;
use crate::ids::IdRange;
use crate::unpack::OtherTimes;
use crate::{ArchiveError, Result};

/// How to pack.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Writes what overlayfs keeps of removals as whiteouts of a layer.
    pub overlay_whiteouts: bool,
    /// The files are those of a user namespace that has these IDs; the archive gets its own.
    pub ids: Option<IdRange>,
    /// Directories that come without what is in them; their paths as [`pack`] has them.
    pub hollow: &'static [&'static str],
    /// Files with holes come as GNU tar writes them, which not every reader knows, instead of with zeroes.
    pub holes: bool,
}

/// Writes `path` of `root` with all below as an archive; the names in it are relative to `path`.
///
/// Entries come sorted by their names' bytes, parents first; owners are numbers; access times, device numbers
/// of the host and the order of the directory leave no trace.
///
/// # Errors
/// When something cannot be read, or the output fails.
pub fn pack(root: &RootDir, path: &Path, output: &mut dyn Write, options: &PackOptions) -> Result<()> {
    let top = root.open_dir(path).map_err(|source| ArchiveError::Pack { name: path.display().to_string(), source })?;
    let mut packer = Packer::new(top, output, options);
    packer.directory(Path::new(""))?;
    packer.put(&[0; 2 * BLOCK])
}

/// What an overlay's upper directory becomes as a layer.
pub struct Upper<'a> {
    /// What entries have for times.
    pub times: Option<&'a OtherTimes<'a>>,
    /// Whether there is something below at a path that a directory can hide: overlayfs marks new ones that hide nothing, too.
    pub hides: &'a dyn Fn(&Path) -> bool,
    /// As [`PackOptions::ids`].
    pub ids: Option<IdRange>,
}

impl std::fmt::Debug for Upper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upper")
    }
}

/// As [`pack`] of the upper directory `root` of an overlay: what that keeps of removals becomes whiteouts of a layer.
///
/// # Errors
/// As [`pack`].
pub fn pack_upper(root: &RootDir, output: &mut dyn Write, upper: &Upper<'_>) -> Result<()> {
    let top = root.open_dir("").map_err(|source| ArchiveError::Pack { name: String::new(), source })?;
    let options = &PackOptions { overlay_whiteouts: true, ids: upper.ids, ..PackOptions::default() };
    let mut packer = Packer { times: upper.times, hides: Some(upper.hides), ..Packer::new(top, output, options) };
    packer.directory(Path::new(""))?;
    packer.put(&[0; 2 * BLOCK])
}

/// Writes the one entry `path` of `root`, with all below when it is a directory, under the name `name`. A link at
/// the end of `path` is itself the entry.
///
/// # Errors
/// As [`pack`].
pub fn pack_as(root: &RootDir, path: &Path, name: &OsStr, output: &mut dyn Write, options: &PackOptions) -> Result<()> {
    let shown = || path.display().to_string();
    let (top, own) = root.open_parent(path).map_err(|source| ArchiveError::Pack { name: shown(), source })?;
    let own = PathBuf::from(own);
    let renamed = Some((own.clone(), PathBuf::from(name)));
    let mut packer = Packer { renamed, ..Packer::new(top, output, options) };
    if packer.entry(&own)? {
        packer.directory(&own)?;
    }
    packer.put(&[0; 2 * BLOCK])
}

/// As [`pack`], and the directory itself comes first, under the name `name`; all names in the archive begin with it.
/// A link at the end of `path` is followed.
///
/// # Errors
/// As [`pack`].
pub fn pack_dir_as(
    root: &RootDir,
    path: &Path,
    name: &OsStr,
    output: &mut dyn Write,
    options: &PackOptions,
) -> Result<()> {
    let top = root.open_dir(path).map_err(|source| ArchiveError::Pack { name: path.display().to_string(), source })?;
    let renamed = Some((PathBuf::new(), PathBuf::from(name)));
    let mut packer = Packer { renamed, ..Packer::new(top, output, options) };
    packer.entry(Path::new(""))?;
    packer.directory(Path::new(""))?;
    packer.put(&[0; 2 * BLOCK])
}

/// An archive of files that are nobody's directory: made one by one, in the caller's order.
pub struct Writer<'a> {
    output: &'a mut dyn Write,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl<'a> Writer<'a> {
    pub fn new(output: &'a mut dyn Write) -> Self {
        Self { output }
    }

    /// Adds a file of root's, readable by all, with the time 0.
    ///
    /// # Errors
    /// When `content` has not exactly `size` bytes, or the output fails.
    pub fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        self.file_at(name, size, 0, content)
    }

    /// As [`Self::file`], last changed so many seconds after the epoch.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn file_at(&mut self, name: &str, size: u64, mtime: u64, content: &mut dyn Read) -> Result<()> {
        let mtime = (i64::try_from(mtime).unwrap_or(0), 0);
        let entry = Entry { path: name.into(), size, mtime, ..plain_entry() };
        if !header::fits(&entry) {
            let records = records(&entry, &[]);
            let extended = Entry { path: b"PaxHeaders/entry".to_vec(), size: records.len() as u64, ..plain_entry() };
            self.put(&header::write(&extended, b'x'))?;
            self.put(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.put(&header::write(&entry, b'0'))?;
        let copied = std::io::copy(&mut content.take(size), self.output).map_err(ArchiveError::Write)?;
        if copied != size {
            return Err(ArchiveError::Truncated(shown(name.as_bytes())));
        }
        self.pad(size)
    }

    /// Adds all of `root`, as [`pack`] has it, but with other times. With a name it comes first under that, and all names in the
    /// archive begin with it, as of [`pack_dir_as`].
    ///
    /// # Errors
    /// As [`pack`].
    pub fn tree_dated(&mut self, root: &RootDir, name: Option<&OsStr>, times: &OtherTimes<'_>) -> Result<()> {
        let top = root.open_dir("").map_err(|source| ArchiveError::Pack { name: String::new(), source })?;
        let options = &PackOptions::default();
        let renamed = name.map(|name| (PathBuf::new(), PathBuf::from(name)));
        let mut packer = Packer { renamed, times: Some(times), ..Packer::new(top, self.output, options) };
        if name.is_some() {
            packer.entry(Path::new(""))?;
        }
        packer.directory(Path::new(""))
    }

    /// Adds a directory of root's.
    ///
    /// # Errors
    /// When the output fails.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        let path = format!("{}/", name.trim_end_matches('/')).into_bytes();
        let entry = Entry { path, kind: Kind::Directory, mode: 0o755, ..plain_entry() };
        self.put(&header::write(&entry, b'5'))
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(ArchiveError::Write)
    }
}

struct Packer<'a> {
    top: RootDir,
    output: &'a mut dyn Write,
    options: &'a PackOptions,
    /// First names of files with several, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// The first part of each path, and what it is called in the archive.
    renamed: Option<(PathBuf, PathBuf)>,
    /// What entries have for times, by their paths here and the times that they have here.
    times: Option<&'a OtherTimes<'a>>,
    /// [`Upper::hides`]
    hides: Option<&'a dyn Fn(&Path) -> bool>,
}

impl<'a> Packer<'a> {
    fn new(top: RootDir, output: &'a mut dyn Write, options: &'a PackOptions) -> Self {
        Self { top, output, options, links: HashMap::new(), renamed: None, times: None, hides: None }
    }
}

impl Packer<'_> {
    fn directory(&mut self, above: &Path) -> Result<()> {
        // A stack instead of recursion: a tree may be deeper than ours.
        let mut stack = vec![self.children(above)?];
        while let Some(level) = stack.last_mut() {
            let Some(path) = level.pop() else {
                stack.pop();
                continue;
            };
            match self.entry(&path) {
                Ok(false) => {}
                Ok(true) => stack.push(self.children(&path)?),
                // Listed and not there: overlayfs shows whiteouts so where it has nothing to join, and files go while
                // they are packed. Nothing of it has been written yet.
                Err(ArchiveError::Pack { source, .. }) if source.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Paths in a directory, the last one first.
    fn children(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let names = match self.top.read_dir(dir) {
            // It has gone since its header was written.
            Err(error) if error.is_not_found() && !dir.as_os_str().is_empty() => Vec::new(),
            names => names.map_err(failing(dir))?,
        };
        Ok(names.into_iter().rev().map(|name| dir.join(name)).collect())
    }

    /// Writes one entry; true when it is a directory to go into.
    fn entry(&mut self, path: &Path) -> Result<bool> {
        let stat = self.top.metadata(path, false).map_err(failing(path))?;
        let Some(kind) = kind_of(&stat) else { return Ok(false) };
        let mut entry = self.describe(path, &stat, kind)?;
        if self.options.overlay_whiteouts && kind == Kind::CharacterDevice && stat.st_rdev == 0 {
            self.whiteout(path, b"")?;
            return Ok(false);
        }
        if kind != Kind::Directory && stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_owned());
            if first != path {
                let first = first.clone();
                entry.link = self.name(&first).as_os_str().as_bytes().to_vec();
                entry.kind = Kind::HardLink;
                entry.size = 0;
                entry.xattrs.clear();
                self.header(&entry)?;
                return Ok(false);
            }
        }
        if kind == Kind::File {
            let mut file = self.top.open_file(path).map_err(failing(path))?;
            if self.options.holes && stat.st_blocks.cast_unsigned() * 512 < entry.size {
                if let Some(pieces) = holes::stored(&file, entry.size).map_err(ArchiveError::Read)? {
                    self.sparse(&mut file, &entry, &pieces)?;
                    return Ok(false);
                }
                file.rewind().map_err(ArchiveError::Read)?;
            }
            self.header(&entry)?;
            self.content(&mut file, &entry)?;
            return Ok(false);
        }
        self.header(&entry)?;
        let hides = || self.hides.is_none_or(|hides| hides(path));
        if kind == Kind::Directory && self.options.overlay_whiteouts && self.is_opaque(path)? && hides() {
            self.whiteout(&path.join("x"), b".wh..opq")?;
        }
        let hollow = self.options.hollow.iter().any(|hollow| path == Path::new(hollow));
        Ok(kind == Kind::Directory && !hollow)
    }

    fn describe(&self, path: &Path, stat: &Stat, kind: Kind) -> Result<Entry> {
        let mut name = self.name(path).as_os_str().as_bytes().to_vec();
        if kind == Kind::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
        let link = match kind {
            Kind::Symlink => self.top.read_link(path).map_err(failing(path))?.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let real = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        let mtime = self.times.map_or(real, |times| times(path, real));
        Ok(Entry {
            path: name,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: self.options.ids.map_or(stat.st_uid, |range| range.from_host(stat.st_uid)),
            gid: self.options.ids.map_or(stat.st_gid, |range| range.from_host(stat.st_gid)),
            size: if kind == Kind::File { stat.st_size.cast_unsigned() } else { 0 },
            mtime,
            link,
            device: if device { (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) } else { (0, 0) },
            xattrs: self.xattrs(path, kind)?,
        })
    }

    /// What `path` is called in the archive.
    fn name(&self, path: &Path) -> PathBuf {
        match &self.renamed {
            Some((own, name)) => match path.strip_prefix(own) {
                Ok(below) if below.as_os_str().is_empty() => name.clone(),
                Ok(below) => name.join(below),
                Err(_) => path.to_owned(),
            },
            None => path.to_owned(),
        }
    }

    /// What a layer may carry, and no more.
    fn xattrs(&self, path: &Path, kind: Kind) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut kept = BTreeMap::new();
        if kind == Kind::Symlink {
            return Ok(kept);
        }
        for (key, value) in self.top.xattrs(path).map_err(failing(path))? {
            let bytes = key.as_bytes();
            if header::may_carry(bytes) {
                kept.insert(bytes.to_vec(), value);
            }
        }
        Ok(kept)
    }

    fn is_opaque(&self, path: &Path) -> Result<bool> {
        let all = self.top.xattrs(path).map_err(failing(path))?;
        Ok(all.iter().any(|(key, value)| key == "trusted.overlay.opaque" && value == b"y"))
    }

    /// A whiteout beside `path`: of its own name, or the opaque mark.
    fn whiteout(&mut self, path: &Path, mark: &[u8]) -> Result<()> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let full = [b".wh.".as_slice(), if mark.is_empty() { name } else { mark }].concat();
        let path = path.with_file_name(OsStr::from_bytes(&full));
        self.header(&Entry {
            path: path.as_os_str().as_bytes().to_vec(),
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
        })
    }

    /// A file of which only these pieces are stored.
    fn sparse(&mut self, file: &mut std::fs::File, entry: &Entry, pieces: &[(u64, u64)]) -> Result<()> {
        let map = holes::map(pieces);
        let size = pieces.iter().map(|(_, length)| length).sum::<u64>();
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        // What a reader that knows nothing of holes makes of it.
        let path = [b"GNUSparseFile.0/".as_slice(), name].concat();
        let stored =
            Entry { path, size: map.len() as u64 + size, xattrs: entry.xattrs.clone(), link: Vec::new(), ..*entry };
        let more = [
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", entry.path.clone()),
            ("GNU.sparse.realsize", entry.size.to_string().into_bytes()),
        ];
        self.extended(&stored, records(&stored, &more))?;
        self.put(&header::write(&stored, b'0'))?;
        self.put(&map)?;
        for (offset, length) in pieces {
            file.seek(SeekFrom::Start(*offset)).map_err(ArchiveError::Read)?;
            self.bytes(file, *length, entry)?;
        }
        self.pad(size)
    }

    fn extended(&mut self, entry: &Entry, records: Vec<u8>) -> Result<()> {
        let name = Entry { path: b"PaxHeaders/entry".to_vec(), size: records.len() as u64, ..plain(entry) };
        self.put(&header::write(&name, b'x'))?;
        self.put(&records)?;
        self.pad(records.len() as u64)
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        if !header::fits(entry) {
            self.extended(entry, records(entry, &[]))?;
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
        self.put(&header::write(entry, flag))
    }

    fn content(&mut self, file: &mut std::fs::File, entry: &Entry) -> Result<()> {
        self.bytes(file, entry.size, entry)?;
        self.pad(entry.size)
    }

    /// Exactly as many bytes as the header says, though the file may grow or shrink meanwhile.
    fn bytes(&mut self, file: &mut std::fs::File, mut left: u64, entry: &Entry) -> Result<()> {
        let mut bytes = vec![0; 64 << 10];
        while left > 0 {
            let wanted = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut bytes[..wanted]).map_err(ArchiveError::Read)?;
            if count == 0 {
                return Err(ArchiveError::Entry {
                    name: shown(&entry.path),
                    why: "it became shorter while it was read",
                });
            }
            self.put(&bytes[..count])?;
            left -= count as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(ArchiveError::Write)
    }
}

fn failing(path: &Path) -> impl FnOnce(RootError) -> ArchiveError + use<> {
    let name = shown(path.as_os_str().as_bytes());
    move |source| ArchiveError::Pack { name, source }
}

/// `None` for a socket, which no archive can carry and every tar leaves out.
fn kind_of(stat: &Stat) -> Option<Kind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharacterDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

/// The header of an extended header: nothing of the entry's own that could be too large again.
fn plain(entry: &Entry) -> Entry {
    Entry { mtime: (entry.mtime.0.clamp(0, 0o77_777_777_777), 0), ..plain_entry() }
}

/// An empty file of root's without a name.
fn plain_entry() -> Entry {
    Entry {
        path: Vec::new(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: (0, 0),
        link: Vec::new(),
        device: (0, 0),
        xattrs: BTreeMap::new(),
    }
}
