use super::*;

fn below() -> (tempfile::TempDir, RootDir) {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("run/lock")).unwrap();
    std::fs::create_dir_all(at("var")).unwrap();
    std::fs::write(at("file"), "x").unwrap();
    std::os::unix::fs::symlink("/run", at("var/run")).unwrap();
    std::os::unix::fs::symlink("../../../../etc", at("var/up")).unwrap();
    std::os::unix::fs::symlink("/nowhere/yet", at("dangling")).unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    let root = RootDir::open(dir.path()).unwrap();
    (dir, root)
}

fn file(text: &str) -> Entry {
    let attributes = Attributes { kind: Kind::File, mode: 0o640, owner: (0, 0), mtime: (7, 0), xattrs: Vec::new() };
    Entry { attributes, content: Content::Bytes(text.into()) }
}

#[test]
fn links_are_resolved_inside_the_root() {
    let (_dir, root) = below();
    let plan = Plan::new(&root, (0, 0), (0, 0));
    for (path, real) in [
        ("/var/run/x", "run/x"),
        ("var/up/passwd", "etc/passwd"),
        ("/../../x", "x"),
        ("/dangling/f", "nowhere/yet/f"),
        ("/new/dir", "new/dir"),
        ("/", ""),
        ("var/run/..", ""),
    ] {
        assert_eq!(plan.resolve(Path::new(path)).unwrap(), Path::new(real), "{path}");
    }
    assert!(plan.resolve(Path::new("/loop/x")).is_err());
}

#[test]
fn conflicts_are_found_before_anything_is_written() {
    let (_dir, root) = below();
    let mut plan = Plan::new(&root, (0, 0), (0, 0));
    assert!(plan.put(Path::new("run"), file("")).is_err());
    assert!(plan.put(Path::new("file/x"), file("")).is_err());
    assert!(plan.directory(Path::new("file")).is_err());
    plan.put(Path::new("a/b"), file("")).unwrap();
    assert!(plan.directory(Path::new("a/b/c")).is_err());
}

#[test]
fn an_archive_replaces_what_is_in_its_way() {
    let (_dir, root) = below();
    let mut plan = Plan::new(&root, (0, 0), (0, 0));
    let directory = || {
        let attributes =
            Attributes { kind: Kind::Directory, mode: 0o755, owner: (0, 0), mtime: (0, 0), xattrs: Vec::new() };
        Entry { attributes, content: Content::Nothing }
    };
    // The link is a directory now, and what it led to is not in it.
    plan.replace(Path::new("var/run"), directory()).unwrap();
    assert_eq!(plan.kind(Path::new("var/run/lock")).unwrap(), None);
    plan.replace(Path::new("var/run/lock"), file("x")).unwrap();
    assert_eq!(plan.resolve(Path::new("var/run/lock")).unwrap(), Path::new("var/run/lock"));
    // And a file again, with nothing below it.
    plan.replace(Path::new("var/run"), file("y")).unwrap();
    assert!(plan.directory(Path::new("var/run/lock")).is_err());
    let mut bytes = Vec::new();
    plan.pack(&mut bytes, None, &Cancel::new().unwrap()).unwrap();
    let mut reader = wharf_archive::Reader::new(bytes.as_slice());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    assert_eq!(names, ["var/", "var/run"]);
}

#[test]
fn what_is_written_has_what_was_decided() {
    let (dir, root) = below();
    std::os::unix::fs::chown(dir.path().join("run"), Some(5), Some(6)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut plan = Plan::new(&root, (1, 2), (100, 5));
    plan.put(Path::new("run/new/f"), file("text")).unwrap();
    plan.write(&RootDir::open(out.path()).unwrap(), &Cancel::new().unwrap()).unwrap();
    let written = RootDir::open(out.path()).unwrap();
    let stat = |path: &str| written.metadata(path, false).unwrap();
    assert_eq!(written.read_small("run/new/f", 10).unwrap(), b"text");
    assert_eq!((stat("run").st_uid, stat("run").st_gid), (5, 6));
    assert_eq!((stat("run/new").st_uid, stat("run/new").st_mtime, stat("run/new").st_mtime_nsec), (1, 100, 5));
    assert_eq!((stat("run/new/f").st_mode & 0o7777, stat("run/new/f").st_mtime), (0o640, 7));
}
