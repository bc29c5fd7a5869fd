//! The built binary on bundles of busybox.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// A bundle with a static busybox, made from `wharf oci spec`.
struct Bundle {
    dir: tempfile::TempDir,
    id: String,
}

impl Bundle {
    /// `None` where containers cannot be made.
    fn new(name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: containers need root and busybox-static");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "cat", "head", "echo"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let example = Command::new(WHARF).args(["oci", "spec"]).output().unwrap();
        let mut config: Value = serde_json::from_slice(&example.stdout).unwrap();
        config["process"]["args"] = json!(args);
        // The places for the mounts are made in the root, which is a plain directory here.
        config["root"]["readonly"] = json!(false);
        change(&mut config);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        Some(Self { dir, id: format!("test-{}-{name}", std::process::id()) })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(WHARF);
        command.args(["oci", "run", "--bundle"]).arg(self.dir.path()).arg(&self.id).stdin(Stdio::null());
        command
    }

    fn run(&self) -> Output {
        let output = self.command().output().unwrap();
        self.assert_nothing_is_left();
        output
    }

    fn assert_nothing_is_left(&self) {
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{}", self.id)]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&groups.stdout), "", "a control group is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "a mount is left");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn output_and_exit_code_are_the_program_s() {
    let Some(bundle) = Bundle::new("exit", &["sh", "-c", "echo out; echo err >&2; exit 5"], |_| {}) else { return };
    let output = bundle.run();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("out\n", "err\n"));
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    let Some(bundle) = Bundle::new("missing", &["no-such-program"], |_| {}) else { return };
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("no-such-program"), "{}", text(&output.stderr));
    let Some(bundle) = Bundle::new("directory", &["/bin"], |_| {}) else { return };
    assert_eq!(bundle.run().status.code(), Some(126));
}

#[test]
fn a_bad_bundle_is_125_and_leaves_nothing() {
    let bad = |config: &mut Value| config["mounts"].as_array_mut().unwrap().push(json!({"destination": "x"}));
    let Some(bundle) = Bundle::new("bad", &["true"], bad) else { return };
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).starts_with("wharf: "), "{}", text(&output.stderr));
}

#[test]
fn memory_past_the_limit_ends_the_program() {
    let limit = |config: &mut Value| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    };
    let script = "head -c 200000000 /dev/zero > /dev/shm/x; x=$(head -c 100000000 /dev/zero | cat | busybox tr '\\0' a); echo alive";
    let Some(bundle) = Bundle::new("memory", &["sh", "-c", script], limit) else { return };
    let output = bundle.run();
    assert!(!text(&output.stdout).contains("alive"), "100 MB fitted into 16");
}

#[test]
fn a_signal_is_passed_on_and_shows_in_the_exit_code() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let Some(bundle) = Bundle::new("signal", &["sh", "-c", script], |_| {}) else { return };
    let mut child = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    bundle.assert_nothing_is_left();
}

#[test]
fn one_id_runs_once() {
    let Some(bundle) = Bundle::new("twice", &["sh", "-c", "echo ready; exec sleep 30"], |_| {}) else { return };
    let pid_file = bundle.dir.path().join("pid");
    let mut first = bundle.command().arg("--pid-file").arg(&pid_file).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(first.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let second = bundle.command().output().unwrap();
    assert_eq!(second.status.code(), Some(125));
    assert!(text(&second.stderr).contains("already"), "{}", text(&second.stderr));
    let pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(137));
    bundle.assert_nothing_is_left();
}

#[test]
fn unknown_words_say_so() {
    for (words, code) in [(&["nonsense"][..], 1), (&["oci", "nonsense"], 125), (&["oci", "run", "../x"], 125)] {
        let output = Command::new(WHARF).args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(text(&output.stderr).contains(words.last().unwrap()), "{}", text(&output.stderr));
    }
    assert!(Command::new(WHARF).arg("--help").output().unwrap().status.success());
}
