//! A command's output as text: frames of `application/vnd.docker.multiplexed-stream` taken apart.

/// Bytes of a frame's header: the stream, three zeroes, the length (big endian).
const HEADER: usize = 8;

/// Takes frames apart as they come, and keeps characters whole.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    left: usize,
    /// The beginning of a character whose end has not come yet.
    partial: Vec<u8>,
}

impl Frames {
    /// The text in the next bytes of the stream.
    pub(crate) fn text(&mut self, mut bytes: &[u8]) -> String {
        let mut content = std::mem::take(&mut self.partial);
        while !bytes.is_empty() {
            if self.left == 0 {
                let wanted = (HEADER - self.header.len()).min(bytes.len());
                self.header.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let wanted = self.left.min(bytes.len());
            content.extend_from_slice(&bytes[..wanted]);
            self.left -= wanted;
            bytes = &bytes[wanted..];
        }
        if let Err(error) = std::str::from_utf8(&content)
            && error.error_len().is_none()
        {
            self.partial = content.split_off(error.valid_up_to());
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
            let text: String = bytes.chunks(size).map(|piece| frames.text(piece)).collect();
            assert_eq!(text, "one\nzwölf\n", "{size}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_as_well_as_can_be() {
        let mut frames = Frames::default();
        assert_eq!(frames.text(&frame(1, b"a\xffb")), "a\u{fffd}b");
    }
}
