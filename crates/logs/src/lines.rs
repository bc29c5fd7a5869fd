//! Lines out of what was read from a program's streams, in pieces of any size.

use jiff::Timestamp;

use crate::entry::Stream;

/// A line longer than this becomes several pieces (moby's `daemon/logger/copier.go`).
pub(crate) const MAX_LINE: usize = 16 << 10;

/// A line without its line feed, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a [u8],
    /// A line feed came after it.
    pub(crate) ended: bool,
    pub(crate) stream: Stream,
    /// Of a line's parts, all have that of the first.
    pub(crate) time: Timestamp,
    /// Which part of a divided line it is, from 1 on; 0 where the line is not divided.
    pub(crate) part: u32,
}

/// The lines that a program's streams are in the middle of.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: [Line; 2],
}

#[derive(Debug, Default)]
struct Line {
    text: Vec<u8>,
    /// So many parts of it have been given, with this time.
    parted: Option<(Timestamp, u32)>,
}

impl Line {
    /// Time and number of the next part.
    fn next(&mut self, time: Timestamp) -> (Timestamp, u32) {
        let (time, parts) = self.parted.map_or((time, 1), |(time, parts)| (time, parts + 1));
        self.parted = Some((time, parts));
        (time, parts)
    }

    /// Time and number of the last part.
    fn last(&mut self, time: Timestamp) -> (Timestamp, u32) {
        self.parted.take().map_or((time, 0), |(time, parts)| (time, parts + 1))
    }
}

impl Lines {
    /// Takes what was read from a stream, and gives the lines that end in it. What is not ended waits, up to 16 KiB.
    ///
    /// # Errors
    /// Those of `give`; nothing more is given then.
    pub(crate) fn feed<E>(
        &mut self,
        stream: Stream,
        chunk: &[u8],
        time: Timestamp,
        mut give: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = &mut self.lines[stream as usize];
        let mut rest = chunk;
        while !rest.is_empty() {
            // Never more than what is missing to a full line, so that a long one is divided where Docker does.
            let window = rest.len().min(MAX_LINE - line.text.len());
            let end = rest[..window].iter().position(|b| *b == b'\n');
            let Some(end) = end else {
                line.text.extend_from_slice(&rest[..window]);
                rest = &rest[window..];
                if line.text.len() == MAX_LINE {
                    let cut = whole_characters(&line.text);
                    let (time, part) = line.next(time);
                    let given = give(Piece { text: &line.text[..cut], ended: false, stream, time, part });
                    line.text.drain(..cut);
                    given?;
                }
                continue;
            };
            let (time, part) = line.last(time);
            if line.text.is_empty() {
                give(Piece { text: &rest[..end], ended: true, stream, time, part })?;
            } else {
                line.text.extend_from_slice(&rest[..end]);
                let given = give(Piece { text: &line.text, ended: true, stream, time, part });
                line.text.clear();
                given?;
            }
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// The stream has ended: gives what it wrote without a line feed.
    ///
    /// # Errors
    /// Those of `give`.
    pub(crate) fn end<E>(
        &mut self,
        stream: Stream,
        time: Timestamp,
        give: impl FnOnce(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut line = std::mem::take(&mut self.lines[stream as usize]);
        if line.text.is_empty() {
            return Ok(());
        }
        let (time, part) = line.last(time);
        give(Piece { text: &line.text, ended: false, stream, time, part })
    }
}

/// Where to cut so that no character is divided: at the end, or before a character that is not whole yet. What is no
/// UTF-8 at all is cut at the end.
fn whole_characters(text: &[u8]) -> usize {
    let tail = text.len().saturating_sub(3);
    let Some(start) = text[tail..].iter().rposition(|b| b & 0xc0 == 0xc0) else { return text.len() };
    match std::str::from_utf8(&text[tail + start..]) {
        Err(e) if e.error_len().is_none() => tail + start,
        _ => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_line_are_numbered() {
        let time = Timestamp::UNIX_EPOCH;
        let mut lines = Lines::default();
        let mut all = Vec::new();
        let text = [&b"short\n"[..], &[b'x'; 2 * MAX_LINE + 5], b"\nnext\nopen"].concat();
        for chunk in text.chunks(1000) {
            let give = |piece: Piece<'_>| {
                all.push((piece.text.len(), piece.ended, piece.part));
                Ok::<_, ()>(())
            };
            lines.feed(Stream::Stdout, chunk, time, give).unwrap();
        }
        let give = |piece: Piece<'_>| {
            all.push((piece.text.len(), piece.ended, piece.part));
            Ok::<_, ()>(())
        };
        lines.end(Stream::Stdout, time, give).unwrap();
        assert_eq!(
            all,
            [(5, true, 0), (MAX_LINE, false, 1), (MAX_LINE, false, 2), (5, true, 3), (4, true, 0), (4, false, 0)]
        );
    }
}
