//! A user of a test's own, and that user's daemon. The daemon has a mount namespace in which the host's files name the user
//! and give it IDs, so that nothing is left on the host. Dropped, nobody of the user's is there any more, or it says who.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// The first of the tests' users, and of the IDs that they are given: far from people's.
const USERS: u32 = 54_400;
const IDS: u32 = 1_500_000_000;
const EACH: u32 = 65_536;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct User {
    dir: tempfile::TempDir,
    pub(crate) uid: u32,
    daemon: Option<Child>,
    /// Lines of `/etc/subuid` are there.
    has_ids: bool,
    /// What stands in `/etc/resolv.conf`; empty for the host's.
    resolv_conf: String,
    /// Where the daemon looks for programs.
    programs: String,
}

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
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out.trim_end().to_owned()
    }
}

impl User {
    /// With a daemon and the image `busybox`; `None`, with a word about it, where that cannot be.
    pub(crate) fn start() -> Option<Self> {
        let mut user = Self::new()?;
        user.launch();
        user.import();
        Some(user)
    }

    /// As [`Self::start`], with a `/etc/resolv.conf`.
    pub(crate) fn start_with_resolvers(text: &str) -> Option<Self> {
        let mut user = Self::new()?;
        text.clone_into(&mut user.resolv_conf);
        user.launch();
        user.import();
        Some(user)
    }

    /// As [`Self::start`], where of the programs that lead out there are those that are named.
    pub(crate) fn start_with_ways_out(names: &[&str]) -> Option<Self> {
        let mut user = Self::new()?;
        let programs = user.path("programs");
        fs::create_dir(&programs).unwrap();
        for name in ["newuidmap", "newgidmap"].iter().chain(names) {
            let from = Path::new("/usr/bin").join(name);
            if !from.exists() {
                eprintln!("skipped: {name} is not there");
                return None;
            }
            symlink(from, programs.join(name)).unwrap();
        }
        user.programs = programs.display().to_string();
        user.launch();
        user.import();
        Some(user)
    }

    /// As [`Self::start`], with one ID.
    pub(crate) fn start_alone() -> Option<Self> {
        let mut user = Self::new()?;
        user.has_ids = false;
        user.launch();
        user.import();
        Some(user)
    }

