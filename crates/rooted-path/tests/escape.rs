//! What a hostile tree tries, against a canary outside of the root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::FileType;
use wharf_rooted_path::RootDir;

/// A directory with a canary, and a root beside it.
struct Trap {
    outside: tempfile::TempDir,
    root: RootDir,
}

impl Trap {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("canary"), "alive").unwrap();
        fs::create_dir(outside.path().join("root")).unwrap();
        let root = RootDir::open(outside.path().join("root")).unwrap();
        Self { outside, root }
    }

    fn inside(&self, path: &str) -> std::path::PathBuf {
        self.outside.path().join("root").join(path)
    }

    fn assert_alive(&self) {
        assert_eq!(fs::read_to_string(self.outside.path().join("canary")).unwrap(), "alive");
        let mut names: Vec<_> = fs::read_dir(self.outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "root"], "nothing may appear outside");
    }
}

#[test]
fn dots_stay_below_the_root() {
    let trap = Trap::new();
    assert!(trap.root.open_file("../canary").unwrap_err().is_not_found());
    trap.root.mkdir_all("../../a/../b", 0o755).unwrap();
    assert!(trap.inside("b").is_dir());
    trap.assert_alive();
}

#[test]
fn links_are_followed_as_the_container_would() {
    let trap = Trap::new();
    fs::create_dir(trap.inside("etc")).unwrap();
    fs::write(trap.inside("etc/real"), "inside").unwrap();
    symlink("/etc/real", trap.inside("absolute")).unwrap();
    symlink(trap.outside.path(), trap.inside("out")).unwrap();
    assert_eq!(trap.root.read_small("absolute", 64).unwrap(), b"inside");
    assert!(trap.root.create_file("out/new", 0o644).is_err());
    assert!(trap.root.remove_file("out/canary").is_err());
    trap.assert_alive();
}

#[test]
fn a_dangling_link_is_not_made_into_a_directory() {
    let trap = Trap::new();
    symlink("../elsewhere", trap.inside("dangling")).unwrap();
    assert!(trap.root.mkdir_all("dangling/x", 0o755).is_err());
    trap.assert_alive();
}

#[test]
fn attributes_of_a_link_are_never_those_of_its_target() {
    let trap = Trap::new();
    let canary = trap.outside.path().join("canary");
    symlink(&canary, trap.inside("link")).unwrap();
    let before = fs::metadata(&canary).unwrap();
    trap.root.set_mode("link", 0o777).unwrap();
    trap.root.set_owner("link", 1234, 1234).unwrap();
    let after = fs::metadata(&canary).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
    assert_eq!(trap.root.metadata("link", false).unwrap().st_uid, 1234);
}

#[test]
fn the_root_itself_has_attributes() {
    let trap = Trap::new();
    trap.root.set_xattr("", OsStr::new("user.key"), b"value").unwrap();
    assert_eq!(trap.root.xattrs("").unwrap(), [("user.key".into(), b"value".to_vec())]);
    assert!(RootDir::open(trap.outside.path()).unwrap().xattrs("").unwrap().is_empty());
}

#[test]
fn places_for_mounts_are_made_where_dangling_links_lead_inside() {
    let trap = Trap::new();
    symlink("/run/../gone/stub", trap.inside("absolute")).unwrap();
    symlink("../../../canary-not", trap.inside("up")).unwrap();
    symlink("absolute", trap.inside("twice")).unwrap();
    symlink("circle", trap.inside("circle")).unwrap();
    for (path, place, directory) in [
        ("twice", "gone/stub", false),
        ("/up", "canary-not", false),
        ("new/dir", "new/dir", true),
        ("up2/file", "up2/file", false),
    ] {
        trap.root.mount_point(path, directory).unwrap();
        let made = fs::symlink_metadata(trap.inside(place)).unwrap();
        assert!(made.is_dir() == directory && made.is_file() != directory, "{path}");
        trap.root.mount_point(path, directory).unwrap();
    }
    assert!(trap.root.mount_point("circle", false).is_err());
    trap.assert_alive();
}

#[test]
fn a_fifo_does_not_block_and_is_no_file() {
    let trap = Trap::new();
    trap.root.mknod("fifo", FileType::Fifo, 0o644, 0).unwrap();
    assert!(trap.root.open_file("fifo").is_err());
    assert!(trap.root.read_small("fifo", 10).is_err());
}

#[test]
fn reading_is_bounded() {
    let trap = Trap::new();
    fs::write(trap.inside("large"), vec![0; 100]).unwrap();
    assert!(trap.root.read_small("large", 99).is_err());
    assert_eq!(trap.root.read_small("large", 100).unwrap().len(), 100);
}

#[test]
fn a_tree_deeper_than_there_are_fds_is_removed() {
    let trap = Trap::new();
    trap.root.mkdir_all("top", 0o755).unwrap();
    let mut here = trap.root.open_dir("top").unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        drop(here.create_file("file", 0o644).unwrap());
        here = here.open_dir("d").unwrap();
    }
    drop(here);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(256), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let removed = trap.root.remove_all("top");
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    removed.unwrap();
    assert!(!trap.inside("top").exists());
    trap.assert_alive();
}

#[test]
fn removing_a_tree_takes_links_and_not_their_targets() {
    let trap = Trap::new();
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
    fs::create_dir_all(trap.inside("tree").join(deep)).unwrap();
    symlink(trap.outside.path(), trap.inside("tree/out")).unwrap();
    fs::write(trap.inside("tree/file"), "x").unwrap();
    trap.root.remove_all("tree").unwrap();
    trap.root.remove_all("tree").unwrap();
    assert!(!trap.inside("tree").exists());
    trap.assert_alive();
}

#[test]
fn links_nodes_and_names_are_literal() {
    let trap = Trap::new();
    trap.root.create_file("a", 0o600).unwrap();
    trap.root.hard_link("a", "b").unwrap();
    trap.root.symlink(OsStr::new("/x/y"), "s").unwrap();
    assert_eq!(trap.root.read_link("s").unwrap(), "/x/y");
    assert_eq!(trap.root.read_dir("").unwrap(), ["a", "b", "s"]);
    assert!(trap.root.create_file("s", 0o600).is_err(), "a link is not written through");
    assert!(trap.root.open_parent("/").is_err());
    assert!(trap.root.open_parent("a/..").is_err());
    assert_eq!(trap.root.open_parent("x").unwrap().1, Path::new("x"));
}
