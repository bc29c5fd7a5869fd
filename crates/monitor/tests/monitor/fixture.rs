//! An image, a spawner, and containers to launch with them.

use std::cell::{Cell, Ref, RefCell};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_cgroup::{Group, Hierarchies};
use wharf_monitor::client::{self, Event};
use wharf_monitor::{Attach, Exit, Given, Launch, LaunchError, Launched, LogConfig, Restart, Spawner};
use wharf_runtime::{Lower, Rootfs};

/// Nothing here takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    spawner: RefCell<Option<Spawner>>,
    count: Cell<u32>,
}

impl Fixture {
    /// With the process's only thread.
    pub(crate) fn new() -> Self {
        let spawner = Spawner::start(None).expect("starts the prepared process");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layer = dir.path().join("layer");
        for sub in ["bin", "etc", "tmp"] {
            fs::create_dir_all(layer.join(sub)).expect("makes the layer");
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox-static is installed");
        let names = "sh cat id ls true false stat sleep tty stty echo head dd kill printf readlink seq trap ps wc tr";
        for name in names.split(' ') {
            symlink("busybox", layer.join("bin").join(name)).expect("links busybox");
        }
        fs::write(layer.join("bin/plain"), "text").expect("writes");
        Self { dir, spawner: RefCell::new(Some(spawner)), count: Cell::new(0) }
    }

    /// Ends the prepared process by a signal, as a crash would.
    pub(crate) fn kill_spawner(&self) {
        let spawner = self.spawner.borrow_mut().take().expect("there is one");
        let pid = rustix::process::Pid::from_raw(spawner.pid()).expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
    }

    pub(crate) fn spawner(&self) -> Ref<'_, Spawner> {
        Ref::map(self.spawner.borrow(), |spawner| spawner.as_ref().expect("there is a spawner"))
    }

    /// A container that runs `args`, to be changed before it is launched.
    pub(crate) fn container(&self, args: &[&str]) -> Launch {
        self.count.set(self.count.get() + 1);
        let name = format!("wharf-monitor-{}-{}", std::process::id(), self.count.get());
        let base = self.dir.path().join(&name);
        for sub in ["state/upper", "state/work"] {
            fs::create_dir_all(base.join(sub)).expect("makes");
        }
        let state_dir = base.join("state");
        Launch {
            dir: base.join("run"),
            spec: serde_json::from_value(config(args)).expect("a configuration"),
            default_filter: None,
            rootfs: Rootfs::Overlay {
                lowers: vec![Lower::Directory(self.dir.path().join("layer"))],
                upper: Some(state_dir.join("upper")),
                work: Some(state_dir.join("work")),
            },
            binds: Vec::new(),
            cgroup: format!("/{name}"),
            log: Some(LogConfig {
                path: state_dir.join("c-json.log"),
                driver: "json-file".into(),
                max_size: None,
                max_files: 1,
                compress: false,
                attributes: std::collections::BTreeMap::new(),
                remote: None,
            }),
            id: name,
            state_dir,
            open_stdin: false,
            stdin_once: false,
            restart: Restart::default(),
            health: None,
            attach: Vec::new(),
            init: false,
            transient: false,
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Launch {
        self.container(&["sh", "-c", script])
    }

    pub(crate) fn launch(&self, launch: &Launch) -> Result<Launched, LaunchError> {
        self.launch_with(launch, &[])
    }

    pub(crate) fn launch_with(&self, launch: &Launch, streams: &[BorrowedFd<'_>]) -> Result<Launched, LaunchError> {
        self.spawner().launch(launch, &Given::default(), streams)
    }

    /// Launches with a client on all streams that the container has.
    pub(crate) fn attached(&self, launch: &mut Launch) -> (Launched, UnixStream) {
        let (ours, theirs) = pair();
        launch.attach = vec![Attach { stdin: launch.open_stdin, stdout: true, stderr: true, detach_keys: None }];
        let launched = self.launch_with(launch, &[theirs.as_fd()]).expect("launches");
        (launched, ours)
    }

    /// Launches and waits: what a client saw, and the end.
    pub(crate) fn run(&self, launch: &mut Launch) -> (Vec<u8>, Exit) {
        let (_, stream) = self.attached(launch);
        let bytes = read_all(&stream);
        (bytes, wait_for_exit(launch))
    }

    /// What is still there of all containers, and the prepared process.
    pub(crate) fn close(self) -> Vec<String> {
        drop(self.spawner);
        let hierarchies = Hierarchies::detect().expect("hierarchies");
        let base = self.dir.path().to_owned();
        let count = self.count.get();
        let look = || {
            let mut left = Vec::new();
            for n in 1..=count {
                let name = format!("wharf-monitor-{}-{n}", std::process::id());
                let group = Group::open(&hierarchies, &format!("/{name}")).expect("a path");
                left.extend(group.directories().into_iter().filter(|dir| dir.exists()));
                left.extend(Some(base.join(&name).join("run/monitor.sock")).filter(|path| path.exists()));
            }
            left.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        // The groups go after everybody has been told.
        let end = Instant::now() + Duration::from_secs(3);
        while !look().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        look()
    }
}

/// The configuration that the engine makes of a plain `run`.
fn config(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "hostname": "inside",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin", "MARK=seen"],
            "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN", "CAP_KILL"],
                "permitted": ["CAP_CHOWN", "CAP_KILL"], "inheritable": [], "ambient": []
            }
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" }
            ]
        }
    })
}

