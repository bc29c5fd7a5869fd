//! Volumes of a size, on file systems of a test's own with and without quotas of projects.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_store::Store;
use wharf_volume::{CreateVolume, Origin, Volume, Volumes};

/// An ext4 in a file, mounted with these options for as long as this is there.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(features: &str, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        File::create(&image).unwrap().set_len(200 << 20).unwrap();
        fs::create_dir(&root).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", features]).arg(&image))
            && run(Command::new("mount").args(["-o", options]).args([&image, &root]));
        if !made {
            eprintln!("skipped: no ext4 with {options} can be mounted from a file (root, e2fsprogs, loop devices)");
            return None;
        }
        Some(Self(dir))
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.root()).status();
    }
}

fn sized(name: &str, size: &str) -> CreateVolume {
    let options = BTreeMap::from([("size".to_owned(), size.to_owned())]);
    CreateVolume { name: name.into(), options, ..CreateVolume::default() }
}

/// Writes as a container does: without the right to go beyond quotas, which root has here.
fn bound<T>(write: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    let without = || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective -= rustix::thread::CapabilitySet::SYS_RESOURCE;
        rustix::thread::set_capabilities(None, sets).unwrap();
        write()
    };
    std::thread::scope(|scope| scope.spawn(without).join().unwrap())
}

/// Writes until there is no more room, and answers with the bytes that went in.
fn fill(dir: &Path) -> u64 {
    bound(|| fill_now(dir))
}

fn fill_now(dir: &Path) -> u64 {
    let mut file = File::create(dir.join("large")).unwrap();
    let piece = vec![7; 256 << 10];
    let mut total = 0;
    while total < 100 << 20 {
        match file.write_all(&piece).and_then(|()| file.sync_data()) {
            Ok(()) => total += piece.len() as u64,
            Err(error) => {
                let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
                assert!(full.contains(&error.kind()), "{error}");
                return total;
            }
        }
    }
    panic!("there is no limit");
}

fn room(dir: &Path) -> u64 {
    let found = rustix::fs::statvfs(dir).unwrap();
    found.f_blocks * found.f_frsize
}

fn check(volumes: &Volumes, volume: &Volume) {
    let path = volumes.mount(&volume.name, "user").unwrap();
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "an image's content may come in");
    let total = room(&path);
    assert!((16 << 20..=20 << 20).contains(&total), "df shows the limit: {total}");
    let written = fill(&path);
    assert!((14 << 20..=20 << 20).contains(&written), "{written}");
    let used = volumes.used(volume).unwrap();
    assert!((14 << 20..=20 << 20).contains(&used), "{used}");
    volumes.release(&volume.name, "user").unwrap();
    // It is there for the next one.
    let path = volumes.mount(&volume.name, "other").unwrap();
    assert!(path.join("large").exists());
    volumes.release(&volume.name, "other").unwrap();
    assert!(volumes.check(&sized("x1", "much")).is_err());
}

fn mounts_below(dir: &Path) -> usize {
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines().filter(|line| line.contains(&*dir.join("volumes").to_string_lossy())).count()
}

#[test]
fn a_project_is_held_to_its_quota() {
    let Some(disk) = Disk::new("quota,project", "loop,prjquota") else { return };
    let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
    let made = volumes.create(&sized("data", "20m")).unwrap();
    let limit = made.limit.unwrap();
    assert_eq!((limit.bytes, limit.project.is_some()), (20 << 20, true));
    assert_eq!(volumes.get("data").unwrap().limit, Some(limit));
    let other = volumes.create(&sized("other", "20m")).unwrap();
    assert_ne!(other.limit.unwrap().project, limit.project, "each has a project of its own");
    check(&volumes, &made);
    assert_eq!(mounts_below(&disk.root()), 0);
    fs::write(other.mountpoint.join("file"), vec![1; 1 << 20]).unwrap();
    let renamed = volumes.rename("other", "third", &|_| Vec::new()).unwrap();
    assert!(volumes.used(&renamed).unwrap() >= 1 << 20);
    volumes.remove("data", false, &|_| Vec::new()).unwrap();
    let open = File::open(disk.root()).unwrap();
    let gone = wharf_sys::quota::usage(std::os::fd::AsFd::as_fd(&open), limit.project.unwrap()).unwrap_or_default();
    assert_eq!(gone.limit, 0);
}

