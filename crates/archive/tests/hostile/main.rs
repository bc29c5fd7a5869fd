//! What hostile archives try, against a canary; and that honest ones come through whole. An image that is made of an
//! archive in place of a directory takes the same ones.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use wharf_archive::{
    ArchiveError, Content, PackOptions, Recorder, UnpackOptions, Whiteouts, pack, unpack, unpack_at, unpack_image,
};
use wharf_rooted_path::RootDir;

mod honest;

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
