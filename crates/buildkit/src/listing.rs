//! What a client says of its files, as a listing that the builder reads (`wharf_build`'s `listing` has the form).

use std::collections::HashMap;

use wharf_snapshot::MARK;

use crate::grpc::{Code, Status};
use crate::proto::session::Stat;

const MAGIC: &[u8] = b"WHARFLS3";
/// More is no listing: of the listing itself, and of all that is kept beside it.
const MAX_BYTES: usize = 256 << 20;
/// What a file or an extended attribute takes beside its bytes.
const EACH: usize = 64;

// Bits of Go's `io/fs.FileMode`.
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHARACTER: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;

/// Links that are followed, as the kernel has it (MAXSYMLINKS).
const MOST_LINKS: usize = 40;

/// A file that the client can be asked for.
#[derive(Debug)]
pub(crate) struct File {
    /// Names it in questions.
    pub(crate) id: u32,
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A listing as it grows.
#[derive(Debug)]
pub(crate) struct Listing {
    bytes: Vec<u8>,
    /// The directories that the last entry is in, and itself if it is one.
    within: Vec<Vec<u8>>,
    entries: u32,
    /// By entry.
    pub(crate) files: HashMap<u32, File>,
    next_id: u32,
    /// What all may take.
    most: usize,
    /// What `files` and `names` take.
    beside: usize,
    /// The numbers of files, and when each was changed last, in seconds since the epoch; nothing if nobody asks.
    names: Option<HashMap<Vec<u8>, (u32, i64)>>,
    /// Where links lead, hard ones too, while there are names.
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Listing {
    /// `key` is the same for the next build of the same directory, and empty where none is; `place` is for people; `partial`: only what a Dockerfile names
    /// will come.
    pub(crate) fn new(key: &[u8], place: &str, partial: bool) -> Self {
        let mut listing = Self {
            bytes: MAGIC.to_vec(),
            within: Vec::new(),
            entries: 0,
            files: HashMap::new(),
            next_id: 0,
            most: MAX_BYTES,
            beside: 0,
            names: None,
            links: HashMap::new(),
        };
        listing.text(key);
        listing.text(place.as_bytes());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        listing.time(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        listing.bytes.push(u8::from(partial));
        listing
    }

    /// Keeps the names of files for [`Self::named`].
    pub(crate) fn with_names(mut self) -> Self {
        self.names = Some(HashMap::new());
        self
    }

    /// The number of a file, and when it was changed last, in seconds since the epoch. Links are followed, within the directory.
    pub(crate) fn named(&self, path: &[u8]) -> Option<(u32, i64)> {
        let names = self.names.as_ref()?;
        let mut path = path.to_vec();
        for _ in 0..MOST_LINKS {
            let Some((at, target)) = ends(&path).find_map(|end| Some((end, self.links.get(&path[..end])?))) else {
                break;
            };
            let above = path[..at].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            let base = if target.starts_with(b"/") { 0 } else { above };
            path = clean(&[&path[..base], target, &path[at..]].concat());
        }
        names.get(&path).copied()
    }

    fn text(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(usize::from(u16::MAX))];
        self.bytes.extend((text.len() as u16).to_be_bytes());
        self.bytes.extend(text);
    }

    fn time(&mut self, nanoseconds: i64) {
        self.bytes.extend(nanoseconds.div_euclid(1_000_000_000).to_be_bytes());
        self.bytes.extend((nanoseconds.rem_euclid(1_000_000_000) as u32).to_be_bytes());
    }

    fn entry(&mut self, kind: u8, depth: usize, name: &[u8]) -> Result<u32, Status> {
        let depth = u16::try_from(depth).map_err(|_| Status::invalid("the context has a path of too many parts"))?;
        self.bytes.push(kind);
        self.bytes.extend(depth.to_be_bytes());
        self.text(name);
        self.entries += 1;
        Ok(self.entries - 1)
    }

    /// Adds what the client says next.
    ///
    /// # Errors
    /// For a path that leads out or is none, and for more than may be kept.
    pub(crate) fn add(&mut self, mut stat: Stat) -> Result<(), Status> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or_else(|| Status::invalid("the context has too many files"))?;
        let is_long = |name: &String, value: &Vec<u8>| name.len() > 255 || value.len() > usize::from(u16::MAX);
        stat.xattrs.retain(|name, value| !is_long(name, value));
        // Counted before anything of it is kept.
        let xattrs: usize = stat.xattrs.iter().map(|(name, value)| EACH + name.len() + value.len()).sum();
        let linked = if stat.linkname.is_empty() { 0 } else { EACH + stat.path.len() + stat.linkname.len() };
        let named = if self.names.is_some() { EACH + stat.path.len() + linked } else { 0 };
        self.beside = self.beside.saturating_add(EACH + named + xattrs);
        if self.bytes.len() + stat.path.len() + stat.linkname.len() + self.beside > self.most {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "the list of the client's files takes more than {} bytes (names, links and extended attributes): \
                     name what is not needed in .dockerignore",
                    self.most
                ),
            ));
        }
        if let Some(names) = &mut self.names {
            match (stat.mode & GO_SYMLINK != 0, stat.linkname.is_empty()) {
                (true, _) => drop(self.links.insert(stat.path.clone(), stat.linkname.clone())),
                // The path of the first name, from the top.
                (false, false) => drop(self.links.insert(stat.path.clone(), [b"/", &stat.linkname[..]].concat())),
                (false, true) => {}
            }
            names.insert(stat.path.clone(), (id, stat.mod_time.div_euclid(1_000_000_000)));
        }
        let shown = || String::from_utf8_lossy(&stat.path).into_owned();
        let mut parts: Vec<&[u8]> = stat.path.split(|byte| *byte == b'/').collect();
        let bad =
            |part: &&[u8]| part.is_empty() || matches!(*part, b"." | b"..") || part.len() > 255 || part.contains(&0);
        if parts.iter().any(bad) {
            return Err(Status::invalid(format!("the client names a file {:?}, which is no path", shown())));
        }
        let Some(name) = parts.pop() else { return Ok(()) };
        let kind = match stat.mode {
            mode if mode & GO_DIR != 0 => b'd',
            mode if mode & GO_SYMLINK != 0 => b'l',
            mode if mode & GO_DEVICE != 0 => {
                if mode & GO_CHARACTER != 0 {
                    b'c'
                } else {
                    b'b'
                }
            }
            mode if mode & GO_FIFO != 0 => b'p',
            // A socket is nothing without its process.
            mode if mode & (GO_SOCKET | GO_IRREGULAR) != 0 => return Ok(()),
            _ if !stat.linkname.is_empty() => b'h',
            _ => b'f',
        };
        let common = self.within.iter().zip(&parts).take_while(|(own, part)| own.as_slice() == **part).count();
        self.within.truncate(common);
        for (depth, part) in parts.iter().enumerate().skip(common) {
            self.entry(b'i', depth, part)?;
            self.within.push(part.to_vec());
        }
        let entry = self.entry(kind, parts.len(), name)?;
        if kind == b'd' {
            self.within.push(name.to_vec());
        }
        if kind == b'h' {
            self.text(&stat.linkname);
            return Ok(());
        }
        self.bytes.extend(mode(stat.mode).to_be_bytes());
        self.time(stat.mod_time);
        match kind {
            b'l' => self.text(&stat.linkname),
            b'c' | b'b' => {
                let number = |number: i64| u32::try_from(number).unwrap_or(0).to_be_bytes();
                self.bytes.extend(number(stat.devmajor));
                self.bytes.extend(number(stat.devminor));
            }
            b'f' => {
                let size = u64::try_from(stat.size).map_err(|_| {
                    Status::invalid(format!("the client names a size of {} for {}", stat.size, shown()))
                })?;
                self.bytes.extend(size.to_be_bytes());
                // More than that BuildKit's protocol does not tell, and its own builder compares. A time of whole seconds is one
                // that a program has set (an archive's, an image's, what a build here has written), and tells nothing of what
                // the file is: another of the same size would be taken for it.
                let set = stat.mod_time.rem_euclid(1_000_000_000) <= i64::from(MARK);
                self.time(if set { i64::MAX } else { stat.mod_time });
                self.bytes.extend(u64::from(stat.mode).to_be_bytes());
                self.bytes.extend(0u64.to_be_bytes());
                self.bytes.push(0);
                let mut xattrs: Vec<_> =
                    stat.xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
                xattrs.truncate(usize::from(u8::MAX));
                self.files.insert(entry, File { id, size, xattrs });
            }
            _ => {}
        }
        Ok(())
    }

    /// The listing.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl File {
    /// What comes before the content.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut bytes = vec![self.xattrs.len() as u8];
        for text in self.xattrs.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend((text.len() as u16).to_be_bytes());
            bytes.extend(text);
        }
        bytes
    }
}