pub(crate) fn set_terminal(launch: &mut Launch) {
    let mut process = launch.spec.process().clone().expect("a process");
    process.set_terminal(Some(true));
    launch.spec.set_process(Some(process));
}

pub(crate) fn set_user(launch: &mut Launch, uid: u32) {
    let mut process = launch.spec.process().clone().expect("a process");
    let mut user = process.user().clone();
    user.set_uid(uid).set_gid(uid);
    process.set_user(user);
    launch.spec.set_process(Some(process));
}

/// Changes a section of the configuration as JSON.
pub(crate) fn change_linux(launch: &mut Launch, change: impl FnOnce(&mut Value)) {
    let mut linux = serde_json::to_value(launch.spec.linux()).expect("JSON");
    change(&mut linux);
    launch.spec.set_linux(serde_json::from_value(linux).expect("a section"));
}

/// Two ends that give up after a while.
pub(crate) fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("bounds");
    (ours, theirs)
}

pub(crate) fn read_all(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the stream ends");
    bytes
}

/// Reads until `text` has come.
pub(crate) fn read_until(mut stream: &UnixStream, text: &str) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&bytes).contains(text) {
        let count = stream.read(&mut chunk).expect("reads");
        assert!(count > 0, "ended before {text:?}: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a client without a terminal saw: pieces with their streams.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[4..8].try_into().expect("four")) as usize;
        all.push((bytes[0], bytes[8..8 + length].to_vec()));
        bytes = &bytes[8 + length..];
    }
    all
}

/// What was in the frames of one stream.
pub(crate) fn output(bytes: &[u8], stream: u8) -> String {
    let parts = frames(bytes).into_iter().filter(|(which, _)| *which == stream);
    String::from_utf8(parts.flat_map(|(_, part)| part).collect()).expect("text")
}

/// The log's lines with their streams.
pub(crate) fn log(launch: &Launch) -> Vec<(String, String)> {
    let text = fs::read_to_string(&launch.log.as_ref().expect("a log").path).expect("a log");
    let text_of = |value: &Value, key: &str| value[key].as_str().expect("text").to_owned();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|value| (text_of(&value, "stream"), text_of(&value, "log"))).collect()
}

/// All of the log.
pub(crate) fn log_text(launch: &Launch) -> String {
    log(launch).into_iter().map(|(_, text)| text).collect()
}

pub(crate) fn watch(dir: &Path) -> UnixStream {
    let stream = client::watch(dir).expect("watches");
    stream.set_read_timeout(Some(PATIENCE)).expect("bounds");
    stream
}

pub(crate) fn next(stream: &UnixStream) -> Option<Event> {
    client::next_event(stream).expect("hears")
}

/// The end that the monitor has written down.
pub(crate) fn wait_for_exit(launch: &Launch) -> Exit {
    let path: PathBuf = launch.state_dir.join("exit.json");
    eventually("the end is written down", || path.exists());
    serde_json::from_slice(&fs::read(path).expect("reads")).expect("an end")
}

pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A zombie whose parent takes its time is no process any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
