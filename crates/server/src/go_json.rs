//! What Go's decoder says of JSON that is none: clients, and their tests, compare its words.

/// The words of `encoding/json` (its `scanner`) for the first error in a text that is not JSON.
pub(crate) fn syntax_error(text: &[u8]) -> String {
    match (Scanner { text, at: 0 }).values() {
        Err(Some(words)) => words,
        _ => "unexpected EOF".into(),
    }
}

/// What Go's decoder makes of a text that has no errors to it: what is no Unicode in strings, bytes or halves of surrogate pairs,
/// is U+FFFD.
pub(crate) fn as_go_reads(text: &[u8]) -> Option<serde_json::Value> {
    (Scanner { text, at: 0 }).values().ok()?;
    let text = String::from_utf8_lossy(text);
    let (mut repaired, mut rest) = (String::with_capacity(text.len()), &*text);
    let code = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        // Ends within a character only where the escape is none.
        let length = match (code(escape), escape.get(6..).and_then(code)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                repaired.push(char::REPLACEMENT_CHARACTER);
                rest = escape.get(6..)?;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 2,
        };
        repaired.push_str(escape.get(..length)?);
        rest = &escape[length..];
    }
    repaired.push_str(rest);
    serde_json::from_str(&repaired).ok()
}

/// `Err(None)`: the text ends too early.
type Scanned = Result<(), Option<String>>;

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn next(&mut self) -> Result<u8, Option<String>> {
        let byte = self.text.get(self.at).copied().ok_or(None)?;
        self.at += 1;
        Ok(byte)
    }

    fn next_token(&mut self) -> Result<u8, Option<String>> {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.next()
    }

    /// One value with all that is in it; how deep is the text's choice, so it is no recursion.
    fn values(&mut self) -> Scanned {
        // What closes each value that is open.
        let mut open: Vec<u8> = Vec::new();
        let mut first = self.next_token()?;
        loop {
            match first {
                b'{' | b'[' => {
                    let end = if first == b'{' { b'}' } else { b']' };
                    first = self.next_token()?;
                    if first != end {
                        open.push(end);
                        if end == b'}' {
                            first = self.key(first)?;
                        }
                        continue;
                    }
                }
                other => self.scalar(other)?,
            }
            // After a value.
            loop {
                let Some(end) = open.last().copied() else { return Ok(()) };
                match (self.next_token()?, end) {
                    (b',', b'}') => {
                        let quote = self.next_token()?;
                        first = self.key(quote)?;
                        break;
                    }
                    (b',', _) => {
                        first = self.next_token()?;
                        break;
                    }
                    (byte, end) if byte == end => drop(open.pop()),
                    (byte, b'}') => return bad(byte, "after object key:value pair"),
                    (byte, _) => return bad(byte, "after array element"),
                }
            }
        }
    }

    /// A key and its colon; the value is the first byte of what follows.
    fn key(&mut self, first: u8) -> Result<u8, Option<String>> {
        if first != b'"' {
            bad(first, "looking for beginning of object key string")?;
        }
        self.string()?;
        let colon = self.next_token()?;
        if colon != b':' {
            bad(colon, "after object key")?;
        }
        self.next_token()
    }

    fn scalar(&mut self, first: u8) -> Scanned {
        match first {
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'-' => match self.next()? {
                digit @ b'0'..=b'9' => self.number(digit),
                byte => bad(byte, "in numeric literal"),
            },
            b'0'..=b'9' => self.number(first),
            byte => bad(byte, "looking for beginning of value"),
        }
    }

    fn word(&mut self, word: &str) -> Scanned {
        for wanted in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != wanted {
                return bad(byte, &format!("in literal {word} (expecting {})", quoted(wanted)));
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn number(&mut self, first: u8) -> Scanned {
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            match self.next()? {
                b'0'..=b'9' => self.digits(),
                byte => return bad(byte, "after decimal point in numeric literal"),
            }
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            let mut byte = self.next()?;
            if matches!(byte, b'+' | b'-') {
                byte = self.next()?;
            }
            if !byte.is_ascii_digit() {
                return bad(byte, "in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                return bad(byte, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    byte => return bad(byte, "in string escape code"),
                },
                byte if byte < b' ' => return bad(byte, "in string literal"),
                _ => {}
            }
        }
    }
}

fn bad(byte: u8, place: &str) -> Scanned {
    Err(Some(format!("invalid character {} {place}", quoted(byte))))
}

/// A byte as Go quotes it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0..b' ' | 0x7f => format!("'\\x{byte:02x}'"),
        byte => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_unicode_is_replaced_as_by_go() {
        for (text, value) in [
            (&br#"{"a": "x\ud800y"}"#[..], "x\u{fffd}y"),
            (br#"{"a": "\ud83d\ude00"}"#, "\u{1f600}"),
            (br#"{"a": "\udc00\\n\n"}"#, "\u{fffd}\\n\n"),
            (b"{\"a\": \"\xff!\"}", "\u{fffd}!"),
        ] {
            assert_eq!(as_go_reads(text).unwrap()["a"], value);
        }
        for broken in [&br#"{"a": "\ud800"#[..], br#"{"a": "\ud800"} x"#, b"x"] {
            assert_eq!(as_go_reads(broken), None);
        }
    }

    #[test]
    fn errors_are_those_of_go() {
        for (text, words) in [
            ("{invalid json", "invalid character 'i' looking for beginning of object key string"),
            ("", "unexpected EOF"),
            (r#"{"a": 1"#, "unexpected EOF"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a": 1 "b"}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a": 1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a": [1 2]}"#, "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("nope", "invalid character 'o' in literal null (expecting 'u')"),
            ("{\"a\nb\": 1}", r"invalid character '\n' in string literal"),
            (r#"["\x"]"#, "invalid character 'x' in string escape code"),
            (r#"["\u00g0"]"#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("[-]", "invalid character ']' in numeric literal"),
            ("[1.]", "invalid character ']' after decimal point in numeric literal"),
            ("[1e+]", "invalid character ']' in exponent of numeric literal"),
            ("'a'", r"invalid character '\'' looking for beginning of value"),
        ] {
            assert_eq!(syntax_error(text.as_bytes()), words, "{text}");
        }
        let deep = "[".repeat(1 << 20);
        assert_eq!(syntax_error(deep.as_bytes()), "unexpected EOF");
    }
}
