//! One line of a log file.

use std::io::Write;

use jiff::Timestamp;
use serde::Deserialize;

/// Where an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What was written, with its line feed where it had one: a line, or a part of one that was too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub time: Timestamp,
    pub stream: Stream,
    pub line: Vec<u8>,
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
}

/// Appends an entry's line to `buffer`.
pub(crate) fn encode(buffer: &mut Vec<u8>, stream: Stream, line: &[u8], time: &str) {
    buffer.extend_from_slice(b"{\"log\":\"");
    escape(buffer, line);
    // Writing to memory does not fail.
    let _ = write!(buffer, "\",\"stream\":\"{}\",\"time\":\"{time}\"}}\n", stream.name());
}

/// JSON's escapes; what is no UTF-8 becomes U+FFFD, as JSON cannot carry it.
fn escape(buffer: &mut Vec<u8>, bytes: &[u8]) {
    for part in bytes.utf8_chunks() {
        let text = part.valid().as_bytes();
        let mut plain = 0;
        for (at, byte) in text.iter().enumerate() {
            let short: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..=0x1f | 0x7f => b"",
                _ => continue,
            };
            buffer.extend_from_slice(&text[plain..at]);
            plain = at + 1;
            if short.is_empty() {
                let _ = write!(buffer, "\\u{byte:04x}");
            } else {
                buffer.extend_from_slice(short);
            }
        }
        buffer.extend_from_slice(&text[plain..]);
        if !part.invalid().is_empty() {
            buffer.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Reads a line; `None` when it is damaged, e.g. cut off by a full disk.
pub(crate) fn decode(line: &[u8]) -> Option<Entry> {
    let json: Json<'_> = serde_json::from_slice(line).ok()?;
    let stream = if json.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    Some(Entry { time: json.time.parse().ok()?, stream, line: json.log.into_owned().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let time = "2026-11-24T10:00:00.123456789Z";
        for line in ["plain\n", "quote \" back \\ tab \t bell \u{7} é \u{1f600}\n", "", "no end"] {
            let mut buffer = Vec::new();
            encode(&mut buffer, Stream::Stderr, line.as_bytes(), time);
            let entry = decode(&buffer).unwrap();
            assert_eq!((entry.stream, entry.line.as_slice()), (Stream::Stderr, line.as_bytes()));
            assert_eq!(entry.time.to_string(), time);
        }
        let mut buffer = Vec::new();
        encode(&mut buffer, Stream::Stdout, b"a\xffb\n", time);
        assert_eq!(decode(&buffer).unwrap().line, "a\u{fffd}b\n".as_bytes());
        assert!(decode(b"{\"log\":\"cut o").is_none());
    }
}
