use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use wharf_reference::Digest;
use wharf_snapshot::{Dating, Storage};

use crate::tar::Tar;
use crate::{Place, both, forms};

/// A tree with something of everything.
pub(crate) fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("usr/bin")).unwrap();
    fs::write(dir.join("usr/bin/tool"), vec![7; 300_001]).unwrap();
    fs::set_permissions(dir.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(dir.join("usr/bin/tool"), dir.join("usr/bin/other")).unwrap();
    symlink("usr/bin", dir.join("bin")).unwrap();
    symlink("/nowhere/at/all", dir.join("dangling")).unwrap();
    fs::create_dir_all(dir.join("a".repeat(90)).join("b".repeat(90))).unwrap();
    fs::write(dir.join("a".repeat(90)).join("b".repeat(90)).join("long"), "deep").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("ünïcode"), "ü").unwrap();
    std::os::unix::fs::chown(dir.join("ünïcode"), Some(70_000), Some(3_000_000)).unwrap();
    rustix::fs::mknodat(CWD, dir.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), 259).unwrap();
    rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::setxattr(dir.join("empty"), "user.colour", b"blue", XattrFlags::empty()).unwrap();
}

#[test]
fn tars_of_other_tools_come_out_as_they_went_in() {
    for place in both() {
        let source = place.path("source");
        tree(&source);
        for (format, more) in
            [("gnu", "--blocking-factor=40"), ("pax", "--xattrs"), ("posix", "--sort=name"), ("oldgnu", "-h")]
        {
            let output = Command::new("tar")
                .args(["-c", "--format", format, more, "--ignore-failed-read", "-C"])
                .arg(&source)
                .arg(".")
                .output()
                .unwrap();
            let tar = output.stdout;
            assert!(tar.len() > 300_000, "{format}: {}", String::from_utf8_lossy(&output.stderr));
            let expected = Digest::sha256(&tar);
            let layer = place.layers.import(&mut tar.as_slice(), Some(&expected)).unwrap();
            assert_eq!((&layer.diff_id, layer.tar_size), (&expected, tar.len() as u64), "{format}");
            assert!(place.written(&expected) == tar, "{format}");
            place.layers.verify(&expected).unwrap();
            let tool = fs::metadata(place.tree(&expected, "usr/bin/tool")).unwrap();
            assert_eq!((tool.mode() & 0o7777, tool.len()), (0o4755, 300_001));
            let place = place.layer(&expected);
            let du = Command::new("du").args(["-s", "--block-size=1"]).arg(place).output().unwrap();
            let real: u64 = String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
            // The directory of the layer itself, and blocks of attributes.
            assert!(layer.disk.abs_diff(real) <= 6 * 4096, "{format}: {} and {real}", layer.disk);
        }
        assert_eq!(place.names().len(), place.layers.list().unwrap().len());
    }
}

#[test]
fn an_archive_that_replaces_its_own_entries_comes_out_as_it_went_in() {
    for place in both() {
        let tar = Tar::default()
            .file("a", b"first")
            .file("a", b"second, and longer")
            .dir("d")
            .dir("d/e")
            .file("d/e/f", b"in a directory that goes")
            .file("d/g", b"so does this")
            .file("d/e/f", b"replaced before its directory was")
            .file("d", b"now a file")
            .dir("d")
            .file("d/g", b"again")
            .entry("alias", b'2', "d")
            .file("alias/h", b"through a link")
            .entry("alias", b'2', "nowhere")
            .entry("hard", b'1', "a")
            .file("a", b"third")
            .dir("kept")
            .file("kept/0", b"a name like ours")
            .end();
        let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
        let read = |path: &str| fs::read_to_string(place.tree(&layer.diff_id, path)).unwrap();
        assert_eq!(read("a"), "third");
        assert_eq!(read("hard"), "second, and longer");
        assert_eq!((read("d/g"), read("d/h")), ("again".into(), "through a link".into()));
        assert!(place.written(&layer.diff_id) == tar);
        assert_eq!(Digest::sha256(&tar), layer.diff_id);
    }
}

