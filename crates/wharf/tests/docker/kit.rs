//! A daemon of a test's own: its socket, its data, its groups, its networks. Dropped, it leaves nothing, and says so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

#[path = "patience.rs"]
mod patience;
use patience::Patience;

pub(crate) const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running daemon with the image `busybox`.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    name: String,
    child: Option<Child>,
    /// The data root has a disk of its own.
    has_disk: bool,
    /// Options of its own.
    options: Vec<String>,
    /// Variables of its environment.
    variables: Vec<(String, String)>,
    patience: Patience,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Its standard output without the line feed at the end; the command must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out.trim_end().to_owned()
    }
}

impl Daemon {
    /// `None`, with a word about it, where containers cannot be made.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(None, &[], &[])
    }

    /// With further options of `wharf daemon`.
    pub(crate) fn start_given(options: &[&str]) -> Option<Self> {
        Self::start_with(None, options, &[])
    }

    /// With variables of its environment.
    pub(crate) fn start_in(variables: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(None, &[], variables)
    }

    /// With a data root of so many bytes: `size=64m`.
    pub(crate) fn start_on(size: &str) -> Option<Self> {
        Self::start_with(Some(size), &[], &[])
    }

    fn start_with(size: Option<&str>, options: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: containers need root and busybox-static");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("wharf-test-").tempdir().unwrap();
        let name = format!("wharf-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let patience = Patience::begin();
        let mut daemon = Self { dir, name, child: None, has_disk: false, options, variables, patience };
        std::fs::create_dir(daemon.data()).unwrap();
        if let Some(size) = size {
            let mount = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(daemon.data()).status();
            daemon.has_disk = mount.unwrap().success();
            assert!(daemon.has_disk);
        }
        daemon.launch();
        let archive = busybox(daemon.path());
        let import =
            daemon.client().args(["import", "-", "busybox"]).stdin(std::fs::File::open(archive).unwrap()).output();
        Said::from(import.unwrap()).ok();
        Some(daemon)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("wharf.sock")
    }

    /// The command that runs this daemon.
    pub(crate) fn command(&self) -> Command {
        self.command_of(Path::new(WHARF))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("daemon")
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .arg("--data-root")
            .arg(self.data())
            .arg("--exec-root")
            .arg(self.dir.path().join("run"))
            .args(["--cgroup-parent", &format!("/{}", self.name), "--remove-networks-on-exit"])
            .args(&self.options)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        // The form of layers that this host would not choose.
        if let Ok(form) = std::env::var("WHARF_TEST_LAYERS") {
            command.args(["--storage-layers", &form]);
        }
        command
    }

    /// With other options from the next start on.
    pub(crate) fn options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let child = self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.patience.watch(&child);
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The control group above its containers', without the slash before it.
    pub(crate) fn group(&self) -> &str {
        &self.name
    }

    /// Has another program take its place, and waits until it has.
    pub(crate) fn take_over(&mut self, program: &Path) {
        let log = std::fs::File::options().append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.command_of(program);
        let new = command.arg("--take-over").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut old = self.replace(new);
        assert!(old.wait().unwrap().success(), "{}", self.log());
    }

    /// Another process is the daemon from now on. The one before.
    pub(crate) fn replace(&mut self, new: Child) -> Child {
        self.patience.watch(&new);
        self.child.replace(new).unwrap()
    }

    /// Whether it has ended by itself; it is waited for later.
    pub(crate) fn has_ended(&self) -> bool {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).unwrap().is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }

    /// The JSON that a `GET` answers with.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Sends a request as it is, and answers with status and body; without `answer` it leaves at once.
    pub(crate) fn post(&self, path: &str, body: &str, answer: bool) -> Option<(u16, String)> {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).unwrap();
        let head = "Host: d\r\nConnection: close\r\nContent-Type: application/json";
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        if !answer {
            return None;
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Some((status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A client for it.
    pub(crate) fn client(&self) -> Command {
        static DOCKER: OnceLock<bool> = OnceLock::new();
        let docker = *DOCKER.get_or_init(|| Command::new("docker").arg("--version").output().is_ok());
        let mut command = Command::new(if docker { "docker" } else { WHARF });
        command
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a client's command, its words separated by blanks.
    pub(crate) fn docker(&self, words: &str) -> Said {
        self.client().args(words.split_whitespace()).output().unwrap().into()
    }

    /// Runs a command of our own, which Docker's client does not have.
    pub(crate) fn wharf(&self, words: &str) -> Said {
        let mut command = Command::new(WHARF);
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).stdin(Stdio::null());
        command.env("DOCKER_CONFIG", self.dir.path().join("config"));
        command.args(words.split_whitespace()).output().unwrap().into()
    }

    /// Makes an image of one file of so many bytes that do not compress.
    #[track_caller]
    pub(crate) fn import(&self, name: &str, bytes: u64) -> Said {
        use std::io::Read;
        let dir = self.dir.path().join("import");
        std::fs::create_dir_all(&dir).unwrap();
        let mut file = std::fs::File::create(dir.join("file")).unwrap();
        std::io::copy(&mut std::fs::File::open("/dev/urandom").unwrap().take(bytes), &mut file).unwrap();
        let archive = self.dir.path().join("import.tar");
        let made = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&dir).arg("file").status().unwrap();
        assert!(made.success());
        let mut import = self.client();
        import.args(["import", "-", name]).stdin(std::fs::File::open(archive).unwrap()).output().unwrap().into()
    }

    /// Runs a script in a new container.
    pub(crate) fn sh(&self, options: &str, script: &str) -> Said {
        let mut command = self.client();
        command.args(["run", "--rm"]).args(options.split_whitespace()).args(["busybox", "sh", "-c", script]);
        command.output().unwrap().into()
    }

    /// Tries until it is so.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < deadline, "not so: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What could be left of it on this host.
    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(&dir)).map(|line| format!("mount {line}")));
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &self.name]).output().unwrap();
        left.extend(String::from_utf8_lossy(&groups.stdout).lines().map(|line| format!("group {line}")));
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(&dir) {
                left.push(format!("process {}", entry.path().display()));
            }
        }
        left
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() && !std::thread::panicking() {
            self.launch();
        }
        let ids = self.docker("ps -aq").out;
        if !ids.trim().is_empty() {
            self.docker(&format!("rm -f {}", ids.replace('\n', " ")));
        }
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = child.wait();
        }
        if self.has_disk {
            let _ = Command::new("umount").arg(self.data()).status();
        }
        // Groups go after the answers have gone out.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut left = self.leftovers();
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            left = self.leftovers();
            // The parent of a group that went after the daemon.
            for group in left.iter().filter_map(|line| line.strip_prefix("group ")) {
                let _ = std::fs::remove_dir(group);
            }
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:#?}");
        } else {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// The archive of a root with a static busybox and its applets, in a folder that goes with its test.
fn busybox(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    for name in ["tmp", "etc", "root"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/tmp:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
    let archive = dir.join("busybox.tar");
    let made = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap();
    assert!(made.success());
    archive
}
