//! A context without the contents of its files, for Wharf's own engine: it keeps what the last build of the same context
//! has sent, and asks for what it lacks and a step needs. The form is that of the engine's `wharf_build::listing`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;
use wharf_dockerfile::{Ignore, Needs};

use super::scan::{self, Item, Tree};
use crate::tar::PackError;

const MAGIC: &[u8] = b"WHARFLS3";
/// What the engine needs at once and is no larger goes with the listing.
const MAX_INLINE: u64 = 256 << 10;
/// A file's capabilities: the one attribute that must survive.
const CAPABILITY: &str = "security.capability";
const USER: &[u8] = b"user.";
/// Bytes of the names of a file's attributes (`XATTR_LIST_MAX`).
const MOST_NAMES: usize = 64 << 10;

/// Seconds since the epoch, and nanoseconds.
type Time = (i64, u32);

/// A listing, and where the files are that it names.
#[derive(Debug)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    tree: Tree,
    /// Of each entry the directory and its place in it; nothing of what has no content.
    files: Vec<Option<(u32, u32)>>,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Names of files that go with it.
    inline: Vec<PathBuf>,
}

/// Entries of a listing that the engine asks for, as first ones and counts.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) listing: usize,
    pub(super) entries: Vec<(u32, u32)>,
}

impl Wanted {
    /// A listing of everything is asked for, where a part was sent.
    pub(super) fn is_whole(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads what the engine says.
    pub(super) fn of(aux: &serde_json::Value) -> Option<Self> {
        let wanted = aux.get("Wanted")?;
        let number = |value: &serde_json::Value| u32::try_from(value.as_u64()?).ok();
        let pair = |pair: &serde_json::Value| Some((number(&pair[0])?, number(&pair[1])?));
        let entries = wanted["Entries"].as_array()?.iter().map(pair).collect::<Option<_>>()?;
        Some(Self { listing: usize::try_from(wanted["Listing"].as_u64()?).ok()?, entries })
    }
}

impl Listing {
    /// Lists what is needed of a directory, or all of it. Files named in `inline` are needed in any case and go with their
    /// contents, and so do `added` ones that are not there.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(super) fn of(
        dir: &Path,
        ignore: &Ignore,
        inline: &[&str],
        added: &[(&str, &[u8])],
        needs: &Needs,
    ) -> Result<Self, PackError> {
        // Before anything is looked at: what changes later is newer.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        text(&mut bytes, &[machine.trim().as_bytes(), b"\0", dir.as_os_str().as_bytes()].concat())?;
        text(&mut bytes, dir.as_os_str().as_bytes())?;
        time(&mut bytes, (now.as_secs().cast_signed(), now.subsec_nanos()));
        let mut needs = needs.clone();
        inline.iter().for_each(|name| needs.add(name));
        let inline = inline.iter().map(|name| dir.join(name)).collect();
        let part = if needs == Needs::All { None } else { scan::scan(dir, ignore, &needs)? };
        bytes.push(part.is_some().into());
        let tree = match part {
            Some(tree) => tree,
            None => scan::scan(dir, ignore, &Needs::All)?.unwrap_or_default(),
        };
        let mut listing = Self { bytes, tree, files: Vec::new(), links: HashMap::new(), inline };
        for (name, content) in added {
            // No time is later: it is never taken for what is there of an earlier build.
            listing.head(b'f', 0, name.as_bytes())?;
            listing.attributes(0o600, (0, 0));
            listing.bytes.extend((content.len() as u64).to_be_bytes());
            time(&mut listing.bytes, (i64::MAX, 0));
            listing.bytes.extend([0; 16]);
            listing.bytes.extend([1, 0]);
            listing.bytes.extend(*content);
            listing.files.push(None);
        }
        listing.tree(0, 0, &mut Vec::new())?;
        (listing.links, listing.inline) = (HashMap::new(), Vec::new());
        Ok(listing)
    }

    fn head(&mut self, kind: u8, depth: u16, name: &[u8]) -> io::Result<()> {
        self.bytes.push(kind);
        self.bytes.extend(depth.to_be_bytes());
        text(&mut self.bytes, name)
    }

