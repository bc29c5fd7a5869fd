//! Images go to a registry and come back, and into archives.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::kit::{Daemon, WHARF};
use crate::run::free_port;

pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
}

impl Registry {
    pub(crate) fn start(d: &Daemon) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let root = d.path().join("registry");
        let child = Command::new(WHARF)
            .args(["registry", "serve", "--listen", &address, "--data-root"])
            .arg(root)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        d.eventually("the registry answers", || std::net::TcpStream::connect(&address).is_ok());
        Self { child, address }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pushed_removed_and_pulled_back() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let name = format!("{}/team/app:1", registry.address);
    d.docker(&format!("tag busybox {name}")).ok();
    let id = d.docker("images -q --no-trunc busybox").ok();
    assert!(d.docker(&format!("push {name}")).ok().contains("Pushed"));
    assert!(d.docker(&format!("push {name}")).ok().contains("Layer already exists"));
    d.docker(&format!("rmi {name} busybox")).ok();
    assert_eq!(d.docker("images -q").ok(), "");
    let layers = std::fs::read_dir(d.path().join("data/layers")).unwrap().count();
    assert_eq!(layers, 0, "the layers go with their last image");
    assert!(d.docker(&format!("pull {name}")).ok().contains("Downloaded newer image"));
    assert_eq!(d.docker(&format!("images -q --no-trunc {name}")).ok(), id, "what came back is what went");
    assert!(d.docker(&format!("pull {name}")).ok().contains("Image is up to date"));
    assert_eq!(d.docker(&format!("run --rm {name} echo hello")).ok(), "hello");
    let missing = d.docker(&format!("pull {}/nothing:here", registry.address));
    assert!(missing.code == 1 && missing.err.contains("not found"), "{}", missing.err);
}

#[test]
fn a_layer_that_is_not_what_it_says_is_refused() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let name = format!("{}/app:1", registry.address);
    d.docker(&format!("tag busybox {name}")).ok();
    d.docker(&format!("push {name}")).ok();
    d.docker(&format!("rmi {name} busybox")).ok();
    // The largest blob is the layer.
    let blobs = std::fs::read_dir(d.path().join("registry/blobs/sha256")).unwrap().flatten();
    let layer = blobs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    let mut bytes = std::fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&layer, bytes).unwrap();
    let said = d.docker(&format!("pull {name}"));
    assert_ne!(said.code, 0, "{}", said.out);
    assert_eq!(d.docker("images -q").ok(), "");
    for kept in ["layers", "blobs/sha256", "ingest"] {
        let left = std::fs::read_dir(d.data().join(kept)).unwrap().count();
        assert_eq!(left, 0, "nothing of it can ever be used: {kept}");
    }
}

#[test]
fn what_overlayfs_hides_does_not_stop_an_export() {
    let Some(d) = Daemon::start() else { return };
    // A removal in a directory that nothing below has, as in layers of an image that lost its base's.
    let dir = d.path().join("whiteouts");
    std::fs::create_dir_all(dir.join("a")).unwrap();
    std::fs::write(dir.join("a/.wh.gone"), "").unwrap();
    std::fs::write(dir.join("a/here"), "x").unwrap();
    let tar = d.path().join("whiteouts.tar");
    assert!(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&dir).arg("a").status().unwrap().success());
    let import = d.client().args(["import", "-", "below"]).stdin(std::fs::File::open(&tar).unwrap()).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    std::fs::write(dir.join("Dockerfile"), "FROM below\nCOPY a/here /b/\n").unwrap();
    d.docker(&format!("build -t layered {}", dir.display())).ok();
    d.docker("create --name box layered true").ok();
    let archive = d.path().join("exported.tar");
    d.docker(&format!("export -o {} box", archive.display())).ok();
    let list = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let names = String::from_utf8_lossy(&list.stdout).into_owned();
    for (name, there) in [("a/here", true), ("b/here", true), ("a/gone", false)] {
        assert_eq!(names.lines().any(|line| line == name), there, "{name} in {names}");
    }
    let copied = d.client().args(["cp", "box:/a", "-"]).output().unwrap();
    assert!(copied.status.success() && copied.stdout.len() > 1024, "{}", String::from_utf8_lossy(&copied.stderr));
    d.docker("rm box").ok();
}

#[test]
fn saved_and_loaded() {
    let Some(d) = Daemon::start() else { return };
    let archive = d.path().join("saved.tar");
    let id = d.docker("images -q --no-trunc busybox").ok();
    d.docker(&format!("save -o {} busybox", archive.display())).ok();
    d.docker("rmi busybox").ok();
    assert!(d.docker(&format!("load -i {}", archive.display())).ok().contains("Loaded image: busybox:latest"));
    assert_eq!(d.docker("images -q --no-trunc busybox").ok(), id);
    std::fs::write(&archive, b"this is no archive at all, but long enough to be looked at").unwrap();
    assert_ne!(d.docker(&format!("load -i {}", archive.display())).code, 0);
}