#[test]
fn what_a_container_wrote_becomes_a_layer_that_others_make_again() {
    for place in both() {
        let upper = place.path("upper");
        tree(&upper);
        rustix::fs::mknodat(CWD, upper.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        fs::create_dir(upper.join("hiding")).unwrap();
        rustix::fs::setxattr(upper.join("hiding"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        fs::write(upper.join("hiding/new"), "new").unwrap();
        let dating =
            || Dating { latest: (1_000_000_000, 0), since: (1_500_000_000, 0), until: (4_000_000_000, 0), below: None };
        let layer = place.layers.commit(&upper, None, Some(dating())).unwrap();
        let tar = place.written(&layer.diff_id);
        assert_eq!(Digest::sha256(&tar), layer.diff_id);
        let hidden = fs::metadata(place.tree(&layer.diff_id, "gone")).unwrap();
        assert_eq!((hidden.mode() & 0o170_000, hidden.rdev()), (0o020_000, 0));
        let mut value = [0; 4];
        let opaque = place.tree(&layer.diff_id, "hiding");
        assert_eq!(rustix::fs::getxattr(&opaque, "trusted.overlay.opaque", &mut value[..]).unwrap(), 1);
        // Here with the times that they have, elsewhere with those that the archive says.
        let time = |place: &Place| fs::metadata(place.tree(&layer.diff_id, "empty")).unwrap().mtime();
        let real = fs::metadata(upper.join("empty")).unwrap().mtime();
        assert!(time(&place) == real && real > 1_000_000_000);
        let times = place.layers.archive_times(std::slice::from_ref(&layer.diff_id)).unwrap().unwrap();
        assert_eq!(times.of(Path::new("empty"), (real, 7)), (1_000_000_000, 0));
        // Once more, here and elsewhere.
        assert_eq!(place.layers.commit(&upper, None, Some(dating())).unwrap(), layer);
        let other = Place::new();
        assert_eq!(other.layers.import(&mut tar.as_slice(), Some(&layer.diff_id)).unwrap().diff_id, layer.diff_id);
        assert_eq!(time(&other), 1_000_000_000);
        assert_eq!(other.layers.commit(&upper, None, Some(dating())).unwrap().diff_id, layer.diff_id);
        assert_eq!(place.names().len(), 1);
    }
}

#[test]
fn nothing_written_is_the_layer_that_everybody_knows() {
    for place in both() {
        let upper = place.path("upper");
        fs::create_dir(&upper).unwrap();
        let layer = place.layers.commit(&upper, None, None).unwrap();
        assert_eq!(layer.diff_id.as_str(), "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
        assert_eq!(place.written(&layer.diff_id), [0; 1024]);
    }
}

#[test]
fn the_same_layer_compresses_to_the_same_blob() {
    let (here, there) = (Place::new(), Place::new());
    let tar = Tar::default().file("f", &vec![3; 100_000]).end();
    let [one, two] = [&here, &there].map(|place| {
        let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
        place.layers.compressed(&layer.diff_id, None).unwrap()
    });
    assert_eq!(one, two);
    // Found the second time, and a way to the tar when the recipe is lost.
    let diff_id = Digest::sha256(&tar);
    assert_eq!(here.layers.compressed(&diff_id, None).unwrap(), one);
    assert_eq!(here.layers.get(&diff_id).unwrap().unwrap().blobs, [one]);
    fs::remove_file(here.path("data/layers").join(diff_id.hex()).join("recipe")).unwrap();
    assert!(here.written(&diff_id) == tar);
}

#[test]
fn a_layer_comes_once_however_many_bring_it() {
    for place in both() {
        let tar = Tar::default().file("f", &vec![9; 1 << 20]).end();
        let diff_id = Digest::sha256(&tar);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| place.layers.import(&mut tar.as_slice(), Some(&diff_id)).unwrap());
            }
        });
        assert_eq!(place.names(), [diff_id.hex()]);
        assert!(place.layers.remove(&diff_id).unwrap() && !place.layers.contains(&diff_id));
        assert!(!place.layers.remove(&diff_id).unwrap());
        assert!(place.names().is_empty());
    }
}

