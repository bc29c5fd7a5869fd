//! The journal's native protocol (systemd, "Native Journal Protocol"): a datagram for each entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Line;
use crate::entry::Stream;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journald {
    /// Beside each entry. Names are upper-case letters, digits and underscores.
    pub fields: BTreeMap<String, String>,
    /// This container's, in the names of divided lines.
    pub id: String,
}

impl Journald {
    /// `epoch` names what was opened, `ordinal` counts its entries.
    pub(super) fn encode(&self, line: &Line<'_>, epoch: u64, ordinal: u64) -> Vec<u8> {
        let mut entry = Vec::with_capacity(line.text.len() + 256);
        field(&mut entry, "MESSAGE", line.text);
        // syslog's: 3 is an error, 6 an information.
        field(&mut entry, "PRIORITY", if line.stream == Stream::Stderr { b"3" } else { b"6" });
        field(&mut entry, "SYSLOG_TIMESTAMP", line.time.to_string().as_bytes());
        field(&mut entry, "CONTAINER_LOG_EPOCH", format!("{epoch:016x}").as_bytes());
        field(&mut entry, "CONTAINER_LOG_ORDINAL", ordinal.to_string().as_bytes());
        if let Some(part) = line.part {
            if !part.last {
                field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
            field(&mut entry, "CONTAINER_PARTIAL_ID", format!("{}-{}", self.id, part.id).as_bytes());
            field(&mut entry, "CONTAINER_PARTIAL_ORDINAL", part.number.to_string().as_bytes());
            field(&mut entry, "CONTAINER_PARTIAL_LAST", part.last.to_string().as_bytes());
        }
        for (name, value) in &self.fields {
            field(&mut entry, name, value.as_bytes());
        }
        entry
    }
}

fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::Part;
    use super::*;

    #[test]
    fn values_with_line_feeds_have_their_length_before_them() {
        let fields = [("A", "b\nc"), ("D", "e")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let time = "2026-01-02T03:04:05Z".parse().unwrap();
        let part = Some(Part { id: 2, number: 3, last: false });
        let line = Line { text: b"text", stream: Stream::Stderr, time, part };
        let entry = Journald { fields, id: "x".into() }.encode(&line, 10, 7);
        let want = b"MESSAGE=text\nPRIORITY=3\nSYSLOG_TIMESTAMP=2026-01-02T03:04:05Z\n\
            CONTAINER_LOG_EPOCH=000000000000000a\nCONTAINER_LOG_ORDINAL=7\nCONTAINER_PARTIAL_MESSAGE=true\n\
            CONTAINER_PARTIAL_ID=x-2\nCONTAINER_PARTIAL_ORDINAL=3\nCONTAINER_PARTIAL_LAST=false\n\
            A\n\x03\0\0\0\0\0\0\0b\nc\nD=e\n";
        assert_eq!(String::from_utf8_lossy(&entry), String::from_utf8_lossy(want));
    }
}