    fn attributes(&mut self, mode: u32, modified: Time) {
        self.bytes.extend(((mode & 0o7777) as u16).to_be_bytes());
        time(&mut self.bytes, modified);
    }

    /// Lists what is in a directory; `above` is its path.
    fn tree(&mut self, number: usize, depth: u16, above: &mut Vec<u8>) -> Result<(), PackError> {
        let items = std::mem::take(&mut self.tree.directories[number].items);
        for (place, item) in items.iter().enumerate() {
            let length = above.len();
            if depth > 0 {
                above.push(b'/');
            }
            above.extend(item.name.as_bytes());
            let listed = self.item(number, place, item, depth, above);
            let below = listed.and_then(|()| match item.directory {
                Some(_) if depth == u16::MAX => Err(io::Error::other("a path is too long").into()),
                Some(number) => self.tree(number, depth + 1, above),
                None => Ok(()),
            });
            above.truncate(length);
            below?;
        }
        self.tree.directories[number].items = items;
        Ok(())
    }

    fn item(&mut self, number: usize, place: usize, item: &Item, depth: u16, path: &[u8]) -> Result<(), PackError> {
        let name = item.name.as_bytes();
        if item.ignored {
            self.files.push(None);
            return Ok(self.head(b'i', depth, name)?);
        }
        let (stat, kind) = (&item.stat, FileType::from_raw_mode(item.stat.st_mode));
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                self.head(b'h', depth, name)?;
                text(&mut self.bytes, &first)?;
                self.files.push(None);
                return Ok(());
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        let letter = match kind {
            FileType::RegularFile => b'f',
            FileType::Directory => b'd',
            FileType::Symlink => b'l',
            FileType::CharacterDevice => b'c',
            FileType::BlockDevice => b'b',
            FileType::Fifo => b'p',
            // No image has sockets.
            _ => return Ok(()),
        };
        let nanoseconds = |part: u64| u32::try_from(part).unwrap_or(0);
        self.head(letter, depth, name)?;
        self.attributes(stat.st_mode, (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)));
        let mut file = None;
        match kind {
            FileType::Symlink => {
                let target = self.tree.directories[number].target(item)?;
                text(&mut self.bytes, &target)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.bytes.extend(rustix::fs::major(stat.st_rdev).to_be_bytes());
                self.bytes.extend(rustix::fs::minor(stat.st_rdev).to_be_bytes());
            }
            FileType::RegularFile => {
                let size = stat.st_size.cast_unsigned();
                self.bytes.extend(size.to_be_bytes());
                time(&mut self.bytes, (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)));
                self.bytes.extend(stat.st_dev.to_be_bytes());
                self.bytes.extend(stat.st_ino.to_be_bytes());
                match self.inline(number, &item.name, size) {
                    Some(content) => {
                        self.bytes.push(1);
                        self.bytes.extend(content);
                    }
                    None => self.bytes.push(0),
                }
                let short = |number| u32::try_from(number).map_err(|_| io::Error::other("there are too many files"));
                file = Some((short(number)?, short(place)?));
            }
            _ => {}
        }
        self.files.push(file);
        Ok(())
    }

    /// What goes with the listing of a file's content. What cannot be read now is asked for, and is an error then; nor is
    /// it sent if it has changed just now.
    fn inline(&self, directory: usize, name: &OsStr, size: u64) -> Option<Vec<u8>> {
        if self.inline.is_empty() || size > MAX_INLINE {
            return None;
        }
        let path = self.tree.directories[directory].path.join(name);
        if !self.inline.contains(&path) {
            return None;
        }
        let (mut file, mut content) = (open(&path).ok()?, Vec::new());
        put_xattrs(&file, &mut content).ok()?;
        let before = content.len() as u64;
        file.read_to_end(&mut content).ok()?;
        (content.len() as u64 == before + size).then_some(content)
    }

    /// The bytes of it; they are needed once.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Writes the contents of these entries, one behind the other.
    ///
    /// # Errors
    /// When a file cannot be read, has become shorter, or is in no listing.
    pub(super) fn write_contents(&self, entries: &[(u32, u32)], output: &mut impl Write) -> Result<(), PackError> {
        for (first, count) in entries {
            for entry in *first..first.saturating_add(*count) {
                let file = usize::try_from(entry).ok().and_then(|entry| *self.files.get(entry)?);
                let (directory, place) =
                    file.ok_or_else(|| io::Error::other("the engine asks for what was not listed"))?;
                let directory = &self.tree.directories[directory as usize];
                let item = &directory.items[place as usize];
                let path = directory.path.join(&item.name);
                let failed = |source| PackError::Read { call: "open", path: path.clone(), source };
                let (file, size) = (open(&path).map_err(failed)?, item.stat.st_size.cast_unsigned());
                let mut xattrs = Vec::new();
                put_xattrs(&file, &mut xattrs)?;
                output.write_all(&xattrs)?;
                if io::copy(&mut file.take(size), output)? != size {
                    let source = io::Error::other("it became shorter while the build went on");
                    return Err(PackError::Read { call: "read", path, source });
                }
            }
        }
        Ok(())
    }
}

