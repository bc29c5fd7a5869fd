//! The keys that leave a container's terminal without ending it.

/// Control-P, Control-Q.
const DEFAULT: [u8; 2] = [16, 17];

/// Reads `ctrl-p,ctrl-q` into the bytes that a terminal sends. Other names are single characters.
///
/// # Errors
///
/// A name is unknown.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let mut codes = Vec::new();
    for key in text.split(',') {
        if let [byte] = key.as_bytes() {
            codes.push(*byte);
            continue;
        }
        codes.push(match key.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => letter - b'a' + 1,
            Some(b"@") => 0,
            Some(b"[") => 27,
            Some(b"\\") => 28,
            Some(b"]") => 29,
            Some(b"^") => 30,
            Some(b"_") => 31,
            _ if key == "DEL" => 127,
            _ => return Err(format!("Unknown character: '{key}'")),
        });
    }
    Ok(codes)
}

/// Looks for the keys in what is typed, whatever the pieces it comes in.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    /// How many of the keys have come, and are held back.
    seen: usize,
}

impl Watch {
    /// Watches for the keys; for the default ones when the text is empty or wrong.
    pub(crate) fn new(text: &str) -> Self {
        let keys = match text {
            "" => None,
            text => parse(text).ok().filter(|keys| !keys.is_empty()),
        };
        Self { keys: keys.unwrap_or_else(|| DEFAULT.to_vec()), seen: 0 }
    }

    /// What goes on to the container, and whether the keys are complete.
    pub(crate) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if byte == self.keys[0] {
                self.seen = 1;
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(parse("a,ctrl-],DEL"), Ok(vec![b'a', 29, 127]));
        assert!(parse("ctrl-1x").is_err());
    }

    #[test]
    fn across_pieces() {
        let mut watch = Watch::new("");
        assert_eq!(watch.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.pass(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(watch.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.pass(b"\x11rest"), (b"".to_vec(), true));
    }
}
