//! The extended headers that are written (POSIX.1-2001, pax, "pax Extended Header").

use std::collections::BTreeMap;

use crate::header::Entry;

/// The extended header: all that a ustar header cannot say, and `more`, sorted by key.
pub(crate) fn records(entry: &Entry, more: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut all: BTreeMap<Vec<u8>, Vec<u8>> =
        more.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.clone())).collect();
    let mut add = |key: &str, value: Vec<u8>| drop(all.insert(key.as_bytes().to_vec(), value));
    if entry.path.len() > 100 {
        add("path", entry.path.clone());
    }
    if entry.link.len() > 100 {
        add("linkpath", entry.link.clone());
    }
    for (key, value, most) in [("uid", entry.uid, 0o7_777_777), ("gid", entry.gid, 0o7_777_777)] {
        if value > most {
            add(key, value.to_string().into_bytes());
        }
    }
    if entry.size > 0o77_777_777_777 {
        add("size", entry.size.to_string().into_bytes());
    }
    let (seconds, nanoseconds) = entry.mtime;
    if nanoseconds != 0 || !(0..=0o77_777_777_777).contains(&seconds) {
        add("mtime", time(seconds, nanoseconds).into_bytes());
    }
    for (key, value) in &entry.xattrs {
        all.insert([b"SCHILY.xattr.".as_slice(), key].concat(), value.clone());
    }
    let mut bytes = Vec::new();
    for (key, value) in all {
        bytes.extend(record(&key, &value));
    }
    bytes
}

/// Decimal seconds without trailing zeroes; before the epoch the fraction counts away from it.
pub fn time(seconds: i64, nanoseconds: u32) -> String {
    let (whole, fraction, sign) = if seconds < 0 && nanoseconds > 0 {
        (-(seconds + 1), 1_000_000_000 - nanoseconds, "-")
    } else {
        (seconds, nanoseconds, "")
    };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{fraction:09}").trim_end_matches('0').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut bytes = length.to_string().into_bytes();
    bytes.push(b' ');
    bytes.extend(key);
    bytes.push(b'=');
    bytes.extend(value);
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        assert_eq!(record(b"path", b"a"), b"9 path=a\n");
        for size in [1, 88, 89, 90, 91, 985, 990, 995] {
            let bytes = record(b"k", &vec![b'v'; size]);
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), bytes.len());
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(time(1, 500_000_000), "1.5");
        assert_eq!(time(-2, 750_000_000), "-1.25");
        assert_eq!(time(7, 0), "7");
        assert_eq!(time(-7, 0), "-7");
    }
}
