//! The daemon is killed 200 times, at any moment of what changes the store: it opens at once, nothing is damaged, what was
//! acknowledged is there, and what was not leaves nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kit::Daemon;
use crate::ship::Registry;

const KILLS: u32 = 200;
/// A kill comes at most so many microseconds after the requests were sent: several times what each of them takes.
const LONGEST: u64 = 100_000;

/// A platform that this host cannot run, as the API has it in a query, and in one of its parameters.
const OTHER: &str = "%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22s390x%22%7D";
const OTHER_PLATFORM: &str = "&platform=linux/s390x";

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What is asked, and what is so when it was acknowledged: each name that is there then, or is not.
struct Request {
    method: &'static str,
    path: String,
    body: Vec<u8>,
    says: Vec<(String, bool)>,
    /// Whether it is known what it comes to.
    known: bool,
}

impl Request {
    fn new(method: &'static str, path: impl Into<String>, says: &[(&str, bool)]) -> Self {
        let says = says.iter().map(|(name, there)| ((*name).to_owned(), *there)).collect();
        Self { method, path: path.into(), body: Vec::new(), says, known: true }
    }

    /// Sends it, and tells whether it was acknowledged: the whole answer has come, and has no failure in it.
    fn send(&self, socket: &Path) -> bool {
        let Ok(mut stream) = UnixStream::connect(socket) else { return false };
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            self.method,
            self.path,
            self.body.len()
        );
        let mut text = Vec::new();
        if stream.write_all(head.as_bytes()).is_err()
            || stream.write_all(&self.body).is_err()
            || stream.read_to_end(&mut text).is_err()
        {
            return false;
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        // A chunked answer that was cut off lacks its last chunk.
        let whole = !head.to_ascii_lowercase().contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n");
        good && whole && !body.contains("errorDetail")
    }
}

/// A tar with a file of these bytes in it, named so.
fn tar(dir: &Path, files: &[(&str, &[u8])]) -> Vec<u8> {
    let root = dir.join("tar");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir(&root).unwrap();
    for (name, content) in files {
        std::fs::write(root.join(name), content).unwrap();
    }
    Command::new("tar").arg("-c").arg("-C").arg(&root).arg(".").output().unwrap().stdout
}

/// What is in the data root, but for what each use of it changes.
fn content(data: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for dir in ["blobs/sha256", "ingest", "layers", "containers", "build", "volumes", ""] {
        let entries = std::fs::read_dir(data.join(dir)).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path()).filter(|path| !path.ends_with("wharf.reserve")));
    }
    all.sort();
    all
}

