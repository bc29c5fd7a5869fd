//! Files that were rotated away, compressed: `PATH.N.gz`, as Docker names them.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::bufread::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

/// What stands before the number of the file that one was made of, in its comment.
const MADE_OF: &str = "inode ";

/// So much of a file is compressed at once where somebody waits for it: a second or so. Of a larger one that an earlier
/// writer has not finished nothing is; it stays as it is.
const MOST_AT_ONCE: u64 = 64 << 20;

/// What has been written to a log's file, compressed beside it as it comes: a rotation has nothing left to do, and nobody
/// else is needed for it.
#[derive(Debug)]
pub(crate) struct Packing {
    log: PathBuf,
    encoder: GzEncoder<File>,
    /// Bytes of the file that are in it.
    bytes: u64,
    /// Where it is; `None` when it is somebody else's, or of no use.
    path: Option<PathBuf>,
}

impl Packing {
    /// Begins with what is in `file` already: what an earlier writer has made of it, or now. `None` where that is too much.
    ///
    /// # Errors
    /// As when the disk is full.
    pub(crate) fn begin(log: &Path, file: &mut File) -> io::Result<Option<Self>> {
        let found = file.metadata()?;
        let (path, left) = (with(log, ".gz.new"), with(log, &format!(".gz.{}", found.size())));
        let is_its_own = File::open(&left).is_ok_and(|left| made_of(&left) == Some(found.ino()));
        if is_its_own {
            fs::rename(&left, &path)?;
        }
        sweep(log, is_its_own.then_some(path.as_path()));
        let packing = |encoder, bytes| Self { log: log.into(), encoder, bytes, path: Some(path.clone()) };
        if is_its_own {
            // One more member (RFC 1952, section 2.2).
            let to = OpenOptions::new().append(true).open(&path)?;
            return Ok(Some(packing(GzEncoder::new(to, Compression::fast()), found.size())));
        }
        if found.size() > MOST_AT_ONCE {
            return Ok(None);
        }
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
        // So that who reads on in the file knows it again.
        let comment = CString::new(format!("{MADE_OF}{}", found.ino()))?;
        let mut packing = packing(GzBuilder::new().comment(comment).write(to, Compression::fast()), 0);
        file.seek(SeekFrom::Start(0))?;
        packing.bytes = io::copy(file, &mut packing.encoder)?;
        Ok(Some(packing))
    }

    /// # Errors
    /// As when the disk is full: then it is of no use any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.encoder.write_all(bytes);
        match &written {
            Ok(()) => self.bytes += bytes.len() as u64,
            Err(_) => self.give_up(),
        }
        written
    }

    fn give_up(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = fs::remove_file(path);
        }
    }

    /// Makes it the file of that name.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn keep(mut self, name: &Path) -> io::Result<()> {
        let kept = self.encoder.try_finish().and_then(|()| match &self.path {
            Some(path) => fs::rename(path, name),
            None => Err(io::ErrorKind::NotFound.into()),
        });
        match &kept {
            Ok(()) => self.path = None,
            Err(_) => self.give_up(),
        }
        kept
    }
}

/// The next writer of the file goes on with it.
impl Drop for Packing {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        let left = with(&self.log, &format!(".gz.{}", self.bytes));
        if self.encoder.try_finish().and_then(|()| fs::rename(path, left)).is_err() {
            self.give_up();
        }
    }
}

/// Removes what writers have left of the file, but for that one.
fn sweep(log: &Path, but: Option<&Path>) {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return };
    let begin = [name.as_encoded_bytes(), b".gz."].concat();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(&begin) && Some(path.as_path()) != but {
            let _ = fs::remove_file(path);
        }
    }
}

/// The compressed form of a file.
pub(crate) fn packed(file: &Path) -> PathBuf {
    with(file, ".gz")
}

/// The inode of the file that it was made of, if it says so.
pub(crate) fn made_of(file: &File) -> Option<u64> {
    let decoder = GzDecoder::new(BufReader::new(file));
    let comment = String::from_utf8_lossy(decoder.header()?.comment()?).into_owned();
    comment.strip_prefix(MADE_OF)?.parse().ok()
}

