//! Containers in the mount namespace of others, and what their hooks see of the mounts.

use std::fs;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Bundle, text, wait_until};

fn without_mount_namespace(config: &mut Value, path: Option<String>) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    if let Some(path) = path {
        namespaces.push(json!({ "type": "mount", "path": path }));
    }
}

/// Its first process has a root of its own in somebody's mount namespace, where nothing of it shows.
fn assert_apart(bundle: &Bundle, namespace: &str) {
    bundle.create();
    bundle.start();
    let pid = bundle.state()["pid"].clone();
    assert_eq!(fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap().to_string_lossy(), namespace);
    let shown = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!shown.contains(&*bundle.dir.path().to_string_lossy()), "a mount shows on the host");
    // The kernel's files are where the configuration has them, masked, and an exec has the same root.
    let script = "ls /; ls /proc/self/ns/mnt; cat /proc/kcore | head -c 1; touch /dev/shm/f && ls -A /dev/shm";
    let seen = bundle.ok(&["exec", &bundle.id, "sh", "-c", script]);
    assert!(seen.contains("bin\ndev\n") && !seen.contains("boot") && seen.ends_with("f\n"), "{seen}");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn without_a_mount_namespace_the_root_is_its_own_still() {
    let Some(bundle) = Bundle::sleeper("nomnt", |config| without_mount_namespace(config, None)) else { return };
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().to_string_lossy().into_owned();
    assert_apart(&bundle, &own);
}

#[test]
fn a_mount_namespace_of_others_is_joined_by_path() {
    let Some(bundle) = Bundle::sleeper("joinmnt", |_| {}) else { return };
    let unshare = ["unshare", "-m", "sh", "-c", "read wait"];
    let mut other = Command::new("/bin/busybox").args(unshare).stdin(Stdio::piped()).spawn().unwrap();
    let path = format!("/proc/{}/ns/mnt", other.id());
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    wait_until("the other's namespace", || fs::read_link(&path).is_ok_and(|link| link != own));
    let namespace = fs::read_link(&path).unwrap().to_string_lossy().into_owned();
    let before = fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap();
    bundle.configure(|config| without_mount_namespace(config, Some(path)));
    assert_apart(&bundle, &namespace);
    assert_eq!(fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap(), before);
    drop(other.stdin.take());
    other.wait().unwrap();
}

#[test]
fn what_a_shared_mount_table_cannot_give_is_refused() {
    let Some(bundle) = Bundle::new("shared", &["true"], |config| {
        without_mount_namespace(config, None);
        config["linux"]["rootfsPropagation"] = json!("shared");
    }) else {
        return;
    };
    assert!(text(&bundle.run().stderr).contains("rootfsPropagation without a mount namespace"));
    bundle.configure(|config| {
        config["linux"]["rootfsPropagation"] = json!("");
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    assert!(text(&bundle.run().stderr).contains("without a new mount namespace"));
}

#[test]
fn hooks_find_the_root_where_the_host_has_it() {
    let Some(bundle) = Bundle::new("hookroot", &["sh", "-c", "cat /from-runtime /from-container"], |_| {}) else {
        return;
    };
    // By the container's own mounts, as hooks do that add devices and libraries.
    let root = bundle.path("rootfs").to_string_lossy().into_owned();
    let runtime = format!(
        "pid=$(/bin/busybox sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
         /bin/busybox nsenter -m -t $pid /bin/busybox sh -c 'echo runtime > {root}/from-runtime'; pwd > {root}/where"
    );
    let note = |name: &str| format!("pwd > {}", bundle.path(name).display());
    bundle.configure(|config| {
        let hook = |script: &str| json!([{ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script] }]);
        config["process"]["cwd"] = json!("/bin");
        config["hooks"]["startContainer"] = hook("pwd > /started");
        for point in ["poststart", "poststop"] {
            config["hooks"][point] = hook(&note(point));
        }
        config["hooks"]["createRuntime"] = hook(&runtime);
        config["hooks"]["createContainer"] = hook("echo container > from-container");
    });
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "runtime\ncontainer\n", "{}", text(&output.stderr));
    let place = fs::read_to_string(bundle.path("rootfs/where")).unwrap();
    assert_eq!(place.trim(), bundle.dir.path().canonicalize().unwrap().to_string_lossy());
    // In which namespaces they run the specification says ("POSIX-platform Hooks"); where, runc and crun.
    assert_eq!(fs::read_to_string(bundle.path("rootfs/started")).unwrap(), "/bin\n");
    for point in ["poststart", "poststop"] {
        assert_eq!(fs::read_to_string(bundle.path(point)).unwrap(), place, "{point}");
    }
}

#[test]
fn hooks_run_where_the_root_s_path_is_closed_to_the_user_namespace() {
    let Some(bundle) = Bundle::new("closed", &["cat", "/made"], |config| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let hook = json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", "echo made > made"] });
        config["hooks"]["createContainer"] = json!([hook]);
    }) else {
        return;
    };
    // The directory above it is the test's own alone (tempfile).
    chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "made\n", "{}", text(&output.stderr));
}

#[test]
fn a_read_only_dev_is_filled_before_it_is_sealed() {
    let Some(bundle) = Bundle::new("rodev", &["sh", "-c", "ls /dev/pts/ptmx /dev/null; touch /dev/x"], |config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                mount["options"].as_array_mut().unwrap().push(json!("ro"));
            }
        }
    }) else {
        return;
    };
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "/dev/null\n/dev/pts/ptmx\n");
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", text(&output.stderr));
}

#[test]
fn file_systems_are_those_of_the_kernel() {
    let mount = |kind: &str| json!({ "destination": "data", "type": kind, "options": ["silent", "nodev"] });
    let Some(bundle) = Bundle::new("fs", &["sh", "-c", "grep ' /data ' /proc/self/mounts"], |config| {
        config["mounts"].as_array_mut().unwrap().push(mount("ramfs"));
    }) else {
        return;
    };
    let output = bundle.run();
    assert!(text(&output.stdout).starts_with("ramfs /data ramfs rw,nodev"), "{}", text(&output.stderr));
    // A destination that is not absolute is an old one, and told.
    assert!(text(&output.stderr).contains("mount destination data is not absolute"), "{}", text(&output.stderr));
    for (kind, why) in [("frobfs", "knows no file system of type `frobfs`"), ("", "has no type")] {
        bundle.configure(|config| *config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = mount(kind));
        assert!(text(&bundle.run().stderr).contains(why), "{kind}");
    }
}
