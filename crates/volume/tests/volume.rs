//! Volumes on a real disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use wharf_rooted_path::RootDir;
use wharf_store::Store;
use wharf_volume::{CreateVolume, ErrorKind, Volumes};

fn open(root: &Path) -> Volumes {
    Volumes::open(Store::open(root).unwrap()).unwrap()
}

fn named(name: &str) -> CreateVolume {
    CreateVolume { name: name.into(), ..CreateVolume::default() }
}

fn nobody(_: &str) -> Vec<String> {
    Vec::new()
}

#[test]
fn a_volume_is_made_found_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = volumes.create(&CreateVolume { labels: labels.clone(), ..named("data") }).unwrap();
    assert_eq!((made.name.as_str(), made.driver.as_str(), made.anonymous), ("data", "local", false));
    assert_eq!(made.mountpoint, root.path().join("volumes/data/_data"));
    assert!(made.mountpoint.is_dir());
    assert_eq!(volumes.create(&named("data")).unwrap(), made, "once more is the same");
    assert_eq!(volumes.get("data").unwrap().labels, labels);
    let anonymous = volumes.create(&CreateVolume::default()).unwrap();
    assert!(anonymous.anonymous && anonymous.name.len() == 64);
    assert_eq!(volumes.list().unwrap().len(), 2);

    fs::write(made.mountpoint.join("file"), vec![7; 100_000]).unwrap();
    fs::hard_link(made.mountpoint.join("file"), made.mountpoint.join("again")).unwrap();
    let size = volumes.size("data").unwrap();
    assert!((100_000..150_000).contains(&size), "{size}");

    let error = volumes.remove("data", false, &|_| vec!["0123".into(), "4567".into()]).unwrap_err();
    assert_eq!(error.to_string(), "remove data: volume is in use - [0123, 4567]");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    drop(volumes);
    let volumes = open(root.path());
    assert_eq!(volumes.get("data").unwrap(), made);
    volumes.remove("data", false, &nobody).unwrap();
    assert!(!root.path().join("volumes/data").exists());
    assert_eq!(volumes.get("data").unwrap_err().to_string(), "get data: no such volume");
    assert_eq!(volumes.remove("data", false, &nobody).unwrap_err().kind(), ErrorKind::NotFound);
    volumes.remove("data", true, &nobody).unwrap();
}

#[test]
fn what_is_not_accepted_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let option =
        |key: &str| CreateVolume { options: BTreeMap::from([(key.to_owned(), "x".to_owned())]), ..named("data") };
    for (request, kind) in [
        (named("a"), ErrorKind::Invalid),
        (named("../x"), ErrorKind::Invalid),
        (named(".removing-x"), ErrorKind::Invalid),
        (CreateVolume { driver: "nfs".into(), ..named("data") }, ErrorKind::NotFound),
        (option("device"), ErrorKind::Invalid),
        (option("colour"), ErrorKind::Invalid),
    ] {
        assert_eq!(volumes.create(&request).unwrap_err().kind(), kind, "{request:?}");
    }
    assert_eq!(volumes.list().unwrap(), []);
    for name in ["", "..", "a/b", "../../etc"] {
        assert!(volumes.get(name).is_err(), "{name}");
        assert!(volumes.remove(name, false, &nobody).is_err(), "{name}");
    }
}

#[test]
fn prune_takes_what_nobody_named_and_nobody_has() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    let mine = volumes.create(&named("mine")).unwrap();
    let used = volumes.create(&CreateVolume::default()).unwrap();
    let unused = volumes.create(&CreateVolume::default()).unwrap();
    fs::write(unused.mountpoint.join("file"), vec![7; 10_000]).unwrap();
    let in_use = |name: &str| if name == used.name { vec!["0123".to_owned()] } else { Vec::new() };
    let (gone, bytes) = volumes.prune(false, &|_| true, &in_use).unwrap();
    assert_eq!(gone, [unused.name]);
    assert!(bytes >= 10_000);
    assert_eq!(volumes.prune(true, &|volume| volume.name != "mine", &in_use).unwrap().0, [""; 0]);
    assert_eq!(volumes.prune(true, &|_| true, &in_use).unwrap().0, [mine.name]);
}

#[test]
fn a_removal_that_a_crash_interrupted_is_finished() {
    let root = tempfile::tempdir().unwrap();
    let volumes = open(root.path());
    // So long that nothing of ours has room before it.
    let (long, longer) = (format!("{}z", "l".repeat(254)), format!("{}y", "l".repeat(254)));
    for name in ["half", "anew", &long, &longer] {
        let made = volumes.create(&named(name)).unwrap();
        fs::write(made.mountpoint.join("file"), "x").unwrap();
    }
    drop(volumes);
    let dir = root.path().join("volumes");
    // The crash came before the row was deleted; and after, when a new volume of the name was there already.
    fs::rename(dir.join("half"), dir.join(".removing-half")).unwrap();
    fs::create_dir_all(dir.join(".removing-anew/_data")).unwrap();
    fs::rename(dir.join(&long), dir.join(format!(".removing-{}", &long[long.len() - 239..]))).unwrap();
    // Nobody's, and not empty: it stays.
    fs::create_dir_all(dir.join("stray/_data")).unwrap();
    fs::write(dir.join("stray/_data/file"), "x").unwrap();
    let volumes = open(root.path());
    assert_eq!(volumes.list().unwrap().into_iter().map(|volume| volume.name).collect::<Vec<_>>(), ["anew", &longer]);
    volumes.remove(&longer, false, &nobody).unwrap();
    assert!(volumes.get(&longer).is_err() && !dir.join(&longer).exists());
    assert!(volumes.path("anew").join("file").exists());
    assert!(!dir.join(".removing-half").exists() && !dir.join(".removing-anew").exists());
    assert!(dir.join("stray/_data/file").exists());
}

