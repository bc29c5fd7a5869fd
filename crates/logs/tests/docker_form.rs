//! Docker's own log of a program's awkward output (20.10, `data/docker-json.log`), and ours of the same.

use jiff::Timestamp;
use wharf_logs::{LogOptions, ReadOptions, Reader, Stream, Writer};

/// What the program wrote.
const OUTPUT: &[u8] = b"plain\n\
    tab\there \"quote\" back\\slash <a href=x>&amp;</a>\r\n\
    bell\x07 esc\x1b[1m del\x7f nul\x00end\n\
    utf8 \xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80 ls\xe2\x80\xa8ps\xe2\x80\xa9\n\
    bad \xff\xfe \xc3( \xe2\x82 x\n\
    \n\
    no newline";

#[test]
fn the_same_output_gives_the_same_bytes() {
    let theirs = include_str!("data/docker-json.log");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
    // Each line with the time that Docker gave it: the times' form is compared too.
    let times: Vec<Timestamp> = theirs
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["time"].as_str().unwrap().parse().unwrap())
        .collect();
    for (line, time) in OUTPUT.split_inclusive(|byte| *byte == b'\n').zip(&times) {
        writer.write(Stream::Stdout, line, *time).unwrap();
    }
    writer.end(Stream::Stdout, *times.last().unwrap()).unwrap();
    writer.flush().unwrap();
    let ours = std::fs::read_to_string(&path).unwrap();
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours, theirs);
}

#[test]
fn docker_s_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, include_str!("data/docker-json.log")).unwrap();
    let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.extend(entry.line);
    }
    // JSON cannot carry what is no UTF-8.
    assert_eq!(
        String::from_utf8(all).unwrap(),
        String::from_utf8_lossy(OUTPUT).replace("\u{fffd} x", "\u{fffd}\u{fffd} x")
    );
}
