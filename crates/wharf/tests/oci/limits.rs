//! Limits: at the creation, and changed later.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Bundle, text};

/// A control file of the container's group: v1's by its controller, or v2's.
fn control(bundle: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    let old = PathBuf::from("/sys/fs/cgroup").join(controller).join(&bundle.id).join(v1);
    let path = if old.exists() { old } else { PathBuf::from("/sys/fs/cgroup").join(&bundle.id).join(v2) };
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

/// Whether the host has cgroup2 alone.
fn is_v2() -> bool {
    PathBuf::from("/sys/fs/cgroup/cgroup.controllers").exists()
}

#[test]
fn memory_past_the_limit_ends_the_program() {
    let limit = |config: &mut Value| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    };
    let script = "x=$(head -c 100000000 /dev/zero | busybox tr '\\0' a); echo alive";
    let Some(bundle) = Bundle::new("memory", &["sh", "-c", script], limit) else { return };
    let output = bundle.run();
    assert!(!text(&output.stdout).contains("alive"), "100 MB fitted into 16");
}

#[test]
fn limits_are_updated_by_flags_and_by_files() {
    let Some(bundle) = Bundle::sleeper("update", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    }) else {
        return;
    };
    bundle.create();
    bundle.start();
    let limit = || control(&bundle, "memory", "memory.limit_in_bytes", "memory.max");
    // v2 has a weight for shares, and quota and period in one file.
    let shares = || control(&bundle, "cpu", "cpu.shares", "cpu.weight");
    let quota = || control(&bundle, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(limit(), (64 << 20).to_string());
    bundle.ok(&["update", "--memory", "48M", "--cpu-share", "300", "--pids-limit", "17", &bundle.id]);
    assert_eq!(limit(), (48 << 20).to_string());
    assert_eq!(shares(), if is_v2() { "12" } else { "300" });
    assert_eq!(control(&bundle, "pids", "pids.max", "pids.max"), "17");
    bundle.ok(&["update", "--pids-limit", "-1", &bundle.id]);
    assert_eq!(control(&bundle, "pids", "pids.max", "pids.max"), "max");
    // As Docker writes it: zeros for what stays.
    let mut child = bundle.wharf(&["update", "-r", "-", &bundle.id]).stdin(Stdio::piped()).spawn().unwrap();
    let resources = json!({ "memory": { "limit": 50 << 20, "swap": 0 }, "cpu": { "shares": 0, "quota": 50000 } });
    child.stdin.take().unwrap().write_all(resources.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(limit(), (50 << 20).to_string());
    assert_eq!(shares(), if is_v2() { "12" } else { "300" });
    assert_eq!(quota(), if is_v2() { "50000 100000" } else { "50000" });
    assert_eq!(bundle.fails(&["update", "--memory", "much", &bundle.id]).0, 1);
}

#[test]
fn a_limit_of_no_processes_is_a_limit() {
    let words = ["sh", "-c", "echo in; (echo forked); echo last"];
    let Some(bundle) = Bundle::new("pids", &words, |config| {
        config["ociVersion"] = json!("1.3.0");
        config["linux"]["resources"]["pids"] = json!({ "limit": 0 });
    }) else {
        return;
    };
    let output = bundle.run();
    let (shown, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(shown.starts_with("in\n") && !shown.contains("forked") && errors.contains("fork"), "{shown}{errors}");
    for none in [json!({ "limit": -1 }), json!({})] {
        bundle.configure(|config| config["linux"]["resources"]["pids"] = none);
        assert_eq!(text(&bundle.run().stdout), "in\nforked\nlast\n");
    }
}

#[test]
fn events_tell_what_is_used() {
    let Some(bundle) = Bundle::sleeper("events", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let event: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", &bundle.id])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(bundle.id)));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(event["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0);
    if is_v2() {
        for section in ["cpu", "memory", "blkio"] {
            assert!(event["data"][section]["psi"]["some"]["total"].is_u64(), "{section}: {event}");
        }
    } else {
        assert!(event["data"]["cpu"]["usage"]["percpu"].as_array().is_some_and(|all| !all.is_empty()), "{event}");
    }
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_for_status("stopped");
    assert!(bundle.fails(&["events", "--stats", &bundle.id]).1.contains("is not running"));
}

#[test]
fn devices_are_those_of_the_rules_and_the_defaults() {
    let rules = |config: &mut Value| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" }]);
        let caps = json!(["CAP_MKNOD"]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = caps.clone();
        }
    };
    let script =
        "head -c 1 /dev/zero >/dev/full; busybox mknod /d c 1 11 && cat /d; head -c 4 /dev/urandom | busybox wc -c";
    let Some(bundle) = Bundle::new("devices", &["sh", "-c", script], rules) else { return };
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "4\n");
    let errors = text(&output.stderr);
    assert!(errors.contains("No space left") && errors.contains("Operation not permitted"), "{errors}");
}

#[test]
fn a_group_with_somebody_in_it_is_not_shared() {
    let Some(bundle) = Bundle::sleeper("group", |_| {}) else { return };
    bundle.create();
    let path = format!("/{}", bundle.id);
    bundle.configure(|config| config["linux"]["cgroupsPath"] = json!(path));
    let other = format!("{}-other", bundle.id);
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let (code, message) = bundle.fails(&["create", "--bundle", &dir, &other]);
    assert_eq!(code, 1);
    assert!(message.contains("cgroup is not empty"), "{message}");
    assert_eq!(bundle.status(), "created");
}

