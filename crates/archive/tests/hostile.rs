//! What hostile archives try, against a canary; and that honest ones come through whole.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use wharf_archive::{ArchiveError, PackOptions, UnpackOptions, Whiteouts, pack, unpack};
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
        assert_eq!(fs::read_to_string(self.dir.path().join("canary")).unwrap(), "alive");
        let outside = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(outside, 2, "something appeared outside of the root");
        done
    }

    fn unpack(&self, tar: Tar) -> Result<wharf_archive::Unpacked, ArchiveError> {
        self.unpack_as(tar, Whiteouts::Apply)
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../canary", "a/../../canary", "..", "a/.."] {
        let error = Trap::new().unpack(Tar::default().file(name, "dead")).unwrap_err();
        assert!(error.to_string().contains("out of the archive"), "{name}: {error}");
    }
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

#[test]
fn hard_links_stay_inside() {
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
    let sparse = Tar::default().pax("22 GNU.sparse.major=1\n").file("sparse", "x");
    assert!(Trap::new().unpack(sparse).unwrap_err().to_string().contains("sparse"));
    let id = Tar::default().pax("18 uid=4294967296\n").file("root", "x");
    assert!(Trap::new().unpack(id).is_err(), "an ID must not wrap");
}

#[test]
fn bounds_hold_before_anything_is_written() {
    let trap = Trap::new();
    let tar = (0..20).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "ten bytes!"));
    let few = UnpackOptions { max_entries: 10, ..UnpackOptions::default() };
    assert!(matches!(unpack(tar.0.as_slice(), &trap.root(), &few), Err(ArchiveError::TooMany(10))));
    let small = UnpackOptions { max_bytes: 99, ..UnpackOptions::default() };
    assert!(matches!(unpack(tar.0.as_slice(), &trap.root(), &small), Err(ArchiveError::TooLarge(99))));
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let good = Tar::default().pax("17 user.x=abcdefg\n").entry("d", b'5', "").file("d/f", "content").0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        let _ = unpack(bad.as_slice(), &Trap::new().root(), &UnpackOptions::default());
        if at % 7 == 0 {
            let _ = unpack(&good[..at], &Trap::new().root(), &UnpackOptions::default());
        }
    }
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
    let clamped = PackOptions { clamp_mtime: Some(1), ..PackOptions::default() };
    let mut old = Vec::new();
    pack(&first.root(), Path::new("a"), &mut old, &clamped).unwrap();
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
