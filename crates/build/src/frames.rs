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

/// Text of one of a command's streams.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) stream: u8,
    pub(crate) text: String,
}

impl Piece {
    /// As the classic protocol has it: the standard error in red.
    pub(crate) fn classic(self) -> String {
        match self.stream {
            STDERR => format!("{RED}{}{PLAIN}", self.text),
            _ => self.text,
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
        let pieces = pieces.into_iter().map(|(stream, content)| Piece { stream, text: self.whole(stream, content) });
        pieces.filter(|piece| !piece.text.is_empty()).collect()
    }

    /// The text of a piece with what was left of the one before, without the beginning of a character at its end.
    fn whole(&mut self, stream: u8, piece: Vec<u8>) -> String {
        let partial = &mut self.partial[usize::from(stream == STDERR)];
        let mut content = std::mem::take(partial);
        content.extend(piece);
        if let Err(error) = std::str::from_utf8(&content)
            && error.error_len().is_none()
        {
            *partial = content.split_off(error.valid_up_to());
            if std::str::from_utf8(&content).is_ok() {
                return String::from_utf8(content).unwrap_or_default();
            }
        }
        String::from_utf8_lossy(&content).into_owned()
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
        assert_eq!(frames.pieces(&frame(1, b"a\xffb"))[0].text, "a\u{fffd}b");
    }
}