#[test]
fn killed_two_hundred_times_it_has_what_it_said_and_nothing_else() {
    let Some(mut d) = Daemon::start() else { return };
    let seed = std::env::var("WHARF_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1);
    println!("WHARF_TEST_SEED={seed}");
    let mut chance = Chance(seed);
    let registry = Registry::start(&d);
    let remote = format!("{}/app", registry.address);

    // What is pulled and loaded.
    let base = tar(d.path(), &[("base", &[b'b'; 200_000])]);
    std::fs::write(d.path().join("base.tar"), base).unwrap();
    d.docker(&format!("import {}/base.tar base", d.path().display())).ok();
    d.docker("run -d --name box busybox sleep 1000").ok();
    d.docker("exec box dd if=/dev/zero of=/made bs=1k count=300").ok();
    for (number, from) in ["base", "busybox"].iter().enumerate() {
        let context = d.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("file"), vec![b'0' + number as u8; 400_000]).unwrap();
        std::fs::write(context.join("Dockerfile"), format!("FROM {from}\nCOPY file /\nLABEL made=1\n")).unwrap();
        d.docker(&format!("build -t {remote}:{number} {}", context.display())).ok();
        d.docker(&format!("push {remote}:{number}")).ok();
    }
    // And an image of several platforms.
    for (tag, platform) in [("own", ""), ("other", "--platform linux/s390x")] {
        d.wharf(&format!("import {platform} {}/base.tar {remote}:{tag}", d.path().display())).ok();
        d.docker(&format!("push {remote}:{tag}")).ok();
    }
    d.wharf(&format!("manifest create {remote}:many {remote}:own {remote}:other")).ok();
    d.wharf(&format!("manifest push --purge {remote}:many")).ok();
    d.docker(&format!("rmi {remote}:own {remote}:other")).ok();
    let archive = d.path().join("saved.tar");
    d.docker(&format!("tag {remote}:0 loaded")).ok();
    d.docker(&format!("save -o {} loaded", archive.display())).ok();
    let archive = std::fs::read(archive).unwrap();
    d.docker(&format!("rmi {remote}:0 {remote}:1 loaded")).ok();
    d.docker("builder prune -af").ok();
    d.docker("image prune -f").ok();
    let context = tar(
        d.path(),
        &[("Dockerfile", b"FROM busybox\nCOPY more /\nRUN echo x > /y\nLABEL made=1\n"), ("more", &[7; 100_000])],
    );
    d.kill();
    d.launch();
    let before = content(&d.data());

    let (zero, one, many) = (format!("{remote}:0"), format!("{remote}:1"), format!("{remote}:many"));
    let pull = |name: &str| {
        let (image, tag) = name.rsplit_once(':').unwrap();
        Request::new("POST", format!("/images/create?fromImage={image}&tag={tag}"), &[(name, true)])
    };
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    let (mut acknowledged, mut slowest) = (0u32, Duration::ZERO);
    for kill in 0..KILLS {
        let request = |chance: &mut Chance| match chance.below(13) {
            0 | 1 => pull(&zero),
            2 => pull(&one),
            3 => Request { body: archive.clone(), ..Request::new("POST", "/images/load", &[("loaded:latest", true)]) },
            4 => Request::new("POST", "/commit?container=box&repo=committed", &[("committed:latest", true)]),
            5 => {
                let built = Request::new("POST", "/build?t=built", &[("built:latest", true)]);
                Request { body: context.clone(), ..built }
            }
            6 => {
                let names = [zero.as_str(), &one, "loaded:latest", "committed:latest", "built:latest"];
                let name = names[chance.below(5) as usize];
                Request::new("DELETE", format!("/images/{name}"), &[(name, false)])
            }
            7 => Request::new("POST", "/build/prune?all=1", &[]),
            8 => {
                let filters = "%7B%22dangling%22%3A%5B%22false%22%5D%2C%22label%22%3A%5B%22made%22%5D%7D";
                let gone = [(zero.as_str(), false), (&one, false), ("loaded:latest", false), ("built:latest", false)];
                Request::new("POST", format!("/images/prune?filters={filters}"), &gone)
            }
            9 => Request::new("DELETE", format!("/images/{many}"), &[(&many, false)]),
            // Whether the name goes, depends on what else is there of it.
            10 => {
                let mut request =
                    Request::new("DELETE", format!("/images/{many}?platforms={OTHER}"), &[(&many, false)]);
                request.known = false;
                request
            }
            11 | 12 => {
                let platform = ["", OTHER_PLATFORM][chance.below(2) as usize];
                let path = format!("/images/create?fromImage={remote}&tag=many{platform}");
                Request::new("POST", path, &[(&many, true)])
            }
            _ => Request::new("POST", "/images/prune", &[]),
        };
        // One of which is known what it comes to, and one beside it that has no say in the names.
        let first = request(&mut chance);
        let beside = ["/build/prune?all=1", "/images/prune", "/system/fsck"][chance.below(3) as usize];
        let beside = Request::new("POST", beside, &[]);
        let after = Duration::from_micros(chance.below(LONGEST));
        let socket = d.socket();
        let acknowledges = std::thread::scope(|scope| {
            let (first, beside, socket) = (&first, &beside, &socket);
            let asking = scope.spawn(move || first.send(socket));
            let asking_beside = scope.spawn(move || beside.send(socket));
            // The moment of the kill, which is by chance.
            std::thread::sleep(after);
            d.kill();
            let _ = asking_beside.join();
            asking.join().unwrap()
        });
        for (name, there) in &first.says {
            // What was not acknowledged may have been done or not.
            if acknowledges && first.known {
                known.insert(name.clone(), *there)
            } else {
                known.remove(name)
            };
        }
        acknowledged += u32::from(acknowledges);
        let opening = Instant::now();
        d.launch();
        slowest = slowest.max(opening.elapsed());
        let list = d.get("/images/json");
        let names: Vec<&str> = list
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|image| image["RepoTags"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        for (name, there) in &known {
            assert_eq!(
                names.contains(&name.as_str()),
                *there,
                "kill {kill}: {name} in {names:?}; {} {}",
                first.method,
                first.path
            );
        }
        let (status, said) = d.post("/system/fsck", "", true).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status, &said["Findings"]), (200, &serde_json::json!([])), "kill {kill} during {}", first.path);
    }
    println!("{acknowledged} of {KILLS} were acknowledged; the slowest start took {slowest:?}");
    let deep = d.wharf("system fsck --deep");
    assert_eq!(deep.code, 0, "{}", deep.out);

    // Whatever is there works, and when it has gone nothing is left.
    for name in known.iter().filter(|(_, there)| **there).map(|(name, _)| name) {
        let archive = d.path().join("exported.tar");
        let exported = d.client().args(["save", "-o"]).arg(archive).arg(name).output().unwrap();
        assert!(exported.status.success(), "{name}: {}", String::from_utf8_lossy(&exported.stderr));
    }
    let (list, mut names) = (d.get("/images/json"), Vec::new());
    for image in list.as_array().unwrap() {
        names.extend(image["RepoTags"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()));
    }
    for name in names.iter().filter(|name| !name.starts_with("busybox:") && !name.starts_with("base:")) {
        d.docker(&format!("rmi {name}")).ok();
    }
    d.docker("builder prune -af").ok();
    d.docker("image prune -f").ok();
    assert_eq!(content(&d.data()), before, "what was not acknowledged has left something");
    assert_eq!(d.docker("exec box echo still").ok(), "still");
    d.docker("rm -f box").ok();
}
