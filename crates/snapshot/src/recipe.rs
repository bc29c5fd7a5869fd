//! What a layer's tar had beside the contents of its files, so that the very same tar can be written again.
//!
//! Tars are written by many tools, and none writes another's bytes: the order of entries, the form of a header, what
//! the paddings have in them. The recipe keeps all of it, compressed (some twenty bytes an entry), and says in
//! between which file's content belongs where. It is a zstd stream of frames:
//!
//! ```text
//! 0  u32 length, bytes               as they were
//! 1  u64 size, u32 length, path      the content of a file of the tree
//! 2  u32 length, path                what was at `path` by now makes room: it is in `kept/N`, N counted from 0
//! 3  u64 place, u64 size             bytes of the image
//! ```
//!
//! A tree's recipe (form 1) has frames 0 to 2, an image's (form 2) has 0 and 3: what an archive replaces of its own is
//! in its image all the same.
//!
//! Numbers are little endian, paths relative to the tree and free of links.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use wharf_archive::{Content, Recorder};
use wharf_rooted_path::RootDir;

use crate::storage::Storage;

const TREE: &[u8; 15] = b"wharf recipe 1\n";
const IMAGE: &[u8; 15] = b"wharf recipe 2\n";
const BYTES: u8 = 0;
const CONTENT: u8 = 1;
const REPLACED: u8 = 2;
const RANGE: u8 = 3;

/// Bytes that are gathered before they become a frame.
const FRAME: usize = 64 << 10;
/// Headers repeat themselves so much that the fastest level is as good as any.
const LEVEL: i32 = 1;
/// An honest archive replaces none of its own entries, or a few.
const MAX_REPLACED: u64 = 100_000;
/// Contents are copied in pieces of this size.
const PIECE: usize = 256 << 10;
/// Longest path of a file system, with room.
const MAX_PATH: u32 = 64 << 10;

/// Where a layer's recipe is, and what it refers to.
fn recipe(layer: &Path) -> PathBuf {
    layer.join("recipe")
}

fn kept(layer: &Path) -> PathBuf {
    layer.join("kept")
}

/// Writes a recipe while an archive is unpacked.
pub(crate) struct RecipeWriter {
    layer: PathBuf,
    output: zstd::Encoder<'static, BufWriter<File>>,
    pending: Vec<u8>,
    replaced: u64,
    /// The first failure: whoever tells us of bytes does not ask.
    failure: Option<io::Error>,
}

impl RecipeWriter {
    pub(crate) fn new(layer: &Path, form: Storage) -> io::Result<Self> {
        let file = File::create_new(recipe(layer))?;
        let mut output = zstd::Encoder::new(BufWriter::with_capacity(FRAME, file), LEVEL)?;
        output.write_all(if form == Storage::Dirs { TREE } else { IMAGE })?;
        Ok(Self { layer: layer.to_owned(), output, pending: Vec::new(), replaced: 0, failure: None })
    }

    /// Ends the recipe, and answers with the bytes that it takes on the disk. It is not synced.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.flush();
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let file = self.output.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(file.metadata()?.len().next_multiple_of(4096))
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.frame(BYTES, None, &pending);
            self.pending = pending;
            self.pending.clear();
        }
    }

    fn frame(&mut self, kind: u8, number: Option<u64>, bytes: &[u8]) {
        let mut head = vec![kind];
        head.extend(number.into_iter().flat_map(u64::to_le_bytes));
        head.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.write(&head);
        self.write(bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        let written = self.output.write_all(bytes);
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }
}

impl Recorder for RecipeWriter {
    fn bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(FRAME) {
            if self.pending.len() + piece.len() > FRAME {
                self.flush();
            }
            self.pending.extend_from_slice(piece);
        }
    }

    fn content(&mut self, content: Content<'_>) {
        self.flush();
        match content {
            Content::File { path, size } => self.frame(CONTENT, Some(size), path.as_os_str().as_bytes()),
            Content::Ranges(ranges) => {
                for range in ranges {
                    let mut frame = vec![RANGE];
                    frame.extend([range.start, range.end - range.start].into_iter().flat_map(u64::to_le_bytes));
                    self.write(&frame);
                }
            }
        }
    }

    fn replaced(&mut self, parent: &RootDir, name: &OsStr, path: &Path) -> io::Result<bool> {
        if self.replaced >= MAX_REPLACED {
            return Err(io::Error::other(format!("the archive replaces more than {MAX_REPLACED} of its own entries")));
        }
        let kept = kept(&self.layer);
        if self.replaced == 0 {
            fs::create_dir(&kept)?;
        }
        rustix::fs::renameat(parent, name, CWD, kept.join(self.replaced.to_string()))?;
        self.replaced += 1;
        self.flush();
        self.frame(REPLACED, None, path.as_os_str().as_bytes());
        Ok(true)
    }
}

