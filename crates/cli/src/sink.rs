//! Whether our output can take bytes without making us wait.
//!
//! A write that waits belongs in a thread of its own; one that does not would only be slowed down by it, and a container's
//! output is often a line at a time.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

/// A pipe that is ready takes this much at once (pipe(7), `PIPE_BUF`).
const ATOMIC: usize = 4096;

/// Whether a write of so many bytes will not wait.
pub(crate) fn takes(to_stderr: bool, length: usize) -> bool {
    static STDOUT: OnceLock<Option<FileType>> = OnceLock::new();
    static STDERR: OnceLock<Option<FileType>> = OnceLock::new();
    if to_stderr { ready(io::stderr(), &STDERR, length) } else { ready(io::stdout(), &STDOUT, length) }
}

fn ready(file: impl AsFd, kind: &OnceLock<Option<FileType>>, length: usize) -> bool {
    let kind = kind.get_or_init(|| fstat(&file).ok().map(|stat| FileType::from_raw_mode(stat.st_mode)));
    match kind {
        Some(FileType::RegularFile) => true,
        Some(FileType::Fifo) if length <= ATOMIC => {
            let mut polled = [PollFd::new(&file, PollFlags::OUT)];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            // A pipe without a reader is ready too: the write fails at once.
            poll(&mut polled, Some(&now)).is_ok_and(|count| count == 1)
        }
        // A terminal may be stopped by its user, a socket may be full.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_and_pipes() {
        let file = tempfile::tempfile().unwrap();
        assert!(ready(&file, &OnceLock::new(), 1 << 20));
        let (_reader, mut writer) = io::pipe().unwrap();
        assert!(ready(&writer, &OnceLock::new(), ATOMIC));
        assert!(!ready(&writer, &OnceLock::new(), ATOMIC + 1));
        writer.write_all(&vec![0; 65536]).unwrap();
        assert!(!ready(&writer, &OnceLock::new(), 1));
    }
}
