//! Copies, snapshots and archives of volumes, beside containers that write to them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::kit::{Daemon, Said, WHARF};

/// Two files that always say the same but while they are written to, the second later.
const WRITER: &str = "i=0; while :; do i=$((i+1)); echo $i >/d/a.new; mv /d/a.new /d/a; echo $i >/d/b.new; mv /d/b.new /d/b; \
                      done";

fn sh(d: &Daemon, volume: &str, script: &str) -> String {
    d.sh(&format!("-v {volume}:/d"), script).ok()
}

fn state(d: &Daemon, name: &str) -> String {
    d.docker(&format!("inspect {name} --format {{{{.State.Status}}}}")).ok()
}

#[test]
fn a_copy_is_of_one_moment_and_has_everything() {
    let Some(d) = Daemon::start() else { return };
    d.docker("volume create --label a=b data").ok();
    let make = "cd /d; mkdir -p dir/deep; echo x >dir/deep/file; ln dir/deep/file second; ln -s /etc/passwd link; \
                mkfifo pipe; mknod null c 1 3; chown 33:44 dir; chmod 2751 dir; chmod 4755 second; touch -d @1234567 dir; \
                truncate -s 100M sparse; echo end >>sparse; chmod 711 /d";
    sh(&d, "data", make);
    let path = d.data().join("volumes/data/_data");
    rustix::fs::setxattr(path.join("second"), "user.mine", b"yes", rustix::fs::XattrFlags::empty()).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(path.join("sock")).unwrap();
    let mut run = d.client();
    run.args(["run", "-d", "--name", "writer", "-v", "data:/d", "busybox", "sh", "-c", WRITER]);
    Said::from(run.output().unwrap()).ok();
    d.eventually("the writer has written", || path.join("b").exists());

    for number in 0..5 {
        let cloned = d.wharf(&format!("volume clone data clone{number}"));
        assert!(cloned.err.contains("WARNING: sock: sockets are not copied"), "{}", cloned.err);
        assert_eq!(cloned.ok(), format!("clone{number}"));
        assert_eq!(state(&d, "writer"), "running");
        let (a, b) = sh(&d, &format!("clone{number}"), "cat /d/a /d/b")
            .split_once('\n')
            .map_or_else(|| panic!("no two lines"), |(a, b)| (a.parse::<u64>().unwrap(), b.parse::<u64>().unwrap()));
        assert!(a == b || a == b + 1, "{a} {b}");
    }
    assert_eq!(d.docker("volume inspect clone0 --format {{.Labels.a}}").ok(), "b");
    let seen = "cd /d; stat -c %n,%a,%u,%g . dir pipe null second link | sort; stat -c %Y dir; stat -c %h second; \
                readlink link; stat -c %t,%T null; stat -c %s sparse";
    let (want, have) = (sh(&d, "data", seen), sh(&d, "clone0", seen));
    assert_eq!(have, want);
    assert!(have.contains("33,44") && have.contains("4755"), "{have}");
    let clone = d.data().join("volumes/clone0/_data");
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(clone.join("second"), "user.mine", &mut value).unwrap(), 3);
    use std::os::unix::fs::MetadataExt;
    assert!(std::fs::metadata(clone.join("sparse")).unwrap().blocks() < 1000, "holes stay holes");
    assert!(!clone.join("sock").exists());
    drop(socket);

    let taken = d.wharf("volume clone data clone0");
    assert!(taken.err.contains("create clone0: it is there already"), "{}", taken.err);
    assert!(d.wharf("volume clone nothing x1").err.contains("get nothing: no such volume"));
    assert_eq!(std::fs::read_dir(d.data().join("volumes")).unwrap().count(), 6, "nothing is left of what failed");
}

