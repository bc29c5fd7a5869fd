//! Honest archives come through whole, and are read by other programs.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Bytes, and how many of them a file takes.
fn extent(path: &Path) -> (u64, u64) {
    let found = fs::metadata(path).unwrap();
    (found.len(), found.blocks() * 512)
}

fn archive_of(source: &Trap, form: &str, names: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(if form.starts_with("--sparse") { vec!["--format=pax", form] } else { vec![form] });
    let output = tar.args(["-S", "-cf", "-", "-C"]).arg(source.inside("")).args(names).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Ours, which GNU tar has to read, too.
fn with_holes(source: &Trap) -> Vec<u8> {
    let mut archive = Vec::new();
    let options = PackOptions { holes: true, ..PackOptions::default() };
    pack(&source.root(), Path::new(""), &mut archive, &options).unwrap();
    let trap = Trap::new();
    let mut tar = Command::new("tar");
    let mut tar = tar.args(["-xf", "-", "-C"]).arg(trap.inside("")).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &archive).unwrap();
    assert!(tar.wait().unwrap().success());
    for entry in fs::read_dir(source.inside("")).unwrap().flatten() {
        let there = trap.inside(&entry.file_name().to_string_lossy());
        assert!(fs::read(entry.path()).unwrap() == fs::read(&there).unwrap(), "{}", there.display());
        assert!(extent(&there).1 < 2 << 20);
    }
    archive
}

#[test]
fn holes_come_out_as_holes() {
    use std::os::unix::fs::FileExt;
    let source = Trap::new();
    let make = |name: &str, size: u64, pieces: &[u64]| {
        let file = fs::File::create(source.inside(name)).unwrap();
        file.set_len(size).unwrap();
        for at in pieces {
            file.write_all_at(format!("at {at}").as_bytes(), *at).unwrap();
        }
    };
    make("some", 64 << 20, &[0, 10 << 20, (64 << 20) - 13]);
    make("empty", 5 << 20, &[]);
    make("end", 7 << 20, &[1 << 20]);
    // More places than a header of the old form has.
    make("many", 64 << 20, &(0..60).map(|n| n << 20).collect::<Vec<_>>());
    fs::write(source.inside("plain"), "after").unwrap();
    let names = ["some", "empty", "end", "many", "plain"];
    for form in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0", "our own"] {
        let archive = if form == "our own" { with_holes(&source) } else { archive_of(&source, form, &names) };
        assert!(archive.len() < 2 << 20, "{form}: the holes were seen");
        let trap = Trap::new();
        let done = unpack(archive.as_slice(), &trap.root(), &UnpackOptions::default()).unwrap();
        assert_eq!((done.entries, done.disk < 2 << 20), (5, true), "{form}");
        for name in names {
            let same = fs::read(source.inside(name)).unwrap() == fs::read(trap.inside(name)).unwrap();
            let ((size, _), (found, taken)) = (extent(&source.inside(name)), extent(&trap.inside(name)));
            assert!(same && size == found, "{form}: {name}");
            assert!(taken < 2 << 20, "{form}: {name} takes {taken} bytes");
        }
        // Whoever does not know of holes reads zeroes.
        let mut reader = wharf_archive::Reader::new(archive.as_slice());
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
            assert_eq!(content.len() as u64, entry.size);
            let name = String::from_utf8(entry.path).unwrap();
            assert!(content == fs::read(source.inside(&name)).unwrap(), "{form}: {name}");
        }
        // A bound counts what the files seem to be, before anything is written.
        let small = UnpackOptions { max_bytes: 60 << 20, ..UnpackOptions::default() };
        let trap = Trap::new();
        assert!(matches!(unpack(archive.as_slice(), &trap.root(), &small), Err(ArchiveError::TooLarge(_))));
        assert!(!trap.inside("some").exists());
    }
}