#[test]
fn what_was_just_made_is_held() {
    for place in both() {
        let tar = Tar::default().file("f", b"x").end();
        let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
        let diff_id = layer.diff_id.clone();
        assert!(!place.layers.remove(&diff_id).unwrap() && place.layers.contains(&diff_id));
        let hold = place.layers.hold(std::slice::from_ref(&diff_id));
        drop(layer);
        assert!(place.layers.discard(std::slice::from_ref(&diff_id)).unwrap().diff_ids().is_empty());
        // What is known of it holds nothing.
        let known = place.layers.get(&diff_id).unwrap().unwrap();
        drop(hold);
        assert!(place.layers.remove(&diff_id).unwrap() && !place.layers.contains(&diff_id));
        assert_eq!(known.diff_id, diff_id);
    }
}

#[test]
fn a_layer_with_holes_keeps_them_and_its_bytes() {
    for place in both() {
        let source = place.path("source");
        fs::create_dir(&source).unwrap();
        let file = fs::File::create(source.join("sparse")).unwrap();
        file.set_len(32 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 16 << 20).unwrap();
        for form in ["--format=gnu", "--format=pax"] {
            let output =
                std::process::Command::new("tar").args([form, "-S", "-cf", "-", "-C"]).arg(&source).arg(".").output();
            let tar = output.unwrap().stdout;
            let layer = place.layers.import(&mut tar.as_slice(), None).unwrap();
            assert!(place.written(&layer.diff_id) == tar);
            let found = fs::metadata(place.tree(&layer.diff_id, "sparse")).unwrap();
            // EROFS has no number for what of a file are holes.
            let taken = if layer.form == Storage::Dirs { found.blocks() * 512 } else { 0 };
            assert_eq!((found.len(), taken < 1 << 20, layer.disk < 1 << 20), (32 << 20, true, true));
        }
    }
}

/// Archives of a few names that replace each other in every way: whatever is taken comes out as it went in, and is the same
/// in both forms.
#[test]
fn whatever_is_taken_comes_out_as_it_went_in() {
    const NAMES: [&str; 12] = [
        "a",
        "a/b",
        "a/b/c",
        "b",
        "b/a",
        "link",
        "link/x",
        "a/link",
        ".wh.a",
        "a/.wh..wh..opq",
        "a/.wh.b",
        "link/.wh.x",
    ];
    let places: Vec<Place> = both().collect();
    let mut state = u64::from(std::process::id()) | 1;
    println!("seed {state}");
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut taken, mut refused) = (0, 0);
    for round in 0..200 {
        let mut tar = Tar::default();
        let mut said = Vec::new();
        for entry in 0..2 + next(12) {
            let (name, other) = (NAMES[next(NAMES.len())], NAMES[next(NAMES.len())]);
            let kind = next(8);
            said.push((kind, name, other));
            tar = match kind {
                0 | 1 => tar.dir(name),
                2 => tar.entry(name, b'2', other),
                3 => tar.entry(name, b'1', other),
                _ => tar.file(name, format!("{round} {entry} ").repeat(next(400)).as_bytes()),
            };
        }
        let bytes = tar.end();
        let mut trees = Vec::new();
        for place in &places {
            match place.layers.import(&mut bytes.as_slice(), None) {
                Ok(layer) => {
                    taken += 1;
                    assert!(place.written(&layer.diff_id) == bytes, "round {round}");
                    let diff_id = layer.diff_id.clone();
                    forms::fsck(place, &diff_id);
                    trees.push(Some(forms::seen(&place.tree(&diff_id, ""), false)));
                    place.looked_at.borrow_mut().clear();
                    drop(layer);
                    assert!(place.layers.remove(&diff_id).unwrap());
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.is_bad_layer(), "round {round}: {error:?}");
                    trees.push(None);
                }
            }
            assert!(place.names().is_empty());
        }
        for two in trees.windows(2) {
            forms::assert_same(&format!("round {round}: {said:?}"), two[0].as_ref(), two[1].as_ref());
        }
    }
    assert!(taken > 20 && refused > 20, "{taken} taken, {refused} refused");
}
