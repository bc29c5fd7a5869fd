//! An image with busybox, and one launch of it from beginning to end.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use oci_spec::runtime::Spec;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use wharf_runtime::{Launch, Lower, Rootfs, RuntimeError, Stdio, create};

/// A directory with a layer that holds a static busybox.
pub(crate) struct Image {
    pub(crate) dir: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layer = dir.path().join("layer");
        for sub in ["bin", "etc", "tmp", "upper-marker"] {
            fs::create_dir_all(layer.join(sub)).expect("makes the layer");
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("busybox-static is installed");
        for name in
            ["sh", "cat", "id", "hostname", "ls", "true", "stat", "touch", "mount", "sleep", "tty", "stty", "dmesg"]
        {
            symlink("busybox", layer.join("bin").join(name)).expect("links busybox");
        }
        fs::write(layer.join("etc/not-a-program"), "text").expect("writes");
        fs::write(layer.join("bin/plain"), "text").expect("writes");
        Self { dir }
    }

    pub(crate) fn rootfs(&self, name: &str) -> Rootfs {
        let (upper, work) = (self.dir.path().join(name).join("upper"), self.dir.path().join(name).join("work"));
        fs::create_dir_all(&upper).expect("makes upper");
        fs::create_dir_all(&work).expect("makes work");
        Rootfs::Overlay {
            lowers: vec![Lower::Directory(self.dir.path().join("layer"))],
            upper: Some(upper),
            work: Some(work),
        }
    }

    pub(crate) fn upper(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("upper")
    }
}

/// The configuration that the engine makes of a plain `run`.
pub(crate) fn config(args: &[&str]) -> Value {
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
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64k"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" }
            ],
            "maskedPaths": ["/proc/kcore", "/proc/scsi", "/proc/keys", "/sys/firmware", "/not/there"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

pub(crate) struct Outcome {
    pub(crate) output: String,
    /// Exit status, or 128 and the signal.
    pub(crate) status: i32,
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe")
}

pub(crate) fn launch(rootfs: Rootfs, config: Value) -> Result<Outcome, RuntimeError> {
    launch_with(rootfs, config, &[])
}

pub(crate) fn launch_with(rootfs: Rootfs, config: Value, layers: &[BorrowedFd<'_>]) -> Result<Outcome, RuntimeError> {
    let spec: Spec = serde_json::from_value(config).expect("the test's configuration is one");
    let null = || OwnedFd::from(fs::File::open("/dev/null").expect("/dev/null"));
    let (read, write) = pipe();
    let second = write.try_clone().expect("duplicates");
    let stdio = Stdio::Fds { stdin: null(), stdout: write, stderr: second };
    let created = create(Launch {
        spec: &spec,
        rootfs,
        layers,
        binds: &[],
        stdio,
        netns: None,
        group: None,
        default_filter: None,
        lifecycle: wharf_runtime::Lifecycle::default(),
    })?;
    let (_, pidfd, _) = created.start()?;
    Ok(finish(fs::File::from(read), &pidfd))
}

pub(crate) fn finish(mut read: fs::File, pidfd: &OwnedFd) -> Outcome {
    let mut bytes = Vec::new();
    // A terminal's master ends with EIO when the last slave is closed.
    let _ = read.read_to_end(&mut bytes);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits").expect("has ended");
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)).expect("a status");
    Outcome { output: String::from_utf8_lossy(&bytes).into_owned(), status: code }
}

pub(crate) fn shell(image: &Image, name: &str, script: &str) -> Outcome {
    launch(image.rootfs(name), config(&["sh", "-c", script])).expect("launches")
}
