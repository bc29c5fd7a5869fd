//! Containers and builds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::kit::{Said, User};

#[test]
fn a_user_runs_and_builds() {
    let Some(user) = User::start() else { return };
    assert_eq!(user.sh("--network none", "id -u; id -g").ok(), "0\n0");
    assert_eq!(user.sh("--user 1234:5678", "id -u; id -g").ok(), "1234\n5678");
    user.wharf("run -d --name one busybox sleep 1000").ok();
    assert_eq!(user.wharf("exec one id -u").ok(), "0");
    assert_eq!(
        user.sh("--device /dev/null:/dev/nothing", "echo word > /dev/nothing; cat /dev/nothing; ls /dev/nothing").ok(),
        "/dev/nothing"
    );
    user.wharf("run --name said busybox cat /proc/self/uid_map").ok();
    let map: Vec<String> = user.wharf("logs said").ok().split_whitespace().map(str::to_owned).collect();
    assert_eq!((map[0].as_str(), map[1].as_str(), map[5].as_str()), ("0", user.uid.to_string().as_str(), "65536"));
    let context = user.path("context");
    fs::create_dir(&context).unwrap();
    fs::set_permissions(&context, fs::Permissions::from_mode(0o755)).unwrap();
    let text = "FROM busybox\nRUN mkdir /own && chown 1000:1000 /own\nUSER 1000\nCMD [\"ls\", \"-lnd\", \"/own\"]\n";
    fs::write(context.join("Dockerfile"), text).unwrap();
    user.wharf(&format!("build -t built {}", context.display())).ok();
    let listed = user.wharf("run --rm built").ok();
    assert!(listed.split_whitespace().filter(|word| *word == "1000").count() == 2, "{listed}");
}

#[test]
fn the_daemon_says_whose_it_is() {
    let Some(user) = User::start() else { return };
    let info: serde_json::Value = serde_json::from_str(&user.wharf("info --format json").ok()).unwrap();
    let options = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"];
    assert_eq!(info["SecurityOptions"], serde_json::json!(options));
    assert_eq!(info["DockerRootDir"], user.path("home/.local/share/wharf").to_str().unwrap());
    let mode = fs::metadata(user.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nothing of it is in the host's mount table.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(user.path("").to_str().unwrap()), "{mounts}");
}

#[test]
fn a_user_without_other_ids_has_one() {
    let Some(user) = User::start_alone() else { return };
    assert!(user.log().contains("/etc/subuid gives no IDs to tester"), "{}", user.log());
    assert_eq!(user.sh("--network none", "id -u").ok(), "0");
}

#[test]
fn a_user_s_configuration_is_read() {
    let Some(mut user) = User::new() else { return };
    let config = user.path("home/.config/wharf");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("daemon.json"), r#"{"labels": ["a=b"]}"#).unwrap();
    for dir in ["home/.config", "home/.config/wharf"] {
        std::os::unix::fs::chown(user.path(dir), Some(user.uid), Some(user.uid)).unwrap();
    }
    user.launch();
    assert_eq!(user.wharf("info --format {{.Labels}}").ok(), "[a=b]");
    fs::write(config.join("daemon.json"), r#"{"labels": ["c=d"]}"#).unwrap();
    let launcher = user.launcher();
    user.kill(launcher, "HUP");
    user.eventually("a signal is passed on", || user.wharf("info --format {{.Labels}}").out.trim() == "[c=d]");
    let Said { code, err, .. } = user.daemon(&["--no-such-option"]);
    assert!(code == 125 && err.contains("--no-such-option"), "{code} {err}");
}

#[test]
fn a_command_starts_the_user_s_daemon() {
    let Some(user) = User::new() else { return };
    // By the host's own files: the user has one ID there.
    user.wharf("volume create kept").ok();
    assert!(user.path("home/.local/share/wharf/volumes/kept").exists());
    let status = fs::read_to_string(format!("/proc/{}/status", user.inner())).unwrap();
    let launcher = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    user.kill(launcher, "TERM");
}

#[test]
fn a_data_root_is_looked_at_without_a_daemon() {
    let Some(mut user) = User::start() else { return };
    user.sh("-v kept:/v", "mkdir -m 700 /v/own; chown 1234:1234 /v/own").ok();
    let launcher = user.launcher();
    user.kill(launcher, "TERM");
    assert_eq!(user.ended(), Some(0));
    let said = user.wharf("system fsck --deep");
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
}

/// Who asks a port has no rights, also where there is no other user to become.
#[test]
fn ports_are_asked_without_rights() {
    for user in [User::start(), User::start_alone()] {
        let Some(user) = user else { return };
        let asks = "--health-tcp 7000 --health-interval 100ms --network none";
        user.wharf(&format!("run -d --name asked {asks} busybox nc -ll -p 7000 -e true")).ok();
        user.eventually("a port was asked", || user.wharf("inspect -f {{.State.Health.Log}} asked").ok() != "[]");
        let log = user.wharf("inspect -f {{.State.Health.Log}} asked").ok();
        user.eventually(&format!("it is well: {log}"), || {
            user.wharf("inspect -f {{.State.Health.Status}} asked").ok() == "healthy"
        });
    }
}