/// Why a tar cannot be written from its recipe.
#[derive(Debug)]
pub(crate) enum RecipeError {
    /// There is none, it ends too early, or a file is not as it was.
    Damaged(&'static str),
    Read(io::Error),
    Output(io::Error),
}

const UNKNOWN: RecipeError = RecipeError::Damaged("its recipe is of no known form");

/// Writes the tar again, from the recipe and the files of the layer at `layer`. Whether it is the same is for the
/// caller to check.
pub(crate) fn write(layer: &Path, form: Storage, output: &mut dyn Write) -> Result<(), RecipeError> {
    match form {
        Storage::Dirs => from_tree(layer, output),
        Storage::Erofs => from_image(layer, output),
    }
}

fn from_image(layer: &Path, output: &mut dyn Write) -> Result<(), RecipeError> {
    let image = File::open(layer.join("image")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RecipeError::Damaged("its image is gone"),
        _ => RecipeError::Read(error),
    })?;
    let mut frames = Frames::open(layer, IMAGE)?;
    let mut piece = vec![0; PIECE];
    while let Some(frame) = frames.next()? {
        match frame {
            Frame::Bytes(bytes) => output.write_all(bytes).map_err(RecipeError::Output)?,
            Frame::Range(mut place, mut left) => {
                while left > 0 {
                    let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    image.read_exact_at(&mut piece[..wanted], place).map_err(|error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => RecipeError::Damaged("its image is shorter than it was"),
                        _ => RecipeError::Read(error),
                    })?;
                    output.write_all(&piece[..wanted]).map_err(RecipeError::Output)?;
                    place += wanted as u64;
                    left -= wanted as u64;
                }
            }
            Frame::Content(..) | Frame::Replaced(_) => return Err(UNKNOWN),
        }
    }
    Ok(())
}

fn from_tree(layer: &Path, output: &mut dyn Write) -> Result<(), RecipeError> {
    // Seldom there; without it one pass is enough.
    let moves = if kept(layer).exists() { Moves::read(layer)? } else { Moves::default() };
    let root = RootDir::open(layer.join("root")).map_err(|error| RecipeError::Read(error.into()))?;
    let kept = if moves.is_empty() { None } else { RootDir::open(kept(layer)).ok() };
    let mut frames = Frames::open(layer, TREE)?;
    let mut files = 0;
    let mut piece = vec![0; PIECE];
    while let Some(frame) = frames.next()? {
        match frame {
            Frame::Bytes(bytes) => output.write_all(bytes).map_err(RecipeError::Output)?,
            Frame::Content(path, size) => {
                let opened = match moves.place(path, files) {
                    None => root.open_file(path),
                    Some(elsewhere) => match &kept {
                        Some(kept) => kept.open_file(elsewhere),
                        None => return Err(RecipeError::Damaged("what the archive replaced is gone")),
                    },
                };
                let file = opened.map_err(|_| RecipeError::Damaged("a file of it cannot be opened"))?;
                copy(file, size, &mut piece, output)?;
                files += 1;
            }
            Frame::Replaced(_) => {}
            Frame::Range(..) => return Err(UNKNOWN),
        }
    }
    Ok(())
}

fn copy(mut file: File, size: u64, piece: &mut [u8], output: &mut dyn Write) -> Result<(), RecipeError> {
    if file.metadata().map_err(RecipeError::Read)?.len() != size {
        return Err(RecipeError::Damaged("a file of it has another size than it had"));
    }
    let mut left = size;
    while left > 0 {
        let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = file.read(&mut piece[..wanted]).map_err(RecipeError::Read)?;
        if count == 0 {
            return Err(RecipeError::Damaged("a file of it became shorter"));
        }
        output.write_all(&piece[..count]).map_err(RecipeError::Output)?;
        left -= count as u64;
    }
    Ok(())
}

/// What the archive replaced of its own entries: path, and for each time the number of contents before it and where
/// it was kept.
#[derive(Default)]
struct Moves {
    by_path: HashMap<PathBuf, Vec<(u64, u64)>>,
}

