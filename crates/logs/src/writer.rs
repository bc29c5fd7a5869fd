//! Writing a log: lines out of chunks, entries into a file, files by size.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

use crate::entry::{Encoder, Stream, encode_attributes};
use crate::error::{LogError, Result};
use crate::lines::{Lines, Piece};
use crate::packed::{Packing, packed};

/// The bounds that Docker's driver `local` has when nobody gives any.
const LOCAL_SIZE: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;
/// What a log in `json-file` may have when nobody gives a bound, in so many files: of its file system's size a part, and no more
/// than this. Docker's has no bound, and one container that writes on and on fills the disk for all.
const MOST: u64 = 1 << 30;
const PART: u64 = 16;
const FILES: u32 = 5;
/// A file is never smaller.
const LEAST: u64 = 1 << 20;
/// Entries are collected up to this size before they are written in one call.
const BUFFER: usize = 64 << 10;

/// How a log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    #[default]
    JsonFile,
    /// The same form under another name, but for lines that are no UTF-8, and with bounds where none are given: 20 MiB a file,
    /// five of them.
    Local,
    /// Not at all.
    None,
}

impl FromStr for Driver {
    type Err = LogError;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "json-file" | "" => Ok(Self::JsonFile),
            "local" => Ok(Self::Local),
            "none" => Ok(Self::None),
            other => Err(LogError::Driver(other.into())),
        }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub driver: Driver,
    /// Bytes after which a new file is begun; `None` is never. An entry is never divided.
    pub max_size: Option<u64>,
    /// Files that are kept, the current one included; 0 means 1.
    pub max_files: u32,
    /// Those that are not written to any more are compressed.
    pub compress: bool,
}

/// Bytes of each of so many files, on a file system of so many.
fn fair_size(whole: u64, files: u32) -> u64 {
    (whole / PART).min(MOST).div_euclid(files.max(1).into()).max(LEAST)
}

/// A log that is written. What is in the buffer when it is dropped is lost: see [`Writer::flush`].
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    options: LogOptions,
    /// `None` with the driver `none`.
    file: Option<File>,
    /// `None` when the file is not to be compressed, or could not be.
    packing: Option<Packing>,
    /// Bytes in the file.
    size: u64,
    /// Whole entries that are not in the file yet.
    buffer: Vec<u8>,
    encoder: Encoder,
    lines: Lines,
    /// The time of the last entry.
    last: Timestamp,
    lost: u64,
}

impl Writer {
    /// Opens the log at `path`, made if it is not there; what is in it stays.
    ///
    /// # Errors
    /// `File`.
    pub fn open(path: &Path, mut options: LogOptions) -> Result<Self> {
        if options.driver == Driver::Local && options.max_size.is_none() {
            options.max_size = Some(LOCAL_SIZE);
            options.max_files = if options.max_files > 1 { options.max_files } else { LOCAL_FILES };
        }
        if options.driver == Driver::JsonFile && options.max_size.is_none() {
            options.max_files = if options.max_files > 1 { options.max_files } else { FILES };
            let dir = path.parent().unwrap_or(Path::new("/"));
            let whole = rustix::fs::statvfs(dir).map_or(u64::MAX, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
            options.max_size = Some(fair_size(whole, options.max_files));
        }
        let mut writer = Self {
            path: path.into(),
            options,
            file: None,
            packing: None,
            size: 0,
            buffer: Vec::new(),
            encoder: Encoder::default(),
            lines: Lines::default(),
            last: Timestamp::UNIX_EPOCH,
            lost: 0,
        };
        writer.encoder.raw = options.driver == Driver::Local;
        if options.driver != Driver::None {
            let mut file = open(path, false).map_err(LogError::file("open", path))?;
            writer.size = file.seek(SeekFrom::End(0)).map_err(LogError::file("open", path))?;
            if writer.size > 0 && torn(&mut file) {
                // A crash in the middle of an entry: the next one begins on a line of its own.
                writer.buffer.push(b'\n');
            }
            writer.pack(&mut file);
            writer.file = Some(file);
        }
        Ok(writer)
    }

    /// Writes these beside each line.
    #[must_use]
    pub fn with_attributes(mut self, attributes: &BTreeMap<String, String>) -> Self {
        self.encoder.attributes = encode_attributes(attributes);
        self
    }

    /// Takes what was read from a stream. Lines that end in it become entries; what is not ended waits, up to 16 KiB.
    ///
    /// # Errors
    /// `File` when the buffer was full and could not be written, as in [`Self::flush`].
    pub fn write(&mut self, stream: Stream, chunk: &[u8], time: Timestamp) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut lines = std::mem::take(&mut self.lines);
        let done = lines.feed(stream, chunk, time, |piece| self.push(piece));
        self.lines = lines;
        done
    }

