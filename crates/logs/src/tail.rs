//! Where the last few entries begin, found from the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::reader::Source;

/// Bytes that are looked at together.
const BLOCK: usize = 64 << 10;

/// Drops the files, and passes over the part of the first that is left, that come before the last `count` lines. Of the last
/// file that counts which is before `end`.
pub(crate) fn keep_last(sources: &mut VecDeque<Source>, count: u64, log: &Path, end: Option<u64>) -> io::Result<()> {
    let last = sources.len().saturating_sub(1);
    let mut wanted = count;
    for index in (0..sources.len()).rev() {
        let source = &mut sources[index];
        let file = source.content(log)?;
        let size = match end.filter(|_| index == last) {
            Some(end) => end,
            None => file.metadata()?.len(),
        };
        let (position, found) = last_lines(file, size, wanted)?;
        source.position = position;
        // Read once more in its turn: one at a time takes room.
        source.put_away();
        wanted -= found;
        if wanted == 0 {
            sources.drain(..index);
            break;
        }
    }
    Ok(())
}

/// Where the last `count` lines of the file, which has `size` bytes, begin, and how many there are, at most `count`.
fn last_lines(file: &File, size: u64, count: u64) -> io::Result<(u64, u64)> {
    let mut block = vec![0; BLOCK];
    let mut end = size;
    // The line feed at the very end closes the last line, it does not begin another.
    let mut line_feeds = 0;
    while end > 0 {
        let length = usize::try_from(end).unwrap_or(BLOCK).min(BLOCK);
        let start = end - length as u64;
        let block = &mut block[..length];
        file.read_exact_at(block, start)?;
        for (n, byte) in block.iter().enumerate().rev() {
            if *byte == b'\n' {
                line_feeds += 1;
                if line_feeds > count {
                    return Ok((start + n as u64 + 1, count));
                }
            }
        }
        end = start;
    }
    Ok((0, line_feeds))
}
