//! Copies on a file system that shares blocks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use wharf_store::Store;
use wharf_volume::{CreateVolume, Origin, Volumes};

/// An XFS in a file, mounted for as long as this is there.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        File::create(&image).unwrap().set_len(400 << 20).unwrap();
        fs::create_dir(&root).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new("mkfs.xfs").arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).args([&image, &root]));
        if !made {
            eprintln!("skipped: no XFS can be mounted from a file (root, xfsprogs, loop devices)");
            return None;
        }
        Some(Self(dir))
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn used(&self) -> u64 {
        let found = rustix::fs::statvfs(self.root()).unwrap();
        (found.f_blocks - found.f_bfree) * found.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

#[test]
fn copies_share_their_blocks_where_the_file_system_can() {
    let Some(disk) = Disk::new() else { return };
    {
        let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
        let data = volumes.create(&CreateVolume { name: "data".into(), ..CreateVolume::default() }).unwrap();
        let content: Vec<u8> = (0..(64u32 << 20)).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = File::create(data.mountpoint.join("large")).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        fs::write(data.mountpoint.join("empty"), "").unwrap();
        let before = disk.used();
        let staged = volumes.stage_copy(&Origin::parse("data"), &BTreeSet::new(), None).unwrap();
        assert_eq!((staged.shared, staged.copied, staged.skipped.as_slice()), (1, 1, [].as_slice()));
        let snapshot = volumes.keep_snapshot(staged, "data", "").unwrap();
        assert!(disk.used() < before + (8 << 20), "{} {before}", disk.used());
        // Two names of the same bytes, until one is written to.
        fs::write(data.mountpoint.join("large"), "new").unwrap();
        let origin = Origin::parse(&format!("data@{}", snapshot.name));
        let staged = volumes.stage_copy(&origin, &BTreeSet::new(), None).unwrap();
        let other = volumes.adopt(staged, &CreateVolume { name: "other".into(), ..CreateVolume::default() }).unwrap();
        assert!(fs::read(other.mountpoint.join("large")).unwrap() == content);
        assert_eq!(fs::read(data.mountpoint.join("large")).unwrap(), b"new");
        assert_no_rest(&disk.root());
    }
}

fn assert_no_rest(root: &Path) {
    let names = fs::read_dir(root.join("volumes")).unwrap().flatten();
    assert!(names.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}