    /// The stream has ended: what it wrote without a line feed becomes an entry without one.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn end(&mut self, stream: Stream, time: Timestamp) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut lines = std::mem::take(&mut self.lines);
        let done = lines.end(stream, time, |piece| self.push(piece));
        self.lines = lines;
        done
    }

    fn push(&mut self, piece: Piece<'_>) -> Result<()> {
        let mut done = Ok(());
        if self.options.max_size.is_some_and(|max| self.size + self.buffer.len() as u64 >= max.max(1)) {
            done = self.flush().and_then(|()| self.rotate());
        } else if self.buffer.len() >= BUFFER {
            done = self.flush();
        }
        self.last = after(self.last, piece.time);
        self.encoder.encode(&mut self.buffer, piece.text, piece.ended, piece.stream, self.last);
        done
    }

    /// What the disk refuses here is not lost: the file stays as it is.
    fn pack(&mut self, file: &mut File) {
        let is_wanted = self.options.compress && self.options.max_files > 1;
        self.packing = is_wanted.then(|| Packing::begin(&self.path, file).ok().flatten()).flatten();
    }

    /// Writes what is collected.
    ///
    /// # Errors
    /// `File`, as when the disk is full. Then what was collected is lost and counted, and the file is as it was
    /// before: whole entries only.
    pub fn flush(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = file.write_all(&self.buffer);
        if written.is_ok() {
            self.size += self.buffer.len() as u64;
            self.packing.take_if(|packing| packing.write(&self.buffer).is_err());
        } else {
            // If the cut fails too, a reader passes over the torn entry.
            let _ = file.set_len(self.size);
            self.lost += self.buffer.iter().filter(|b| **b == b'\n').count() as u64;
        }
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER);
        written.map_err(LogError::file("write", &self.path))
    }

    /// Entries that could not be written so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// `PATH` becomes `PATH.1`, that `PATH.2` and so on; the oldest goes. A reader knows the new file by its inode,
    /// so with one file alone it is replaced, not emptied.
    fn rotate(&mut self) -> Result<()> {
        let older = self.options.max_files.max(1) - 1;
        let failed = |e| LogError::file("rotate", &self.path)(e);
        for n in (1..older).rev() {
            let (from, to) = (numbered(&self.path, n), numbered(&self.path, n + 1));
            // Either form may be there, of a time with other options.
            for (from, to) in [(packed(&from), packed(&to)), (from, to)] {
                let moved = absent_or(fs::rename(from, &to)).map_err(failed)?;
                if moved.is_none() {
                    absent_or(fs::remove_file(&to)).map_err(failed)?;
                }
            }
        }
        if older == 0 {
            absent_or(fs::remove_file(&self.path)).map_err(failed)?;
        } else {
            let last = numbered(&self.path, 1);
            absent_or(fs::rename(&self.path, &last)).map_err(failed)?;
            let kept = self.packing.take().map(|packing| packing.keep(&packed(&last)));
            // Where both are there, the one that is not compressed counts.
            absent_or(fs::remove_file(if matches!(kept, Some(Ok(()))) { last } else { packed(&last) }))
                .map_err(failed)?;
        }
        let mut file = open(&self.path, true).map_err(failed)?;
        self.pack(&mut file);
        self.file = Some(file);
        self.size = 0;
        Ok(())
    }
}

/// `None` when it is not there.
fn absent_or(done: std::io::Result<()>) -> std::io::Result<Option<()>> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// When an entry was written, if the one before it has the time `last`. What was read at once was seen at one time: each
/// has a nanosecond more, so that who goes on from a time has nothing twice. A clock that was set back is believed.
fn after(last: Timestamp, time: Timestamp) -> Timestamp {
    const AT_ONCE: SignedDuration = SignedDuration::from_millis(1);
    let next = last.checked_add(SignedDuration::from_nanos(1)).unwrap_or(last);
    if time >= next || next.duration_since(time) > AT_ONCE { time } else { next }
}

/// `PATH`, or `PATH.N`.
pub(crate) fn numbered(path: &Path, n: u32) -> PathBuf {
    if n == 0 {
        return path.into();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn open(path: &Path, new: bool) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).create_new(new).mode(0o640).open(path)
}

