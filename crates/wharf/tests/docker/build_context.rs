//! What of a context crosses the socket: only what has changed and a step asks for.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::build_inputs::{context, files, wharf};
use crate::kit::{Daemon, Said, WHARF};

/// Passes a daemon's socket on, and keeps what clients say. After `most` bytes of theirs it passes nothing more on.
struct Listening {
    socket: PathBuf,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Listening {
    fn new(d: &Daemon, name: &str, most: usize) -> Self {
        let (socket, heard) = (d.path().join(name), Arc::new(Mutex::new(Vec::new())));
        let listener = UnixListener::bind(&socket).unwrap();
        let (to, all) = (d.socket(), Arc::clone(&heard));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (daemon, all) = (UnixStream::connect(&to).unwrap(), Arc::clone(&all));
                let (mut answer, mut back) = (daemon.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut answer, &mut back);
                    let _ = back.shutdown(std::net::Shutdown::Both);
                });
                std::thread::spawn(move || pass(client, daemon, &all, most));
            }
        });
        Self { socket, heard }
    }

    /// Our client's build in `dir`, and what it has said.
    fn build(&self, d: &Daemon, dir: &Path, words: &str) -> (Said, Vec<u8>) {
        let child = self.begin(d, dir, words);
        let said: Said = child.wait_with_output().unwrap().into();
        (said, std::mem::take(&mut self.heard.lock().unwrap()))
    }

    fn begin(&self, d: &Daemon, dir: &Path, words: &str) -> std::process::Child {
        let mut command = Command::new(WHARF);
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).arg("build").args(words.split_whitespace());
        command.env("DOCKER_CONFIG", d.path().join("config")).current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

fn pass(mut client: UnixStream, mut daemon: UnixStream, all: &Mutex<Vec<u8>>, most: usize) {
    let mut bytes = [0; 64 << 10];
    while let Ok(count) = client.read(&mut bytes) {
        let so_far = {
            let mut all = all.lock().unwrap();
            all.extend(&bytes[..count]);
            all.len()
        };
        if count == 0 || so_far > most || daemon.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if all.lock().unwrap().len() <= most {
        let _ = daemon.shutdown(std::net::Shutdown::Write);
    } else {
        // The rest is awaited for as long as there is a daemon.
        let _ = daemon.read(&mut [0; 1]);
    }
}

/// Which files' contents are in it.
fn sent(heard: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(heard);
    let mut all: Vec<String> =
        text.split("content<").skip(1).filter_map(|rest| Some(rest.split_once('>')?.0.to_owned())).collect();
    all.sort();
    all
}

fn content(name: &str) -> String {
    format!("content<{name}>{}\n", "x".repeat(2000))
}

const FILES: usize = 400;

fn many(d: &Daemon) -> PathBuf {
    let dir = context(d, "many", &[("Dockerfile", "FROM busybox\nCOPY src /src\nRUN cat /src/* > /all\n")]);
    for number in 0..FILES {
        let name = format!("src/f{number:03}");
        files(&dir, &[(&name, &content(&name))]);
    }
    files(&dir, &[("unasked", &content("unasked")), ("ignored", &content("ignored")), (".dockerignore", "ignored\n")]);
    a_step_of_the_clock();
    dir
}

/// What was changed just now is sent again, as it may have been changed twice in one step of the kernel's clock for files.
fn a_step_of_the_clock() {
    std::thread::sleep(std::time::Duration::from_millis(100));
}

#[test]
fn only_changed_files_of_a_context_are_sent() {
    let Some(mut d) = Daemon::start() else { return };
    let dir = many(&d);
    let proxy = Listening::new(&d, "proxy.sock", usize::MAX);
    let (said, heard) = proxy.build(&d, &dir, "-t app .");
    assert!(said.code == 0, "{}{}", said.out, said.err);
    assert_eq!(sent(&heard).len(), FILES, "what no step asks for is not sent");
    assert!(!String::from_utf8_lossy(&heard).contains("unasked"), "nor is it listed");
    let whole = heard.len();
    let (said, heard) = proxy.build(&d, &dir, "-t app .");
    assert!(said.out.contains("Using cache") && !said.out.contains("Running in"), "{}{}", said.out, said.err);
    assert_eq!(sent(&heard), Vec::<String>::new());
    // A listing takes some hundred bytes for a file.
    assert!(heard.len() < FILES * 150 && heard.len() * 10 < whole, "{} of {whole}", heard.len());
    // As large and, by what programs can set, as old as before.
    let path = dir.join("src/f007");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, content("src/f007").replace('x', "y")).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    a_step_of_the_clock();
    let unchanged = heard.len();
    let (said, heard) = proxy.build(&d, &dir, "-t app .");
    assert_eq!(sent(&heard), ["src/f007"], "{}{}", said.out, said.err);
    assert!(heard.len() < unchanged + 3000, "{} after {unchanged}", heard.len());
    assert!(d.docker("run --rm app grep -c yyy /src/f007").ok() == "1");
    // An archive of the same files finds the same steps.
    let archive = d.docker(&format!("build -t other {}", dir.display())).ok();
    assert!(!archive.contains("Running in"), "{archive}");
    // It outlives the daemon, and goes with a prune.
    d.kill();
    d.launch();
    assert_eq!(sent(&proxy.build(&d, &dir, "-t app .").1), Vec::<String>::new());
    let listed = d.get("/v1.44/system/df");
    let local = listed["BuildCache"].as_array().unwrap().iter().find(|one| one["Type"] == "source.local").unwrap();
    assert!(local["Size"].as_u64() > Some(2000 * FILES as u64), "{local}");
    let pruned = d.docker("builder prune -f").ok();
    assert!(pruned.contains(local["ID"].as_str().unwrap()), "{pruned}");
    assert_eq!(sent(&proxy.build(&d, &dir, "-t app .").1).len(), FILES);
}

