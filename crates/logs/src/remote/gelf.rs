//! GELF 1.1 (Graylog, "GELF"): JSON, over UDP compressed and in parts, over TCP ended by a zero.

use flate2::Compression as Level;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Line;
use crate::entry::Stream;

/// Graylog's own library sends datagrams of so many bytes; they fit everywhere.
const DATAGRAM: usize = 1420;
/// Before each part: two bytes of magic, eight of the message's name, the part's number and how many there are.
const HEAD: usize = 12;
const MAX_PARTS: usize = 128;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Gzip,
    Zlib,
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gelf {
    pub hostname: String,
    /// Beside each entry; their names begin with an underscore.
    pub extra: Map<String, Value>,
    pub compression: Compression,
    /// 0 to 9; `None` is the library's own.
    pub level: Option<u32>,
}

impl Gelf {
    /// An entry as one message of a stream, or as datagrams, which find each other by a name that no other entry has.
    pub(super) fn encode(&self, line: &Line<'_>, name: u64, stream: bool, out: &mut Vec<Vec<u8>>) {
        // Graylog refuses entries without text.
        if line.text.is_empty() {
            return;
        }
        let mut entry = self.extra.clone();
        entry.insert("version".into(), "1.1".into());
        entry.insert("host".into(), self.hostname.as_str().into());
        entry.insert("short_message".into(), String::from_utf8_lossy(line.text).into());
        entry.insert("timestamp".into(), (line.time.as_millisecond() as f64 / 1000.0).into());
        // syslog's: 3 is an error, 6 an information.
        entry.insert("level".into(), if line.stream == Stream::Stderr { 3 } else { 6 }.into());
        let mut json = Value::Object(entry).to_string().into_bytes();
        if stream {
            json.push(0);
            out.push(json);
            return;
        }
        let level = self.level.map_or_else(Level::default, Level::new);
        let packed = match self.compression {
            Compression::None => json,
            Compression::Gzip => pack(GzEncoder::new(Vec::new(), level), &json, GzEncoder::finish),
            Compression::Zlib => pack(ZlibEncoder::new(Vec::new(), level), &json, ZlibEncoder::finish),
        };
        if packed.len() <= DATAGRAM {
            out.push(packed);
            return;
        }
        let parts: Vec<&[u8]> = packed.chunks(DATAGRAM - HEAD).collect();
        // A line has 16 KiB at most; what its attributes add beyond that is nobody's to take.
        if parts.len() > MAX_PARTS {
            return;
        }
        for (number, part) in parts.iter().enumerate() {
            let mut datagram = Vec::with_capacity(HEAD + part.len());
            datagram.extend_from_slice(&[0x1e, 0x0f]);
            datagram.extend_from_slice(&name.to_be_bytes());
            datagram.extend_from_slice(&[number as u8, parts.len() as u8]);
            datagram.extend_from_slice(part);
            out.push(datagram);
        }
    }
}

fn pack<W: std::io::Write>(mut to: W, json: &[u8], finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    // Into memory: it cannot fail.
    let _ = to.write_all(json);
    finish(to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn gelf(compression: Compression) -> Gelf {
        let extra = Map::from_iter([("_container_name".to_owned(), Value::from("web"))]);
        Gelf { hostname: "host".into(), extra, compression, level: Some(1) }
    }

    fn encode(gelf: &Gelf, text: &[u8], stream: bool) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
        gelf.encode(&Line { text, stream: Stream::Stderr, time, part: None }, 7, stream, &mut out);
        out
    }

    #[test]
    fn entries_are_what_graylog_takes() {
        let plain = encode(&gelf(Compression::None), b"hello", false);
        let entry: Value = serde_json::from_slice(&plain[0]).unwrap();
        assert_eq!(
            entry,
            serde_json::json!({"version": "1.1", "host": "host", "short_message": "hello", "timestamp": 1_767_323_045.678,
                "level": 3, "_container_name": "web"})
        );
        assert_eq!(encode(&gelf(Compression::Gzip), b"hello", true)[0].last(), Some(&0));
        assert!(encode(&gelf(Compression::None), b"", false).is_empty());
        let mut text = String::new();
        let packed = encode(&gelf(Compression::Gzip), b"hello", false);
        flate2::read::GzDecoder::new(&packed[0][..]).read_to_string(&mut text).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), entry);
    }

    #[test]
    fn what_is_larger_than_a_datagram_comes_in_parts() {
        let text: String = (0..4000).map(|n| format!("{n} ")).collect();
        let parts = encode(&gelf(Compression::Zlib), text.as_bytes(), false);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= DATAGRAM));
        let mut whole = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            assert_eq!((&part[..2], &part[2..10]), (&[0x1e, 0x0f][..], &parts[0][2..10]));
            assert_eq!(part[10..12], [number as u8, parts.len() as u8]);
            whole.extend_from_slice(&part[12..]);
        }
        let mut json = String::new();
        flate2::read::ZlibDecoder::new(&whole[..]).read_to_string(&mut json).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["short_message"], text);
    }
}