/// An image's file system with a directory `srv` in it.
fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    let srv = image.path().join("srv");
    fs::create_dir_all(srv.join("sub")).unwrap();
    fs::write(srv.join("sub/file"), "content").unwrap();
    fs::hard_link(srv.join("sub/file"), srv.join("same")).unwrap();
    fs::write(srv.join(".wh.name"), "").unwrap();
    symlink("/etc/passwd", srv.join("link")).unwrap();
    fs::set_permissions(srv.join("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(&srv, fs::Permissions::from_mode(0o1770)).unwrap();
    let lsetxattr =
        |path: &Path, key: &str| rustix::fs::lsetxattr(path, key, b"value", rustix::fs::XattrFlags::empty());
    if lsetxattr(&srv, "user.mark").is_err() {
        eprintln!("the file system has no attributes");
    }
    if rustix::process::geteuid().is_root() {
        chown(srv.join("sub/file"), Some(100), Some(101)).unwrap();
        fs::set_permissions(srv.join("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
        chown(&srv, Some(102), Some(103)).unwrap();
    }
    image
}

#[test]
fn an_empty_volume_is_filled_from_the_image_once() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let volumes = open(root.path());
    let data = volumes.create(&named("data")).unwrap().mountpoint;
    let source = RootDir::open(image.path()).unwrap();
    volumes.copy_up("data", "", &source, "/srv").unwrap();
    assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "content");
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(data.join(".wh.name").exists(), "a name, not a whiteout");
    let (file, same) = (fs::metadata(data.join("sub/file")).unwrap(), fs::metadata(data.join("same")).unwrap());
    assert_eq!((file.ino(), file.nlink(), file.mode() & 0o7777), (same.ino(), 2, 0o4750));
    let (own, from) = (fs::metadata(&data).unwrap(), fs::metadata(image.path().join("srv")).unwrap());
    assert_eq!((own.mode(), own.uid(), own.gid(), own.mtime()), (from.mode(), from.uid(), from.gid(), from.mtime()));
    if rustix::process::geteuid().is_root() {
        assert_eq!((file.uid(), file.gid(), own.uid()), (100, 101, 102));
    }
    let marks =
        |dir: &RootDir, path| dir.xattrs(path).unwrap().into_iter().filter(|(key, _)| key == "user.mark").count();
    let volume = RootDir::open(&data).unwrap();
    assert_eq!(marks(&volume, OsStr::new("")), marks(&source, OsStr::new("srv")));
    assert!(!data.with_file_name(".filling").exists());

    fs::remove_file(data.join("same")).unwrap();
    volumes.copy_up("data", "", &source, "/srv").unwrap();
    assert!(!data.join("same").exists(), "it is not empty, so it stays as it is");
}

#[test]
fn what_a_crash_left_half_filled_is_filled_anew() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let volumes = open(root.path());
    let data = volumes.create(&named("data")).unwrap().mountpoint;
    fs::write(data.join("half"), "").unwrap();
    fs::write(data.with_file_name(".filling"), ".").unwrap();
    volumes.copy_up("data", "", &RootDir::open(image.path()).unwrap(), "srv").unwrap();
    assert!(!data.join("half").exists() && data.join("sub/file").exists());
}

#[test]
fn links_of_an_image_lead_nowhere_else() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("secret"), "x").unwrap();
    symlink(secret.path(), image.path().join("out")).unwrap();
    symlink("../../../../srv", image.path().join("in")).unwrap();
    let volumes = open(root.path());
    let source = RootDir::open(image.path()).unwrap();
    for (name, path) in [("v1", "/out"), ("v2", "/nothing"), ("v3", "/../../..")] {
        let data = volumes.create(&named(name)).unwrap().mountpoint;
        volumes.copy_up(name, "", &source, path).unwrap();
        assert!(!data.join("secret").exists(), "{path}");
    }
    let data = volumes.create(&named("v4")).unwrap().mountpoint;
    volumes.copy_up("v4", "", &source, "/in").unwrap();
    assert!(data.join("sub/file").exists());
    volumes.create(&named("v5")).unwrap();
    let error = volumes.copy_up("v5", "", &source, "/srv/sub/file").unwrap_err().to_string();
    assert_eq!(error, "cannot mount a volume over `/srv/sub/file`");
}

#[test]
fn many_at_once_make_and_fill_one_volume() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    for number in 0..200 {
        fs::write(image.path().join(format!("srv/f{number}")), "x").unwrap();
    }
    let volumes = open(root.path());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                volumes.create(&named("data")).unwrap();
                volumes.copy_up("data", "", &RootDir::open(image.path()).unwrap(), "/srv").unwrap();
                assert_eq!(fs::read_dir(volumes.path("data")).unwrap().count(), 204, "filled, whoever did it");
            });
        }
    });
}
