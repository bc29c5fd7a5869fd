//! A writer and readers of one log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use wharf_logs::{LogOptions, ReadOptions, Reader, Stream, Writer};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn write(path: &Path, options: LogOptions, range: std::ops::Range<i64>) {
    let mut writer = Writer::open(path, options).unwrap();
    for n in range {
        let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
        writer.write(stream, format!("{n}\n").as_bytes(), at(n)).unwrap();
    }
    writer.flush().unwrap();
}

fn read(path: &Path, options: ReadOptions) -> Vec<i64> {
    let mut reader = Reader::open(path, options).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push(std::str::from_utf8(&entry.line).unwrap().trim_end().parse().unwrap());
    }
    assert!(!reader.has_more());
    all
}

/// Reads on and on, until it is told to stop and has seen the end after that.
fn follow(path: &Path, stop: &AtomicBool) -> Vec<i64> {
    let mut reader = Reader::open(path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    let mut all = Vec::new();
    loop {
        let ending = stop.load(Ordering::Acquire);
        while let Some(entry) = reader.next_entry().unwrap() {
            all.push(std::str::from_utf8(&entry.line).unwrap().trim_end().parse().unwrap());
        }
        assert!(!reader.is_over());
        if ending {
            return all;
        }
        thread::yield_now();
    }
}

#[test]
fn the_last_entries_are_found_across_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    write(&path, LogOptions { max_size: Some(4_000), max_files: 10, ..LogOptions::default() }, 0..200);
    assert!(dir.path().join("c-json.log.3").exists());
    for tail in [0_i64, 1, 2, 47, 48, 49, 50, 120, 200, 500] {
        let got = read(&path, ReadOptions { tail: Some(tail.cast_unsigned()), ..ReadOptions::default() });
        assert_eq!(got, ((200 - tail).max(0)..200).collect::<Vec<_>>(), "the last {tail}");
    }
    assert_eq!(read(&path, ReadOptions::default()), (0..200).collect::<Vec<_>>());
}

#[test]
fn the_last_entries_of_a_large_file_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write(&path, LogOptions::default(), 0..5_000);
    let got = read(&path, ReadOptions { tail: Some(3_000), ..ReadOptions::default() });
    assert_eq!(got, (2_000..5_000).collect::<Vec<_>>());
}

#[test]
fn who_does_not_follow_gets_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    // What is rotated away meanwhile is no reason to go on either.
    let options = LogOptions { max_size: Some(20_000), max_files: 10, ..LogOptions::default() };
    write(&path, options, 0..100);
    for tail in [None, Some(3)] {
        let written = read(&path, ReadOptions { tail: Some(1), ..ReadOptions::default() })[0] + 1;
        let mut reader = Reader::open(&path, ReadOptions { tail, ..ReadOptions::default() }).unwrap();
        write(&path, options, written..written + 1_000);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            all.push(std::str::from_utf8(&entry.line).unwrap().trim_end().parse::<i64>().unwrap());
        }
        assert!(reader.is_over());
        let first = if tail.is_some() { written - 3 } else { 0 };
        assert_eq!(all, (first..written).collect::<Vec<_>>());
    }
}

#[test]
fn times_and_streams_are_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write(&path, LogOptions::default(), 0..100);
    let got = read(&path, ReadOptions { since: Some(at(10)), until: Some(at(13)), ..ReadOptions::default() });
    assert_eq!(got, [10, 11, 12, 13]);
    let got = read(&path, ReadOptions { tail: Some(4), stderr: false, ..ReadOptions::default() });
    assert_eq!(got, [96, 98], "of the last four those of the stream, as Docker counts");
}

#[test]
fn a_log_that_is_not_there_is_empty_and_rubbish_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    assert!(read(&path, ReadOptions::default()).is_empty());
    let mut bytes = vec![b'x'; 3 << 20];
    bytes.extend_from_slice(
        b"\n\0\0\n{\"log\":\"1\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05Z\"}\n{\"log",
    );
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read(&path, ReadOptions::default()), [1]);
}

#[test]
fn following_sees_every_entry_once_over_rotations_and_ends_when_told() {
    for options in
        [LogOptions::default(), LogOptions { max_size: Some(20_000), max_files: 50, ..LogOptions::default() }]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let stop = Arc::new(AtomicBool::new(false));
        // Before there is a file.
        let reader = thread::spawn({
            let (path, stop) = (path.clone(), Arc::clone(&stop));
            move || follow(&path, &stop)
        });
        thread::sleep(Duration::from_millis(20));
        let mut writer = Writer::open(&path, options).unwrap();
        for n in 0..4_000 {
            writer.write(Stream::Stdout, format!("{n}\n").as_bytes(), at(n)).unwrap();
            if n % 7 == 0 {
                writer.flush().unwrap();
            }
            if n % 500 == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        writer.flush().unwrap();
        drop(writer);
        stop.store(true, Ordering::Release);
        assert_eq!(reader.join().unwrap(), (0..4_000).collect::<Vec<_>>());
    }
}

#[test]
fn following_survives_the_emptying_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    write(&path, LogOptions::default(), 0..10);
    let mut reader = Reader::open(&path, ReadOptions { follow: true, ..ReadOptions::default() }).unwrap();
    for _ in 0..10 {
        assert!(reader.next_entry().unwrap().is_some());
    }
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write(&path, LogOptions::default(), 10..12);
    assert_eq!(reader.next_entry().unwrap().unwrap().line, b"10\n");
    assert_eq!(reader.next_entry().unwrap().unwrap().line, b"11\n");
    assert!(reader.next_entry().unwrap().is_none());
}

/// Not a check on time, which no test makes: printed so that a slip is seen.
#[test]
fn the_time_of_a_hundred_thousand_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let line = [b"a line as a server writes it: GET /index.html 200 <user> 0.123 ms -".as_slice(), b"\n"].concat();
    let start = std::time::Instant::now();
    let mut writer = Writer::open(&path, LogOptions::default()).unwrap();
    let chunk = line.repeat(500);
    for _ in 0..200 {
        writer.write(Stream::Stdout, &chunk, Timestamp::now()).unwrap();
    }
    writer.flush().unwrap();
    let written = start.elapsed();
    let mut reader = Reader::open(&path, ReadOptions::default()).unwrap();
    let mut count = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        assert_eq!(entry.line, line);
        count += 1;
    }
    assert_eq!(count, 100_000);
    println!("written in {written:?}, read in {:?}", start.elapsed() - written);
}
