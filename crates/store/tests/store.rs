//! The store from outside: what it promises, and what a `kill -9` leaves of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use wharf_reference::Digest;
use wharf_store::{Store, StoreError, Table};

const ROWS: Table = Table::new("rows");

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let (dir, first) = store();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { pid, .. } if *pid == std::process::id().to_string()), "{error}");
    drop(first);
    Store::open(dir.path()).unwrap();
}

#[test]
fn a_root_of_a_later_version_is_refused_and_left_as_it_is() {
    let (dir, store) = store();
    drop(store);
    let format = dir.path().join("format");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), "2\n");
    std::fs::write(&format, "3\n").unwrap();
    // What an opening sweeps.
    let left = dir.path().join("ingest/1-1");
    std::fs::write(&left, "what only the later version knows").unwrap();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 3, known: 2, .. }), "{error}");
    assert!(error.to_string().contains("--data-root") && left.exists());
    std::fs::write(&format, "?").unwrap();
    assert!(matches!(Store::open(dir.path()).unwrap_err(), StoreError::Format(_)));
}

#[test]
fn a_root_of_an_earlier_version_is_brought_to_this_one_with_all_that_it_has() {
    let (dir, store) = store();
    let blob = store.blobs().put(b"blob").unwrap();
    store.write(|tx| tx.put(ROWS, "a", &1)).unwrap();
    drop(store);
    let format = dir.path().join("format");
    // The last is from before there was a format.
    for earlier in [Some("1\n"), None] {
        match earlier {
            Some(text) => std::fs::write(&format, text).unwrap(),
            None => std::fs::remove_file(&format).unwrap(),
        }
        let left = dir.path().join("ingest/1-1");
        std::fs::write(&left, "of a daemon that was killed").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&format).unwrap(), "2\n");
        assert_eq!(store.read(|tx| tx.get::<i32>(ROWS, "a")).unwrap(), Some(1));
        assert_eq!(store.blobs().read(&blob, 64).unwrap(), b"blob");
        assert!(!left.exists());
    }
}

#[test]
fn a_database_whose_making_was_cut_off_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let file = dir.path().join("wharf.redb");
    // As a kill leaves it: with its blocks, and without the mark that comes last.
    let length = file.metadata().unwrap().len();
    for left in [1, length] {
        std::fs::write(&file, vec![0; usize::try_from(left).unwrap()]).unwrap();
        drop(Store::open(dir.path()).unwrap());
    }
    std::fs::write(&file, b"something else").unwrap();
    assert!(Store::open(dir.path()).is_err(), "what is none of ours stays");
}

#[test]
fn rows_are_read_as_they_were_written() {
    let (dir, store) = store();
    store
        .write(|tx| {
            tx.put(ROWS, "a/1", &1)?;
            tx.put(ROWS, "a/2", &2)?;
            tx.put(ROWS, "b", &3)?;
            assert_eq!(tx.get::<i32>(ROWS, "b")?, Some(3));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let read = |prefix| store.read(|tx| tx.list_prefix::<i32>(ROWS, prefix)).unwrap();
    assert_eq!(read("a/"), [("a/1".to_owned(), 1), ("a/2".to_owned(), 2)]);
    assert_eq!(read("").len(), 3);
    assert_eq!(store.read(|tx| tx.get::<i32>(Table::new("none"), "x")).unwrap(), None);
    assert!(store.read(|tx| tx.get::<String>(ROWS, "b")).is_err(), "a row of another type is an error");
    assert!(store.write(|tx| tx.delete(ROWS, "b")).unwrap());
    assert!(!store.write_soon(|tx| tx.delete(ROWS, "b")).unwrap());
}

#[test]
fn a_flush_brings_to_the_disk_what_was_to_be_there_soon() {
    let (dir, store) = store();
    store.write(|tx| tx.put(ROWS, "a", &1)).unwrap();
    store.write_soon(|tx| tx.put(ROWS, "a", &2)).unwrap();
    // What a process that is killed now leaves.
    let left = || {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("wharf.redb"), copy.path().join("wharf.redb")).unwrap();
        Store::open(copy.path()).unwrap().read(|tx| tx.get::<i32>(ROWS, "a")).unwrap()
    };
    assert_eq!(left(), Some(1));
    store.flush().unwrap();
    assert_eq!(left(), Some(2));
}

#[test]
fn an_error_undoes_the_whole_change() {
    let (_dir, store) = store();
    let failed: Result<(), StoreError> = store.write(|tx| {
        tx.put(ROWS, "half", &1)?;
        Err(StoreError::NoBlob(Digest::sha256(b"")))
    });
    assert!(failed.is_err());
    assert_eq!(store.read(|tx| tx.get::<i32>(ROWS, "half")).unwrap(), None);
}

#[test]
fn blobs_are_there_whole_or_not_at_all() {
    let (dir, store) = store();
    let blobs = store.blobs();
    let digest = blobs.put(b"content").unwrap();
    assert_eq!(blobs.read(&digest, 7).unwrap(), b"content");
    assert!(matches!(blobs.read(&digest, 6), Err(StoreError::TooLarge(..))));
    assert_eq!((blobs.size(&digest), blobs.list().unwrap()), (Some(7), vec![digest.clone()]));
    let mut writer = blobs.writer(Some(&digest)).unwrap();
    writer.write_all(b"other").unwrap();
    assert!(matches!(writer.finish(), Err(StoreError::WrongDigest { .. })));
    drop(blobs.writer(None).unwrap());
    assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0, "nothing stays behind");
    assert!(blobs.delete(&digest).unwrap());
    assert!(matches!(blobs.read(&digest, 7), Err(StoreError::NoBlob(_))));
    let layout = std::fs::read_to_string(dir.path().join("oci-layout")).unwrap();
    assert!(layout.contains("imageLayoutVersion"));
}

