//! `system fsck` of a data root whose daemon is gone.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::kit::{Daemon, Said};
use crate::ship::Registry;
use crate::store::layer_of;

/// Our program without a daemon to ask.
fn fsck(root: &Path, words: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["system", "fsck", "--data-root"]).arg(root).args(words.split_whitespace());
    Said::from(command.output().unwrap())
}

fn findings(said: &Said) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{} {}", said.out, said.err));
    let of = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    report["Findings"].as_array().unwrap().iter().map(|one| (of(one, "What"), of(one, "Outcome"))).collect()
}

/// Changes a byte in the middle of a file.
fn spoil(path: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Names, sizes and times of all files.
fn listing(root: &Path) -> String {
    let words = ["-printf", "%P %s %T@ %i\\n", "-not", "-path", "*/lock", "-not", "-name", "wharf.*"];
    let output = Command::new("find").arg(root).args(&words[2..]).args(&words[..2]).output().unwrap();
    let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    // The directory of layers is where it is tried whether images can be mounted.
    lines.retain(|line| !line.starts_with("layers ") && !line.starts_with(' '));
    lines.sort();
    lines.join("\n")
}

#[test]
fn a_data_root_is_looked_at_without_its_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    d.import("again", 300_000).ok();
    d.import("lost", 200_000).ok();
    let name = format!("{}/again:1", registry.address);
    d.docker(&format!("tag again {name}")).ok();
    // Its compressed form stays.
    d.docker(&format!("push {name}")).ok();
    d.docker("run -d --name runs busybox sleep 1000").ok();
    let (again, lost) = (layer_of(&d, "again"), layer_of(&d, "lost"));
    let data = d.data();
    let refused = fsck(&data, "");
    assert!(refused.code == 1 && refused.err.contains(&format!("in use by process {}", d.pid())), "{}", refused.err);
    assert!(refused.err.contains("-H"), "{}", refused.err);

    d.kill();
    let clean = fsck(&data, "--deep");
    assert!(clean.code == 0 && clean.out.starts_with("clean: "), "{} {}", clean.out, clean.err);
    for layer in [&again, &lost] {
        let place = data.join("layers").join(layer.trim_start_matches("sha256:"));
        let tree = place.join("root/file");
        spoil(&if tree.exists() { tree } else { place.join("image") });
    }
    let blob = data.join("blobs/sha256").join("ab".repeat(32));
    std::fs::write(&blob, "nobody's").unwrap();
    std::fs::write(data.join("ingest/1-1"), "of a process that is no more").unwrap();
    std::fs::create_dir_all(data.join("build/b-0123/upper")).unwrap();
    let before = listing(&data);
    let dry = fsck(&data, "--deep --dry-run --format json");
    assert_eq!(dry.code, 1);
    let found = findings(&dry);
    assert!(found.iter().all(|(_, outcome)| outcome == "found"), "{found:?}");
    let has = |what: &str| found.iter().filter(|(found, _)| found.contains(what)).count();
    for what in [&*again, &lost, "image lost", "ababab", "ingest/1-1", "build/b-0123"] {
        assert_eq!(has(what), 1, "{what} in {found:?}");
    }
    assert_eq!(listing(&data), before, "a dry run changes nothing");

    // Killed in the middle of it, it begins again.
    let mut child = Command::new(env!("CARGO_BIN_EXE_wharf"));
    child.args(["check-data-root", "--deep", "--data-root"]).arg(&data).stdout(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let wet = fsck(&data, "--deep --format json");
    assert!(findings(&wet).iter().all(|(_, outcome)| outcome == "repaired"), "{}", wet.out);
    let clean = fsck(&data, "--deep");
    assert!(clean.code == 0, "{} {}", clean.out, clean.err);

    d.launch();
    assert_eq!(d.docker("exec runs echo still").ok(), "still");
    assert_eq!(d.docker("images -q lost").ok(), "");
    d.docker("create --name whole again true").ok();
    assert_eq!(d.wharf("system fsck --deep").code, 0);
    d.docker("rm -f runs whole").ok();
}

#[test]
fn what_is_no_data_root_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let said = fsck(dir.path(), "");
    assert!(said.code == 1 && said.err.contains("is no data root of wharf"), "{}", said.err);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // A registry's blobs have owners that only a registry knows.
    let Some(d) = Daemon::start() else { return };
    drop(Registry::start(&d));
    let root = d.path().join("registry");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(7 * 24 * 3600);
    let blob = root.join("blobs/sha256").join("ab".repeat(32));
    std::fs::File::create(&blob).unwrap().set_modified(old).unwrap();
    let said = fsck(&root, "");
    assert!(said.code == 1 && said.err.contains("is no data root of a daemon"), "{}", said.err);
    assert!(blob.exists());
}

#[test]
fn a_damaged_database_is_said_to_be_one() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("volume create kept").ok();
    d.kill();
    let database = d.data().join("wharf.redb");
    let whole = std::fs::read(&database).unwrap();
    let mut repaired = 0;
    // The head, and a piece here and there.
    for at in (0..whole.len()).step_by((whole.len() / 24).next_multiple_of(512)) {
        let mut bytes = whole.clone();
        let end = (at + 512).min(bytes.len());
        bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
        std::fs::write(&database, bytes).unwrap();
        let said = fsck(&d.data(), "--dry-run");
        let named = said.err.contains("is damaged and cannot be repaired");
        // Where the last change is what is damaged, the one before it counts, as after a crash.
        let looked = said.out.contains("things looked at");
        assert!(named || looked, "at {at}: {} {} {}", said.code, said.out, said.err);
        assert!(!said.err.contains("panicked"), "at {at}: {}", said.err);
        repaired += u32::from(!named);
    }
    println!("{repaired} of them harmless or repaired");
    std::fs::write(&database, "no database at all").unwrap();
    assert!(fsck(&d.data(), "").err.contains("wharf.redb` is damaged"));
    std::fs::write(&database, &whole).unwrap();
    assert_eq!(fsck(&d.data(), "--deep").code, 0);
    d.launch();
    assert_eq!(d.docker("volume ls -q").ok(), "kept");
}
