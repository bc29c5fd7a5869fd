//! One entry of a log, and its form in the file: Docker's `json-file`, to the byte
//! (`daemon/logger/jsonfilelog/jsonlog` of moby).

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Which of a program's streams something was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A line, or a part of one that was too long or not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub time: Timestamp,
    pub stream: Stream,
    /// With its line feed, unless it is a part.
    pub line: Vec<u8>,
    /// What was written beside it.
    pub attributes: BTreeMap<String, String>,
}

/// Writes entries. Keeps the text of the last second, as most entries share it with the one before.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// As [`encode_attributes`] makes it.
    pub(crate) attributes: Vec<u8>,
    /// Lines that are no UTF-8 keep their bytes, as with Docker's driver `local`: in a field of our own, each byte as the
    /// character of that number.
    pub(crate) raw: bool,
    second: Option<i64>,
    text: String,
}

impl Encoder {
    /// Appends one entry: `{"log":"…\n","stream":"stdout","time":"2026-01-02T03:04:05.06Z"}` and a line feed.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, line: &[u8], whole: bool, stream: Stream, time: Timestamp) {
        if self.raw && std::str::from_utf8(line).is_err() {
            out.extend_from_slice(b"{\"raw\":\"");
            line.iter().for_each(|byte| match byte.is_ascii() {
                true => escape(out, std::slice::from_ref(byte)),
                false => escaped(out, *byte),
            });
        } else {
            out.extend_from_slice(b"{\"log\":\"");
            escape(out, line);
        }
        if whole {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\"".as_slice(),
            Stream::Stderr => b"\",\"stream\":\"stderr\"",
        });
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(b",\"time\":\"");
        self.time(out, time);
        out.extend_from_slice(b"\"}\n");
    }

    /// Go's `RFC3339Nano` in UTC: zeros at the end of the fraction are left out.
    fn time(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let (second, nanos) = (time.as_second(), time.subsec_nanosecond());
        if nanos < 0 {
            // Before 1970: no clock of ours.
            return out.extend_from_slice(time.to_string().as_bytes());
        }
        if self.second != Some(second) {
            self.text = Timestamp::from_second(second).unwrap_or_default().to_string();
            self.text.truncate(self.text.trim_end_matches('Z').len());
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        if nanos > 0 {
            let mut digits = [b'0'; 10];
            digits[0] = b'.';
            let mut rest = nanos.unsigned_abs();
            for digit in digits[1..].iter_mut().rev() {
                *digit += (rest % 10) as u8;
                rest /= 10;
            }
            let end = digits.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
            out.extend_from_slice(&digits[..end]);
        }
        out.push(b'Z');
    }
}

/// The field of an entry for these: `,"attrs":{"key":"value"}`, or nothing.
pub(crate) fn encode_attributes(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in attributes {
        out.extend_from_slice(if out.is_empty() { b",\"attrs\":{\"" } else { b",\"" });
        escape(&mut out, key.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    out
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that stand for themselves, whatever is around them.
const fn plain() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        table[byte] = !matches!(byte as u8, b'\\' | b'"' | b'<' | b'>' | b'&');
        byte += 1;
    }
    table
}
const PLAIN: [bool; 256] = plain();

/// A JSON string's inside, as moby writes it: safe for HTML, and every byte that is no UTF-8 as U+FFFD.
fn escape(out: &mut Vec<u8>, mut bytes: &[u8]) {
    loop {
        let run = bytes.iter().position(|b| !PLAIN[usize::from(*b)]).unwrap_or(bytes.len());
        out.extend_from_slice(&bytes[..run]);
        bytes = &bytes[run..];
        let Some(&byte) = bytes.first() else { return };
        if byte < 0x80 {
            match byte {
                b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                _ => escaped(out, byte),
            }
            bytes = &bytes[1..];
            continue;
        }
        bytes = foreign(out, bytes);
    }
}

/// The character of that number.
fn escaped(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
}

/// One run of bytes above ASCII.
fn foreign<'a>(out: &mut Vec<u8>, bytes: &'a [u8]) -> &'a [u8] {
    let run = bytes.iter().position(u8::is_ascii).unwrap_or(bytes.len());
    let (now, later) = bytes.split_at(run);
    for chunk in now.utf8_chunks() {
        let mut text = chunk.valid();
        // Line separators of JavaScript, which JSON need not escape but moby does.
        while let Some(at) = text.find(['\u{2028}', '\u{2029}']) {
            out.extend_from_slice(&text.as_bytes()[..at]);
            let first = text[at..].starts_with('\u{2028}');
            out.extend_from_slice(if first { b"\\u2028" } else { b"\\u2029" });
            text = &text[at + '\u{2028}'.len_utf8()..];
        }
        out.extend_from_slice(text.as_bytes());
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    later
}

