use std::fs;
use std::path::Path;
use std::process::Command;

use wharf_reference::Digest;
use wharf_snapshot::SnapshotError;

use crate::tar::Tar;
use crate::{Place, names, open};

#[test]
fn what_leads_out_leaves_nothing() {
    let place = Place::new();
    fs::write(place.path("canary"), "alive").unwrap();
    let target = place.path("canary").to_string_lossy().into_owned();
    let start = || Tar::default().file("good", b"good");
    for tar in [
        start().entry("hard", b'1', "../../canary"),
        start().entry("hard", b'1', &target),
        start().file(".wh...", b""),
        start().file("x/.wh...", b""),
        start().entry("odd", b'Z', ""),
        Tar(start().0[..514].to_vec()),
    ] {
        let error = place.layers.import(&mut tar.0.as_slice(), None).unwrap_err();
        assert!(error.is_bad_layer(), "{error}");
    }
    assert!(place.names().is_empty() && place.layers.list().unwrap().is_empty());
    for name in ["../canary", "x/../../../canary"] {
        let layer = place.layers.import(&mut start().file(name, b"dead").0.as_slice(), None).unwrap();
        assert_eq!(fs::read_to_string(place.tree(&layer.diff_id, "canary")).unwrap(), "dead");
    }
    assert_eq!(fs::read_to_string(place.path("canary")).unwrap(), "alive");
    assert_eq!(names(place.dir.path()), ["canary", "data"]);
}

#[test]
fn a_wrong_diff_id_leaves_nothing() {
    let place = Place::new();
    let tar = Tar::default().file("f", b"x").end();
    let other = Digest::sha256(b"other");
    let error = place.layers.import(&mut tar.as_slice(), Some(&other)).unwrap_err();
    assert!(matches!(&error, SnapshotError::WrongDiffId { expected, .. } if *expected == other), "{error}");
    assert!(place.names().is_empty() && !place.layers.contains(&other));
    // Also when the right one is here already.
    let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
    assert!(place.layers.import(&mut &tar[..tar.len() - 1], Some(&layer.diff_id)).is_err());
    assert!(place.layers.contains(&layer.diff_id));
}

#[test]
fn a_stream_that_breaks_off_leaves_nothing() {
    struct Broken<'a>(&'a [u8]);
    impl std::io::Read for Broken<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.read(bytes)?;
            if count == 0 { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(count) }
        }
    }
    let place = Place::new();
    let tar = Tar::default().file("f", &[1; 100_000]);
    assert!(place.layers.import(&mut Broken(&tar.0[..50_000]), None).is_err());
    assert!(place.names().is_empty());
}

#[test]
fn a_tree_that_somebody_has_changed_is_told() {
    let place = Place::new();
    let tar = Tar::default().file("f", b"as it was").file("g", b"g").end();
    let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
    let file = place.tree(&layer.diff_id, "f");
    fs::write(&file, "as it is!").unwrap();
    assert!(matches!(place.layers.verify(&layer.diff_id), Err(SnapshotError::WrongDiffId { .. })));
    fs::write(&file, "short").unwrap();
    assert!(matches!(place.layers.verify(&layer.diff_id), Err(SnapshotError::Damaged { .. })));
    fs::remove_file(&file).unwrap();
    assert!(matches!(place.layers.verify(&layer.diff_id), Err(SnapshotError::Damaged { .. })));
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    assert!(place.layers.verify(&layer.diff_id).is_err());
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            Command::new("umount").arg(self.0).status().unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(dir.path()).status();
    if !mount.is_ok_and(|status| status.success()) {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(dir.path());
    let layers = open(dir.path());
    let tar = Tar::default().file("f", &vec![1; 40 << 20]).end();
    let error = layers.import(&mut tar.as_slice(), None).unwrap_err();
    assert!(error.is_full() && !error.is_bad_layer(), "{error:?}");
    assert!(names(&dir.path().join("layers")).is_empty());
    let small = Tar::default().file("f", b"x").end();
    // Processes that other tests are just making hold on to what is deleted until they have become their programs.
    let fits = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        layers.import(&mut small.as_slice(), None).is_ok()
    });
    assert!(fits);
}