/// A way to a registry that counts what comes, at most `rate` bytes a second on each connection; it ends with the tests.
fn way(upstream: &str, rate: u64) -> (String, Arc<AtomicU64>) {
    let (listener, count) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicU64::new(0)));
    let (address, upstream, counted) = (listener.local_addr().unwrap(), upstream.to_owned(), Arc::clone(&count));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), TcpStream::connect(&upstream).unwrap());
            for (mut from, mut to, down) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap(), false), (server, client, true)]
            {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 16 << 10];
                    while let Ok(read @ 1..) = from.read(&mut bytes) {
                        if down {
                            counted.fetch_add(read as u64, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_micros(read as u64 * 1_000_000 / rate));
                        }
                        if to.write_all(&bytes[..read]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address.to_string(), count)
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_layer_fetches_none_of_it_twice() {
    const SIZE: usize = 40 << 20;
    let Some(mut d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let file = d.path().join("noise");
    let mut noise = vec![0; SIZE];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    std::fs::write(&file, &noise).unwrap();
    let tar = d.path().join("noise.tar");
    assert!(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(d.path()).arg("noise").status().unwrap().success());
    let name = format!("{}/large:1", registry.address);
    d.docker(&format!("import {} {name}", tar.display())).ok();
    d.docker(&format!("push {name}")).ok();
    d.docker(&format!("rmi {name}")).ok();
    let (slow, came) = way(&registry.address, 6 << 20);
    let mut pull = d.client().args(["pull", "-q", &format!("{slow}/large:1")]).stderr(Stdio::null()).spawn().unwrap();
    d.eventually("a part of it comes", || came.load(Ordering::Relaxed) > SIZE as u64 / 3);
    d.kill();
    pull.wait().unwrap();
    rustix::fs::sync();
    let ingest = std::fs::read_dir(d.data().join("ingest")).unwrap().flatten();
    let here: u64 = ingest.map(|entry| entry.metadata().unwrap().blocks() * 512).sum();
    assert!(here > 4 << 20, "{here} bytes were kept");
    d.launch();
    let (again, rest) = way(&registry.address, 1 << 30);
    d.docker(&format!("pull {again}/large:1")).ok();
    // A block of the disk at the end of each part may not be full; heads, manifest and configuration come too.
    let most = SIZE as u64 - here + (256 << 10);
    let rest = rest.load(Ordering::Relaxed);
    assert!(rest < most, "{rest} bytes came, {here} of {SIZE} were here");
    d.docker(&format!("create --name box {again}/large:1 true")).ok();
    let copy = d.path().join("copy");
    d.docker(&format!("cp box:/noise {}", copy.display())).ok();
    assert!(std::fs::read(copy).unwrap() == noise, "it is what was pushed");
    d.docker("rm box").ok();
}

/// The most memory that a daemon has had since this was last asked, in MiB.
fn peak(d: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", d.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // proc_pid_clear_refs(5).
    std::fs::write(format!("/proc/{}/clear_refs", d.pid()), "5").unwrap();
    peak >> 10
}

#[test]
fn a_daemon_needs_little_memory_for_large_images() {
    const LAYERS: usize = 6;
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let name = format!("{}/large:1", registry.address);
    let dir = d.path().join("large");
    std::fs::create_dir(&dir).unwrap();
    let mut lines = String::from("FROM busybox\n");
    for number in 0..LAYERS {
        // What does not compress.
        let noise = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), 30 << 20);
        std::io::copy(&mut { noise }, &mut std::fs::File::create(dir.join(number.to_string())).unwrap()).unwrap();
        lines += &format!("COPY {number} /\n");
    }
    std::fs::write(dir.join("Dockerfile"), lines).unwrap();
    d.docker(&format!("build -t {name} {}", dir.display())).ok();
    let archive = d.path().join("large.tar");
    let clear = |d: &Daemon| d.docker(&format!("rmi -f {name}")).ok();
    let most = |what: &str| {
        let peak = peak(&d);
        println!("{what}: {peak} MiB");
        assert!(peak <= 150, "{what} took {peak} MiB");
    };
    peak(&d);
    d.docker(&format!("push {name}")).ok();
    most("push");
    d.docker(&format!("save -o {} {name}", archive.display())).ok();
    most("save");
    clear(&d);
    d.docker("builder prune -af").ok();
    peak(&d);
    d.docker(&format!("pull {name}")).ok();
    most("pull");
    clear(&d);
    d.docker(&format!("load -i {}", archive.display())).ok();
    most("load");
}
