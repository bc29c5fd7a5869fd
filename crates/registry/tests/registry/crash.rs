//! `kill -9` at any moment, SIGTERM in the middle of a download, and collection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use wharf_reference::Digest;

use crate::support::{OCI_MANIFEST, Process, Server, ask, image, open, put_blob, put_image};

const ARGS: &str = "WHARF_REGISTRY_TEST_ARGS";

/// No test: the registry's own command line, in a process that the tests below start and kill.
#[test]
fn process() {
    if let Ok(args) = std::env::var(ARGS) {
        let args: Vec<std::ffi::OsString> = args.split('\n').map(Into::into).collect();
        let code = wharf_registry::main(&args);
        std::process::exit(if code == std::process::ExitCode::SUCCESS { 0 } else { 1 });
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["crash::process", "--exact", "--nocapture"]).env(ARGS, args.join("\n"));
    command
}

/// A registry in a process of its own.
fn start(root: &Path) -> (Process, SocketAddr) {
    let root = root.to_str().unwrap();
    let mut child = command(&["serve", "--listen", "127.0.0.1:0", "--data-root", root])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the registry ended");
        if let Some((_, address)) = line.trim().split_once("listening on http://") {
            break address.parse().unwrap();
        }
    };
    // It must not wait for somebody to read its log.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (Process(child), address)
}

fn is_whole(address: SocketAddr, name: &str, tag: &str) -> bool {
    let found = ask(address, "GET", &format!("/v2/{name}/manifests/{tag}"), &[], b"");
    if found.status == 404 {
        return false;
    }
    assert_eq!(found.status, 200, "{found:?}");
    let manifest = found.json();
    for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let found = ask(address, "GET", &format!("/v2/{name}/blobs/{digest}"), &[], b"");
        assert_eq!((found.status, Digest::sha256(&found.body).as_str()), (200, digest));
    }
    true
}

#[test]
fn what_was_answered_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut pushed: Vec<String> = Vec::new();
    for round in 0..4u64 {
        let (mut process, address) = start(&root);
        for tag in &pushed {
            assert!(is_whole(address, "app", tag), "{tag}");
        }
        let tag = format!("v{round}");
        put_image(address, "app", &tag, &tag);
        pushed.push(tag.clone());
        // Killed while more is being pushed.
        let pusher = std::thread::spawn(move || {
            for number in 0..1000 {
                put_image(address, "app", &format!("{tag}-{number}"), &format!("{tag}-{number}"));
            }
        });
        std::thread::sleep(Duration::from_millis(20 + 37 * round));
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        assert!(pusher.join().is_err(), "a push was too quick for the test");
    }
    let (_process, address) = start(&root);
    let tags = ask(address, "GET", "/v2/app/tags/list", &[], b"").json()["tags"].clone();
    let tags: Vec<String> = serde_json::from_value(tags).unwrap();
    // All that are there are whole, and all that were answered are there.
    assert!(tags.iter().all(|tag| is_whole(address, "app", tag)));
    assert!(pushed.iter().all(|tag| tags.contains(tag)));
}

#[test]
fn an_upload_goes_on_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = vec![7; 2_000_000];
    let location = {
        let (mut process, address) = start(dir.path());
        let begun = ask(address, "POST", "/v2/app/blobs/uploads/", &[], b"");
        let location = begun.header("location").unwrap().to_owned();
        let mut stream = open(address, "PATCH", &location, &[], bytes.len());
        stream.write_all(&bytes[..1_200_000]).unwrap();
        let began = Instant::now();
        while ask(address, "GET", &location, &[], b"").header("range") != Some("0-1199999") {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        location
    };
    let (_process, address) = start(dir.path());
    let status = ask(address, "GET", &location, &[], b"");
    assert_eq!(status.header("range"), Some("0-1199999"));
    let digest = Digest::sha256(&bytes);
    let range = [("Content-Range", "1200000-1999999")];
    let put = ask(address, "PUT", &format!("{location}?digest={digest}"), &range, &bytes[1_200_000..]);
    assert_eq!(put.status, 201, "{put:?}");
}

