//! Applies an archive to a directory, and nothing outside of it; or makes an image of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use wharf_rooted_path::RootDir;

use crate::directory::Directory;
use crate::error::shown;
use crate::header::{Entry, Kind};
use crate::ids::IdRange;
use crate::image::Image;
use crate::names::{check_link, inside};
use crate::reader::Reader;
use crate::record::{Recorder, Tap};
use crate::target::Target;
use crate::{ArchiveError, Result};

/// What marks a removal in an image layer (OCI image-spec, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// What marks a directory whose content below is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of aufs's own that old layers carry.
const AUFS: &[u8] = b".wh..wh.";

/// What a whiteout becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// What overlayfs understands: a character device 0:0, or `trusted.overlay.opaque` on the directory.
    Overlay,
    /// The removal itself: the layer is applied over what is there.
    Apply,
    /// A file of that name: the archive is no layer.
    Literal,
}

/// How to unpack, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    pub whiteouts: Whiteouts,
    /// Gives files the archive's owners; otherwise they belong to this process's user.
    pub same_owner: bool,
    /// Gives all files this owner and group, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// The archive's owners are those of a user namespace that has these IDs.
    pub ids: Option<IdRange>,
    /// Refuses to replace a directory by something else and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Refuses to replace what something is mounted on. The kernel takes such a mount away where it is in another mount
    /// namespace than this one.
    pub keep_mounts: bool,
    /// Bounds on what an archive may make; a bomb ends here.
    pub max_entries: u64,
    pub max_bytes: u64,
}

impl Default for UnpackOptions {
    /// As a layer that is applied: owners kept, ten million entries, no bound on bytes but the disk's.
    fn default() -> Self {
        Self {
            whiteouts: Whiteouts::Apply,
            same_owner: true,
            owner: None,
            ids: None,
            no_overwrite_dir_non_dir: false,
            keep_mounts: false,
            max_entries: 10_000_000,
            max_bytes: u64::MAX,
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Bytes that it takes on a disk with blocks of 4 KiB, near enough: what a file system keeps beside is left out.
    pub disk: u64,
}

impl UnpackOptions {
    /// Whose an entry becomes.
    pub(crate) fn owner(&self, entry: &Entry) -> (u32, u32) {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        match self.ids {
            Some(range) => (range.to_host(uid), range.to_host(gid)),
            None => (uid, gid),
        }
    }
}

/// Applies the archive `input` to `root`.
///
/// # Errors
/// For an entry that would leave the root or is not understood, for bounds, and for what the disk refuses.
/// What was unpacked until then stays: the caller unpacks into a directory that it throws away.
pub fn unpack(input: impl Read, root: &RootDir, options: &UnpackOptions) -> Result<Unpacked> {
    run(Tap::new(input, None), &mut Directory::new(root, options, false), options, &Around::default())
}

/// As [`unpack`]; the value has the directories, too, that the archive has nothing to say about: they are made for what is in
/// them.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_telling_implied(
    input: impl Read,
    root: &RootDir,
    options: &UnpackOptions,
) -> Result<(Unpacked, BTreeSet<PathBuf>)> {
    let implied = RefCell::default();
    let around = Around { implied: Some(&implied), ..Around::default() };
    let done = run(Tap::new(input, None), &mut Directory::new(root, options, false), options, &around)?;
    Ok((done, implied.into_inner().unsaid()))
}

/// As [`unpack`], into the directory `at` of `root`: links of its own lead as far as the root, and the directory itself stays
/// as it is, whatever the archive says of it.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_at(input: impl Read, root: &RootDir, at: &Path, options: &UnpackOptions) -> Result<Unpacked> {
    // Never empty, which would be the root as an archive's own.
    let at = Path::new(".").join(at.strip_prefix("/").unwrap_or(at));
    run(Tap::new(input, None), &mut Directory::new(root, options, false).at(&at), options, &Around::default())
}

/// The time that something gets which the archive has at a path, with the time that is said there: seconds since the epoch
/// and nanoseconds.
pub type OtherTimes<'a> = dyn Fn(&Path, (i64, u32)) -> (i64, u32) + 'a;

/// As [`unpack`], and `recorder` hears what the archive was made of. With `times` what is made has those, which the archive does
/// not say.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_recorded(
    input: impl Read,
    root: &RootDir,
    options: &UnpackOptions,
    recorder: &mut dyn Recorder,
    times: Option<&OtherTimes<'_>>,
) -> Result<Unpacked> {
    let around = Around { times, ..Around::default() };
    run(Tap::new(input, Some(recorder)), &mut Directory::new(root, options, true), options, &around)
}

