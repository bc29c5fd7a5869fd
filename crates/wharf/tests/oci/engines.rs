//! Debian's containerd, Docker and podman with `wharf oci` as their runtime: run, exec, a terminal, limits, an update,
//! pause, statistics, kill.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::kit::{PATIENCE, WHARF, on_terminal, text};

/// A directory for an engine's state, the runtime as a link called `runc`, and a root with busybox. Control groups of
/// the directory's name go with it.
struct Place(tempfile::TempDir);

impl Drop for Place {
    fn drop(&mut self) {
        let find = ["/sys/fs/cgroup", "-depth", "-type", "d", "-path"];
        let below = format!("*/{}*", self.group());
        let _ =
            Command::new("find").args(find).args([&below, "-exec", "rmdir", "{}", ";"]).stderr(Stdio::null()).status();
    }
}

impl Place {
    /// `None` where one of the programs is not installed.
    fn new(programs: &[&str]) -> Option<Self> {
        let installed = |name: &&str| {
            let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
        };
        if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: containers need root and busybox-static");
            return None;
        }
        if let Some(missing) = programs.iter().find(|name| !installed(name)) {
            eprintln!("skipped: {missing} is not installed");
            return None;
        }
        // Short: engines make sockets below it.
        let place = Self(tempfile::Builder::new().prefix("wharf").tempdir_in("/tmp").unwrap());
        let bin = place.path("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in ["sh", "sleep", "cat", "echo", "id", "tty"] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        symlink(WHARF, place.path("runc")).unwrap();
        Some(place)
    }

    /// What the parent of its containers' groups is called.
    fn group(&self) -> String {
        self.0.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Words with `@` for this directory and `%` for the name of its groups.
    fn words(&self, line: &str) -> Vec<String> {
        line.split_whitespace().map(|word| self.replace(word)).collect()
    }

    fn replace(&self, text: &str) -> String {
        text.replace('@', &self.0.path().to_string_lossy()).replace('%', &self.group())
    }
}

/// An engine's command line, up to its command.
struct Client<'a>(&'a Place, Vec<String>);

