//! What hostile archives try, against a canary; and that honest ones come through whole. An image that is made of an
//! archive in place of a directory takes the same ones.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use wharf_archive::{
    ArchiveError, Content, PackOptions, Recorder, UnpackOptions, Whiteouts, pack, unpack, unpack_at, unpack_image,
};
use wharf_rooted_path::RootDir;

/// An archive, made byte by byte, as no honest tool would make it.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, name: &[u8], flag: u8, link: &[u8], size: &[u8], content: &[u8]) -> Self {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000755");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..124 + size.len()].copy_from_slice(size);
        block[136..147].copy_from_slice(b"00000000007");
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn entry(self, name: &str, flag: u8, link: &str) -> Self {
        self.raw(name.as_bytes(), flag, link.as_bytes(), b"00000000000", b"")
    }

    fn file(self, name: &str, content: &str) -> Self {
        let size = format!("{:011o}", content.len());
        self.raw(name.as_bytes(), b'0', b"", size.as_bytes(), content.as_bytes())
    }

    fn pax(self, records: &str) -> Self {
        let size = format!("{:011o}", records.len());
        self.raw(b"pax", b'x', b"", size.as_bytes(), records.as_bytes())
    }
}

/// A root beside a canary.
struct Trap {
    dir: tempfile::TempDir,
}

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "alive").unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir }
    }

    fn root(&self) -> RootDir {
        RootDir::open(self.dir.path().join("root")).unwrap()
    }

    fn inside(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn unpack_as(&self, tar: Tar, whiteouts: Whiteouts) -> Result<wharf_archive::Unpacked, ArchiveError> {
        let options = UnpackOptions { whiteouts, ..UnpackOptions::default() };
        let done = unpack(tar.0.as_slice(), &self.root(), &options);
        same_as_an_image(&tar.0, &UnpackOptions::default());
        assert_eq!(fs::read_to_string(self.dir.path().join("canary")).unwrap(), "alive");
        let outside = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(outside, 2, "something appeared outside of the root");
        done
    }

    fn unpack(&self, tar: Tar) -> Result<wharf_archive::Unpacked, ArchiveError> {
        self.unpack_as(tar, Whiteouts::Apply)
    }
}

/// Hears nothing.
struct Deaf;

