//! The command line against Docker's own engine, where one is installed: the other side of every request is then not ours.
//!
//! Nothing happens without root, `dockerd` or a static busybox.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DOCKERD: &str = "/usr/sbin/dockerd";
const BUSYBOX: &str = "/bin/busybox";

/// An engine of our own, gone when dropped.
struct Engine {
    daemon: Child,
    dir: tempfile::TempDir,
    group: String,
}

impl Engine {
    fn start() -> Option<Self> {
        let usable = rustix::process::geteuid().is_root() && Path::new(DOCKERD).exists() && Path::new(BUSYBOX).exists();
        if !usable {
            return None;
        }
        let dir = tempfile::tempdir().ok()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let group = format!("wharf-cli-{}", std::process::id());
        let log = fs::File::create(dir.path().join("log")).ok()?;
        let daemon = Command::new(DOCKERD)
            .args(["-H", &format!("unix://{}", at("engine.sock"))])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")])
            .args(["--iptables=false", "--bridge=none", &format!("--cgroup-parent=/{group}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().ok()?)
            .stderr(log)
            .spawn()
            .ok()?;
        let engine = Self { daemon, dir, group };
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if engine.run(&["version"]).status.success() {
                return Some(engine);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        // Beside the tests' directory lies that of the examples.
        let tests = std::env::current_exe().expect("this program has a path");
        let program = tests.parent().and_then(Path::parent).expect("it is in a directory").join("examples/docker");
        let mut command = Command::new(program);
        command
            .args(words)
            .env("DOCKER_HOST", format!("unix://{}", self.path("engine.sock").display()))
            .env("DOCKER_CONFIG", self.path("config"))
            .current_dir(self.dir.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).stdin(Stdio::null()).output().expect("the command runs")
    }

    /// Standard output of a command that must succeed.
    fn text(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The exit code and standard error of a command.
    fn failure(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = self.run(words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }

    /// Standard output of a command with an input.
    fn fed(&self, words: &[&str], input: &[u8]) -> String {
        let mut child =
            self.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the command runs");
        child.stdin.take().expect("it has an input").write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{words:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join(&self.group));
        }
    }
}

#[test]
fn a_day_with_docker() {
    let Some(engine) = Engine::start() else {
        eprintln!("skipped: root, dockerd and busybox are needed");
        return;
    };
    image_from_nothing(&engine);
    containers(&engine);
    files(&engine);
    builds(&engine);
}

/// `import` a root file system with one program, then `save` and `load` the image.
fn image_from_nothing(engine: &Engine) {
    let root = engine.path("root/bin");
    fs::create_dir_all(&root).expect("a directory");
    fs::copy(BUSYBOX, root.join("busybox")).expect("a copy");
    for name in ["sh", "cat", "echo", "sleep", "ls", "env"] {
        std::os::unix::fs::symlink("busybox", root.join(name)).expect("a link");
    }
    let archive = Command::new("tar").args(["-C", "root", "-c", "."]).current_dir(engine.dir.path()).output();
    let archive = archive.expect("an archive").stdout;
    let id = engine.fed(&["import", "-c", "CMD [\"sh\"]", "-c", "LABEL x=y", "-", "bb:1"], &archive);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(engine.text(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "bb:1");
    assert_eq!(engine.text(&["inspect", "-f", "{{.Id}} {{.Config.Labels.x}}", "bb:1"]), format!("{id} y"));
    engine.text(&["save", "-o", "image.tar", "bb:1"]);
    engine.text(&["rmi", "bb:1"]);
    assert_eq!(engine.text(&["load", "-q", "-i", "image.tar"]), "Loaded image: bb:1");
}

fn containers(engine: &Engine) {
    assert_eq!(engine.text(&["run", "--rm", "bb:1", "echo", "hello"]), "hello");
    assert_eq!(engine.fed(&["run", "--rm", "-i", "bb:1", "cat"], b"typed"), "typed");
    assert_eq!(engine.failure(&["run", "--rm", "bb:1", "sh", "-c", "echo no >&2; exit 3"]), (Some(3), "no".to_owned()));
    let (code, words) = engine.failure(&["run", "--rm", "bb:1", "nosuch"]);
    assert!(code == Some(127) && words.contains("executable file not found in $PATH"), "{code:?} {words}");
    assert_eq!(engine.failure(&["run", "--rm", "--memory", "x", "bb:1"]).0, Some(125));

    let id = engine.text(&["run", "-d", "--name", "box", "-e", "A=b", "bb:1", "sh", "-c", "echo out; sleep 100"]);
    assert_eq!(engine.text(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(engine.text(&["ps", "--format", "{{.Names}} {{.Image}} {{.Label \"x\"}}"]), "box bb:1 y");
    assert_eq!(engine.text(&["exec", "-e", "C=d", "box", "sh", "-c", "echo $A $C"]), "b d");
    assert_eq!(engine.fed(&["exec", "-i", "box", "cat"], b"more"), "more");
    assert_eq!(engine.failure(&["exec", "box", "sh", "-c", "exit 9"]).0, Some(9));
    assert_eq!(engine.text(&["logs", "box"]), "out");
    assert_eq!(
        engine.text(&["inspect", "-f", "{{.State.Status}} {{.Name}} {{index .Args 0}}", "box"]),
        "running /box -c"
    );
    assert_eq!(engine.text(&["stop", "-t", "0", "box"]), "box");
    assert_eq!(engine.text(&["wait", "box"]), "137");
    assert_eq!(engine.text(&["start", "box"]), "box");
    let (code, words) = engine.failure(&["rm", "box"]);
    assert!(code == Some(1) && words.starts_with("Error response from daemon: You cannot remove a running"), "{words}");
    assert_eq!(engine.failure(&["inspect", "nosuch"]), (Some(1), "Error: No such object: nosuch".to_owned()));
}

fn files(engine: &Engine) {
    fs::create_dir_all(engine.path("from/deep")).expect("a directory");
    fs::write(engine.path("from/deep/file"), "content").expect("a file");
    engine.text(&["cp", "from", "box:/there"]);
    assert_eq!(engine.text(&["exec", "box", "cat", "/there/deep/file"]), "content");
    engine.text(&["cp", "box:/there/.", "back"]);
    assert_eq!(fs::read_to_string(engine.path("back/deep/file")).expect("a file"), "content");
    engine.text(&["cp", "box:/there/deep/file", "renamed"]);
    assert_eq!(fs::read_to_string(engine.path("renamed")).expect("a file"), "content");
    let changes = engine.text(&["diff", "box"]);
    assert!(changes.lines().any(|line| line == "A /there/deep/file"), "{changes}");
    assert_eq!(engine.text(&["rm", "-f", "box"]), "box");
}

fn builds(engine: &Engine) {
    let context = engine.path("context");
    fs::create_dir_all(context.join("sub")).expect("a directory");
    fs::write(context.join("Dockerfile"), "FROM bb:1\nARG X\nCOPY . /c\nENV X=$X\n").expect("a file");
    fs::write(context.join(".dockerignore"), "*\n!sub/kept\n").expect("a file");
    fs::write(context.join("sub/kept"), "").expect("a file");
    fs::write(context.join("sub/left"), "").expect("a file");
    let shown = engine.text(&["build", "-t", "built", "--build-arg", "X=5", "context"]);
    assert!(shown.starts_with("Sending build context to Docker daemon"), "{shown}");
    assert!(shown.ends_with("Successfully tagged built:latest"), "{shown}");
    assert_eq!(engine.text(&["run", "--rm", "built", "sh", "-c", "echo $X; ls /c/sub"]), "5\nkept");
    fs::write(engine.path("Elsewhere"), "FROM bb:1\nLABEL e=f\n").expect("a file");
    let id = engine.text(&["build", "-q", "-f", "Elsewhere", "--iidfile", "id", "context"]);
    assert_eq!(engine.text(&["inspect", "-f", "{{.Config.Labels.e}}", &id]), "f");
    assert_eq!(fs::read_to_string(engine.path("id")).expect("a file").trim(), id);
}