fn torn(file: &mut File) -> bool {
    let mut last = [0];
    file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).is_ok() && last != *b"\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::MAX_LINE;

    fn time() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn logs(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["log"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn lines_are_made_of_chunks_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
        for chunk in [&b"on"[..], b"e\ntwo\n\nth", b"ree"] {
            writer.write(Stream::Stdout, chunk, time()).unwrap();
        }
        writer.write(Stream::Stderr, b"other\n", time()).unwrap();
        writer.end(Stream::Stdout, time()).unwrap();
        writer.end(Stream::Stderr, time()).unwrap();
        writer.flush().unwrap();
        assert_eq!(logs(&path), ["one\n", "two\n", "\n", "other\n", "three"]);
    }

    #[test]
    fn long_lines_are_divided_at_16_kib_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
        writer.write(Stream::Stdout, &[b'x'; MAX_LINE], time()).unwrap();
        writer.write(Stream::Stdout, b"\n", time()).unwrap();
        let text = format!("{}é{}\n", "y".repeat(MAX_LINE - 1), "z".repeat(MAX_LINE));
        writer.write(Stream::Stdout, text.as_bytes(), time()).unwrap();
        writer.flush().unwrap();
        let lines = logs(&path);
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LINE, 1, MAX_LINE - 1, MAX_LINE, 3]);
        assert_eq!(lines[2..].concat(), text);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions { max_size: Some(200), max_files: 3, ..LogOptions::default() };
        let mut writer = Writer::open(&path, options).unwrap();
        for n in 0..20 {
            writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), time()).unwrap();
        }
        writer.flush().unwrap();
        assert!(!numbered(&path, 3).exists());
        let all: Vec<String> = (0..3).rev().flat_map(|n| logs(&numbered(&path, n))).collect();
        let want: Vec<String> = (20 - all.len()..20).map(|n| format!("{n}\n")).collect();
        assert_eq!(all, want);
        assert!(fs::metadata(numbered(&path, 1)).unwrap().len() < 300);

        let one = dir.path().join("one");
        let mut writer = Writer::open(&one, LogOptions { max_size: Some(200), ..LogOptions::default() }).unwrap();
        for n in 0..20 {
            writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), time()).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(logs(&one).last().unwrap(), "19\n");
        assert!(fs::metadata(&one).unwrap().len() < 300 && !numbered(&one, 1).exists());
    }

    #[test]
    fn what_is_read_at_once_has_times_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
        writer.write(Stream::Stdout, b"a\nb\n", time()).unwrap();
        writer.write(Stream::Stderr, b"c\n", time()).unwrap();
        writer.write(Stream::Stdout, b"d\n", time() - SignedDuration::from_secs(1)).unwrap();
        writer.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let times: Vec<_> =
            text.lines().map(|line| line[line.find("05").or(line.find("04Z")).unwrap()..].to_owned()).collect();
        assert_eq!(times, ["05Z\"}", "05.000000001Z\"}", "05.000000002Z\"}", "04Z\"}"]);
    }

    #[test]
    fn a_torn_entry_spoils_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "{\"log\":\"to").unwrap();
        let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
        writer.write(Stream::Stdout, b"next\n", time()).unwrap();
        writer.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"log\":\"to\n{\"log\":\"next\\n\""), "{text}");
    }

    #[test]
    fn local_has_bounds_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let open = |options| Writer::open(&dir.path().join("log"), options).unwrap().options;
        let local = LogOptions { driver: Driver::Local, ..LogOptions::default() };
        let got = open(local);
        assert_eq!((got.max_size, got.max_files), (Some(LOCAL_SIZE), LOCAL_FILES));
        assert_eq!(open(LogOptions { max_files: 3, ..local }).max_files, 3);
        assert_eq!(open(LogOptions { max_size: Some(9), max_files: 1, ..local }).max_files, 1);
        let usual = open(LogOptions::default());
        assert!(usual.max_files == FILES && usual.max_size.is_some_and(|size| size <= MOST / u64::from(FILES)));
        assert_eq!((fair_size(300 << 20, 5), fair_size(1 << 50, 5), fair_size(0, 1)), (3_932_160, MOST / 5, LEAST));
    }

    #[test]
    fn none_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = LogOptions { driver: Driver::None, ..LogOptions::default() };
        let mut writer = Writer::open(&path, options).unwrap();
        writer.write(Stream::Stdout, b"x\n", time()).unwrap();
        writer.flush().unwrap();
        assert!(!path.exists());
        assert!("syslog".parse::<Driver>().is_err());
    }

    #[test]
    fn a_full_disk_costs_entries_and_no_more() {
        // /dev/full takes no byte, and is no file that could be cut.
        let mut writer = Writer::open(Path::new("/dev/full"), LogOptions::default()).unwrap();
        writer.write(Stream::Stdout, b"a\nb\n", time()).unwrap();
        assert!(writer.flush().is_err());
        assert_eq!(writer.lost(), 2);
        writer.flush().unwrap();
    }
}
