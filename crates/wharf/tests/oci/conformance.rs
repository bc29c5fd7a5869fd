//! What the public suites for runtimes (runc's, crun's, runtime-tools') ask and no other test here does.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::kit::{Bundle, text};

#[test]
fn capabilities_that_nobody_knows_are_left_out_and_told() {
    let status = ["sh", "-c", "grep CapPrm /proc/self/status"];
    let sets = || json!({ "bounding": ["CAP_FROB", "CAP_KILL"], "permitted": ["CAP_FROB", "CAP_KILL"] });
    let Some(bundle) = Bundle::new("unknown", &status, |config| config["process"]["capabilities"] = sets()) else {
        return;
    };
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "CapPrm:\t0000000000000020\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("unknown capabilities are left out: CAP_FROB"));
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
    bundle.create();
    bundle.start();
    let output = bundle.output(&["exec", "--cap", "CAP_OTHER", &bundle.id, "true"]);
    assert!(output.status.success() && text(&output.stderr).contains("left out: CAP_OTHER"));
}

#[test]
fn the_last_of_several_variables_of_a_name_counts() {
    let Some(bundle) = Bundle::sleeper("env", |config| config["process"]["env"] = json!(["PATH=/bin", "A=1"])) else {
        return;
    };
    bundle.create();
    bundle.start();
    assert_eq!(bundle.ok(&["exec", "-e", "A=2", "-e", "A=3", &bundle.id, "env"]).matches("A=").count(), 1);
    assert!(bundle.ok(&["exec", "-e", "A=2", "-e", "A=3", &bundle.id, "env"]).contains("A=3\n"));
}

#[test]
fn a_hook_without_an_environment_gets_the_runtime_s() {
    let Some(bundle) = Bundle::new("hookenv", &["true"], |_| {}) else { return };
    let script = format!("echo $MARK >> {}", bundle.path("marks").display());
    bundle.configure(|config| {
        let hook = json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script] });
        let mut empty = hook.clone();
        empty["env"] = json!([]);
        config["hooks"]["createRuntime"] = json!([hook, empty]);
    });
    let status = bundle.run_command().env("MARK", "m").status().unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(bundle.path("marks")).unwrap(), "m\n\n");
}

#[test]
fn a_hook_in_the_container_is_judged_by_its_filter() {
    for privileges in [true, false] {
        let Some(bundle) = Bundle::new("hookfilter", &["true"], |config| {
            config["process"]["noNewPrivileges"] = json!(privileges);
            let hook = json!({ "path": "/bin/busybox", "args": ["busybox", "mkdir", "/made"] });
            config["hooks"]["startContainer"] = json!([hook]);
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }] });
        }) else {
            return;
        };
        assert!(!bundle.run().status.success());
        assert!(!bundle.path("rootfs/made").exists());
    }
}

/// The container's directory in the hierarchy of `controller`, where that is v1.
fn group(controller: &str, name: &str) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup").join(controller);
    root.join("cgroup.procs").exists().then(|| root.join(name))
}

#[test]
fn a_group_is_called_as_the_container_and_must_not_be_frozen() {
    let Some(bundle) = Bundle::sleeper("frozen", |_| {}) else { return };
    let Some(dir) = group("freezer", &bundle.id) else { return eprintln!("skipped: no v1 freezer") };
    bundle.create();
    assert!(dir.is_dir());
    bundle.ok(&["delete", "--force", &bundle.id]);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("freezer.state"), "FROZEN").unwrap();
    let output = bundle.run_command().output().unwrap();
    fs::write(dir.join("freezer.state"), "THAWED").unwrap();
    fs::remove_dir(&dir).unwrap();
    assert!(text(&output.stderr).contains("cgroup unexpectedly frozen"), "{}", text(&output.stderr));
    bundle.assert_nothing_is_left();
}

#[test]
fn keys_of_cgroup2_are_refused_where_limits_are_of_v1() {
    if group("memory", "").is_none() {
        return eprintln!("skipped: no v1 memory controller");
    }
    let Some(bundle) = Bundle::new("unified", &["true"], |config| {
        config["linux"]["resources"]["unified"] = json!({ "memory.min": "4096" });
    }) else {
        return;
    };
    assert!(text(&bundle.run().stderr).contains("invalid configuration: cannot use `unified`"));
}

#[test]
fn a_device_in_a_user_namespace_has_the_owner_and_mode_asked_for() {
    let Some(bundle) = Bundle::new("owner", &["stat", "-c", "%u:%g %a %t:%T", "/dev/frob"], |config| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["devices"] =
            json!([{ "path": "/dev/frob", "type": "c", "major": 1, "minor": 5, "fileMode": 416, "uid": 7, "gid": 8 }]);
    }) else {
        return;
    };
    chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
    let output = bundle.run();
    if text(&output.stderr).contains("/dev/frob") {
        return eprintln!("skipped: this kernel copies nothing of a detached mount");
    }
    assert_eq!(text(&output.stdout), "7:8 640 1:5\n", "{}", text(&output.stderr));
}

#[test]
fn the_configuration_s_file_may_have_another_name() {
    let Some(bundle) = Bundle::new("config", &["echo", "default"], |_| {}) else { return };
    let config = fs::read_to_string(bundle.path("config.json")).unwrap().replace("default", "other");
    fs::write(bundle.path("other.json"), config).unwrap();
    let mut command = bundle.run_command();
    let output = command.args(["--config", "other.json"]).output().unwrap();
    assert_eq!(text(&output.stdout), "other\n", "{}", text(&output.stderr));
    let (_, message) = bundle.fails(&["--cgroup-manager", "frob", "list"]);
    assert!(message.contains("give cgroupfs or systemd"), "{message}");
    bundle.ok(&["--cgroup-manager", "cgroupfs", "list"]);
}

#[test]
fn what_the_specification_forbids_is_an_error_and_what_it_ignores_is_none() {
    let Some(bundle) = Bundle::new("musts", &["true"], |config| {
        config["unknown"] = json!({ "a": 1 });
        config["process"]["unknown"] = json!(1);
        config["linux"]["unknown"] = json!([]);
        config["annotations"] = json!({ "org.example.unknown": "" });
    }) else {
        return;
    };
    assert!(bundle.run().status.success());
    let id = bundle.id.as_str();
    for (words, why) in [
        (["state", id], "container does not exist"),
        (["start", id], "container does not exist"),
        (["kill", id], "container does not exist"),
        (["delete", id], "container does not exist"),
    ] {
        assert!(bundle.fails(&words).1.contains(why), "{words:?}");
    }
    bundle.create();
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    assert!(bundle.fails(&["create", "--bundle", &dir, id]).1.contains("already exists"));
    // What is changed after the creation has no effect.
    bundle.configure(|config| config["process"]["args"] = json!(["no-such-program"]));
    bundle.start();
    bundle.wait_for_status("stopped");
    assert!(bundle.fails(&["start", id]).1.contains("cannot start a container that has stopped"));
    let before = bundle.state();
    assert!(bundle.fails(&["kill", id, "KILL"]).1.contains("not running"));
    assert_eq!(bundle.state(), before);
    bundle.ok(&["delete", id]);
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
    bundle.create();
    bundle.start();
    assert!(bundle.fails(&["delete", id]).1.contains("not stopped: running"));
    assert_eq!(bundle.status(), "running");
}