impl Moves {
    fn read(layer: &Path) -> Result<Self, RecipeError> {
        let mut moves = Self::default();
        let mut frames = Frames::open(layer, TREE)?;
        let (mut files, mut number) = (0, 0);
        while let Some(frame) = frames.next()? {
            match frame {
                Frame::Bytes(_) | Frame::Range(..) => {}
                Frame::Content(..) => files += 1,
                Frame::Replaced(path) => {
                    moves.by_path.entry(path.to_owned()).or_default().push((files, number));
                    number += 1;
                }
            }
        }
        Ok(moves)
    }

    fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Where the content number `file` is that was unpacked to `path`, if it or a directory above it was replaced
    /// later: the first time counts, as what was kept does not move again.
    fn place(&self, path: &Path, file: u64) -> Option<PathBuf> {
        if self.is_empty() {
            return None;
        }
        let first = |above: &Path| {
            let times = self.by_path.get(above)?;
            // Those after the content, which are sorted.
            times.get(times.partition_point(|(files, _)| *files <= file)).map(|(_, number)| *number)
        };
        let candidates = path.ancestors().filter_map(|above| Some((first(above)?, above)));
        let (number, above) = candidates.min_by_key(|(number, _)| *number)?;
        let below = path.strip_prefix(above).ok()?;
        let kept = PathBuf::from(number.to_string());
        Some(if below.as_os_str().is_empty() { kept } else { kept.join(below) })
    }
}

enum Frame<'a> {
    Bytes(&'a [u8]),
    Content(&'a Path, u64),
    Replaced(&'a Path),
    /// Where in the image, and how much.
    Range(u64, u64),
}

struct Frames {
    input: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    current: Vec<u8>,
}

impl Frames {
    fn open(layer: &Path, form: &[u8; 15]) -> Result<Self, RecipeError> {
        let file = File::open(recipe(layer)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RecipeError::Damaged("its recipe is gone"),
            _ => RecipeError::Read(error),
        })?;
        let mut input = BufReader::with_capacity(FRAME, zstd::Decoder::new(file).map_err(RecipeError::Read)?);
        let mut magic = [0; 15];
        input.read_exact(&mut magic).map_err(early)?;
        if magic != *form {
            return Err(UNKNOWN);
        }
        Ok(Self { input, current: Vec::new() })
    }

    fn next(&mut self) -> Result<Option<Frame<'_>>, RecipeError> {
        let mut kind = [0];
        if self.input.read(&mut kind).map_err(early)? == 0 {
            return Ok(None);
        }
        let size = match kind[0] {
            CONTENT => u64::from_le_bytes(self.array()?),
            BYTES | REPLACED => 0,
            RANGE => {
                let place = u64::from_le_bytes(self.array()?);
                return Ok(Some(Frame::Range(place, u64::from_le_bytes(self.array()?))));
            }
            _ => return Err(UNKNOWN),
        };
        let length = u32::from_le_bytes(self.array()?);
        if length > MAX_PATH.max(FRAME as u32) {
            return Err(UNKNOWN);
        }
        self.current.resize(length as usize, 0);
        self.input.read_exact(&mut self.current).map_err(early)?;
        let path = || Path::new(OsStr::from_bytes(&self.current));
        Ok(Some(match kind[0] {
            CONTENT => Frame::Content(path(), size),
            REPLACED => Frame::Replaced(path()),
            _ => Frame::Bytes(&self.current),
        }))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecipeError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(early)?;
        Ok(bytes)
    }
}

/// What is cut off is damaged; what the disk refuses is not.
fn early(error: io::Error) -> RecipeError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RecipeError::Damaged("its recipe ends too early"),
        _ => RecipeError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_replaced_is_found_where_it_was_kept() {
        let mut moves = Moves::default();
        // Content 0 at a/b; a/b replaced (0); content 1 at a/b; a replaced (1); content 2 at a.
        moves.by_path.insert("a/b".into(), vec![(1, 0)]);
        moves.by_path.insert("a".into(), vec![(2, 1)]);
        assert_eq!(moves.place(Path::new("a/b"), 0), Some("0".into()));
        assert_eq!(moves.place(Path::new("a/b"), 1), Some("1/b".into()));
        assert_eq!(moves.place(Path::new("a"), 2), None);
        assert_eq!(moves.place(Path::new("ab"), 0), None);
    }
}