#[test]
fn an_update_is_done_whole_or_not_at_all() {
    let Some(bundle) = Bundle::sleeper("whole", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 });
    }) else {
        return;
    };
    bundle.create();
    let limits = || {
        (
            control(&bundle, "memory", "memory.limit_in_bytes", "memory.max"),
            control(&bundle, "pids", "pids.max", "pids.max"),
            control(&bundle, "cpu", "cpu.cfs_quota_us", "cpu.max"),
        )
    };
    let before = limits();
    assert_eq!(before.0, (32 << 20).to_string());
    let words = ["update", "--memory", "64M", "--pids-limit", "30", "--cpu-quota", "20000", "--cpuset-cpus", "7777"];
    bundle.fails(&[&words[..], &[&bundle.id]].concat());
    assert_eq!(limits(), before);
    bundle.ok(&["update", "--memory", "0.5g", &bundle.id]);
    assert_eq!(limits().0, (512 << 20).to_string());
}

#[test]
fn what_the_configuration_did_not_limit_is_as_before_after_an_update_that_failed() {
    let Some(bundle) = Bundle::sleeper("period", |config| {
        config["linux"]["resources"]["cpu"] = json!({ "quota": 50_000 });
    }) else {
        return;
    };
    bundle.create();
    let limits = || {
        let period = control(&bundle, "cpu", "cpu.cfs_period_us", "cpu.max");
        let cpus = control(&bundle, "cpuset", "cpuset.cpus", "cpuset.cpus.effective");
        (period, control(&bundle, "cpu", "cpu.cfs_quota_us", "cpu.max"), cpus)
    };
    let before = limits();
    let asked = json!({
        "cpu": { "quota": 20_000, "period": 50_000, "cpus": "0" },
        "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }],
    });
    fs::write(bundle.path("asked"), asked.to_string()).unwrap();
    bundle.fails(&["update", "-r", &bundle.path("asked").to_string_lossy(), &bundle.id]);
    assert_eq!(limits(), before);
}

#[test]
fn keys_are_read_in_any_case_as_by_runc() {
    let Some(bundle) = Bundle::new("case", &[], |config| {
        config["process"]["Args"] = json!(["echo", "read"]);
        config["process"].as_object_mut().unwrap().remove("args");
    }) else {
        return;
    };
    assert_eq!(text(&bundle.run().stdout), "read\n");
    bundle.configure(|config| {
        config["process"]["Args"] = json!(["sleep", "600"]);
        config["linux"]["resources"]["Pids"] = json!({ "Limit": 9 });
    });
    bundle.create();
    assert_eq!(control(&bundle, "pids", "pids.max", "pids.max"), "9");
    let mut child = bundle.wharf(&["update", "-r", "-", &bundle.id]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"CPU":{"Cpus":"0"}}"#).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(control(&bundle, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
}

/// Where nothing can watch over devices (here in a mount namespace without those hierarchies), a container with rules for
/// them does not run, and one that may use all of them does.
#[test]
fn without_a_controller_of_devices_their_rules_fail_closed() {
    if !PathBuf::from("/sys/fs/cgroup/devices").exists() {
        return eprintln!("skipped: no v1 hierarchy of devices to take away");
    }
    let Some(bundle) = Bundle::new("bare", &["true"], |_| {}) else { return };
    let without = "mount --make-rprivate / && umount /sys/fs/cgroup/devices && \
                   { ! [ -e /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified; } && exec \"$@\"";
    let run = || {
        let command = bundle.run_command();
        let mut bare = Command::new("unshare");
        bare.args(["-m", "sh", "-c", without, "sh"]).arg(command.get_program()).args(command.get_args());
        let output = bare.stdin(Stdio::null()).output().unwrap();
        bundle.assert_nothing_is_left();
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = run();
    assert!(code == Some(1) && said.contains("device rules"), "{code:?}: {said}");
    bundle.configure(|config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
    });
    assert_eq!(run(), (Some(0), String::new()));
}

/// Up to 1.2 a limit of 0 processes was none, and so it is in what engines of that time write.
#[test]
fn of_an_older_configuration_no_processes_are_no_limit() {
    let Some(bundle) = Bundle::new("old-pids", &["sh", "-c", "true | true; echo piped"], |config| {
        config["ociVersion"] = json!("1.0.2-dev");
        config["linux"]["resources"]["pids"] = json!({ "limit": 0 });
    }) else {
        return;
    };
    let output = bundle.run();
    assert_eq!(text(&output.stdout), "piped\n", "{}", text(&output.stderr));
}

#[test]
fn a_limit_too_low_to_begin_with_is_told() {
    let Some(bundle) = Bundle::sleeper("too-low", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 4096 });
    }) else {
        return;
    };
    let output = bundle.run();
    assert!(text(&output.stderr).contains("memory limit too low?"), "{}", text(&output.stderr));
    if is_v2() {
        return;
    }
    for (shares, words) in [(1, "the minimum allowed cpu-shares is 2"), (262_145, "the maximum allowed cpu-shares is")]
    {
        bundle.configure(|config| config["linux"]["resources"] = json!({ "cpu": { "shares": shares } }));
        let output = bundle.run();
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}
