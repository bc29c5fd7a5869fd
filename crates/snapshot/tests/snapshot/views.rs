use std::fs;

use wharf_snapshot::Layer;

use crate::tar::Tar;
use crate::{Place, both};

fn import(place: &Place, tar: Tar) -> Layer {
    place.layers.import(&mut tar.end().as_slice(), None).unwrap()
}

#[test]
fn layers_lie_on_each_other() {
    for place in both() {
        let base = import(&place, Tar::default().dir("d").file("d/old", b"old").file("f", b"base").file("g", b"g"));
        let middle =
            import(&place, Tar::default().file(".wh.g", b"").dir("d").file("d/.wh..wh..opq", b"").file("d/new", b"n"));
        let top = import(&place, Tar::default().file("f", b"top"));
        let ids = [base.diff_id.clone(), middle.diff_id.clone(), top.diff_id.clone()];
        let view = place.layers.view(&ids, None).unwrap();
        assert_eq!(view.read_small("f", 10).unwrap(), b"top");
        assert_eq!(view.read_dir("").unwrap(), ["d", "f"]);
        assert_eq!(view.read_dir("d").unwrap(), ["new"]);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(place.dir.path().to_str().unwrap()), "it is in no table of mounts");
        // A single layer's whiteouts are not seen.
        let alone = place.layers.view(&ids[1..2], None).unwrap();
        assert_eq!(alone.read_dir("").unwrap(), ["d"]);
        // The same layer twice, and none at all.
        let twice = place.layers.view(&[ids[0].clone(), ids[2].clone(), ids[0].clone()], None).unwrap();
        assert_eq!(twice.read_small("f", 10).unwrap(), b"base");
        assert!(place.layers.view(&[], None).unwrap().read_dir("").unwrap().is_empty());
    }
}

#[test]
fn what_is_written_goes_to_the_upper_directory() {
    for place in both() {
        let base = import(&place, Tar::default().file("f", b"base"));
        let (upper, work) = (place.path("upper"), place.path("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let ids = [base.diff_id];
        {
            let view = place.layers.view(&ids, Some((&upper, &work))).unwrap();
            view.remove_file("f").unwrap();
            view.mkdir_all("new", 0o755).unwrap();
        }
        let change = place.layers.commit(&upper, None, None).unwrap();
        let view = place.layers.view(&[ids[0].clone(), change.diff_id], None).unwrap();
        assert_eq!(view.read_dir("").unwrap(), ["new"]);
        // Beside a container that writes: the upper directory is only looked at.
        let view = place.layers.stacked(&ids, &[upper], &[]).unwrap();
        assert_eq!(view.read_dir("").unwrap(), ["new"]);
    }
}

#[test]
fn a_whiteout_that_hides_nothing_is_left_out_of_an_archive() {
    for place in both() {
        let base = import(&place, Tar::default().file("f", b"x"));
        // Nothing to join this directory with: overlayfs lists the whiteout, and has nothing under its name.
        let top = import(&place, Tar::default().dir("d").file("d/.wh.gone", b"").file("d/new", b"n"));
        let view = place.layers.view(&[base.diff_id.clone(), top.diff_id.clone()], None).unwrap();
        let mut bytes = Vec::new();
        wharf_archive::pack(&view, std::path::Path::new(""), &mut bytes, &wharf_archive::PackOptions::default())
            .unwrap();
        let mut reader = wharf_archive::Reader::new(bytes.as_slice());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        assert_eq!(names, ["d/", "d/new", "f"]);
    }
}

#[test]
fn a_name_removed_and_made_again_in_one_layer_hides_what_was_below() {
    for place in both() {
        let base = import(&place, Tar::default().dir("d").file("d/old", b"old").dir("e").file("e/old", b"old"));
        let tar = Tar::default()
            .file(".wh.d", b"")
            .dir("d")
            .file("d/new", b"1")
            .dir("e")
            .file("e/new", b"2")
            .file(".wh.e", b"");
        let top = import(&place, tar);
        let view = place.layers.view(&[base.diff_id, top.diff_id], None).unwrap();
        assert_eq!(view.read_dir("d").unwrap(), ["new"]);
        assert_eq!(view.read_dir("e").unwrap(), ["new"]);
    }
}
