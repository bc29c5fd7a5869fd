//! Both forms of a layer show the same files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::buffer::spare_capacity;
use rustix::fs::{lgetxattr, llistxattr};
use wharf_reference::Digest;
use wharf_snapshot::{SnapshotError, Storage};

use crate::tar::Tar;
use crate::{Place, both, open, round_trip};

/// What a name in a tree tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    mode: u32,
    owner: (u32, u32),
    /// Not of a whiteout; a directory's only if the archive has told of it.
    mtime: Option<(i64, i64)>,
    device: u64,
    /// The first of its names. (Their number counts what a tree keeps of files that were replaced.)
    first: Option<PathBuf>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
}

pub(crate) type Tree = BTreeMap<PathBuf, Seen>;

/// All that is in a tree; with `times`, those of directories as well.
pub(crate) fn seen(root: &Path, times: bool) -> Tree {
    let mut all = BTreeMap::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        // The dot, so that a link to the root is followed.
        let place = if path.as_os_str().is_empty() { root.join(".") } else { root.join(&path) };
        let stat = fs::symlink_metadata(&place).unwrap();
        let directory = stat.is_dir();
        if directory {
            let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            // So that the first name of a file is the same in both.
            names.sort();
            left.extend(names.into_iter().rev().map(|name| path.join(name)));
        }
        let content = match stat.file_type() {
            kind if kind.is_file() => fs::read(&place).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&place).unwrap().as_os_str().as_bytes().to_vec(),
            _ => Vec::new(),
        };
        let mut list = Vec::with_capacity(4096);
        llistxattr(&place, spare_capacity(&mut list)).unwrap();
        let value = |key: &[u8]| {
            let mut value = Vec::with_capacity(4096);
            lgetxattr(&place, OsStr::from_bytes(key), spare_capacity(&mut value)).unwrap();
            (key.to_vec(), value)
        };
        let whiteout = stat.file_type().is_char_device() && stat.rdev() == 0;
        let itself = first.entry(stat.ino()).or_insert_with(|| path.clone()).clone();
        all.insert(
            path,
            Seen {
                mode: stat.mode(),
                owner: (stat.uid(), stat.gid()),
                mtime: (times || !directory && !whiteout).then_some((stat.mtime(), stat.mtime_nsec())),
                device: stat.rdev(),
                first: (!directory).then_some(itself),
                xattrs: list.split(|byte| *byte == 0).filter(|key| !key.is_empty()).map(value).collect(),
                content,
            },
        );
    }
    all
}

/// Fails with the first difference; one that was refused is none.
pub(crate) fn assert_same(what: &str, one: Option<&Tree>, other: Option<&Tree>) {
    let (Some(one), Some(other)) = (one, other) else {
        assert!(one.is_none() && other.is_none(), "{what}: taken {}, {}", one.is_some(), other.is_some());
        return;
    };
    for path in one.keys().chain(other.keys()) {
        assert_eq!(one.get(path), other.get(path), "{what}: `{}`", path.display());
    }
}

/// Fails if `fsck.erofs` (erofs-utils) finds something wrong with a layer's image.
pub(crate) fn fsck(place: &Place, diff_id: &Digest) {
    let image = place.layer(diff_id).join("image");
    if place.layers.form() == Storage::Erofs {
        let output = match Command::new("fsck.erofs").arg("--extract").arg(&image).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return eprintln!("skipped: fsck.erofs is not installed (erofs-utils)");
            }
            output => output.expect("fsck.erofs runs"),
        };
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("<E>"), "{said}");
    }
}