#[test]
fn an_access_control_list_is_kept() {
    // Version 2; owner rw-, user 1234 r--, group r--, mask r--, others r--.
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let (from, to) = (Trap::new(), Trap::new());
    fs::write(from.inside("f"), "x").unwrap();
    fs::create_dir(from.inside("d")).unwrap();
    let access = std::ffi::OsStr::new("system.posix_acl_access");
    if from.root().set_xattr("f", access, &list).is_err() {
        return eprintln!("skipped: the file system takes no access control lists");
    }
    from.root().set_xattr("d", std::ffi::OsStr::new("system.posix_acl_default"), &list).unwrap();
    let mut bytes = Vec::new();
    pack(&from.root(), Path::new(""), &mut bytes, &PackOptions::default()).unwrap();
    unpack(bytes.as_slice(), &to.root(), &UnpackOptions::default()).unwrap();
    let has = |path: &str, key: &str| to.root().xattrs(path).unwrap().contains(&(key.into(), list.clone()));
    assert!(has("f", "system.posix_acl_access") && has("d", "system.posix_acl_default"));
}

/// A tree with everything that an archive can carry.
fn rich(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "content").unwrap();
    fs::write(root.join("a").join("n".repeat(180)), "long name").unwrap();
    fs::hard_link(root.join("a/file"), root.join("hard")).unwrap();
    symlink("l".repeat(150), root.join("link")).unwrap();
    fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"bytes-\xff\xfe")), "not UTF-8").unwrap();
    fs::write(root.join("large"), vec![7; 200_000]).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was_and_packs_to_the_same_bytes() {
    let (first, second) = (Trap::new(), Trap::new());
    rich(&first.inside(""));
    let bytes = |trap: &Trap| {
        let mut bytes = Vec::new();
        pack(&trap.root(), Path::new(""), &mut bytes, &PackOptions::default()).unwrap();
        bytes
    };
    let packed = bytes(&first);
    let done = unpack(packed.as_slice(), &second.root(), &UnpackOptions::default()).unwrap();
    assert_eq!(done.entries, 8);
    assert!(packed == bytes(&second), "another copy of the tree packs to other bytes");
    let (file, hard) = (fs::metadata(second.inside("a/file")).unwrap(), fs::metadata(second.inside("hard")).unwrap());
    assert_eq!((file.ino(), file.mode() & 0o7777), (hard.ino(), 0o4755));
    let mut old = Vec::new();
    pack(&first.root(), Path::new("a"), &mut old, &PackOptions::default()).unwrap();
    assert!(listing(&old).iter().all(|name| !name.starts_with("a/")), "names are relative to what is packed");
}

#[test]
fn tar_itself_reads_what_we_write_and_we_what_it_writes() {
    let (first, second) = (Trap::new(), Trap::new());
    rich(&first.inside(""));
    let mut bytes = Vec::new();
    pack(&first.root(), Path::new(""), &mut bytes, &PackOptions::default()).unwrap();
    assert!(listing(&bytes).contains(&"a/file".to_owned()));
    for format in ["gnu", "pax", "ustar"] {
        let mut tar = Command::new("tar");
        tar.args(["--format", format, "-cf", "-", "-C"]).arg(first.inside("")).arg("a/file").arg("hard");
        let output = tar.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        unpack(output.stdout.as_slice(), &second.root(), &UnpackOptions::default()).unwrap();
        assert_eq!(fs::read_to_string(second.inside("hard")).unwrap(), "content", "{format}");
    }
    let output = Command::new("tar").args(["--format=gnu", "-cf", "-", "-C"]).arg(first.inside("")).arg(".").output();
    unpack(output.unwrap().stdout.as_slice(), &second.root(), &UnpackOptions::default()).unwrap();
    assert_eq!(fs::read_link(second.inside("link")).unwrap().as_os_str().len(), 150);
}

#[test]
fn an_archive_may_end_with_its_last_content() {
    for cut in [0, 100, 512 - 4] {
        let trap = Trap::new();
        let mut tar = Tar::default().file("a", "text");
        tar.0.truncate(tar.0.len() - cut);
        trap.unpack(tar).unwrap();
        assert_eq!(fs::read_to_string(trap.inside("a")).unwrap(), "text");
    }
    let mut tar = Tar::default().file("a", "text");
    tar.0.truncate(512 + 3);
    Trap::new().unpack(tar).unwrap_err();
}
