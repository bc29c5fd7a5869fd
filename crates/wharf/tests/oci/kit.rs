//! A bundle with a root of its own, and the commands on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One container at a time. Whatever a test leaves goes when this value does.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: String,
}

impl Bundle {
    /// A busybox that runs `args`; `None` where containers cannot be made.
    pub(crate) fn new(name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: containers need root and busybox-static");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in [
            "sh", "sleep", "cat", "head", "echo", "id", "ls", "true", "env", "tty", "stty", "touch", "pwd", "hostname",
            "stat", "grep", "mount", "uname", "kill", "readlink",
        ] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let bundle = Self { dir, id: format!("test-{}-{name}", std::process::id()) };
        assert!(bundle.wharf(&["spec"]).current_dir(bundle.dir.path()).status().unwrap().success());
        bundle.configure(|config| {
            config["process"]["args"] = json!(args);
            config["process"]["terminal"] = json!(false);
            // The places for the mounts are made in the root, which is a plain directory here.
            config["root"]["readonly"] = json!(false);
            change(config);
        });
        Some(bundle)
    }

    /// One that waits until it is killed.
    pub(crate) fn sleeper(name: &str, change: impl FnOnce(&mut Value)) -> Option<Self> {
        Self::new(name, &["sleep", "600"], change)
    }

    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("state")
    }

    /// `wharf oci …` with a root of this bundle's own.
    pub(crate) fn wharf(&self, words: &[&str]) -> Command {
        let mut command = Command::new(WHARF);
        command.arg("oci").arg("--root").arg(self.root()).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.wharf(words).output().unwrap()
    }

    /// Standard output of what must succeed.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Exit code and standard error of what must fail.
    pub(crate) fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.output(words);
        assert!(!output.status.success(), "{words:?} succeeded: {}", text(&output.stdout));
        (output.status.code().unwrap(), text(&output.stderr))
    }

    pub(crate) fn run_command(&self) -> Command {
        let mut command = self.wharf(&["run", "--bundle"]);
        command.arg(self.dir.path()).arg(&self.id);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Output {
        let output = self.run_command().output().unwrap();
        self.assert_nothing_is_left();
        output
    }

    /// Creates it, with the streams that engines give: the first process holds them, so they must not be pipes that
    /// this test reads to their end.
    pub(crate) fn create(&self) {
        let log = fs::File::create(self.path("out")).unwrap();
        let mut command = self.wharf(&["create", "--bundle"]);
        command.arg(self.dir.path()).arg(&self.id).stdout(log.try_clone().unwrap()).stderr(log);
        let status = command.status().unwrap();
        assert!(status.success(), "create: {}", self.shown());
    }

    pub(crate) fn start(&self) {
        self.ok(&["start", &self.id]);
    }

    /// What a created container has written.
    pub(crate) fn shown(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", &self.id])).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_for_status(&self, want: &str) {
        wait_until(want, || self.status() == want);
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{}", self.id)]).output().unwrap();
        assert_eq!(text(&groups.stdout), "", "a control group is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.dir.path().to_string_lossy()), "a mount is left");
        let left = fs::read_dir(self.root()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "a state directory is left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.output(&["delete", "--force", &self.id]);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a line of shell on a terminal of its own, for which util-linux's `script` stands in; its code is the line's. Its
/// input stays open and silent: at an end `script` types `^D`, which the terminal echoes into what is asserted.
pub(crate) fn on_terminal(line: &str) -> Output {
    let (input, _open) = std::io::pipe().unwrap();
    Command::new("script").args(["-qefc", line, "/dev/null"]).stdin(input).output().unwrap()
}