/// Set for the process that writes until it is killed.
const WRITER: &str = "WHARF_STORE_TEST_WRITER";

/// Not a test of its own: what the killed process does. It says what it has been promised, a line each.
#[test]
fn writes_until_killed() {
    let Some(root) = std::env::var_os(WRITER) else { return };
    let store = Store::open(root.as_ref()).unwrap();
    let mut out = std::io::stdout();
    for number in 0..u64::MAX {
        let digest = store.blobs().put(format!("blob {number}").as_bytes()).unwrap();
        store
            .write(|tx| {
                tx.put(ROWS, &format!("{number:020}"), &digest)?;
                tx.put(ROWS, "count", &(number + 1))
            })
            .unwrap();
        writeln!(out, "promised {number}").unwrap();
    }
}

#[test]
fn what_was_promised_survives_kill_9_and_nothing_is_half_done() {
    let dir = tempfile::tempdir().unwrap();
    // Printed, so that a failure can be made again.
    let mut seed = u64::from(std::process::id());
    println!("seed {seed}");
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_killed", "--nocapture"])
            .env(WRITER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop = 1 + (seed >> 33) % 40;
        let mut promised = None;
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.trim().strip_prefix("promised ") {
                promised = Some(number.parse::<u64>().unwrap());
                if promised == Some(stop) && !killed {
                    // Somewhere in the next round, while we go on reading what it still says.
                    std::thread::sleep(std::time::Duration::from_micros((seed >> 20) % 1500));
                    child.kill().unwrap();
                    killed = true;
                }
            }
        }
        child.wait().unwrap();
        let promised = promised.expect("it wrote");
        let store = Store::open(dir.path()).unwrap();
        let rows = store.read(|tx| tx.list::<serde_json::Value>(ROWS)).unwrap();
        let count = rows.iter().find(|(key, _)| key == "count").unwrap().1.as_u64().unwrap();
        assert!(count > promised, "{promised} was promised, {count} are there");
        for number in 0..=promised {
            let digest: Digest = store.read(|tx| tx.get(ROWS, &format!("{number:020}"))).unwrap().expect("a row");
            assert_eq!(store.blobs().read(&digest, 64).unwrap(), format!("blob {number}").as_bytes());
        }
        assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0, "swept");
    }
}

/// A small disk, taken away at the end.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None`, with a word about it, where nothing can be mounted.
    fn mount(kib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: mounting needs root");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().unwrap();
    }
}

#[test]
fn a_full_disk_fails_the_change_and_not_the_store() {
    let Some(disk) = Disk::mount(6 << 10) else { return };
    let root = disk.0.path().join("root");
    let store = Store::open(&root).unwrap();
    let row = "x".repeat(20_000);
    let put = |number: usize| store.write(|tx| tx.put(ROWS, &format!("{number:06}"), &row));
    put(0).unwrap();
    let filler = disk.0.path().join("filler");
    let all_of_it = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&filler).unwrap());
    assert_eq!(all_of_it.unwrap_err().kind(), std::io::ErrorKind::StorageFull);

    // What is in the file already has its room; growing does not.
    let (promised, error) = (1..1000).find_map(|number| put(number).err().map(|error| (number, error))).unwrap();
    assert!(error.is_full(), "{error:?}");
    for _ in 0..3 {
        assert!(put(promised).unwrap_err().is_full());
        let rows = store.read(|tx| tx.list::<String>(ROWS)).unwrap();
        assert!(rows.len() == promised && rows.iter().all(|(_, value)| *value == row));
    }
    // Making room must be possible without room, as often as it takes.
    for number in 0..promised {
        let key = format!("{number:06}");
        store.write(|tx| tx.put(ROWS, &key, &"changed")).unwrap();
        assert!(store.write(|tx| tx.delete(ROWS, &key)).unwrap());
    }

    std::fs::remove_file(filler).unwrap();
    put(promised).unwrap();
    drop(store);
    let rows = Store::open(&root).unwrap().read(|tx| tx.list::<String>(ROWS)).unwrap();
    assert!(rows.len() == 1 && rows[0].1 == row);
}

#[test]
fn sweeping_beside_blobs_that_come_hurts_neither() {
    let (_dir, store) = store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                store.blobs().sweep_partial(std::time::Duration::ZERO).unwrap();
            }
        });
        for round in 0u32..300 {
            let content = round.to_le_bytes();
            let digest = Digest::sha256(&content);
            // Whoever sweeps may have the file just now, or have taken it away before it was locked.
            let mut writer = loop {
                match store.blobs().parts(&digest, 4, 4) {
                    Ok(writer) if writer.path().exists() => break writer,
                    _ => {}
                }
            };
            writer.write(0, &content).unwrap();
            writer.finish().unwrap();
            assert!(store.blobs().contains(&digest));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