/// The bits of chmod(2).
fn mode(go: u32) -> u16 {
    let bit = |go_bit: u32, own: u32| if go & go_bit != 0 { own } else { 0 };
    let mode = (go & 0o777) | bit(GO_SETUID, 0o4000) | bit(GO_SETGID, 0o2000) | bit(GO_STICKY, 0o1000);
    mode as u16
}

/// Go's form of a mode with its type, as `stat(2)` gives it.
pub(crate) fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => GO_DIR,
        0o120_000 => GO_SYMLINK,
        0o060_000 => GO_DEVICE,
        0o020_000 => GO_DEVICE | GO_CHARACTER,
        0o010_000 => GO_FIFO,
        0o140_000 => GO_SOCKET,
        _ => 0,
    };
    let bit = |own: u32, go_bit: u32| if mode & own != 0 { go_bit } else { 0 };
    kind | (mode & 0o777) | bit(0o4000, GO_SETUID) | bit(0o2000, GO_SETGID) | bit(0o1000, GO_STICKY)
}

/// Where the parts of a path end, the first one first.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()])
}

/// A path from the top without `.` and `..`, which lead nowhere above that.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32) -> Stat {
        Stat { path: path.into(), mode, size: 3, mod_time: 1_500_000_000, ..Stat::default() }
    }

    #[test]
    fn files_are_listed_with_the_directories_that_they_are_in() {
        let mut listing = Listing::new(b"key", "place", false);
        let head = listing.bytes.len();
        listing.add(stat("a", GO_DIR | 0o755)).unwrap();
        listing.add(stat("a/b", 0o4644 | GO_SETUID)).unwrap();
        listing.add(stat("c/d/e", 0o600)).unwrap();
        listing.add(Stat { linkname: b"a/b".to_vec(), ..stat("f", 0o644) }).unwrap();
        listing.add(stat("socket", GO_SOCKET | 0o600)).unwrap();
        listing.add(stat("z", 0o644)).unwrap();
        // The directories that nobody told of are entries, too; the socket is none.
        let ids: Vec<(u32, u32)> = [1, 4, 6].map(|entry| (entry, listing.files[&entry].id)).into();
        assert_eq!(ids, [(1, 1), (4, 2), (6, 5)]);
        let bytes = listing.take_bytes();
        assert_eq!(&bytes[head..head + 7], [b'd', 0, 0, 0, 1, b'a', 0o755u16.to_be_bytes()[0]]);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../x", "/x", "a/../b", "a//b", "", ".", "a/", "a/\0"] {
            let refused = Listing::new(b"k", "p", false).add(stat(path, 0o644)).unwrap_err();
            assert!(refused.message().contains("which is no path"), "{path}: {}", refused.message());
        }
    }

    #[test]
    fn all_that_is_kept_of_a_listing_is_bounded() {
        let value = |name: u32| (format!("user.{name}"), vec![0; 60_000]);
        let fat = |id| Stat { xattrs: (0..20).map(value).collect(), ..stat(&format!("x{id}"), 0o644) };
        let link = |id| Stat { linkname: vec![b'x'; 60_000], ..stat(&format!("l{id}"), GO_SYMLINK) };
        let named = |id| stat(&format!("n{id}/{}", vec!["a"; 30_000].join("/")), GO_SOCKET);
        for kind in [&fat as &dyn Fn(u32) -> Stat, &link, &named] {
            let mut listing = Listing::new(b"k", "p", false).with_names();
            listing.most = 4 << 20;
            let refused = (0..100).find_map(|id| listing.add(kind(id)).err()).unwrap();
            assert!(refused.is(Code::ResourceExhausted) && refused.message().contains("4194304"), "{refused:?}");
            let xattrs =
                listing.files.values().flat_map(|file| &file.xattrs).map(|(name, value)| name.len() + value.len());
            let names: usize = listing.names.iter().flatten().map(|(name, _)| name.len()).sum();
            let links: usize = listing.links.iter().map(|(name, target)| name.len() + target.len()).sum();
            assert!(listing.bytes.len() + xattrs.sum::<usize>() + names + links <= 4 << 20);
        }
    }

    #[test]
    fn a_name_may_be_a_link() {
        let mut listing = Listing::new(b"k", "p", true).with_names();
        let link = |path: &str, target: &str| Stat { linkname: target.into(), ..stat(path, GO_SYMLINK | 0o777) };
        for one in [
            stat("a", GO_DIR | 0o755),
            stat("a/real", 0o644),
            link("a/to", "../b/./to"),
            link("b", "/c"),
            stat("c", GO_DIR | 0o755),
            Stat { linkname: b"a/real".to_vec(), ..stat("c/hard", 0o644) },
            link("c/to", "../../a/real"),
            link("loop", "loop"),
            link("out", "/etc/passwd"),
        ] {
            listing.add(one).unwrap();
        }
        for name in ["a/real", "a/to", "b/to", "c/to", "c/hard", "b/hard"] {
            assert_eq!(listing.named(name.as_bytes()).map(|(id, _)| id), Some(1), "{name}");
        }
        assert!(["out", "nowhere", "b/no"].iter().all(|name| listing.named(name.as_bytes()).is_none()));
    }

    #[test]
    fn modes_are_translated_both_ways() {
        assert_eq!(mode(GO_SETGID | GO_STICKY | 0o640), 0o3640);
        assert_eq!(go_mode(0o104_755), GO_SETUID | 0o755);
        assert_eq!(go_mode(0o041_777), GO_DIR | GO_STICKY | 0o777);
    }
}
