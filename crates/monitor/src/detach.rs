//! The keys by which a client leaves a terminal without ending it.

/// Docker's own, where nobody says otherwise.
const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Looks for the keys in what a client types.
#[derive(Debug)]
pub(crate) struct Detach {
    keys: Vec<u8>,
    /// How many of them have come: they are held back until it is clear what they are.
    matched: usize,
}

impl Detach {
    /// `ctrl-a,b,ctrl-@`; keys that are none match never.
    pub(crate) fn new(text: Option<&str>) -> Self {
        let keys = text.unwrap_or(DEFAULT).split(',').map(key).collect::<Option<Vec<u8>>>();
        Self { keys: keys.unwrap_or_default(), matched: 0 }
    }

    /// Passes `typed` on to `out`; true when the keys were in it. What follows them is forgotten.
    pub(crate) fn pass(&mut self, typed: &[u8], out: &mut impl Extend<u8>) -> bool {
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
                continue;
            }
            out.extend(self.keys[..self.matched].iter().copied());
            self.matched = 0;
            if self.keys.first() == Some(byte) && self.keys.len() > 1 {
                self.matched = 1;
            } else {
                out.extend([*byte]);
            }
        }
        false
    }
}

fn key(word: &str) -> Option<u8> {
    if let Some(letter) = word.strip_prefix("ctrl-") {
        return match letter.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
            [letter @ b'A'..=b'Z'] => Some(letter - b'A' + 1),
            [b'@'] => Some(0),
            [b'['] => Some(27),
            [b'\\'] => Some(28),
            [b']'] => Some(29),
            [b'^'] => Some(30),
            [b'_'] => Some(31),
            _ => None,
        };
    }
    match word.as_bytes() {
        [one] => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: Option<&str>, parts: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut detach = Detach::new(keys);
        let mut out = Vec::new();
        let left = parts.iter().any(|part| detach.pass(part, &mut out));
        (out, left)
    }

    #[test]
    fn keys_are_found_also_in_pieces() {
        assert_eq!(typed(None, &[b"ab\x10", b"\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(typed(None, &[b"\x10x\x10\x10\x11"]), (b"\x10x\x10".to_vec(), true));
        assert_eq!(typed(None, &[b"plain\x11"]), (b"plain\x11".to_vec(), false));
        assert_eq!(typed(Some("ctrl-a,q"), &[b"q\x01q"]), (b"q".to_vec(), true));
        assert_eq!(typed(Some("nonsense"), &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