#[test]
fn other_inputs_are_listed_too() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("f", &content("f"))]);
    let named = context(&d, "named", &[("n", &content("n")), ("link", ""), ("unasked", &content("unasked"))]);
    std::fs::remove_file(named.join("link")).unwrap();
    std::os::unix::fs::symlink("n", named.join("link")).unwrap();
    std::fs::hard_link(named.join("n"), named.join("second")).unwrap();
    let outside = context(&d, "outside", &[("file", "FROM busybox\nCOPY f /\nCOPY --from=src n second link /d/\n")]);
    a_step_of_the_clock();
    let proxy = Listening::new(&d, "proxy.sock", usize::MAX);
    let words = format!("-f {} --build-context src={} -t app .", outside.join("file").display(), named.display());
    let (said, heard) = proxy.build(&d, &dir, &words);
    assert_eq!(sent(&heard), ["f", "n"], "{}{}", said.out, said.err);
    assert_eq!(sent(&proxy.build(&d, &dir, &words).1), Vec::<String>::new());
    let inodes = d.docker("run --rm app stat -c %i /d/n /d/second").ok();
    let both: Vec<&str> = inodes.lines().collect();
    assert_ne!(both[0], both[1], "two sources are two files, as BuildKit has it");
    for name in ["second", "link"] {
        assert_eq!(d.docker(&format!("run --rm app cat /d/{name}")).ok(), content("n").trim_end());
    }
}

#[test]
fn half_of_a_context_is_never_used() {
    let Some(mut d) = Daemon::start() else { return };
    let dir = many(&d);
    let stalled = Listening::new(&d, "stalled.sock", 200_000);
    let client = stalled.begin(&d, &dir, "-t app .");
    d.eventually("half of it has come", || stalled.heard.lock().unwrap().len() > 200_000);
    d.kill();
    let said: Said = client.wait_with_output().unwrap().into();
    assert_ne!(said.code, 0, "{}", said.out);
    d.launch();
    let proxy = Listening::new(&d, "proxy.sock", usize::MAX);
    let (said, heard) = proxy.build(&d, &dir, "-t app .");
    assert_eq!(sent(&heard).len(), FILES, "{}{}", said.out, said.err);
    let all: String = (0..FILES).map(|number| content(&format!("src/f{number:03}"))).collect();
    assert_eq!(d.docker("run --rm app cat /all").ok(), all.trim_end());
}

