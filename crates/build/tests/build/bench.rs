//! A builder with a data root of its own and busybox in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wharf_archive::{PackOptions, pack};
use wharf_build::{BuildError, BuildEvent, BuildRequest, Builder, BuilderOptions, Offline};
use wharf_image::{ContainerConfig, ImageRecord, Images};
use wharf_monitor::Spawner;
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;
use wharf_snapshot::Layers;
use wharf_store::Store;

/// A statically linked busybox, as Debian's busybox-static has it.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "ls", "mkdir", "rm", "sleep", "id", "touch", "chmod", "stat", "test", "true", "false", "env",
    "pwd", "mount", "grep", "find", "cp", "ln", "hostname", "head", "wc", "tr", "seq", "kill", "dd", "readlink", "nc",
];

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) images: Images,
    pub(crate) layers: Layers,
    pub(crate) builder: Builder,
    pub(crate) data: tempfile::TempDir,
    pub(crate) exec: tempfile::TempDir,
    pub(crate) cgroup: String,
    store: Store,
    spawner: Arc<Spawner>,
}

/// What a build came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Digest, BuildError>,
    /// All that was told as text.
    pub(crate) text: String,
}

impl Bench {
    pub(crate) fn new(spawner: Arc<Spawner>) -> Self {
        let (data, exec) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(data.path()).unwrap();
        let layers = Layers::open(store.clone()).unwrap();
        let images = Images::open(store.clone(), layers.clone()).unwrap();
        let config = ContainerConfig {
            env: Some(vec!["PATH=/bin".into()]),
            cmd: Some(vec!["sh".into()]),
            ..ContainerConfig::default()
        };
        images.import(Cursor::new(busybox()), config, "busybox", None, Some("busybox:latest")).unwrap();
        let cgroup = format!("/wharf-build-test-{}", std::process::id());
        let options = BuilderOptions {
            store: store.clone(),
            exec_root: exec.path().to_owned(),
            cgroup_parent: cgroup.clone(),
            fetch: Arc::new(Offline),
            network: None,
        };
        let builder = Builder::new(images.clone(), Arc::clone(&spawner), options).unwrap();
        builder.spare_also(Vec::new);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { runtime, images, layers, builder, data, exec, cgroup, store, spawner }
    }

    /// Another builder on the same data root, as after a crash.
    pub(crate) fn restarted(&self) -> Builder {
        let options = BuilderOptions {
            store: self.store.clone(),
            exec_root: self.exec.path().to_owned(),
            cgroup_parent: self.cgroup.clone(),
            fetch: Arc::new(Offline),
            network: None,
        };
        Builder::new(self.images.clone(), Arc::clone(&self.spawner), options).unwrap()
    }

