//! Events on the disk: who asks for what happened gets it also from a daemon that was started since.
//!
//! Two files of JSON lines, the older of which goes when the newer one is full. An event is one write and is not waited
//! for: a daemon that is killed loses none, a host that crashes the last few.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::event::Event;

/// Files in the data root.
pub(crate) const FILES: [&str; 2] = ["events.jsonl", "events.old.jsonl"];
/// A file is full when it has so many bytes: some 2,000 events.
const FULL: u64 = 1 << 20;
/// A line that is longer is none of ours.
const MAX_LINE: u64 = 256 << 10;

/// The file that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    root: PathBuf,
    file: File,
    bytes: u64,
    /// The last write did not go through, or there was none: what is next begins a line.
    torn: bool,
}

impl Journal {
    /// Opens the journal, and gives the last events that it has, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn open(root: &Path, most: usize) -> io::Result<(Self, VecDeque<Event>)> {
        let mut past = VecDeque::new();
        for name in FILES.iter().rev() {
            match File::open(root.join(name)) {
                Ok(file) => read(file, most, &mut past),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let (file, bytes, torn) = open(&root.join(FILES[0]))?;
        Ok((Self { root: root.to_owned(), file, bytes, torn }, past))
    }

    /// Writes one down.
    ///
    /// # Errors
    /// As when the disk is full: the next one may go through.
    pub(crate) fn append(&mut self, event: &Event) -> io::Result<()> {
        if self.bytes >= FULL {
            match fs::rename(self.root.join(FILES[0]), self.root.join(FILES[1])) {
                // The last try came so far.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            (self.file, self.bytes, self.torn) = open(&self.root.join(FILES[0]))?;
        }
        let mut line = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        self.torn = true;
        self.file.write_all(&line)?;
        self.torn = false;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    // Labels are in it, which may be nobody else's business.
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::Start(bytes - 1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, bytes, last != *b"\n"))
}

/// Lines that are no events were torn by a crash.
fn read(file: File, most: usize, past: &mut VecDeque<Event>) {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(event) = serde_json::from_slice(&line) else { continue };
        if past.len() == most {
            past.pop_front();
        }
        past.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Actor;

    fn event(number: i64) -> Event {
        let actor = Actor { id: format!("{number:064}"), attributes: [("a".to_owned(), "b\nc".to_owned())].into() };
        Event {
            kind: "container".into(),
            action: "die".into(),
            actor,
            scope: "local".into(),
            time: 0,
            time_nano: number,
        }
    }

    fn numbers(root: &Path, most: usize) -> Vec<i64> {
        Journal::open(root, most).unwrap().1.iter().map(|event| event.time_nano).collect()
    }

    #[test]
    fn what_was_written_is_read_again_and_torn_lines_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, past) = Journal::open(dir.path(), 10).unwrap();
        assert!(past.is_empty());
        (0..3).for_each(|number| journal.append(&event(number)).unwrap());
        drop(journal);
        let path = dir.path().join(FILES[0]);
        let whole = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 7).unwrap();
        let (mut journal, _) = Journal::open(dir.path(), 10).unwrap();
        journal.append(&event(3)).unwrap();
        assert_eq!(numbers(dir.path(), 10), [0, 1, 3]);
        assert_eq!(numbers(dir.path(), 2), [1, 3]);
    }

    #[test]
    fn the_oldest_go_and_the_size_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), 10).unwrap();
        let count = 20_000;
        (0..count).for_each(|number| journal.append(&event(number)).unwrap());
        let sizes: Vec<u64> = FILES.iter().map(|name| fs::metadata(dir.path().join(name)).unwrap().len()).collect();
        assert!(sizes.iter().all(|size| *size <= FULL + 512), "{sizes:?}");
        let kept = numbers(dir.path(), usize::MAX);
        assert!(kept.len() > 4000 && kept.last() == Some(&(count - 1)), "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "some are missing in between");
    }
}