/// Its content, in a file without a name in the directory of the log. Of one that is damaged as much as can be read.
///
/// # Errors
/// As when the disk is full.
pub(crate) fn unpack(file: &File, log: &Path) -> io::Result<File> {
    let dir = log.parent().unwrap_or(Path::new("/"));
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let to =
        rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR).or_else(|_| memfd_create(c"log", MemfdFlags::CLOEXEC))?;
    let mut to = File::from(to);
    let mut from = file;
    from.seek(SeekFrom::Start(0))?;
    let mut decoder = MultiGzDecoder::new(BufReader::new(from));
    let mut block = vec![0; 128 << 10];
    // What cannot be read ends it; what cannot be written is an error.
    while let Ok(read @ 1..) = decoder.read(&mut block) {
        to.write_all(&block[..read])?;
    }
    Ok(to)
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::entry::Stream;
    use crate::reader::{ReadOptions, Reader};
    use crate::writer::{LogOptions, Writer, numbered};

    fn time() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    /// Also what is followed while it is compressed, and what a writer before has begun.
    #[test]
    fn what_is_rotated_is_compressed_and_read_as_if_it_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions { max_size: Some(2000), max_files: 4, compress: true, ..LogOptions::default() };
        let texts = |mut reader: Reader| {
            let mut all = Vec::new();
            while let Some(entry) = reader.next_entry().unwrap() {
                all.push(String::from_utf8(entry.line).unwrap());
            }
            (all, reader)
        };
        let follow = ReadOptions { follow: true, ..ReadOptions::default() };
        let mut reader = Reader::open(&path, follow).unwrap();
        let mut followed = Vec::new();
        for n in 0..500 {
            let mut writer = Writer::open(&path, options).unwrap();
            for part in 0..7 {
                writer.write(Stream::Stdout, format!("{n} {part}\n").as_bytes(), time()).unwrap();
            }
            writer.flush().unwrap();
            let (some, back) = texts(reader);
            followed.extend(some);
            reader = back;
        }
        let all: Vec<String> = (0..500).flat_map(|n| (0..7).map(move |part| format!("{n} {part}\n"))).collect();
        assert_eq!(followed, all);
        let (kept, _) = texts(Reader::open(&path, ReadOptions::default()).unwrap());
        assert!(kept.len() > 90 && all.ends_with(&kept), "{kept:?}");
        for count in [1, 40, 80] {
            let tail = ReadOptions { tail: Some(count), ..ReadOptions::default() };
            let (last, _) = texts(Reader::open(&path, tail).unwrap());
            assert_eq!(last, all[all.len() - count as usize..]);
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert!(names.iter().map(|name| name.to_str().unwrap()).eq([
            "log",
            "log.1.gz",
            "log.2.gz",
            "log.3.gz",
            &format!("log.gz.{}", fs::metadata(&path).unwrap().len()),
        ]));
        let first = packed(&numbered(&path, 1));
        assert!(fs::metadata(&first).unwrap().len() < 1000);

        // Other options from now on; and one that is damaged is read as far as it goes.
        let plain = LogOptions { compress: false, max_files: 3, ..options };
        let mut writer = Writer::open(&path, plain).unwrap();
        for n in 0..26 {
            writer.write(Stream::Stdout, format!("later {n}\n").as_bytes(), time()).unwrap();
        }
        writer.flush().unwrap();
        let (now, _) = texts(Reader::open(&path, ReadOptions::default()).unwrap());
        assert!(now.last().unwrap() == "later 25\n" && now.len() > 50, "{now:?}");
        assert!(numbered(&path, 1).exists() && !first.exists());
        let second = packed(&numbered(&path, 2));
        let whole = fs::metadata(&second).unwrap().len();
        OpenOptions::new().write(true).open(&second).unwrap().set_len(whole / 2).unwrap();
        let (some, _) = texts(Reader::open(&path, ReadOptions::default()).unwrap());
        assert!(some.len() < now.len() && now.ends_with(&some[some.len() - 30..]), "{some:?}");
    }

    /// File systems give the number of a file that has gone to the next one.
    #[test]
    fn who_follows_what_is_compressed_has_each_line_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions { max_size: Some(2000), max_files: 6, compress: true, ..LogOptions::default() };
        let mut writer = Writer::open(&path, options).unwrap();
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
        let mut numbers = Vec::new();
        for n in 0..2000 {
            writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), time()).unwrap();
            writer.flush().unwrap();
            while let Some(entry) = reader.next_entry().unwrap() {
                numbers.push(String::from_utf8(entry.line).unwrap().trim().parse::<u32>().unwrap());
            }
        }
        assert!(numbers.iter().copied().eq(0..2000), "{numbers:?}");
    }

    #[test]
    fn what_was_read_compressed_does_not_come_again_with_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions { max_size: Some(100), max_files: 2, compress: true, ..LogOptions::default() };
        let mut writer = Writer::open(&path, options).unwrap();
        let line = |writer: &mut Writer, text: &str| {
            writer.write(Stream::Stdout, text.as_bytes(), time()).unwrap();
            writer.flush().unwrap();
        };
        line(&mut writer, "one, which is long enough for a file of its own\n");
        line(&mut writer, "two\n");
        drop(writer);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
        let mut next = || reader.next_entry().unwrap().map(|entry| String::from_utf8(entry.line).unwrap());
        assert!(next().unwrap().starts_with("one"));
        assert_eq!(next(), None);
        fs::write(&path, kept).unwrap();
        assert_eq!(next().as_deref(), Some("two\n"));
        assert_eq!(next(), None);
    }

    /// What nobody would wait for is not done; what was left is gone on with, and swept.
    #[test]
    fn a_large_file_is_gone_on_with_or_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let open = || OpenOptions::new().read(true).append(true).create(true).open(&log).unwrap();
        let left = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut file = open();
        let mut packing = Packing::begin(&log, &mut file).unwrap().unwrap();
        file.write_all(b"abc").unwrap();
        packing.write(b"abc").unwrap();
        drop(packing);
        assert_eq!(left(), ["log", "log.gz.3"]);
        let mut packing = Packing::begin(&log, &mut file).unwrap().unwrap();
        packing.write(b"def").unwrap();
        packing.keep(&packed(&numbered(&log, 1))).unwrap();
        let all = unpack(&File::open(packed(&numbered(&log, 1))).unwrap(), &log).unwrap();
        let mut text = [0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&all, &mut text, 0).unwrap();
        assert_eq!(&text, b"abcdef");
        fs::write(with(&log, ".gz.9"), "x").unwrap();
        file.set_len(MOST_AT_ONCE + 1).unwrap();
        assert!(Packing::begin(&log, &mut file).unwrap().is_none());
        assert_eq!(left(), ["log", "log.1.gz"]);
    }
}
