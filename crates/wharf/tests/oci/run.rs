//! `run` in the foreground and detached.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::kit::{Bundle, text};

#[test]
fn output_and_exit_code_are_the_program_s() {
    let Some(bundle) = Bundle::new("exit", &["sh", "-c", "echo out; echo err >&2; exit 5"], |_| {}) else { return };
    let output = bundle.run();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"));
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_missing_command_says_so_and_leaves_nothing() {
    let Some(bundle) = Bundle::new("missing", &["no-such-program"], |_| {}) else { return };
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let want = "exec: \\\"no-such-program\\\": executable file not found in $PATH";
    assert!(text(&output.stderr).contains(want), "{}", text(&output.stderr));
    bundle.configure(|config| config["process"]["args"] = json!(["/bin"]));
    assert!(text(&bundle.run().stderr).contains("permission denied"));
}

#[test]
fn a_bad_bundle_leaves_nothing() {
    let bad = |config: &mut Value| config["mounts"].as_array_mut().unwrap().push(json!({"destination": "x"}));
    let Some(bundle) = Bundle::new("bad", &["true"], bad) else { return };
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("runc run failed: "), "{}", text(&output.stderr));
}

#[test]
fn a_signal_is_passed_on_and_shows_in_the_exit_code() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let Some(bundle) = Bundle::new("signal", &["sh", "-c", script], |_| {}) else { return };
    let mut child = bundle.run_command().stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    bundle.assert_nothing_is_left();
}

#[test]
fn what_is_detached_runs_on_and_what_is_kept_stays() {
    let Some(bundle) = Bundle::sleeper("detached", |_| {}) else { return };
    let pid_file = bundle.path("pid");
    let mut command = bundle.run_command();
    command.arg("--detach").arg("--pid-file").arg(&pid_file).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let state = bundle.state();
    assert_eq!(state["status"], "running");
    assert_eq!(fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
    bundle.configure(|config| config["process"]["args"] = json!(["true"]));
    assert!(bundle.run_command().arg("--keep").status().unwrap().success());
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn fds_are_passed_on_when_asked_and_only_then() {
    let Some(bundle) = Bundle::new("fds", &["sh", "-c", "ls /proc/self/fd; cat <&3"], |_| {}) else { return };
    let file = bundle.path("passed");
    fs::write(&file, "passed on\n").unwrap();
    let shell = |flags: &str| {
        let line = format!(
            "{} oci --root {} run {flags} --bundle {} {} 3<{} 4</etc/hosts",
            crate::kit::WHARF,
            bundle.root().display(),
            bundle.dir.path().display(),
            bundle.id,
            file.display()
        );
        std::process::Command::new("sh").args(["-c", &line]).output().unwrap()
    };
    let output = shell("--preserve-fds 1");
    // ls itself opens one more.
    assert_eq!(text(&output.stdout), "0\n1\n2\n3\n4\npassed on\n", "{}", text(&output.stderr));
    assert!(text(&shell("").stdout).starts_with("0\n1\n2\n3\n"), "fd 3 is ls's own");
    assert!(!text(&shell("").stdout).contains("passed on"));
    assert!(text(&shell("--preserve-fds 9").stderr).contains("preserved-fd"));
}
