//! A full disk fails what needs more of it, and nothing else.

use std::fs::File;
use std::io::{Write, copy, repeat};

use crate::kit::Daemon;

const DISK: &str = "size=64m";

/// An archive with one file that is too large for the disk.
fn too_large(daemon: &Daemon) -> std::path::PathBuf {
    let dir = daemon.path().join("large");
    std::fs::create_dir(&dir).unwrap();
    copy(&mut std::io::Read::take(repeat(7), 80 << 20), &mut File::create(dir.join("file")).unwrap()).unwrap();
    let archive = daemon.path().join("large.tar");
    let made = std::process::Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&dir).arg(".").status();
    assert!(made.unwrap().success());
    archive
}

#[test]
fn a_full_disk_fails_the_operation_and_not_the_store() {
    let Some(mut daemon) = Daemon::start_on(DISK) else { return };
    let free = |daemon: &Daemon| rustix::fs::statvfs(daemon.data()).unwrap().f_bavail;
    daemon.docker("run -d --name kept busybox sleep 1000").ok();
    let before = free(&daemon);

    // An image that does not fit.
    let archive = too_large(&daemon);
    let import = daemon.client().args(["import", "-", "large"]).stdin(File::open(archive).unwrap()).output();
    let import = crate::kit::Said::from(import.unwrap());
    // Of 80 MiB, beside what the disk has.
    assert!(import.code == 1 && (17 << 20..60 << 20).contains(&missing(&import.err)), "{}", import.err);
    assert_eq!(daemon.docker("images -q large").ok(), "");
    daemon.eventually("what had come of the image is gone", || free(&daemon) + 64 >= before);

    // A step of a build that does not.
    let context = daemon.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=80\n").unwrap();
    let build = daemon.client().args(["build", "-t", "large"]).arg(&context).output().unwrap();
    let build = crate::kit::Said::from(build);
    assert!(build.code == 1 && (build.out + &build.err).contains("No space left on device"));
    daemon.eventually("what had come of the step is gone", || free(&daemon) + 64 >= before);

    // Not a byte is left.
    let mut filler = File::create(daemon.data().join("filler")).unwrap();
    copy(&mut repeat(1), &mut filler).unwrap_err();
    while filler.write(&[1]).is_ok_and(|n| n == 1) {}
    assert_eq!(daemon.docker("ps --format {{.Names}}").ok(), "kept");
    assert_eq!(daemon.docker("exec kept echo here").ok(), "here");
    let run = daemon.docker("run --name lost busybox true");
    assert!(run.code == 125 && run.err.to_lowercase().contains("no space left on device"), "{} {}", run.code, run.err);
    daemon.docker("rm -f lost").ok();
    daemon.docker("kill kept").ok();
    daemon.eventually("it has ended", || daemon.docker("inspect -f {{.State.Status}} kept").out.trim() == "exited");

    // With room again all goes on, and all is there after a crash.
    drop(filler);
    std::fs::remove_file(daemon.data().join("filler")).unwrap();
    daemon.docker("start kept").ok();
    assert_eq!(daemon.sh("", "echo again").ok(), "again");
    daemon.kill();
    daemon.launch();
    assert_eq!(daemon.docker("ps -a --format {{.Names}}").ok(), "kept");
    assert_eq!(daemon.docker("exec kept echo here").ok(), "here");
    daemon.docker("rm -f kept").ok();
}

#[test]
fn a_pull_that_does_not_fit_leaves_nothing() {
    let Some(large) = Daemon::start() else { return };
    let registry = crate::ship::Registry::start(&large);
    let name = format!("{}/large:1", registry.address);
    let dir = large.path().join("noise");
    std::fs::create_dir(&dir).unwrap();
    // What does not compress, so that it is the blob that does not fit.
    let noise = File::open("/dev/urandom").unwrap();
    copy(&mut std::io::Read::take(noise, 70 << 20), &mut File::create(dir.join("file")).unwrap()).unwrap();
    std::fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY file /\n").unwrap();
    large.docker(&format!("build -t {name} {}", dir.display())).ok();
    large.docker(&format!("push {name}")).ok();

    let Some(daemon) = Daemon::start_on(DISK) else { return };
    let free = |daemon: &Daemon| rustix::fs::statvfs(daemon.data()).unwrap().f_bavail;
    let before = free(&daemon);
    let pull = daemon.docker(&format!("pull {name}"));
    assert!(pull.code == 1 && pull.err.to_lowercase().contains("no space left on device"), "{}", pull.err);
    assert!((1 << 20..70 << 20).contains(&missing(&pull.err)), "{}", pull.err);
    assert_eq!(std::fs::read_dir(daemon.data().join("ingest")).unwrap().count(), 0);
    daemon.docker("image prune -f").ok();
    daemon.eventually("what had come of the image is gone", || free(&daemon) + 64 >= before);
    assert_eq!(daemon.sh("", "echo fine").ok(), "fine");
}

/// How many bytes a failure says that are missing.
fn missing(said: &str) -> u64 {
    let number = said.split("on device: ").nth(1).and_then(|text| text.split(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number of bytes: {said}"))
}

#[test]
fn a_load_and_a_commit_that_do_not_fit_say_how_much_is_missing() {
    let Some(large) = Daemon::start() else { return };
    large.import("large", 50 << 20).ok();
    let archive = large.path().join("saved.tar");
    large.docker(&format!("save -o {} large", archive.display())).ok();
    let Some(daemon) = Daemon::start_on(DISK) else { return };
    let free = |daemon: &Daemon| rustix::fs::statvfs(daemon.data()).unwrap().f_bavail;
    daemon.docker("run --name box busybox dd if=/dev/zero of=/large bs=1M count=35").ok();
    let before = free(&daemon);
    let load = daemon.docker(&format!("load -i {}", archive.display()));
    assert!(load.code == 1 && (1 << 20..50 << 20).contains(&missing(&load.err)), "{}", load.err);
    daemon.eventually("what had come of the image is gone", || free(&daemon) + 64 >= before);
    let commit = daemon.docker("commit box committed");
    assert!(commit.code == 1 && (1 << 20..35 << 20).contains(&missing(&commit.err)), "{}", commit.err);
    daemon.eventually("what had come of the layer is gone", || free(&daemon) + 64 >= before);
    assert_eq!(daemon.wharf("system fsck --deep").code, 0);
    // With room again both go on.
    daemon.docker("rm box").ok();
    daemon.docker(&format!("load -i {}", archive.display())).ok();
    daemon.docker("run --name box busybox touch /small").ok();
    daemon.docker("commit box committed").ok();
    daemon.docker("rm box").ok();
}
