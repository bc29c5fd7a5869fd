//! Commands and options that are not about one container's life.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Bundle, WHARF, text};

#[test]
fn unknown_words_say_so() {
    for (words, code) in [
        (&["nonsense"][..], 1),
        (&["oci", "nonsense"], 3),
        (&["oci", "run", "../x"], 1),
        (&["oci", "--frob"], 1),
        (&["oci", "state", "--frob"], 1),
    ] {
        let output = Command::new(WHARF).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
    assert!(Command::new(WHARF).arg("--help").output().unwrap().status.success());
    let output = Command::new(WHARF).args(["oci", "create"]).output().unwrap();
    assert!(text(&output.stderr).contains("requires exactly 1 argument(s)"));
}

#[test]
fn links_that_are_called_as_a_runtime_are_one() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["runc", "crun", "wharf-oci"] {
        let link = dir.path().join(name);
        symlink(WHARF, &link).unwrap();
        let output = Command::new(&link).arg("--version").output().unwrap();
        let version = text(&output.stdout);
        assert!(
            version.starts_with(&format!("{name} version "))
                && version.contains("\ncommit: wharf-0.")
                && version.contains("\nspec: 1.3."),
            "{version}"
        );
        assert!(text(&Command::new(&link).arg("--help").output().unwrap().stdout).contains("checkpoint"));
    }
}

#[test]
fn a_specification_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |words: &[&str]| {
        Command::new(WHARF).args(["oci", "spec"]).args(words).current_dir(dir.path()).output().unwrap()
    };
    assert!(spec(&[]).status.success());
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"][0], "sh");
    let again = spec(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("File config.json exists. Remove it first"));
    fs::create_dir(dir.path().join("b")).unwrap();
    assert!(spec(&["--rootless", "--bundle", "b"]).status.success());
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("b/config.json")).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);
}

#[test]
fn features_are_json_and_checkpoints_are_refused() {
    let output = Command::new(WHARF).args(["oci", "features"]).output().unwrap();
    let features: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&features["ociVersionMin"], &features["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    assert!(features["hooks"].as_array().unwrap().len() == 6);
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
    let rdt = &features["linux"]["intelRdt"];
    assert!(["enabled", "schemata", "monitoring"].iter().all(|part| rdt[part] == false), "{rdt}");
    for command in ["checkpoint", "restore"] {
        let output = Command::new(WHARF).args(["oci", command, "--image-path", "/x", "id"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("CRIU"), "{}", text(&output.stderr));
    }
}

#[test]
fn all_containers_of_a_root_are_listed() {
    let Some(bundle) = Bundle::sleeper("list", |_| {}) else { return };
    assert_eq!(bundle.ok(&["list", "--format", "json"]), "[]\n");
    bundle.create();
    assert_eq!(bundle.ok(&["list", "--quiet"]), format!("{}\n", bundle.id));
    let all: Value = serde_json::from_str(&bundle.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!((all[0]["id"].as_str(), all[0]["status"].as_str()), (Some(bundle.id.as_str()), Some("created")));
    let table = bundle.ok(&["list"]);
    assert!(table.starts_with("ID ") && table.contains("created"), "{table}");
    assert!(bundle.fails(&["list", "-f", "xml"]).1.contains("invalid format option"));
}

#[test]
fn groups_by_systemd_need_systemd() {
    let Some(bundle) = Bundle::sleeper("systemd", |config| {
        config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    }) else {
        return;
    };
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let create = || {
        let log = fs::File::create(bundle.path("out")).unwrap();
        let mut command = bundle.wharf(&["--systemd-cgroup", "create", "--bundle", &dir, &bundle.id]);
        command.stdout(Stdio::null()).stderr(log).status().unwrap()
    };
    if !Path::new("/run/systemd/system").is_dir() {
        assert_eq!(create().code(), Some(1));
        assert!(bundle.shown().contains("cgroupfs driver"), "{}", bundle.shown());
        return;
    }
    assert!(create().success(), "{}", bundle.shown());
    let unit = format!("wharf-{}.scope", bundle.id);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", bundle.state()["pid"])).unwrap();
    assert!(groups.contains(&format!("/system.slice/{unit}")), "{groups}");
    let tasks = || {
        let shown = Command::new("systemctl").args(["show", "-p", "TasksMax,LoadState", &unit]).output().unwrap();
        text(&shown.stdout)
    };
    assert!(tasks().contains("TasksMax=50"), "{}", tasks());
    bundle.ok(&["update", "--pids-limit", "33", &bundle.id]);
    assert!(tasks().contains("TasksMax=33"), "{}", tasks());
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert!(tasks().contains("LoadState=not-found"), "{}", tasks());
}

#[test]
fn steps_are_told_to_who_debugs() {
    let Some(bundle) = Bundle::new("debug", &["true"], |config| {
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"] });
    }) else {
        return;
    };
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let output = bundle.output(&["--debug", "run", "--bundle", &dir, &bundle.id]);
    let told = text(&output.stderr);
    // runc's debug.bats and seccomp.bats look for these.
    for words in [
        "level=debug",
        "nsexec container setup",
        "child process in init()",
        "init: closing the pipe to signal completion",
        "\"seccomp filter flags: 2\"",
    ] {
        assert!(output.status.success() && told.contains(words), "{words}: {told}");
    }
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "600"]));
    bundle.create();
    bundle.start();
    let log = bundle.path("log").to_string_lossy().into_owned();
    let output = bundle.output(&["--debug", "--log", &log, "exec", &bundle.id, "true"]);
    assert_eq!(text(&output.stderr), "");
    let told = fs::read_to_string(&log).unwrap();
    for words in ["nsexec container setup", "child process in init()", "setns_init: about to exec"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