/// Opens a file that was listed as one; nothing else that has its name now is waited for.
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Writes what a file carries beside its content.
fn put_xattrs(file: impl AsFd, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut all = Vec::new();
    let mut names = vec![0u8; MOST_NAMES];
    let length = rustix::fs::flistxattr(&file, &mut names).unwrap_or(0);
    let names = names[..length.min(MOST_NAMES)].split(|byte| *byte == 0);
    for name in names.filter(|name| *name == CAPABILITY.as_bytes() || name.starts_with(USER)) {
        let mut value = vec![0u8; usize::from(u16::MAX)];
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        if let Ok(length) = rustix::fs::fgetxattr(&file, name, &mut value) {
            value.truncate(length);
            all.push((name.to_owned(), value));
        }
    }
    all.sort();
    all.truncate(usize::from(u8::MAX));
    bytes.push(u8::try_from(all.len()).unwrap_or(u8::MAX));
    for (name, value) in all {
        text(bytes, name.as_bytes())?;
        text(bytes, &value)?;
    }
    Ok(())
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| io::Error::other("a path is too long"))?;
    bytes.extend(length.to_be_bytes());
    bytes.extend(text);
    Ok(())
}

fn time(bytes: &mut Vec<u8>, (seconds, nanoseconds): Time) {
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(nanoseconds.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_what_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("Dockerfile", "FROM x"), ("a", "content"), ("b", "left out")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let ignore = Ignore::new(["b"]).unwrap();
        let mut listing =
            Listing::of(dir.path(), &ignore, &["Dockerfile"], &[("added", b"more")], &Needs::All).unwrap();
        assert_eq!(listing.files, [None, Some((0, 0)), Some((0, 1))]);
        let bytes = listing.take_bytes();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"FROM x") && has(b"more") && !has(b"content") && !has(b"left out"));
        let mut sent = Vec::new();
        listing.write_contents(&[(1, 2)], &mut sent).unwrap();
        // No extended attributes are before each.
        assert_eq!(sent, b"\0FROM x\0content");
        assert!(listing.write_contents(&[(0, 1)], &mut sent).is_err());
        fs::write(dir.path().join("a"), "less").unwrap();
        let error = listing.write_contents(&[(2, 1)], &mut sent).unwrap_err().to_string();
        assert!(error.contains("became shorter"), "{error}");
    }

    #[test]
    fn what_the_engine_asks_for() {
        let aux = serde_json::json!({ "Wanted": { "Listing": 1, "Entries": [[3, 2], [9, 1]] } });
        let wanted = Wanted::of(&aux).unwrap();
        assert_eq!((wanted.listing, wanted.entries), (1, vec![(3, 2), (9, 1)]));
        assert!(Wanted::of(&serde_json::json!({ "ID": "x" })).is_none());
    }
}
