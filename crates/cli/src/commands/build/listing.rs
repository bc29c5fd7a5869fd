//! A context without the contents of its files, for Wharf's own engine: it keeps what the last build of the same context
//! has sent, and asks for what it lacks and a step needs. The form is that of the engine's `wharf_build::listing`.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use wharf_archive::{Entry, Kind};
use wharf_dockerfile::Ignore;

use crate::tar::{Pack, PackError, Sink, walk};

const MAGIC: &[u8] = b"WHARFLS1";
/// What the engine needs at once and is no larger goes with the listing.
const MAX_INLINE: u64 = 256 << 10;

/// Seconds since the epoch, and nanoseconds.
type Time = (i64, u32);

/// A listing, and where the files are that it names.
#[derive(Debug)]
pub(super) struct Listing {
    bytes: Vec<u8>,
    /// By entry, with the size that was listed.
    files: Vec<Option<(PathBuf, u64)>>,
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
    /// Lists a directory. Files named in `inline` go with their contents, and so do `added` ones that are not there.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(super) fn of(dir: &Path, ignore: &Ignore, inline: &[&str], added: &[(&str, &[u8])]) -> Result<Self, PackError> {
        // Before anything is looked at: what changes later is newer.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        text(&mut bytes, &[machine.trim().as_bytes(), b"\0", dir.as_os_str().as_bytes()].concat())?;
        text(&mut bytes, dir.as_os_str().as_bytes())?;
        time(&mut bytes, (now.as_secs().cast_signed(), now.subsec_nanos()));
        let inline = inline.iter().map(|name| dir.join(name)).collect();
        let mut listing = Self { bytes, files: Vec::new(), inline };
        for (name, content) in added {
            // No time is later: it is never taken for what is there of an earlier build.
            listing.head(b'f', 0o600, (0, 0), name.as_bytes(), b"")?;
            listing.bytes.extend((content.len() as u64).to_be_bytes());
            time(&mut listing.bytes, (i64::MAX, 0));
            listing.bytes.extend([0; 17]);
            listing.bytes.push(1);
            listing.bytes.extend(*content);
            listing.files.push(None);
        }
        walk(dir, &Pack { ignore: Some(ignore), as_root: true, ..Pack::default() }, &mut listing)?;
        listing.inline.clear();
        Ok(listing)
    }

    fn head(&mut self, kind: u8, mode: u32, modified: Time, path: &[u8], link: &[u8]) -> io::Result<()> {
        self.bytes.push(kind);
        self.bytes.extend((mode as u16).to_be_bytes());
        time(&mut self.bytes, modified);
        text(&mut self.bytes, path)?;
        text(&mut self.bytes, link)
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
                let file = usize::try_from(entry).ok().and_then(|entry| self.files.get(entry)?.as_ref());
                let (path, size) = file.ok_or_else(|| io::Error::other("the engine asks for what was not listed"))?;
                let failed = |source| PackError::Read { call: "open", path: path.clone(), source };
                let mut content = File::open(path).map_err(failed)?.take(*size);
                if io::copy(&mut content, output)? != *size {
                    let source = io::Error::other("it became shorter while the build went on");
                    return Err(PackError::Read { call: "read", path: path.clone(), source });
                }
            }
        }
        Ok(())
    }
}

impl Sink for Listing {
    fn take(&mut self, entry: &Entry, path: &Path, meta: &Metadata) -> Result<(), PackError> {
        let kind = match entry.kind {
            Kind::File => b'f',
            Kind::Directory => b'd',
            Kind::Symlink => b'l',
            Kind::HardLink => b'h',
            Kind::CharacterDevice => b'c',
            Kind::BlockDevice => b'b',
            Kind::Fifo => b'p',
        };
        let nanoseconds = |part: i64| u32::try_from(part).unwrap_or(0);
        let modified = (meta.mtime(), nanoseconds(meta.mtime_nsec()));
        self.head(kind, entry.mode, modified, &entry.path, &entry.link)?;
        let mut file = None;
        match entry.kind {
            Kind::CharacterDevice | Kind::BlockDevice => {
                self.bytes.extend(entry.device.0.to_be_bytes());
                self.bytes.extend(entry.device.1.to_be_bytes());
            }
            Kind::File => {
                let content = match self.inline.iter().any(|name| name == path) && entry.size <= MAX_INLINE {
                    // What cannot be read now is asked for, and is an error then. Nor is it sent if it has changed just now.
                    true => fs::read(path).ok().filter(|content| content.len() as u64 == entry.size),
                    false => None,
                };
                self.bytes.extend(entry.size.to_be_bytes());
                time(&mut self.bytes, (meta.ctime(), nanoseconds(meta.ctime_nsec())));
                self.bytes.extend(meta.dev().to_be_bytes());
                self.bytes.extend(meta.ino().to_be_bytes());
                self.bytes.push(u8::try_from(entry.xattrs.len()).unwrap_or(0));
                for (name, value) in entry.xattrs.iter().take(usize::from(u8::MAX)) {
                    text(&mut self.bytes, name)?;
                    text(&mut self.bytes, value)?;
                }
                self.bytes.push(content.is_some().into());
                self.bytes.extend(content.unwrap_or_default());
                file = Some((path.to_owned(), entry.size));
            }
            _ => {}
        }
        self.files.push(file);
        Ok(())
    }
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
        let mut listing = Listing::of(dir.path(), &ignore, &["Dockerfile"], &[("added", b"more")]).unwrap();
        let names: Vec<_> = listing.files.iter().map(|file| file.as_ref().map(|(_, size)| *size)).collect();
        assert_eq!(names, [None, Some(6), Some(7)]);
        let bytes = listing.take_bytes();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"FROM x") && has(b"more") && !has(b"content") && !has(b"left out"));
        let mut sent = Vec::new();
        listing.write_contents(&[(1, 2)], &mut sent).unwrap();
        assert_eq!(sent, b"FROM xcontent");
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