#[test]
fn sigterm_ends_it_when_downloads_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, address) = start(dir.path());
    // More than the kernel holds for a reader that does not read.
    let bytes = vec![7; 12_000_000];
    let digest = put_blob(address, "app", &bytes);
    let mut stream = open(address, "GET", &format!("/v2/app/blobs/{digest}"), &[], 0);
    let mut first = [0; 1000];
    stream.read_exact(&mut first).unwrap();
    let id = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(200));
    assert!(process.0.try_wait().unwrap().is_none(), "the download was cut off");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() + first.len() > bytes.len());
    assert!(process.0.wait().unwrap().success());
}

/// A small file system of its own, gone with its owner.
struct Disk(tempfile::TempDir);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_and_spoils_nothing() {
    let disk = Disk(tempfile::tempdir().unwrap());
    let root = disk.0.path();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "none"]).arg(root).output().unwrap();
    if !mounted.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
        return;
    }
    let server = Server::start(&root.join("registry"));
    let before = put_image(server.address, "app", "v1", "one");
    let large = vec![7; 16_000_000];
    let digest = Digest::sha256(&large);
    let put = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], &large);
    assert_eq!((put.status, put.code().as_str()), (507, "UNKNOWN"));
    // What there was is there, and what fits comes in.
    assert!(server.get(&format!("/v2/app/manifests/{before}")).status == 200);
    put_image(server.address, "app", "v2", "two");
    assert!(is_whole(server.address, "app", "v1") && is_whole(server.address, "app", "v2"));
}

pub(crate) fn collect(root: &Path, flags: &[&str]) -> String {
    let args = [&["gc", "--data-root", root.to_str().unwrap()], flags].concat();
    let output = command(&args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find(|line| line.contains("elete")).unwrap().to_owned()
}

#[test]
fn what_nothing_names_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = || std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count();
    {
        let server = Server::start(dir.path());
        put_image(server.address, "app", "v1", "one");
        put_image(server.address, "app", "v2", "two");
        put_image(server.address, "other", "v1", "one");
        server.put_blob("app", b"loose");
        let untagged = put_image(server.address, "app", "v3", "three");
        put_image(server.address, "app", "v3", "four");
        assert_eq!(server.get(&format!("/v2/app/manifests/{untagged}")).status, 200);
        assert_eq!(server.ask("DELETE", "/v2/app/manifests/v2", &[], b"").status, 202);
    }
    assert_eq!(blobs(), 13);
    // In the store's directory is a blob that a crash has left.
    let orphan = Digest::sha256(b"orphan");
    std::fs::write(dir.path().join("blobs/sha256").join(orphan.hex()), b"orphan").unwrap();
    assert!(collect(dir.path(), &[]).starts_with("Deleted 0 manifests and 1 blobs, 6 bytes"));
    let line = collect(dir.path(), &["--older-than", "0", "--dry-run"]);
    assert!(line.starts_with("Would delete 0 manifests and 1 blobs, 5 bytes"), "{line}");
    assert_eq!(blobs(), 13);
    assert!(collect(dir.path(), &["--older-than", "0"]).starts_with("Deleted 0 manifests and 1 blobs, 5 bytes"));
    let line = collect(dir.path(), &["--older-than", "0", "--dry-run", "--delete-untagged"]);
    assert!(line.starts_with("Would delete 2 manifests and 6 blobs"), "{line}");
    let line = collect(dir.path(), &["--older-than", "0", "--delete-untagged"]);
    assert!(line.starts_with("Deleted 2 manifests and 6 blobs"), "{line}");
    assert_eq!(blobs(), 6);

    let server = Server::start(dir.path());
    assert!(is_whole(server.address, "app", "v1") && is_whole(server.address, "app", "v3"));
    assert!(is_whole(server.address, "other", "v1"));
    // What went with the others is not believed to be there.
    let (manifest, _) = image("two");
    let types = [("Content-Type", OCI_MANIFEST)];
    let put = server.ask("PUT", "/v2/app/manifests/v2", &types, manifest.as_bytes());
    assert_eq!(put.code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(server.get("/v2/_catalog").json(), json!({"repositories": ["app", "other"]}));
    drop(server);
    let missing = command(&["gc", "--data-root", dir.path().join("none").to_str().unwrap()]).output().unwrap();
    assert!(!missing.status.success() && !dir.path().join("none").exists());
}