    pub(crate) fn build_with(&self, request: BuildRequest) -> Outcome {
        self.runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
            let listening = tokio::spawn(async move {
                let mut text = String::new();
                while let Some(event) = receiver.recv().await {
                    if let BuildEvent::Stream(more) = event {
                        text.push_str(&more);
                    }
                }
                text
            });
            let result = self.builder.build(request, sender).await;
            Outcome { result, text: listening.await.unwrap() }
        })
    }

    pub(crate) fn try_build(&self, files: &[(&str, &str)]) -> Outcome {
        self.build_with(request(files))
    }

    /// Builds and fails the test with all that was told if it does not work.
    pub(crate) fn build(&self, files: &[(&str, &str)]) -> (ImageRecord, String) {
        self.done(self.try_build(files))
    }

    pub(crate) fn done(&self, outcome: Outcome) -> (ImageRecord, String) {
        match outcome.result {
            Ok(id) => (self.images.resolve(id.as_str()).unwrap(), outcome.text),
            Err(error) => panic!("{error}\n{}", outcome.text),
        }
    }

    pub(crate) fn view(&self, image: &ImageRecord) -> wharf_snapshot::View {
        self.layers.view(&image.diff_ids, None).unwrap()
    }

    pub(crate) fn read(&self, image: &ImageRecord, path: &str) -> String {
        let bytes = self.view(image).read_small(path, 1 << 20).unwrap_or_else(|e| panic!("{path}: {e}"));
        String::from_utf8(bytes).unwrap()
    }

    /// Mode and owner of the very entry.
    pub(crate) fn stat(&self, image: &ImageRecord, path: &str) -> (u32, u32, u32) {
        let stat = self.view(image).metadata(path, false).unwrap_or_else(|e| panic!("{path}: {e}"));
        (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
    }

    pub(crate) fn exists(&self, image: &ImageRecord, path: &str) -> bool {
        self.view(image).metadata(path, false).is_ok()
    }

    /// Names in the last layer's own tree.
    pub(crate) fn layer_names(&self, image: &ImageRecord) -> Vec<String> {
        let top = self.layers.lowers(&image.diff_ids[image.diff_ids.len() - 1..]).unwrap().remove(0);
        let root = match top.mount() {
            Some(mount) => RootDir::from_fd(mount.try_clone_to_owned().unwrap()),
            None => RootDir::open(top.path()).unwrap(),
        };
        let mut names = Vec::new();
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for name in root.read_dir(&dir).unwrap() {
                let path = dir.join(name);
                let stat = root.metadata(&path, false).unwrap();
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
                    stack.push(path.clone());
                }
                names.push(path.to_string_lossy().into_owned());
            }
        }
        names.sort();
        names
    }

    /// Whatever a build came to, nothing of it stays but layers and the cache.
    pub(crate) fn check_clean(&self) {
        let names = |dir: &Path| -> Vec<String> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let left: Vec<String> = names(&self.data.path().join("build")).into_iter().filter(|n| n != "cache").collect();
        assert!(left.is_empty(), "left in the data root: {left:?}");
        let left = names(&self.exec.path().join("build"));
        assert!(left.is_empty(), "left in the exec root: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.data.path().to_string_lossy()), "left mounted:\n{mounts}");
        // The monitor removes a command's group after its end has been told.
        for _ in 0..100 {
            if groups(&self.cgroup).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("left as groups: {:?}", groups(&self.cgroup));
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for root in roots() {
            let parent = root.join(self.cgroup.trim_start_matches('/'));
            let _ = fs::remove_dir(parent.join("build"));
            let _ = fs::remove_dir(parent);
        }
    }
}

fn roots() -> Vec<PathBuf> {
    let dirs = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    dirs.filter(|path| path.is_dir()).chain([PathBuf::from("/sys/fs/cgroup")]).collect()
}

/// Groups of commands.
fn groups(parent: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for root in roots() {
        let entries = fs::read_dir(root.join(parent.trim_start_matches('/')).join("build"));
        all.extend(entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    all
}

/// A request with a context of these files. A name that ends with a slash is a directory, `a -> b` a link; a `!`
/// before it makes it executable.
pub(crate) fn request(files: &[(&str, &str)]) -> BuildRequest {
    BuildRequest { context: Box::new(Cursor::new(context(files))), ..BuildRequest::default() }
}

pub(crate) fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn context(files: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let (executable, name) = match name.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, *name),
        };
        if let Some((name, target)) = name.split_once(" -> ") {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
            continue;
        }
        let path = dir.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // As a checkout at one moment: what is built of it must not depend on when the test runs.
    set_times(dir.path());
    tar(dir.path())
}

pub(crate) const CHECKOUT: u64 = 1_700_000_000;

fn set_times(path: &Path) {
    if path.is_symlink() {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            set_times(&entry.unwrap().path());
        }
    }
    let time = std::time::UNIX_EPOCH + Duration::from_secs(CHECKOUT);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

pub(crate) fn tar(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(&RootDir::open(dir).unwrap(), Path::new(""), &mut bytes, &PackOptions::default()).unwrap();
    bytes
}

/// A root file system of one program.
fn busybox() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for path in ["bin", "etc", "tmp", "root", "home/web", "var"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::set_permissions(at("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(BUSYBOX, at("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", at("bin").join(applet)).unwrap();
    }
    std::os::unix::fs::symlink("/tmp", at("var/run")).unwrap();
    fs::write(at("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/home/web:/bin/sh\n").unwrap();
    fs::write(at("etc/group"), "root:x:0:\nweb:x:1001:\nextra:x:2000:web\n").unwrap();
    set_times(dir.path());
    tar(dir.path())
}
