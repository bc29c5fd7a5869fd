//! Logs that are written, rotated, read back and followed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use wharf_logs::{LogOptions, ReadOptions, Reader, Stream, Writer};

fn finish(writer: &mut Writer) -> wharf_logs::Result<()> {
    for stream in [Stream::Stdout, Stream::Stderr] {
        writer.end(stream, Timestamp::now())?;
    }
    writer.flush()
}

fn both() -> ReadOptions {
    ReadOptions { stdout: true, stderr: true, ..ReadOptions::default() }
}

fn lines(path: &Path, options: ReadOptions) -> Vec<String> {
    let mut reader = Reader::open(path, options).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push(String::from_utf8(entry.line).unwrap());
    }
    all
}

#[test]
fn chunks_become_lines_and_long_lines_parts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntw", Timestamp::now()).unwrap();
    writer.write(Stream::Stderr, b"err\n", Timestamp::now()).unwrap();
    writer.write(Stream::Stdout, b"o\n", Timestamp::now()).unwrap();
    writer.write(Stream::Stdout, &vec![b'x'; 20_000], Timestamp::now()).unwrap();
    finish(&mut writer).unwrap();
    let all = lines(&path, both());
    assert_eq!(all[..3], ["one\n", "err\n", "two\n"]);
    assert_eq!((all[3].len(), all[4].len()), (16 << 10, 20_000 - (16 << 10)));
    assert_eq!(lines(&path, ReadOptions { stdout: false, ..ReadOptions::default() }), ["err\n"]);
}

#[test]
fn the_tail_is_found_over_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options = LogOptions { max_size: Some(10_000), max_files: 4, ..LogOptions::default() };
    let mut writer = Writer::open(&path, options).unwrap();
    for number in 0..700 {
        let stream = if number % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        writer.write(stream, format!("line {number}\n").as_bytes(), Timestamp::now()).unwrap();
    }
    finish(&mut writer).unwrap();
    assert!(dir.path().join("log.3").exists() && !dir.path().join("log.4").exists());
    for count in [0, 1, 5, 150, 300] {
        let tail = lines(&path, ReadOptions { tail: Some(count), ..both() });
        let first = 700 - usize::try_from(count).unwrap();
        let expected: Vec<String> = (first..700).map(|n| format!("line {n}\n")).collect();
        assert_eq!(tail, expected, "tail {count}");
    }
    let odd = lines(&path, ReadOptions { tail: Some(3), stdout: false, ..ReadOptions::default() });
    // Counted before the streams are chosen, as Docker does: the last three are 697, 698 and 699.
    assert_eq!(odd, ["line 697\n", "line 699\n"]);
    assert!(lines(&path, both()).len() < 700, "the oldest are gone");
}

#[test]
fn a_follower_misses_nothing_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let stop = Arc::new(AtomicBool::new(false));
    let (target, stopped) = (path.clone(), Arc::clone(&stop));
    let follower = std::thread::spawn(move || {
        let mut reader = Reader::open(&target, ReadOptions { follow: true, ..both() }).unwrap();
        let mut all = Vec::new();
        loop {
            let ending = stopped.load(Ordering::Acquire);
            while let Some(entry) = reader.next_entry().unwrap() {
                all.push(String::from_utf8(entry.line).unwrap());
            }
            if ending {
                return all;
            }
            std::thread::yield_now();
        }
    });
    std::thread::sleep(Duration::from_millis(30));
    let mut writer =
        Writer::open(&path, LogOptions { max_size: Some(20_000), max_files: 50, ..LogOptions::default() }).unwrap();
    for number in 0..2000 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), Timestamp::now()).unwrap();
        if number % 7 == 0 {
            writer.flush().unwrap();
        }
    }
    finish(&mut writer).unwrap();
    stop.store(true, Ordering::Release);
    let all = follower.join().unwrap();
    let numbers: Vec<u32> = all.iter().map(|line| line[5..].trim().parse().unwrap()).collect();
    let jumps: Vec<_> = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert_eq!((all.len(), jumps), (2000, vec![]));
    assert_eq!(all[1999], "line 1999\n");
}

#[test]
fn a_span_of_time_and_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let line = |second: u32| {
        format!("{{\"log\":\"at {second}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:{second:02}Z\"}}\n")
    };
    let text = format!("{}{}garbage\n{}", line(1), line(2), line(3));
    std::fs::write(&path, text).unwrap();
    let at = |text: &str| Some(text.parse().unwrap());
    let span = ReadOptions { since: at("2026-01-01T00:00:02Z"), until: at("2026-01-01T00:00:02Z"), ..both() };
    assert_eq!(lines(&path, span), ["at 2\n"]);
    assert_eq!(lines(&path, both()), ["at 1\n", "at 2\n", "at 3\n"]);
    assert!(lines(&dir.path().join("none"), both()).is_empty());
}
