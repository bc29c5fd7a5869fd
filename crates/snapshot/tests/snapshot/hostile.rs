use std::fs;
use std::path::Path;
use std::process::Command;

use wharf_reference::Digest;
use wharf_snapshot::{SnapshotError, Storage};

use crate::tar::Tar;
use crate::{Place, both, names, open};

#[test]
fn what_leads_out_leaves_nothing() {
    for place in both() {
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
}

#[test]
fn a_wrong_diff_id_leaves_nothing() {
    for place in both() {
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
    let place = Place::of(Storage::Dirs).unwrap();
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
fn an_image_that_somebody_has_changed_is_told() {
    let Some(place) = Place::of(Storage::Erofs) else { return };
    let tar = Tar::default().file("f", &[b'~'; 9000]).file("g", b"g").end();
    let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
    let verify = || place.layers.verify(&layer.diff_id);
    verify().unwrap();
    let path = place.layer(&layer.diff_id).join("image");
    let image = fs::File::options().read(true).write(true).open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == [b'~'; 9]).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, b"!", at as u64).unwrap();
    assert!(matches!(verify(), Err(SnapshotError::WrongDiffId { .. })));
    image.set_len(4096).unwrap();
    assert!(matches!(verify(), Err(SnapshotError::Damaged { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(verify(), Err(SnapshotError::Damaged { .. })));
    assert!(!place.layers.contains(&layer.diff_id));
}

/// A mount that ends with this value.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(options: &[&str], at: &'a Path) -> Option<Self> {
        let mount = Command::new("mount").args(options).arg(at).status();
        let mounted = mount.is_ok_and(|status| status.success()).then(|| Self(at));
        if mounted.is_none() {
            println!("skipped: no such file system can be mounted here: {options:?}");
        }
        mounted
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().unwrap();
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=24m", "none"], dir.path()) else { return };
    full_disk(dir.path());
}

#[test]
fn a_full_disk_is_told_by_images_too() {
    let (disk, dir) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
    disk.as_file().set_len(48 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(disk.path()).status();
    if !made.is_ok_and(|status| status.success()) {
        return println!("skipped: no mkfs.ext4");
    }
    let path = disk.path().to_str().unwrap();
    let Some(_mounted) = Mounted::new(&["-o", "loop", path], dir.path()) else { return };
    full_disk(dir.path());
}

fn full_disk(dir: &Path) {
    let layers = open(dir, None);
    println!("{:?}", layers.form());
    let tar = Tar::default().file("f", &vec![1; 60 << 20]).end();
    let error = layers.import(&mut tar.as_slice(), None).unwrap_err();
    assert!(error.is_full() && !error.is_bad_layer(), "{error:?}");
    assert!(names(&dir.join("layers")).is_empty());
    let small = Tar::default().file("f", b"x").end();
    // Processes that other tests are just making hold on to what is deleted until they have become their programs.
    let fits = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        layers.import(&mut small.as_slice(), None).is_ok()
    });
    assert!(fits);
}
