//! A command's output as text: frames of `application/vnd.docker.multiplexed-stream` taken apart.

/// Bytes of a frame's header: the stream, three zeroes, the length (big endian).
const HEADER: usize = 8;

/// What the classic protocol puts around text of the standard error.
const RED: &str = "\x1b[91m";
const PLAIN: &str = "\x1b[0m";
const STDERR: u8 = 2;

/// Takes frames apart as they come, and keeps characters whole.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    left: usize,
    stream: u8,
    /// The beginnings of characters whose ends have not come yet: of each stream its own.
    partial: [Vec<u8>; 2],
}

/// What was written to one of a command's streams, its characters whole.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) stream: u8,
    pub(crate) bytes: Vec<u8>,
}

impl Piece {
    /// As the classic protocol has it: the standard error in red.
    pub(crate) fn classic(self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.stream {
            STDERR => format!("{RED}{text}{PLAIN}"),
            _ => text.into_owned(),
        }
    }
}

impl Frames {
    /// The texts in the next bytes of the stream, each of one of the command's streams.
    pub(crate) fn pieces(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces: Vec<(u8, Vec<u8>)> = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = (HEADER - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                    self.stream = stream;
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (own, rest) = bytes.split_at(self.left.min(bytes.len()));
            match pieces.last_mut() {
                Some((stream, content)) if *stream == self.stream => content.extend_from_slice(own),
                _ => pieces.push((self.stream, own.to_vec())),
            }
            self.left -= own.len();
            bytes = rest;
        }
        let pieces = pieces.into_iter().map(|(stream, content)| Piece { stream, bytes: self.whole(stream, content) });
        pieces.filter(|piece| !piece.bytes.is_empty()).collect()
    }

    /// A piece with what was left of the one before, without the beginning of a character at its end.
    fn whole(&mut self, stream: u8, piece: Vec<u8>) -> Vec<u8> {
        let partial = &mut self.partial[usize::from(stream == STDERR)];
        let mut content = std::mem::take(partial);
        content.extend(piece);
        // Whatever comes before it, a character of which the end is missing is at the very end.
        let tail = content.len().saturating_sub(3);
        let begin = (tail..content.len()).find(|at| {
            std::str::from_utf8(&content[*at..])
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        });
        if let Some(begin) = begin {
            *partial = content.split_off(begin);
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text);
        bytes
    }

    #[test]
    fn frames_may_come_in_any_pieces() {
        let bytes = [frame(1, b"one\n"), frame(2, "zwölf\n".as_bytes()), frame(1, b"")].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            let text: String = bytes.chunks(size).flat_map(|piece| frames.pieces(piece)).map(Piece::classic).collect();
            let text = text.replace("\x1b[0m\x1b[91m", "");
            assert_eq!(text, "one\n\x1b[91mzwölf\n\x1b[0m", "{size}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_as_well_as_can_be() {
        let mut frames = Frames::default();
        let piece = frames.pieces(&frame(1, b"a\xffb")).remove(0);
        assert_eq!(piece.bytes, b"a\xffb");
        assert_eq!(piece.classic(), "a\u{fffd}b");
        // What is no text before it does not make two of a character.
        let first = frames.pieces(&frame(1, b"\xff\xe2\x82")).remove(0);
        let second = frames.pieces(&frame(1, b"\xac!")).remove(0);
        assert_eq!((&first.bytes[..], second.classic().as_str()), (&b"\xff"[..], "\u{20ac}!"));
    }
}
