//! The same container as an ordinary user, who has one mapping and no control groups.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::kit::{WHARF, text, wait_until};

const USER: u32 = 54_321;

/// A user's own bundle, and the binary where that user finds it.
struct Home(tempfile::TempDir);

impl Home {
    fn new(args: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: becoming an ordinary user needs root, and containers busybox-static");
            return None;
        }
        if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|text| text.trim() == "0") {
            eprintln!("skipped: no user namespaces");
            return None;
        }
        let home = Self(tempfile::tempdir().unwrap());
        let bin = home.path("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", Path::new(&bin).join("busybox")).unwrap();
        for applet in ["sh", "id", "cat", "sleep", "touch"] {
            symlink("busybox", Path::new(&bin).join(applet)).unwrap();
        }
        fs::copy(WHARF, home.path("runc")).unwrap();
        fs::set_permissions(home.path("runc"), fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["", "rootfs", "rootfs/bin"] {
            chown(home.path(dir), Some(USER), Some(USER)).unwrap();
        }
        assert!(home.runc(&["spec", "--rootless"]).status.success());
        let path = home.path("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["process"]["args"] = json!(args);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        fs::write(path, config.to_string()).unwrap();
        Some(home)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("runc"));
        command.arg("--root").arg(self.path("state")).args(words).current_dir(self.0.path());
        // Root's supplementary groups go with the change of the user.
        command.stdin(Stdio::null()).uid(USER).gid(USER);
        command
    }

    fn runc(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }
}

#[test]
fn a_container_of_an_ordinary_user_has_a_root_of_its_own() {
    let Some(home) = Home::new(&["sh", "-c", "id -u; touch /made; cat /proc/self/setgroups"]) else { return };
    let output = home.runc(&["run", "a"]);
    assert_eq!(text(&output.stdout), "0\ndeny\n", "{}", text(&output.stderr));
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(home.path("rootfs/made")).unwrap());
    assert_eq!(owner, USER);
}

#[test]
fn its_whole_life_needs_no_privilege() {
    let Some(home) = Home::new(&["sleep", "600"]) else { return };
    let log = fs::File::create(home.path("log")).unwrap();
    let created = home.command(&["create", "b"]).stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
    assert!(created.success(), "{}", fs::read_to_string(home.path("log")).unwrap());
    assert!(home.runc(&["start", "b"]).status.success());
    let output = home.runc(&["exec", "b", "id", "-u"]);
    assert_eq!(text(&output.stdout), "0\n", "{}", text(&output.stderr));
    assert!(home.runc(&["kill", "b", "KILL"]).status.success());
    wait_until("its end", || text(&home.runc(&["state", "b"]).stdout).contains("stopped"));
    assert!(home.runc(&["delete", "b"]).status.success());
    assert_eq!(fs::read_dir(home.path("state")).unwrap().count(), 0);
}

#[test]
fn a_limit_that_cannot_be_set_is_refused() {
    let Some(home) = Home::new(&["id"]) else { return };
    let path = home.path("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["linux"]["resources"] = json!({ "memory": { "limit": 50_000_000 } });
    fs::write(path, config.to_string()).unwrap();
    let output = home.runc(&["run", "c"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cgroup"), "{}", text(&output.stderr));
}