#[test]
fn snapshots_are_taken_listed_restored_and_removed() {
    let Some(mut d) = Daemon::start() else { return };
    sh(&d, "data", "echo one >/d/file");
    d.docker("run -d --name user -v data:/d busybox sleep 1000").ok();
    let first = d.wharf("volume snapshot data").ok();
    assert!(first.starts_with("data@20") && first.ends_with('Z'), "{first}");
    d.docker("exec user sh -c echo${IFS}two>/d/file").ok();
    assert_eq!(d.wharf("volume snapshot data second").ok(), "data@second");
    assert_eq!(d.wharf("volume snapshots -q data").ok(), format!("{first}\ndata@second"));
    assert!(d.wharf("volume snapshot data second").err.contains("create data@second: it is there already"));
    assert!(d.wharf("volume snapshot data ../x").err.contains("is no name for a snapshot of data"));
    assert_eq!(d.wharf("__complete volume restore d").ok(), format!("{first}\ndata@second\n:4"));
    d.kill();
    d.launch();
    assert_eq!(d.wharf("volume snapshots -q data").ok(), format!("{first}\ndata@second"));

    let busy = d.wharf(&format!("volume restore {first}"));
    assert!(busy.err.contains("in use by containers that run: stop them first"), "{}", busy.err);
    d.docker("stop -t 0 user").ok();
    d.wharf(&format!("volume restore {first}")).ok();
    d.docker("start user").ok();
    assert_eq!(d.docker("exec user cat /d/file").ok(), "one");
    assert_eq!(sh(&d, "data", "ls /d | wc -l"), "1");
    d.wharf("volume clone data@second other").ok();
    assert_eq!(sh(&d, "other", "cat /d/file"), "two");
    let lost = d.wharf("volume restore data@none");
    assert!(lost.code != 0);
    assert!(d.wharf("volume restore data").err.contains("names no snapshot: give VOLUME@SNAPSHOT"));

    // Docker's client removes snapshots, too, and a volume that has some only by force.
    d.docker("rm -f user").ok();
    let kept = d.docker("volume rm data");
    assert!(kept.err.contains("volume has snapshots, which would go with it"), "{}", kept.err);
    assert!(!d.docker("volume prune -af").ok().contains("data"));
    d.docker("volume rm data@second").ok();
    assert_eq!(d.wharf("volume snapshots -q data").ok(), first);
    assert!(d.docker("volume rm data@second").code != 0);
    d.docker("volume rm -f data").ok();
    assert!(!d.data().join("volumes/data").exists());
}

#[test]
fn a_volume_without_users_is_renamed() {
    let Some(d) = Daemon::start() else { return };
    sh(&d, "old", "echo kept >/d/file");
    d.wharf("volume snapshot old first").ok();
    d.docker("create --name user -v old:/d busybox true").ok();
    let used = d.wharf("volume rename old new");
    assert!(used.err.contains("rename old: volume is in use - ["), "{}", used.err);
    d.docker("rm user").ok();
    d.docker("volume create taken").ok();
    assert!(d.wharf("volume rename old taken").err.contains("create taken: it is there already"));
    d.wharf("volume rename old new").ok();
    assert_eq!(sh(&d, "new", "cat /d/file"), "kept");
    assert_eq!(d.wharf("volume snapshots -q new").ok(), "new@first");
    assert_eq!(d.docker("volume ls -q").ok(), "new\ntaken");
    assert!(d.wharf("volume rename old x1").err.contains("no such volume"));
}

