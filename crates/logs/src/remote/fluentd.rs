//! Fluentd's forward protocol, message mode (Fluentd, "Forward Protocol Specification v1").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Line, msgpack};
use crate::entry::Stream;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fluentd {
    pub tag: String,
    /// Beside each entry.
    pub record: BTreeMap<String, String>,
    /// Times have nanoseconds.
    pub precise: bool,
    /// This container's, in the names of divided lines.
    pub id: String,
}

impl Fluentd {
    pub(super) fn encode(&self, line: &Line<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(line.text.len() + 512);
        msgpack::array(&mut out, 4);
        msgpack::string(&mut out, self.tag.as_bytes());
        let second = u64::try_from(line.time.as_second()).unwrap_or_default();
        if self.precise {
            // "EventTime Ext Format": seconds and nanoseconds of 32 bits.
            let nanos = u64::from(line.time.subsec_nanosecond().unsigned_abs());
            msgpack::extension(&mut out, 0, (second << 32 | nanos).to_be_bytes());
        } else {
            msgpack::unsigned(&mut out, second);
        }
        let part = line.part.map(|part| {
            [
                ("partial_message", "true".to_owned()),
                ("partial_id", format!("{}-{}", self.id, part.id)),
                ("partial_ordinal", part.number.to_string()),
                ("partial_last", part.last.to_string()),
            ]
        });
        let part = part.iter().flatten();
        msgpack::map(&mut out, self.record.len() + 2 + part.clone().count());
        let mut pair = |name: &str, value: &[u8]| {
            msgpack::string(&mut out, name.as_bytes());
            msgpack::string(&mut out, value);
        };
        pair("source", if line.stream == Stream::Stderr { b"stderr" } else { b"stdout" });
        pair("log", line.text);
        self.record.iter().for_each(|(name, value)| pair(name, value.as_bytes()));
        part.for_each(|(name, value)| pair(name, value.as_bytes()));
        // No options.
        msgpack::map(&mut out, 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_array_of_four() {
        let record = [("container_id".to_owned(), "abc".to_owned())].into();
        let fluentd = Fluentd { tag: "t".into(), record, precise: false, id: "abc".into() };
        let time = "1970-01-01T00:00:05.000000007Z".parse().unwrap();
        let line = Line { text: b"hi", stream: Stream::Stdout, time, part: None };
        let want = b"\x94\xa1t\xcf\0\0\0\0\0\0\0\x05\x83\xa6source\xa6stdout\xa3log\xa2hi\xaccontainer_id\xa3abc\x80";
        assert_eq!(fluentd.encode(&line), want);
        let precise = Fluentd { precise: true, ..fluentd }.encode(&line);
        assert_eq!(precise[3..13], *b"\xd7\0\0\0\0\x05\0\0\0\x07");
        let long = vec![b'x'; 300];
        let entry = Fluentd { record: BTreeMap::new(), tag: String::new(), precise: false, id: String::new() }
            .encode(&Line { text: &long, ..line });
        assert!(entry.windows(3).any(|window| window == [0xda, 1, 44]));
    }
}