#[test]
fn what_a_dockerfile_does_not_name_is_listed_when_it_is_needed() {
    let Some(d) = Daemon::start() else { return };
    let base =
        context(&d, "base", &[("Dockerfile", "FROM busybox\nONBUILD COPY --from=plain /x /x\nONBUILD COPY . /all\n")]);
    d.docker(&format!("build -t base {}", base.display())).ok();
    let given = [
        ("Dockerfile", "FROM busybox AS plain\nRUN echo x > /x\nFROM base AS app\nCOPY one /one\n"),
        ("one", &content("one")),
        ("dir/two", &content("two")),
        ("linked.Dockerfile", "FROM busybox\nCOPY link/two /two\n"),
        (".dockerignore", "ignored\n"),
        ("ignored", &content("ignored")),
    ];
    let dir = context(&d, "main", &given.map(|(name, text)| (name, text)));
    std::os::unix::fs::symlink("dir", dir.join("link")).unwrap();
    a_step_of_the_clock();
    let proxy = Listening::new(&d, "proxy.sock", usize::MAX);
    let listed = |heard: &[u8], name: &str| String::from_utf8_lossy(heard).contains(name);
    let (said, heard) = proxy.build(&d, &dir, "-t plain --target plain .");
    assert!(said.code == 0 && !listed(&heard, "two") && sent(&heard).is_empty(), "{}{}", said.out, said.err);
    // Who is based on such an image has its triggers.
    let (said, heard) = proxy.build(&d, &dir, "-t app --target app .");
    assert!(said.code == 0 && listed(&heard, "two"), "{}{}", said.out, said.err);
    assert_eq!(sent(&heard), ["one", "two"]);
    assert_eq!(
        d.docker("run --rm app ls /all /all/dir").ok(),
        "/all:\nDockerfile\ndir\nlink\nlinked.Dockerfile\none\n\n/all/dir:\ntwo"
    );
    assert_eq!(d.docker("run --rm app cat /all/dir/two").ok(), content("two").trim_end());
    assert_eq!(sent(&proxy.build(&d, &dir, "-t app --target app .").1), Vec::<String>::new());
    // A link leads on.
    let (said, heard) = proxy.build(&d, &dir, "-t linked -f linked.Dockerfile .");
    assert!(said.code == 0, "{}{}", said.out, said.err);
    assert_eq!(
        (sent(&heard), d.docker("run --rm linked cat /two").ok().as_str()),
        (Vec::new(), content("two").trim_end())
    );
}

/// What an archive's entry has beside its content.
fn attributes(archive: &Path, name: &str) -> String {
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]):\n    if m.name == sys.argv[2]: print(m.type, m.linkname, sorted(m.pax_headers))";
    let said = Command::new("python3").args(["-c", script]).arg(archive).arg(name).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn what_files_carry_comes_with_their_contents() {
    let Some(d) = Daemon::start() else { return };
    let dir =
        context(&d, "main", &[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("able", &content("able")), ("empty", "")]);
    std::os::unix::fs::symlink("able", dir.join("link")).unwrap();
    std::fs::hard_link(dir.join("link"), dir.join("second")).unwrap();
    a_step_of_the_clock();
    let proxy = Listening::new(&d, "proxy.sock", usize::MAX);
    let out = d.path().join("out.tar");
    let words = format!("-o type=tar,dest={} .", out.display());
    let (said, heard) = proxy.build(&d, &dir, &words);
    assert_eq!(sent(&heard), ["able"], "{}{}", said.out, said.err);
    assert!(!attributes(&out, "able").contains("capability"));
    // Two names of one link are two links.
    for name in ["link", "second"] {
        assert!(attributes(&out, name).contains("b'2' able"), "{}", attributes(&out, name));
    }
    // The capability to take low ports, as setcap(8) gives it; neither content nor times that programs can set change.
    let script = "import os, sys\nfor name in sys.argv[1:]: os.setxattr(name, 'security.capability', bytes([1,0,0,2,0,4,0,0,0,0,0,0,0,0,0,0,0,0,0,0]))";
    let set = Command::new("python3").args(["-c", script, "able", "empty"]).current_dir(&dir).status().unwrap();
    if !set.success() {
        eprintln!("SKIPPED: the file system keeps no capabilities");
        return;
    }
    a_step_of_the_clock();
    assert_eq!(sent(&proxy.build(&d, &dir, &words).1), ["able"]);
    for name in ["able", "empty"] {
        assert!(attributes(&out, name).contains("SCHILY.xattr.security.capability"), "{}", attributes(&out, name));
    }
    // It is kept with what is kept.
    d.docker("builder prune -af --filter id=sha256").ok();
    assert_eq!(sent(&proxy.build(&d, &dir, &words).1), Vec::<String>::new());
    assert!(attributes(&out, "able").contains("SCHILY.xattr.security.capability"));
    let (said, _) = proxy.build(&d, &dir, &format!("--compress --no-cache {words}"));
    assert!(said.code == 0 && attributes(&out, "second").contains("b'2' able"), "{}", said.err);
}

/// Patterns look behind links, which may lead round in circles.
#[test]
fn links_in_circles_lead_to_nothing() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM scratch\nCOPY **/*.md */*.md /found/\n";
    let dir = context(&d, "main", &[("Dockerfile", text), ("dir/a.md", "a")]);
    std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    std::os::unix::fs::symlink("../other", dir.join("dir/one")).unwrap();
    std::os::unix::fs::symlink("dir/one", dir.join("other")).unwrap();
    let out = d.path().join("out");
    wharf(&d, &dir, &format!("build -o {} .", out.display())).ok();
    let found = |name: &str| out.join("found").join(name).exists();
    assert!(found("a.md"));
    std::fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY loop/x /\n").unwrap();
    let said = wharf(&d, &dir, "build .");
    assert!(said.code != 0 && said.err.contains("loop/x"), "{}", said.err);
}