/// As [`unpack_recorded`], with an image for a directory. It is a layer: whiteouts become overlayfs's, whatever the
/// options say, and directories make room for anything. What its entries take on a disk is not told; the image's file
/// has it.
///
/// # Errors
/// As [`unpack`]; the image is of no use then.
pub fn unpack_image(
    input: impl Read,
    image: &mut wharf_erofs::Writer,
    options: &UnpackOptions,
    recorder: &mut dyn Recorder,
    times: Option<&OtherTimes<'_>>,
) -> Result<Unpacked> {
    let options = UnpackOptions { whiteouts: Whiteouts::Overlay, no_overwrite_dir_non_dir: false, ..*options };
    let around = Around { times, ..Around::default() };
    let done = run(Tap::new(input, Some(recorder)), &mut Image::new(image, &options), &options, &around)?;
    Ok(Unpacked { disk: 0, ..done })
}

/// Directories of an archive: those that it has an entry for are true.
#[derive(Debug, Default)]
struct Directories(BTreeMap<PathBuf, bool>);

impl Directories {
    fn note(&mut self, path: &Path, kind: Kind) {
        if kind == Kind::Directory {
            self.0.insert(path.to_owned(), true);
        }
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            if self.0.contains_key(above) {
                return;
            }
            self.0.insert(above.to_owned(), false);
        }
    }

    fn unsaid(self) -> BTreeSet<PathBuf> {
        self.0.into_iter().filter(|(_, said)| !said).map(|(path, _)| path).collect()
    }
}

/// What goes on beside the unpacking.
#[derive(Default)]
struct Around<'a> {
    times: Option<&'a OtherTimes<'a>>,
    implied: Option<&'a RefCell<Directories>>,
}

/// All that an archive may not do is looked for here, before its target hears of it.
fn run<R: Read>(
    tap: Tap<'_, R>,
    target: &mut impl Target,
    options: &UnpackOptions,
    around: &Around<'_>,
) -> Result<Unpacked> {
    let mut reader = Reader::new(tap);
    let mut done = Unpacked::default();
    while let Some(mut entry) = reader.next_entry()? {
        done.entries += 1;
        done.bytes = done.bytes.saturating_add(entry.size);
        if done.entries > options.max_entries {
            return Err(ArchiveError::TooMany(options.max_entries));
        }
        // Before a byte of it is written: the size may be a lie, but not a cheap one.
        if done.bytes > options.max_bytes {
            return Err(ArchiveError::TooLarge(options.max_bytes));
        }
        done.disk = done.disk.saturating_add(reader.stored().unwrap_or_else(|| disk(&entry)));
        let path = inside(&entry)?;
        if let Some(implied) = around.implied {
            implied.borrow_mut().note(&path, entry.kind);
        }
        if let Some(times) = around.times {
            entry.mtime = times(&path, entry.mtime);
        }
        match path.file_name() {
            None => target.root(&entry)?,
            Some(name) if options.whiteouts != Whiteouts::Literal && name.as_bytes().starts_with(WHITEOUT) => {
                whiteout(target, &entry, &path, name.as_bytes())?;
            }
            Some(_) => {
                check_link(&entry)?;
                target.put(&entry, &path, &mut reader)?;
            }
        }
    }
    target.finish()?;
    Ok(done)
}

fn whiteout(target: &mut impl Target, entry: &Entry, path: &Path, name: &[u8]) -> Result<()> {
    let above = path.parent().unwrap_or(Path::new(""));
    if name == OPAQUE {
        return target.opaque(entry, above);
    }
    if name.starts_with(AUFS) {
        return Ok(());
    }
    let hidden = OsStr::from_bytes(&name[WHITEOUT.len()..]);
    // One literal name, or it would remove what the archive chooses (`.wh...` is `..`).
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(ArchiveError::Entry { name: shown(&entry.path), why: "a whiteout must name one file" });
    }
    target.whiteout(entry, &above.join(hidden))
}

/// What an entry takes on a disk, if it is all that the archive says of its name.
fn disk(entry: &Entry) -> u64 {
    const BLOCK: u64 = 4096;
    match entry.kind {
        Kind::File => entry.size.checked_next_multiple_of(BLOCK).unwrap_or(entry.size),
        Kind::Directory => BLOCK,
        // A longer target has no place in the inode.
        Kind::Symlink if entry.link.len() >= 60 => BLOCK,
        _ => 0,
    }
}
