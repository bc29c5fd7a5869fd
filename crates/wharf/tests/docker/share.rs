//! What containers have of the host and of each other.

use std::process::Command;

use crate::kit::Daemon;

/// A directory with another file system in it.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below).status().unwrap().success());
        std::fs::write(below.join("there"), "").unwrap();
        Self(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path().join("below")).status();
    }
}

#[test]
fn a_read_only_bind_is_so_with_all_below() {
    let Some(d) = Daemon::start() else { return };
    let mounted = Mounted::new();
    let source = mounted.0.path().display();
    let try_it = "for f in /m/x /m/below/x; do touch $f 2>/dev/null && echo written || echo refused; done; ls /m/below";
    assert_eq!(d.sh(&format!("-v {source}:/m:ro"), try_it).ok(), "refused\nrefused\nthere");
    let mount = format!("--mount type=bind,src={source},dst=/m");
    assert_eq!(d.sh(&format!("{mount},ro"), try_it).ok(), "refused\nrefused\nthere");
    let forced = format!("{mount},ro,bind-recursive=readonly,bind-propagation=rprivate");
    assert_eq!(d.sh(&forced, try_it).ok(), "refused\nrefused\nthere");
    assert_eq!(d.sh(&format!("{mount},ro,bind-recursive=writable"), try_it).ok(), "refused\nwritten\nthere\nx");
    assert_eq!(d.sh(&format!("{mount},bind-recursive=disabled"), "ls -A /m/below").ok(), "");
    let odd = d.sh(&format!("{mount},bind-propagation=sideways"), "true");
    assert!(odd.code == 125 && odd.err.contains("invalid propagation mode: sideways"), "{}", odd.err);
}

#[test]
fn a_read_only_root_has_read_only_files_in_it() {
    let Some(d) = Daemon::start() else { return };
    let try_it = "for f in hosts resolv.conf hostname; do { echo x >> /etc/$f; } 2>/dev/null && echo written || echo refused; done";
    assert_eq!(d.sh("--read-only", try_it).ok(), "refused\nrefused\nrefused");
    assert_eq!(d.sh("", try_it).ok(), "written\nwritten\nwritten");
}

#[test]
fn a_container_s_own_files_are_there_whatever_etc_is() {
    let Some(d) = Daemon::start() else { return };
    let etc = tempfile::tempdir().unwrap();
    std::fs::write(etc.path().join("mine"), "here").unwrap();
    let said = d.sh(&format!("-v {}:/etc --hostname inside", etc.path().display()), "cat /etc/mine /etc/hostname");
    assert_eq!(said.ok(), "hereinside");
    let own = d.sh(&format!("-v {}/mine:/etc/hostname", etc.path().display()), "cat /etc/hostname");
    assert_eq!(own.ok(), "here");
}

#[test]
fn devices_of_privileged_containers_and_of_directories() {
    let Some(d) = Daemon::start() else { return };
    let listed = "find /dev -xdev \\( -type c -o -type b \\) ! -name console ! -name ptmx ! -path '/dev/pts/*' ! -path '/dev/shm/*' -exec stat -c '%n %t:%T' {} + | sort";
    let host = Command::new("sh").arg("-c").arg(listed).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    assert!(host.contains("/dev/null 1:3"), "{host}");
    assert_eq!(d.sh("--privileged", listed).ok(), host.trim_end());
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let node = dir.path().join("sub/zero");
    assert!(Command::new("mknod").arg(&node).args(["c", "1", "5"]).status().unwrap().success());
    let said = d.sh(&format!("--device {}:/dev/mine", dir.path().display()), "head -c 3 /dev/mine/sub/zero | wc -c");
    assert_eq!(said.ok(), "3");
    let none = d.sh(&format!("--device {}", d.path().display()), "true");
    assert!(none.err.contains("error gathering device information while adding custom device"), "{}", none.err);
}

#[test]
fn ipc_is_shared_by_those_who_allow_it() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --network none --name private busybox sleep 1000").ok();
    let refused = d.sh("--network none --ipc container:private", "true");
    let hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)";
    assert!(refused.code != 0 && refused.err.contains(hint), "{}", refused.err);
    d.docker("run -d --network none --ipc shareable --shm-size 1m --name donor busybox sleep 1000").ok();
    let said = d.sh("--network none --ipc container:donor", "echo from-other > /dev/shm/f; readlink /proc/self/ns/ipc");
    let own = d.docker("exec donor readlink /proc/self/ns/ipc").ok();
    assert_eq!(said.ok(), own);
    assert_eq!(d.docker("exec donor cat /dev/shm/f").ok(), "from-other");
    let full = d.sh("--network none --ipc container:donor", "head -c 3000000 /dev/zero > /dev/shm/full");
    assert_eq!(full.code, 1, "it is as large as its owner's: {}", full.err);
    // Also of a daemon that came later, and on when the donor has gone.
    d.kill();
    d.launch();
    d.docker("run -d --network none --ipc container:donor --name second busybox sleep 1000").ok();
    d.docker("rm -f donor").ok();
    assert_eq!(d.docker("exec second cat /dev/shm/f").ok(), "from-other");
}

#[test]
fn a_network_is_shared_while_its_owner_runs() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name owner busybox sleep 1000").ok();
    let own = d.docker("exec owner readlink /proc/self/ns/net").ok();
    assert_eq!(d.sh("--network container:owner", "readlink /proc/self/ns/net").ok(), own);
    d.docker("kill owner").ok();
    let gone = d.sh("--network container:owner", "true");
    assert!(gone.code != 0 && gone.err.contains("non running container: container owner is exited"), "{}", gone.err);
}

#[test]
fn who_is_joined_is_known_by_its_id() {
    let Some(d) = Daemon::start() else { return };
    let id = d.docker("create --name owner busybox true").ok();
    let not_running = format!("namespace: container {id} is not running");
    for (kind, status, words) in [("Pid", 500, "failed to join PID "), ("Ipc", 409, "failed to join IPC ")] {
        let host = format!(r#"{{"Image":"busybox","Cmd":["true"],"HostConfig":{{"{kind}Mode":"container:owner"}}}}"#);
        let (made, said) = d.post(&format!("/containers/create?name={kind}"), &host, true).unwrap();
        assert_eq!(made, 201, "{said}");
        let mode = d.docker(&format!("inspect -f {{{{.HostConfig.{kind}Mode}}}} {kind}")).ok();
        assert_eq!(mode, format!("container:{id}"));
        let (code, said) = d.post(&format!("/containers/{kind}/start"), "", true).unwrap();
        assert!(code == status && said.contains(words) && said.contains(&not_running), "{code} {said}");
    }
}

#[test]
fn a_bound_dev_is_left_as_it_is() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some(d) = Daemon::start() else { return };
    let dev = d.path().join("dev");
    std::fs::create_dir(&dev).unwrap();
    let null = dev.join("null");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, &null, rustix::fs::FileType::CharacterDevice, mode, device).unwrap();
    std::fs::write(dev.join("ptmx"), "the host's own").unwrap();
    d.docker(&format!("run --rm -v {}:/dev busybox true", dev.display())).ok();
    let found = std::fs::metadata(&null).unwrap();
    assert!(found.permissions().mode() & 0o777 == 0o600 && found.rdev() == device);
    assert_eq!(std::fs::read_to_string(dev.join("ptmx")).unwrap(), "the host's own");
    for name in ["zero", "tty", "fd", "stdin", "console"] {
        assert!(std::fs::symlink_metadata(dev.join(name)).is_err(), "{name} was made on the host");
    }
}