#[test]
fn a_tree_is_the_same_in_both_forms() {
    let places: Vec<Place> = both().collect();
    let source = places[0].path("source");
    round_trip::tree(&source);
    fs::create_dir(source.join("acl")).unwrap();
    let acl =
        [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255];
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(source.join("acl"), "system.posix_acl_default", &acl, none).unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(source.join("usr/bin/tool"), "security.capability", &capability, none).unwrap();
    let output = Command::new("tar")
        .args(["--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "-cC"])
        .args([source.as_os_str(), OsStr::new(".")])
        .output()
        .unwrap();
    let mut trees = Vec::new();
    for place in &places {
        let diff_id = place.layers.import(&mut output.stdout.as_slice(), None).unwrap().diff_id;
        fsck(place, &diff_id);
        trees.push(seen(&place.tree(&diff_id, ""), true));
    }
    assert!(trees[0].len() > 14, "{:?}", trees[0].keys());
    assert!(trees[0][Path::new("usr/bin/tool")].xattrs.contains_key(b"security.capability".as_slice()));
    assert!(trees[0][Path::new("acl")].xattrs.contains_key(b"system.posix_acl_default".as_slice()));
    assert!(trees[0][Path::new("empty")].xattrs.contains_key(b"user.colour".as_slice()));
    for two in trees.windows(2) {
        assert_same("a tree", Some(&two[0]), Some(&two[1]));
    }
}

#[test]
fn a_data_root_has_layers_of_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data");
    let base = Tar::default().dir("d").file("d/old", b"old").file("f", b"base").end();
    let top = Tar::default().dir("d").file("d/.wh.old", b"").file("d/new", b"n").end();
    let import = |form, tar: &Vec<u8>| {
        let layers = open(&root, form);
        layers.import(&mut tar.as_slice(), None).map(|layer| (layer.diff_id.clone(), layer.form)).unwrap()
    };
    let (low, form) = import(Some(Storage::Dirs), &base);
    assert_eq!(form, Storage::Dirs);
    let (high, form) = import(None, &top);
    println!("the upper one: {form:?}");
    let layers = open(&root, Some(Storage::Dirs));
    let view = layers.view(&[low.clone(), high.clone()], None).unwrap();
    assert_eq!(view.read_dir("d").unwrap(), ["new"]);
    let devices = ["", "d", "d/new", "f"].map(|path| view.metadata(path, false).unwrap().st_dev);
    assert!(devices.iter().all(|device| *device == devices[0]), "one file system for whoever looks: {devices:?}");
    for diff_id in [&low, &high] {
        layers.verify(diff_id).unwrap();
        assert!(layers.remove(diff_id).unwrap());
        assert!(matches!(layers.lowers(std::slice::from_ref(diff_id)), Err(SnapshotError::NotFound(_))));
    }
    // What is mounted has all that it had, though its file has gone.
    if form == Storage::Erofs {
        assert_eq!(view.read_small("d/new", 9).unwrap(), b"n");
    }
}

#[test]
fn an_image_is_mounted_once_and_lets_go_of_its_file() {
    let Some(place) = Place::of(Storage::Erofs) else { return };
    let layer = place.layers.import(&mut Tar::default().file("f", &[7; 10_000]).end().as_slice(), None).unwrap();
    let id = layer.diff_id.clone();
    let device = || fs::metadata(place.tree(&id, "f")).unwrap().dev();
    let first = device();
    assert_eq!(device(), first, "another mount would have another number");
    let image = place.layer(&id).join("image");
    assert_eq!(
        layer.disk,
        ["image", "recipe", "."]
            .map(|name| fs::metadata(place.layer(&id).join(name)).unwrap().blocks() * 512)
            .iter()
            .sum::<u64>()
    );
    assert_eq!(fs::metadata(&image).unwrap().mode() & 0o777, 0o600);
    drop(layer);
    place.looked_at.borrow_mut().clear();
    assert!(place.layers.remove(&id).unwrap());
    // Made again it is another file.
    let again = place.layers.import(&mut Tar::default().file("f", &[7; 10_000]).end().as_slice(), None).unwrap();
    assert_eq!(again.diff_id, id);
    fs::read(place.tree(&id, "f")).unwrap();
    assert_eq!(place.names(), [id.hex()]);
}

#[test]
fn images_are_asked_for_where_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(dir.path()).status().unwrap();
    assert!(mounted.success());
    let store = crate::store(dir.path());
    let refused = wharf_snapshot::Layers::open_as(store.clone(), Some(Storage::Erofs)).map(drop);
    let chosen =
        wharf_snapshot::Layers::open(store).map(|layers| (layers.form(), layers.no_images().map(str::to_owned)));
    Command::new("umount").arg("--lazy").arg(dir.path()).status().unwrap();
    let error = refused.unwrap_err().to_string();
    assert!(error.starts_with("layers cannot be EROFS images here: "), "{error}");
    let (form, why) = chosen.unwrap();
    assert_eq!(form, Storage::Dirs);
    assert!(error.ends_with(&why.unwrap()));
}