/// Reads entries. Keeps the last second, as the encoder does.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    text: Vec<u8>,
    second: i64,
}

/// An entry of a form that is not the plain one, but its as JSON: `attrs` are there when labels were to be kept.
#[derive(serde::Deserialize)]
struct Foreign {
    #[serde(default)]
    log: String,
    /// As [`Encoder::raw`] has it.
    raw: Option<String>,
    #[serde(default)]
    stream: String,
    time: Timestamp,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl Decoder {
    /// Reads one line of the file, its line feed left out; `None` for what is no entry, as a crash may leave.
    pub(crate) fn decode(&mut self, json: &[u8]) -> Option<Entry> {
        self.own(json).or_else(|| {
            let foreign: Foreign = serde_json::from_slice(json).ok()?;
            let stream = if foreign.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
            let line = match &foreign.raw {
                Some(raw) => raw.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<u8>>>()?,
                None => foreign.log.into_bytes(),
            };
            Some(Entry { time: foreign.time, stream, line, attributes: foreign.attrs })
        })
    }

    /// The form that [`Encoder`] writes.
    fn own(&mut self, json: &[u8]) -> Option<Entry> {
        let inside = json.strip_prefix(b"{\"log\":\"")?;
        let (line, rest) = unescape(inside)?;
        let rest = rest.strip_prefix(b",\"stream\":\"std")?;
        let (stream, rest) = match rest.get(..3)? {
            b"out" => (Stream::Stdout, &rest[3..]),
            b"err" => (Stream::Stderr, &rest[3..]),
            _ => return None,
        };
        let time = rest.strip_prefix(b"\",\"time\":\"")?.strip_suffix(b"\"}")?;
        Some(Entry { time: self.time(time)?, stream, line, attributes: BTreeMap::new() })
    }

    fn time(&mut self, text: &[u8]) -> Option<Timestamp> {
        const SECONDS: usize = "2026-01-02T03:04:05".len();
        let fraction = text.get(SECONDS..)?.strip_suffix(b"Z")?;
        let mut nanos: i32 = 0;
        if let Some(digits) = fraction.strip_prefix(b".") {
            if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            for place in 0..9 {
                nanos = nanos * 10 + digits.get(place).map_or(0, |d| i32::from(d - b'0'));
            }
        } else if !fraction.is_empty() {
            return None;
        }
        if self.text != text[..SECONDS] {
            let whole = [&text[..SECONDS], b"Z"].concat();
            self.second = std::str::from_utf8(&whole).ok()?.parse::<Timestamp>().ok()?.as_second();
            self.text.clear();
            self.text.extend_from_slice(&text[..SECONDS]);
        }
        Timestamp::new(self.second, nanos).ok()
    }
}

/// A JSON string up to its closing quote, and what comes after that.
fn unescape(json: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut line = Vec::with_capacity(json.len().min(256));
    let mut rest = json;
    loop {
        let run = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
        line.extend_from_slice(&rest[..run]);
        if rest[run] == b'"' {
            return Some((line, &rest[run + 1..]));
        }
        let escape = *rest.get(run + 1)?;
        rest = &rest[run + 2..];
        let byte = match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => escape,
            b'u' => {
                let (c, after) = code_point(rest)?;
                rest = after;
                line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        line.push(byte);
    }
}

/// Four hexadecimal digits, or two such groups that are a surrogate pair.
fn code_point(json: &[u8]) -> Option<(char, &[u8])> {
    let group =
        |bytes: &[u8]| -> Option<u32> { u32::from_str_radix(std::str::from_utf8(bytes.get(..4)?).ok()?, 16).ok() };
    let first = group(json)?;
    let rest = &json[4..];
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), rest));
    }
    let second = rest.strip_prefix(b"\\u").and_then(group).filter(|low| (0xdc00..0xe000).contains(low));
    match second {
        Some(low) => char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00)).map(|c| (c, &rest[6..])),
        None => Some((char::REPLACEMENT_CHARACTER, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(line: &[u8], whole: bool, time: &str) -> String {
        let mut out = Vec::new();
        Encoder::default().encode(&mut out, line, whole, Stream::Stdout, time.parse().unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_form_is_docker_s() {
        // From a json-file log of Docker 29.
        assert_eq!(
            encoded(b"a<b>&\"c\"\\\td\r", true, "2026-01-02T03:04:05.067800000Z"),
            "{\"log\":\"a\\u003cb\\u003e\\u0026\\\"c\\\"\\\\\\u0009d\\r\\n\",\"stream\":\"stdout\",\
             \"time\":\"2026-01-02T03:04:05.0678Z\"}\n"
        );
        assert!(
            encoded(b"x", false, "2026-01-02T03:04:05Z")
                .ends_with("{\"log\":\"x\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}\n")
        );
        assert!(encoded("é\u{2028}\u{7f}".as_bytes(), false, "2026-01-02T03:04:05Z").contains("é\\u2028\u{7f}\""));
        assert!(encoded(b"\xff\xc3(", false, "2026-01-02T03:04:05Z").contains("\"\\ufffd\\ufffd(\""));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut decoder = Decoder::default();
        let lines: &[&[u8]] = &[b"", b"plain", b"q\"\\/\t\x01\x7f", "grüße \u{2029}\u{1f600}".as_bytes()];
        for (n, line) in lines.iter().enumerate() {
            let time = Timestamp::new(1_700_000_000 + n as i64, 120_003_000).unwrap();
            let mut out = Vec::new();
            Encoder::default().encode(&mut out, line, true, Stream::Stderr, time);
            assert_eq!(out.pop(), Some(b'\n'));
            let line = [line, &b"\n"[..]].concat();
            let want = Entry { time, stream: Stream::Stderr, line, attributes: BTreeMap::new() };
            assert_eq!(decoder.own(&out), Some(want), "{}", String::from_utf8_lossy(&out));
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay_where_that_is_wanted() {
        let time = Timestamp::new(1_700_000_000, 0).unwrap();
        let mut encoder = Encoder { raw: true, ..Encoder::default() };
        for line in [&b"a\xff\x80\"\\\x01<"[..], "gr\u{fc}n".as_bytes(), &(0..=255).collect::<Vec<u8>>()] {
            let mut out = Vec::new();
            encoder.encode(&mut out, line, true, Stream::Stdout, time);
            assert_eq!(out.pop(), Some(b'\n'));
            assert!(!out.contains(&b'\n') && std::str::from_utf8(&out).is_ok());
            let read = Decoder::default().decode(&out).unwrap();
            assert_eq!((read.line, read.time), ([line, b"\n"].concat(), time));
        }
    }

    #[test]
    fn attributes_are_written_and_read() {
        let attributes = BTreeMap::from([("a".to_owned(), "<1>".to_owned()), ("tag".to_owned(), "\"x".to_owned())]);
        let mut out = Vec::new();
        let mut encoder = Encoder { attributes: encode_attributes(&attributes), ..Encoder::default() };
        encoder.encode(&mut out, b"x", true, Stream::Stdout, "2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"log\":\"x\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"\\u003c1\\u003e\",\"tag\":\"\\\"x\"},\
             \"time\":\"2026-01-02T03:04:05Z\"}\n"
        );
        assert_eq!(Decoder::default().decode(out.trim_ascii_end()).unwrap().attributes, attributes);
    }

    #[test]
    fn other_writers_forms_are_read_too() {
        let mut decoder = Decoder::default();
        let entry = decoder
            .decode(
                br#"{"log":"a\ud83d\ude00\n","stream":"stderr","attrs":{"k":"v"},"time":"2026-01-02T03:04:05+02:00"}"#,
            )
            .unwrap();
        assert_eq!((entry.line.as_slice(), entry.stream), ("a\u{1f600}\n".as_bytes(), Stream::Stderr));
        assert_eq!(entry.time.to_string(), "2026-01-02T01:04:05Z");
        assert!(decoder.decode(br#"{"log":"torn"#).is_none());
        assert!(decoder.decode(b"").is_none());
        assert!(decoder.decode(b"\0\0\0").is_none());
    }
}