fn import(d: &Daemon, volume: &str, archive: &[u8]) -> Said {
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(["volume", "import", volume]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that is refused early is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(archive);
    child.wait_with_output().unwrap().into()
}

#[test]
fn a_volume_goes_out_and_comes_in_as_a_tar() {
    let Some(d) = Daemon::start() else { return };
    sh(&d, "data", "mkdir /d/dir; echo x >/d/dir/file; ln -s ../../../etc /d/dir/out; chown 7:8 /d; chmod 1770 /d");
    let file = d.path().join("data.tar");
    d.wharf(&format!("volume export -o {} data", file.display())).ok();
    let listed = Command::new("tar").arg("-tf").arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("dir/file"), "{listed}");
    let archive = std::fs::read(&file).unwrap();
    assert_eq!(import(&d, "copy", &archive).ok(), "copy");
    let look = "cd /d; stat -c %a,%u,%g .; cat dir/file; readlink dir/out";
    assert_eq!(sh(&d, "copy", look), sh(&d, "data", look));
    assert!(sh(&d, "copy", look).starts_with("1770,7,8"));

    // An empty one is filled, one with something in it is left alone, and so is one that is in use.
    d.docker("volume create empty").ok();
    d.wharf(&format!("volume import empty {}", file.display())).ok();
    assert_eq!(sh(&d, "empty", "cat /d/dir/file"), "x");
    let full = import(&d, "data", &archive);
    assert!(full.err.contains("import data: volume is not empty"), "{}", full.err);
    d.docker("run -d --name user -v used:/d busybox sleep 1000").ok();
    assert!(import(&d, "used", &archive).err.contains("in use by containers that run"));
    d.docker("rm -f user").ok();
    // A snapshot goes out as it was.
    d.wharf("volume snapshot data before").ok();
    sh(&d, "data", "rm -r /d/dir");
    let said = Command::new(WHARF)
        .arg("-H")
        .arg(format!("unix://{}", d.socket().display()))
        .args(["volume", "export", "data@before"])
        .output()
        .unwrap();
    assert_eq!(import(&d, "again", &said.stdout).ok(), "again");
    assert_eq!(sh(&d, "again", "cat /d/dir/file"), "x");

    // Hostile archives make no volume, and nothing beside it.
    let outside = d.path().join("outside");
    for (name, hostile) in [("up", format!("../../../../../../../..{}", outside.display())), ("cut", "x".into())] {
        let mut archive = tar_of(&hostile);
        if name == "cut" {
            archive.truncate(600);
        }
        let said = import(&d, name, &archive);
        assert!(name != "cut" || said.code != 0, "{}", said.out);
        assert!(!outside.exists());
    }
    assert!(!d.docker("volume ls -q").ok().contains("cut"));
    let left = std::fs::read_dir(d.data().join("volumes")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
}

/// An archive of one file of 1,000 bytes by this name.
fn tar_of(name: &str) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000001750\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(512 + 1024 + 1024, b'x');
    archive[1536..].fill(0);
    archive
}

#[test]
fn a_daemon_that_is_killed_in_a_copy_leaves_nothing_frozen_or_half() {
    let Some(mut d) = Daemon::start() else { return };
    // Many files: the copy takes a while.
    sh(&d, "data", "cd /d; for i in $(seq 3000); do echo $i >$i; done");
    d.docker("run -d --name user -v data:/d busybox sleep 1000").ok();
    for round in 0..3 {
        let mut clone = Command::new(WHARF);
        clone.arg("-H").arg(format!("unix://{}", d.socket().display()));
        clone.args(["volume", "clone", "data", &format!("clone{round}")]);
        let mut clone = clone.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        d.eventually("it is frozen or done", || {
            state(&d, "user") == "paused" || d.docker("volume ls -q").ok().contains(&format!("clone{round}"))
        });
        d.kill();
        clone.wait().unwrap();
        d.launch();
        assert_eq!(state(&d, "user"), "running");
        d.docker("exec user touch /d/alive").ok();
        let volumes = d.docker("volume ls -q").ok();
        for name in volumes.lines().filter(|name| *name != "data") {
            assert!(sh(&d, name, "ls /d | wc -l").parse::<u32>().unwrap() >= 3000);
        }
        let left = std::fs::read_dir(d.data().join("volumes")).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(left.len(), volumes.lines().count(), "{left:?}");
    }
    assert_eq!(d.wharf("system fsck").code, 0);
}