#[test]
fn a_file_of_the_size_has_the_content_where_there_are_no_quotas() {
    // Quotas that nobody is held to do not count.
    let Some(disk) = Disk::new("quota,project", "loop") else { return };
    let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
    let made = volumes.create(&sized("data", "20m")).unwrap();
    assert_eq!(made.limit.unwrap().project, None);
    assert_eq!(mounts_below(&disk.root()), 0);
    check(&volumes, &made);
    assert_eq!(mounts_below(&disk.root()), 0);
    let small = volumes.create(&sized("small", "1m"));
    assert!(small.is_ok() || !disk.root().join("volumes/small").exists());
    // A daemon that was killed leaves it mounted; the next one lets go of what nobody uses.
    volumes.mount("data", "user").unwrap();
    assert_eq!(mounts_below(&disk.root()), 1);
    drop(volumes);
    let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
    volumes.unmount_unused();
    assert_eq!(mounts_below(&disk.root()), 0);
    volumes.rename("data", "other", &|_| Vec::new()).unwrap();
    let path = volumes.mount("other", "user").unwrap();
    assert!(path.join("large").exists());
    volumes.remove("other", false, &|_| Vec::new()).unwrap();
    assert!(!disk.root().join("volumes/other").exists());
}

/// A clone of 20 MiB, and one that is too small.
fn clone(volumes: &Volumes, root: &Path) {
    let data = volumes.create(&sized("data", "20m")).unwrap();
    let path = volumes.mount("data", "user").unwrap();
    fs::write(path.join("file"), vec![7; 8 << 20]).unwrap();
    volumes.release("data", "user").unwrap();
    let origin = Origin::parse("data");
    let error = volumes.stage_copy(&origin, &BTreeSet::new(), Some(4 << 20)).unwrap_err().to_string();
    assert_eq!(error, "the content of data has no room in a volume of 4194304 bytes: give a larger size (`-o size=…`)");
    let staged = volumes.stage_copy(&origin, &BTreeSet::new(), Some(20 << 20)).unwrap();
    let copy = volumes.adopt(staged, &sized("copy", "20m")).unwrap();
    let (limit, other) = (copy.limit.unwrap(), data.limit.unwrap());
    assert_eq!(limit.bytes, 20 << 20);
    assert!(limit.project.is_none() || limit.project != other.project, "each has a project of its own");
    assert_eq!(mounts_below(root), 0);
    let path = volumes.mount("copy", "user").unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap().len(), 8 << 20);
    let written = fill(&path);
    assert!((6 << 20..=12 << 20).contains(&written), "{written}");
    volumes.release("copy", "user").unwrap();
    assert_eq!(volumes.get("copy").unwrap().limit, copy.limit);
    // What was begun and not ended leaves nothing.
    drop(volumes.stage_copy(&origin, &BTreeSet::new(), Some(20 << 20)).unwrap());
    let names = fs::read_dir(root.join("volumes")).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().starts_with('.')));
    assert_eq!(mounts_below(root), 0);
}

#[test]
fn a_clone_has_a_limit_of_its_own() {
    for options in ["loop,prjquota", "loop"] {
        let Some(disk) = Disk::new("quota,project", options) else { continue };
        clone(&Volumes::open(Store::open(&disk.root()).unwrap()).unwrap(), &disk.root());
    }
}