    /// Without a daemon.
    pub(crate) fn new() -> Option<Self> {
        let missing = |what: &str| {
            eprintln!("skipped: {what}");
            None
        };
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            return missing("becoming an ordinary user needs root, and containers busybox-static");
        }
        if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|text| text.trim() == "0") {
            return missing("no user namespaces");
        }
        if !Path::new("/usr/bin/newuidmap").exists() {
            return missing("newuidmap is not there (package uidmap)");
        }
        let dir = tempfile::Builder::new().prefix("wharf-user-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let uid = USERS + std::process::id() % 997 * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let user = Self {
            dir,
            uid,
            daemon: None,
            has_ids: true,
            resolv_conf: String::new(),
            programs: "/usr/sbin:/usr/bin:/sbin:/bin".into(),
        };
        for name in ["home", "run"] {
            fs::create_dir(user.path(name)).unwrap();
            chown(user.path(name), Some(uid), Some(uid)).unwrap();
            fs::set_permissions(user.path(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        // By another process: what this one has open for writing its children of the same moment would have, too.
        assert!(Command::new("cp").arg(WHARF).arg(user.path("wharf")).status().unwrap().success());
        fs::set_permissions(user.path("wharf"), fs::Permissions::from_mode(0o755)).unwrap();
        Some(user)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/wharf/wharf.sock")
    }

    fn ids(&self) -> u32 {
        IDS + (self.uid - USERS) * EACH
    }

    /// Writes what is to be read in `/etc`.
    fn write_etc(&self) {
        let given = if self.has_ids { format!("tester:{}:{EACH}\n", self.ids()) } else { String::new() };
        let uid = self.uid;
        fs::write(
            self.path("passwd"),
            format!("root:x:0:0:root:/root:/bin/sh\ntester:x:{uid}:{uid}::/nonexistent:/bin/sh\n"),
        )
        .unwrap();
        for name in ["subuid", "subgid"] {
            fs::write(self.path(name), &given).unwrap();
        }
        fs::write(self.path("resolv.conf"), &self.resolv_conf).unwrap();
    }

    /// The command that runs the daemon: this very process becomes it.
    fn command(&self, options: &[&str]) -> Command {
        self.write_etc();
        let mut script =
            String::from("set -e; for f in passwd subuid subgid; do mount --bind \"$1/$f\" /etc/$f; done; ");
        if !self.resolv_conf.is_empty() {
            script.push_str("mount --bind \"$1/resolv.conf\" /etc/resolv.conf; ");
        }
        // A device that everybody may open, as udev makes it.
        script.push_str(
            "mkdir -p /dev/net; mount -t tmpfs tmpfs /dev/net; mknod /dev/net/tun c 10 200; chmod 666 /dev/net/tun; \
             uid=$2; dir=$1; programs=$3; shift 3; exec setpriv --reuid $uid --regid $uid --clear-groups \
             env -i PATH=\"$programs\" HOME=\"$dir/home\" XDG_RUNTIME_DIR=\"$dir/run\" \"$dir/wharf\" daemon \"$@\"",
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-c", &script, "sh"]).arg(self.dir.path());
        command.arg(self.uid.to_string()).arg(&self.programs).args(options).current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts the daemon and kills its launcher after `delay`.
    pub(crate) fn begin_and_kill(&self, delay: Duration) {
        let mut child = self.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the daemon says where it does not come up.
    pub(crate) fn daemon(&self, options: &[&str]) -> Said {
        self.command(options).output().unwrap().into()
    }

    /// Has another daemon take the place of the one that runs, which ends then.
    pub(crate) fn take_over(&mut self) {
        let mut before = self.daemon.take().unwrap();
        let inner = self.inner();
        self.launch_with(&["--take-over"]);
        assert_eq!(before.wait().unwrap().code(), Some(0));
        self.eventually("the next daemon is there", || {
            fs::read_to_string(self.path("run/wharf/wharf.pid")).is_ok_and(|text| text.trim() != inner.to_string())
        });
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        self.launch_with(&[]);
    }

    fn launch_with(&mut self, options: &[&str]) {
        let log = fs::File::options().append(true).create(true).open(self.path("log")).unwrap();
        let mut child = self.command(options).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not come up:\n{}", self.log());
            assert!(child.try_wait().unwrap().is_none(), "the daemon has ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = Some(child);
    }

    fn import(&self) {
        let root = self.path("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "id", "cat", "sleep", "nc", "ping", "ls", "chown", "mkdir", "httpd", "nslookup", "head", "true"]
        {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let archive = self.path("busybox.tar");
        let packed = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".").status();
        assert!(packed.unwrap().success());
        let imported = self.client().args(["import", "-", "busybox"]).stdin(fs::File::open(archive).unwrap()).output();
        Said::from(imported.unwrap()).ok();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The user's command line, which finds the daemon by itself.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new(self.path("wharf"));
        command.uid(self.uid).gid(self.uid).env_clear().current_dir("/").stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run")).env("PATH", "/usr/bin:/bin");
        command
    }

    pub(crate) fn wharf(&self, words: &str) -> Said {
        self.client().args(words.split_whitespace()).output().unwrap().into()
    }

    /// Runs a script in a container that is removed afterwards.
    pub(crate) fn sh(&self, options: &str, script: &str) -> Said {
        let mut command = self.client();
        command.args(["run", "--rm"]).args(options.split_whitespace());
        command.args(["busybox", "sh", "-c", script]).output().unwrap().into()
    }

    /// The launcher, which the user has started.
    pub(crate) fn launcher(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// The daemon in its namespaces.
    pub(crate) fn inner(&self) -> u32 {
        fs::read_to_string(self.path("run/wharf/wharf.pid")).unwrap().trim().parse().unwrap()
    }

    /// What keeps the namespaces.
    pub(crate) fn anchor(&self) -> u32 {
        let text = fs::read_to_string(self.path("run/wharf/anchor.json")).unwrap();
        let noted: serde_json::Value = serde_json::from_str(&text).unwrap();
        u32::try_from(noted["pid"].as_u64().unwrap()).unwrap()
    }

    /// Whether a daemon listens.
    pub(crate) fn answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    pub(crate) fn kill(&self, pid: u32, signal: &str) {
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
    }

    /// Waits until the launcher has ended; its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < deadline, "{what}\n{}\n{:?}", self.log(), self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whoever runs as the user, or as somebody whose ID was given to the user.
    pub(crate) fn processes(&self) -> Vec<String> {
        use std::os::unix::fs::MetadataExt as _;
        let is_own = |uid: u32| uid == self.uid || (self.ids()..self.ids() + EACH).contains(&uid);
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let Some((name, fields)) = stat.rsplit_once(')') else { continue };
            let owner = entry.metadata().map(|found| found.uid());
            // What cannot be looked at is shown as root's: the real owner is in the status.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let real =
                status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
            // Who has ended waits for its parent only.
            if !fields.trim_start().starts_with('Z') && (owner.is_ok_and(is_own) || real.is_some_and(is_own)) {
                all.push(name.to_owned());
            }
        }
        all
    }

    /// Whether the user has a way out of its namespaces here.
    pub(crate) fn has_way_out(&self) -> bool {
        let has = !self.log().contains("no way out");
        if !has {
            eprintln!("skipped: {}", self.log());
        }
        has
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            let all = self.wharf("ps -aq").out;
            let all: Vec<&str> = all.split_whitespace().collect();
            if !all.is_empty() {
                let _ = self.wharf(&format!("rm -f {}", all.join(" ")));
            }
            let launcher = self.launcher();
            self.kill(launcher, "TERM");
            self.ended();
        }
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
            // Whoever is left must not outlive the test.
            let _ = Command::new("setpriv")
                .args(["--reuid", &self.uid.to_string(), "--clear-groups", "kill", "-9", "-1"])
                .status();
            return;
        }
        self.eventually("something is left", || self.processes().is_empty());
        let left =
            fs::read_dir(self.path("run/wharf")).map(|dir| dir.flatten().any(|e| e.file_name() == "anchor.json"));
        assert!(!left.unwrap_or(false));
        // What containers' users have made.
        let _ = fs::remove_dir_all(self.path("home"));
    }
}