impl Recorder for Deaf {
    fn bytes(&mut self, _: &[u8]) {}
    fn content(&mut self, _: Content<'_>) {}
    fn replaced(&mut self, _: &RootDir, _: &std::ffi::OsStr, _: &Path) -> std::io::Result<bool> {
        Ok(false)
    }
}

/// As a layer an archive is taken or refused, whether it becomes a directory or an image. Each has its own words for what
/// has no place in it.
fn same_as_an_image(tar: &[u8], options: &UnpackOptions) {
    let options = UnpackOptions { whiteouts: Whiteouts::Overlay, ..*options };
    let dir = tempfile::tempdir().unwrap();
    let tree = unpack(tar, &RootDir::open(dir.path()).unwrap(), &options);
    let mut writer = wharf_erofs::Writer::new(tempfile::tempfile().unwrap()).unwrap();
    let image = unpack_image(tar, &mut writer, &options, &mut Deaf, None);
    match (tree, image) {
        (Ok(tree), Ok(image)) => {
            assert_eq!((tree.entries, tree.bytes), (image.entries, image.bytes));
            writer.finish([0; 16]).unwrap();
        }
        (Err(_), Err(_)) => {}
        (tree, image) => panic!("a directory: {tree:?}, an image: {image:?}"),
    }
}

#[test]
fn names_that_lead_out_end_at_the_root() {
    for name in ["../canary", "a/../../canary", "/../../canary", "a/b/../../canary"] {
        let trap = Trap::new();
        trap.unpack(Tar::default().file(name, "dead")).unwrap();
        assert_eq!(fs::read_to_string(trap.inside("canary")).unwrap(), "dead", "{name}");
    }
    for name in ["..", "a/..", "/"] {
        let link = Trap::new().unpack(Tar::default().entry(name, b'2', "/etc"));
        assert!(link.unwrap_err().to_string().contains("replace the root"), "{name}");
    }
    Trap::new().unpack(Tar::default().entry("a/..", b'5', "")).unwrap();
    let trap = Trap::new();
    trap.unpack(Tar::default().file("/etc/passwd", "inside")).unwrap();
    assert_eq!(fs::read_to_string(trap.inside("etc/passwd")).unwrap(), "inside");
}

#[test]
fn a_link_is_not_written_through() {
    let trap = Trap::new();
    let tar = Tar::default().entry("out", b'2', "..").file("out/canary", "dead");
    // `..` of the root is the root itself: the file lands inside.
    trap.unpack(tar).unwrap();
    assert_eq!(fs::read_to_string(trap.inside("canary")).unwrap(), "dead");
    let trap = Trap::new();
    let tar = Tar::default().entry("link", b'2', "../canary").file("link", "dead");
    trap.unpack(tar).unwrap();
    assert!(fs::symlink_metadata(trap.inside("link")).unwrap().is_file(), "the link was replaced");
    let trap = Trap::new();
    let target = trap.dir.path().to_string_lossy().into_owned();
    let tar = Tar::default().entry("abs", b'2', &target).file("abs/new", "dead");
    let _ = trap.unpack(tar);
}

/// What is put into a directory of a container stays in it, as far as the archive's own links go.
#[test]
fn a_link_of_the_archive_leads_out_of_no_directory() {
    for (link, entry) in [("/etc", "l/new"), ("../etc", "l/new"), ("/etc", "l/sub/new"), ("../../../etc", "l/new")] {
        let trap = Trap::new();
        let root = trap.root();
        root.mkdir_all(Path::new("etc"), 0o755).unwrap();
        root.mkdir_all(Path::new("tmp/in"), 0o755).unwrap();
        let tar = Tar::default().entry("in/up", b'2', "..").entry("l", b'2', link).file(entry, "x");
        let failed = unpack_at(&tar.0[..], &root, Path::new("/tmp"), &UnpackOptions::default()).unwrap_err();
        assert!(matches!(failed, ArchiveError::Unpack { .. }), "{failed}");
        assert!(fs::read_dir(trap.inside("etc")).unwrap().next().is_none(), "{link}");
    }
    let trap = Trap::new();
    let root = trap.root();
    root.mkdir_all(Path::new("etc"), 0o755).unwrap();
    root.mkdir_all(Path::new("tmp/real"), 0o755).unwrap();
    fs::write(trap.inside("etc/secret"), "").unwrap();
    symlink("/etc", trap.inside("tmp/before")).unwrap();
    let own = Tar::default().file("before/f", "x").entry("l", b'2', "real").file("l/g", "y");
    unpack_at(&own.0[..], &root, Path::new("/tmp"), &UnpackOptions::default()).unwrap();
    assert!(trap.inside("etc/f").exists() && trap.inside("tmp/real/g").exists());
    let hard = Tar::default().entry("m", b'2', "/etc").entry("h", b'1', "m/secret");
    unpack_at(&hard.0[..], &root, Path::new("/tmp"), &UnpackOptions::default()).unwrap_err();
    assert!(!trap.inside("tmp/h").exists());
}

#[test]
fn hard_links_stay_inside() {
    let trap = Trap::new();
    trap.unpack(Tar::default().file("f", "x").entry("hard", b'1', "a/../f")).unwrap();
    assert_eq!(fs::metadata(trap.inside("f")).unwrap().nlink(), 2);
    for target in ["../canary", "/../canary", "a/../../canary"] {
        assert!(Trap::new().unpack(Tar::default().entry("hard", b'1', target)).is_err(), "{target}");
    }
    // A hard link to a link to the outside links the link.
    let trap = Trap::new();
    let outside = trap.dir.path().join("canary").to_string_lossy().into_owned();
    let tar = Tar::default().entry("soft", b'2', &outside).entry("hard", b'1', "soft").file("hard", "dead");
    trap.unpack(tar).unwrap();
}

#[test]
fn whiteouts_remove_one_name_inside_and_nothing_else() {
    for name in [".wh...", ".wh..", ".wh.", "a/.wh..."] {
        for whiteouts in [Whiteouts::Apply, Whiteouts::Overlay] {
            let error = Trap::new().unpack_as(Tar::default().file(name, ""), whiteouts).unwrap_err();
            assert!(error.to_string().contains("whiteout"), "{name}: {error}");
        }
    }
    let trap = Trap::new();
    symlink(trap.dir.path(), trap.inside("out")).unwrap();
    let _ = trap.unpack(Tar::default().file("out/.wh.canary", ""));
    let _ = trap.unpack(Tar::default().file("out/.wh..wh..opq", ""));
}

#[test]
fn whiteouts_apply() {
    let trap = Trap::new();
    fs::create_dir(trap.inside("d")).unwrap();
    for name in ["gone", "d/old"] {
        fs::write(trap.inside(name), "x").unwrap();
    }
    let tar = Tar::default().file(".wh.gone", "").file("d/new", "n").file("d/.wh..wh..opq", "");
    trap.unpack(tar).unwrap();
    assert!(!trap.inside("gone").exists() && !trap.inside("d/old").exists());
    assert!(trap.inside("d/new").exists(), "what the layer itself brings stays");
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let trap = Trap::new();
    trap.unpack_as(Tar::default().file(".wh.gone", "").file("d/.wh..wh..opq", ""), Whiteouts::Overlay).unwrap();
    let gone = fs::symlink_metadata(trap.inside("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let marks = trap.root().xattrs("d").unwrap();
    assert!(marks.iter().any(|(key, value)| key == "trusted.overlay.opaque" && value == b"y"));
    // And back again.
    let mut bytes = Vec::new();
    let options = PackOptions { overlay_whiteouts: true, ..PackOptions::default() };
    pack(&trap.root(), Path::new(""), &mut bytes, &options).unwrap();
    let names = listing(&bytes);
    assert!(names.contains(&".wh.gone".to_owned()) && names.contains(&"d/.wh..wh..opq".to_owned()), "{names:?}");
}

#[test]
fn attributes_that_steer_overlayfs_are_not_taken() {
    let trap = Trap::new();
    let mut records = String::new();
    for (key, value) in [("trusted.overlay.opaque", "y"), ("user.overlay.redirect", "/x"), ("user.mine", "kept")] {
        let rest = format!(" SCHILY.xattr.{key}={value}\n");
        let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
        records.push_str(&format!("{length}{rest}"));
    }
    trap.unpack(Tar::default().pax(&records).entry("d", b'5', "")).unwrap();
    let keys: Vec<_> = trap.root().xattrs("d").unwrap().into_iter().map(|(key, _)| key).collect();
    assert!(keys.iter().all(|key| key != "trusted.overlay.opaque" && key != "user.overlay.redirect"), "{keys:?}");
}

#[test]
fn sizes_that_lie_end_in_an_error() {
    let short = Tar::default().raw(b"short", b'0', b"", b"00000002000", b"abc");
    assert!(Trap::new().unpack(short).is_err());
    let endless = Tar::default().pax("25 size=9223372036854775\n").file("huge", "x");
    assert!(Trap::new().unpack(endless).is_err());
    let base256 = Tar::default().raw(b"huge", b'0', b"", b"\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", b"");
    assert!(Trap::new().unpack(base256).is_err());
    let negative = Tar::default().raw(b"neg", b'0', b"", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"");
    assert!(Trap::new().unpack(negative).is_err());
    let unknown = Tar::default().pax("22 GNU.sparse.major=1\n").file("sparse", "x");
    assert!(Trap::new().unpack(unknown).unwrap_err().to_string().contains("sparse"));
    let map = "22 GNU.sparse.map=0,1\n30 GNU.sparse.size=1000000000\n";
    let huge = Tar::default().pax(map).file("sparse", "x");
    let bounded = UnpackOptions { max_bytes: 999_999_999, ..UnpackOptions::default() };
    let trap = Trap::new();
    assert!(matches!(unpack(huge.0.as_slice(), &trap.root(), &bounded), Err(ArchiveError::TooLarge(_))));
    assert!(fs::read_dir(trap.inside("")).unwrap().next().is_none());
    let outside = Tar::default().pax("22 GNU.sparse.map=9,1\n21 GNU.sparse.size=9\n").file("sparse", "x");
    assert!(Trap::new().unpack(outside).is_err());
    let id = Tar::default().pax("18 uid=4294967296\n").file("root", "x");
    assert!(Trap::new().unpack(id).is_err(), "an ID must not wrap");
}

#[test]
fn devices_are_what_they_were() {
    let device = |name: &str, flag: u8, major: u8, minor: u8| {
        let mut tar = Tar::default().entry(name, flag, "").0;
        tar[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
        tar[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Tar(tar)
    };
    for whiteouts in [Whiteouts::Apply, Whiteouts::Overlay] {
        for (flag, major, minor) in [(b'3', 1, 3), (b'4', 7, 0)] {
            let trap = Trap::new();
            trap.unpack_as(device("node", flag, major, minor), whiteouts).unwrap();
            let node = fs::symlink_metadata(trap.inside("node")).unwrap();
            let kind = node.file_type();
            assert_eq!((kind.is_char_device(), kind.is_block_device()), (flag == b'3', flag == b'4'));
            assert_eq!(node.rdev(), rustix::fs::makedev(major.into(), minor.into()));
        }
        // To overlayfs a character device 0/0 hides what is below it; a layer may do that anyway.
        let trap = Trap::new();
        trap.unpack_as(device("hides", b'3', 0, 0), whiteouts).unwrap();
        assert_eq!(fs::symlink_metadata(trap.inside("hides")).unwrap().rdev(), 0);
    }
}

#[test]
fn bounds_hold_before_anything_is_written() {
    let trap = Trap::new();
    let tar = (0..20).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "ten bytes!"));
    let few = UnpackOptions { max_entries: 10, ..UnpackOptions::default() };
    assert!(matches!(unpack(tar.0.as_slice(), &trap.root(), &few), Err(ArchiveError::TooMany(10))));
    let small = UnpackOptions { max_bytes: 99, ..UnpackOptions::default() };
    assert!(matches!(unpack(tar.0.as_slice(), &trap.root(), &small), Err(ArchiveError::TooLarge(99))));
    for bounds in [few, small] {
        same_as_an_image(&tar.0, &bounds);
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let good = Tar::default().pax("17 user.x=abcdefg\n").entry("d", b'5', "").file("d/f", "content").0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        let _ = unpack(bad.as_slice(), &Trap::new().root(), &UnpackOptions::default());
        same_as_an_image(&bad, &UnpackOptions::default());
        if at % 7 == 0 {
            let _ = unpack(&good[..at], &Trap::new().root(), &UnpackOptions::default());
        }
    }
}

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

/// What GNU tar says is in an archive.
fn listing(bytes: &[u8]) -> Vec<String> {
    use std::io::Write;
    let mut tar = Command::new("tar");
    let mut tar = tar.args(["-tf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let owned = bytes.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&owned)));
    let output = tar.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "tar refuses what we wrote");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