impl Client<'_> {
    /// Exit code and both streams of a command, whose last argument may have spaces in it.
    fn call(&self, line: &str, script: Option<&str>) -> (Option<i32>, String) {
        let words = self.0.words(line);
        let mut command = Command::new(&self.1[0]);
        command.args(&self.1[1..]).args(words).args(script).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    fn ok(&self, line: &str) -> String {
        let (code, output) = self.call(line, None);
        assert_eq!(code, Some(0), "{line}: {output}");
        output
    }

    fn script(&self, line: &str, script: &str) -> String {
        let (code, output) = self.call(line, Some(script));
        assert_eq!(code, Some(0), "{line} {script:?}: {output}");
        output
    }

    /// On a terminal.
    fn on_terminal(&self, line: &str) -> String {
        let all = [self.1.clone(), self.0.words(line)].concat().join(" ");
        let output = on_terminal(&all);
        assert!(output.status.success(), "{line}: {}", text(&output.stdout));
        text(&output.stdout)
    }

    fn wait_until_it_answers(&self, line: &str) {
        let start = Instant::now();
        while self.call(line, None).0 != Some(0) {
            assert!(start.elapsed() < PATIENCE, "{} does not answer", self.1[0]);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// A daemon, ended with this value by the signal on which it leaves nothing behind.
struct Daemon(Child);

impl Daemon {
    fn start(place: &Place, mut command: Command) -> Self {
        let log = fs::File::create(place.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn containerd_runs_containers_with_it() {
    let Some(place) = Place::new(&["containerd", "ctr", "script"]) else { return };
    let config = "version = 2\nroot = \"@/root\"\nstate = \"@/state\"\n[grpc]\naddress = \"@/sock\"\n\
        [ttrpc]\naddress = \"@/ttrpc\"\n";
    fs::write(place.path("config"), place.replace(config)).unwrap();
    let mut command = Command::new("containerd");
    command.arg("-c").arg(place.path("config"));
    let _daemon = Daemon::start(&place, command);
    let ctr = Client(&place, place.words("ctr -a @/sock -n %"));
    ctr.wait_until_it_answers("version");
    let run = "run --runc-binary @/runc --rootfs";
    assert_eq!(ctr.ok(&format!("{run} --rm @/rootfs wharf-one echo said")), "said\n");
    assert!(ctr.on_terminal(&format!("{run} --rm -t @/rootfs wharf-tty tty")).contains("/dev/pts/0"));
    ctr.ok(&format!("{run} -d --memory-limit 50000000 @/rootfs wharf-two sleep 600"));
    assert!(ctr.ok("task exec --exec-id e wharf-two id").starts_with("uid=0 gid=0"));
    ctr.ok("task pause wharf-two");
    assert!(ctr.ok("task ls").contains("PAUSED"));
    ctr.ok("task resume wharf-two");
    assert!(ctr.ok("task metrics wharf-two").contains("memory"));
    assert!(ctr.ok("task ps wharf-two").lines().count() == 2);
    ctr.ok("task kill -s 9 wharf-two");
    ctr.wait_until_it_answers("task rm wharf-two");
    ctr.ok("container rm wharf-two");
}

#[test]
fn docker_runs_containers_with_it() {
    let Some(place) = Place::new(&["dockerd", "docker", "containerd", "unshare", "script"]) else { return };
    let options = "-n dockerd --data-root @/data --exec-root @/exec -H unix://@/sock --pidfile @/pid --iptables=false \
        --bridge=none --storage-driver vfs --cgroup-parent /% --add-runtime wharf=@/runc --default-runtime wharf";
    let mut command = Command::new("unshare");
    command.args(place.words(options));
    let _daemon = Daemon::start(&place, command);
    let docker = Client(&place, place.words("docker -H unix://@/sock"));
    docker.wait_until_it_answers("version");
    assert!(Command::new("tar").args(place.words("-C @/rootfs -cf @/tar .")).status().unwrap().success());
    docker.ok("import @/tar image");
    assert_eq!(docker.ok("run --rm image echo said"), "said\n");
    assert!(docker.on_terminal("run --rm -t image tty").contains("/dev/pts/0"));
    docker.ok("run -d --name one --memory 50m --pids-limit 50 --cpus 0.5 --init image sleep 600");
    assert_eq!(docker.script("exec -u 5:6 -w /bin one sh -c", "id -u; id -g; pwd"), "5\n6\n/bin\n");
    assert!(docker.on_terminal("exec -t one tty").contains("/dev/pts/0"));
    docker.ok("update --memory 60m --memory-swap 60m one");
    assert!(docker.ok("stats --no-stream one").contains("/ 60MiB"));
    docker.ok("pause one");
    assert!(docker.ok("ps").contains("(Paused)"));
    docker.ok("unpause one");
    assert!(docker.ok("top one").contains("sleep 600"));
    docker.ok("kill one");
    assert_eq!(docker.ok("wait one"), "137\n");
    docker.ok("rm one");
    assert_eq!(docker.call("run --rm image no-such-program", None).0, Some(127));
}

#[test]
fn podman_runs_containers_with_it() {
    let Some(place) = Place::new(&["podman", "conmon", "unshare", "script"]) else { return };
    // It takes a host with both versions of control groups for none, and makes directories where a hierarchy is not
    // mounted: it sees only those of v1 that are. Limits that may not be raised are no business of this test. What it
    // leaves running ends with its process namespace.
    let groups = place.path("groups");
    fs::create_dir(&groups).unwrap();
    let hide = format!(
        "mount --make-rprivate / && v1=$(grep ' - cgroup ' /proc/self/mountinfo | cut -d' ' -f5); \
         if [ -n \"$v1\" ]; then mount -t tmpfs none {groups} && for at in $v1; do \
         mkdir {groups}/${{at##*/}} && mount --bind $at {groups}/${{at##*/}}; done && mount --move {groups} /sys/fs/cgroup; \
         fi; ulimit -n 1024; ulimit -u 4096; exec \"$@\"",
        groups = groups.display()
    );
    let podman = place.words(
        "podman --root @/root --runroot @/run --cgroup-manager cgroupfs --storage-driver vfs --events-backend file \
         --runtime @/runc",
    );
    let podman = podman.join(" ");
    let script = |script: &str| {
        let script =
            place.replace(&script.replace("podman", &podman).replace(" --network", " --cgroup-parent % --network"));
        let mut command = Command::new("unshare");
        let namespaces = ["-m", "-p", "--fork", "--mount-proc"];
        command.args(namespaces).args(["bash", "-c", &hide, "bash", "bash", "-ec", &script]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let seen = script(
        "podman run --rm --network none --rootfs @/rootfs echo said
         podman run -d --name one --network none --memory 50m --pids-limit 40 --rootfs @/rootfs sleep 600 >/dev/null
         podman exec -u 5:6 -w /bin one sh -c 'id -u; id -g; pwd'
         script -qefc 'podman exec -t one tty' /dev/null
         podman update --memory 60m one >/dev/null
         podman stats --no-stream one
         podman pause one >/dev/null
         podman inspect -f '{{.State.Status}}' one
         podman unpause one >/dev/null
         podman top one args
         podman kill one >/dev/null
         podman wait one
         podman rm one >/dev/null
         podman run --rm --network none --rootfs @/rootfs no-such-program || echo $?",
    );
    for want in ["said\n", "5\n6\n/bin\n", "/dev/pts/0", "paused\n", "sleep 600", "137\n", "127\n"] {
        assert!(seen.contains(want), "{want:?}: {seen}");
    }
}