#[test]
fn a_clone_that_a_kill_has_cut_off_is_swept_with_its_mount() {
    let Some(disk) = Disk::new("quota,project", "loop") else { return };
    let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
    volumes.create(&sized("data", "20m")).unwrap();
    let staged = volumes.stage_copy(&Origin::parse("data"), &BTreeSet::new(), Some(20 << 20)).unwrap();
    std::mem::forget(staged);
    assert_eq!(mounts_below(&disk.root()), 1);
    drop(volumes);
    drop(Volumes::open(Store::open(&disk.root()).unwrap()).unwrap());
    assert_eq!(mounts_below(&disk.root()), 0);
    let names = fs::read_dir(disk.root().join("volumes")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["data"]);
}

/// Set in the process that is to be killed: the data root.
const VICTIM: &str = "WHARF_TEST_VICTIM";

/// The projects of what is on its way in or out below a data root.
fn projects_left(root: &Path) -> Vec<u32> {
    let all = fs::read_dir(root.join("volumes")).unwrap().flatten();
    let hidden = all.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    let open = |entry: fs::DirEntry| File::open(entry.path().join("_data")).unwrap();
    hidden.map(|entry| wharf_sys::quota::project(std::os::fd::AsFd::as_fd(&open(entry))).unwrap()).collect()
}

#[test]
fn a_kill_leaves_no_quota() {
    if let Some(root) = std::env::var_os(VICTIM).map(PathBuf::from) {
        let volumes = Volumes::open(Store::open(&root).unwrap()).unwrap();
        let _staged = volumes.stage_copy(&Origin::parse("data"), &BTreeSet::new(), Some(20 << 20)).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        unreachable!();
    }
    let Some(disk) = Disk::new("quota,project", "loop,prjquota") else { return };
    let volumes = Volumes::open(Store::open(&disk.root()).unwrap()).unwrap();
    volumes.create(&sized("data", "20m")).unwrap();
    let going = volumes.create(&sized("going", "20m")).unwrap().limit.unwrap().project.unwrap();
    drop(volumes);
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "a_kill_leaves_no_quota"]).env(VICTIM, disk.root());
    let output = victim.output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
    // And one that came while a volume was being removed.
    fs::rename(disk.root().join("volumes/going"), disk.root().join("volumes/.removing-going")).unwrap();
    let left = projects_left(&disk.root());
    assert!(left.len() == 2 && left.contains(&going), "{left:?}");
    let open = File::open(disk.root()).unwrap();
    let limit =
        |project: &u32| wharf_sys::quota::usage(std::os::fd::AsFd::as_fd(&open), *project).unwrap_or_default().limit;
    assert!(left.iter().all(|project| limit(project) == 20 << 20));
    drop(Volumes::open(Store::open(&disk.root()).unwrap()).unwrap());
    assert!(left.iter().all(|project| limit(project) == 0), "{left:?} keep their quotas");
    assert!(projects_left(&disk.root()).is_empty());
}

#[test]
fn a_kill_while_volumes_are_made_leaves_none_that_nobody_knows() {
    if let Some(root) = std::env::var_os(VICTIM).map(PathBuf::from) {
        let volumes = Volumes::open(Store::open(&root).unwrap()).unwrap();
        for number in 0.. {
            volumes.create(&sized(&format!("v{number}"), "8m")).unwrap();
            volumes.remove(&format!("v{number}"), false, &|_| Vec::new()).unwrap();
        }
    }
    let disk = tempfile::tempdir().unwrap();
    let probe = Volumes::open(Store::open(disk.path()).unwrap()).unwrap();
    if let Err(error) = probe.create(&sized("probe", "8m")) {
        return eprintln!("skipped: {error}");
    }
    drop(probe);
    for round in 0..12 {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "a_kill_while_volumes_are_made_leaves_none_that_nobody_knows"]);
        let mut victim = victim.env(VICTIM, disk.path()).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30 + 7 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let volumes = Volumes::open(Store::open(disk.path()).unwrap()).unwrap();
        let known: BTreeSet<String> = volumes.list().unwrap().into_iter().map(|volume| volume.name).collect();
        let all = fs::read_dir(disk.path().join("volumes")).unwrap().flatten();
        let there: BTreeSet<String> = all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(known, there, "after round {round}");
    }
}
