//! Ways to the daemon, its files and its patience: CVE-2021-41091, CVE-2020-15257, CVE-2021-21285, CVE-2022-31030.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::canary::{say, wharf};
use crate::image;
use crate::kit::Daemon;

/// Trees of images have set-user-ID programs of any version in them.
#[test]
fn nobody_else_reads_what_the_daemon_keeps() {
    let Some(d) = Daemon::start() else { return };
    fs::set_permissions(d.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    d.docker("volume create kept").ok();
    say(
        &d,
        &[
            "run",
            "-d",
            "--name",
            "idle",
            "--ipc",
            "shareable",
            "-v",
            "kept:/v",
            "busybox",
            "sh",
            "-c",
            "cp /bin/busybox /s; chmod 4755 /s; cp /s /v/s; sleep 1000",
        ],
    )
    .ok();
    d.eventually("it has written", || say(&d, &["exec", "idle", "test", "-e", "/v/s"]).code == 0);
    // An ordinary user walks wherever it may.
    let data = d.data();
    let run = d.path().join("run");
    for root in [&data, &run] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "find"]).arg(root);
        command.args(["-perm", "-4000", "-o", "-name", "busybox", "-o", "-name", "*.log", "-o", "-name", "hosts"]);
        command.args(["-o", "-name", "*.sock", "-o", "-path", "*/sha256/*", "-o", "-name", "shm", "-o", "-name", "s"]);
        let found = command.stderr(Stdio::null()).output().unwrap();
        let seen = String::from_utf8_lossy(&found.stdout).into_owned();
        // Places for mounts, with nothing in them.
        let seen: Vec<&str> = seen.lines().filter(|line| !line.contains("/data/places/")).collect();
        assert!(seen.is_empty(), "{seen:?}");
    }
    for (path, most) in [
        (data.join("layers"), 0o710),
        (data.join("containers"), 0o710),
        (data.join("volumes"), 0o711),
        (data.join("blobs"), 0o710),
        (data.join("wharf.redb"), 0o600),
        (run.join("containers"), 0o710),
        (d.socket(), 0o660),
    ] {
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode & !most, 0, "{}: {mode:o}", path.display());
    }
}

/// Who shares the host's network namespace sees its abstract sockets: none of them is ours.
#[test]
fn there_is_no_abstract_socket() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create own").ok();
    say(&d, &["run", "-d", "--name", "idle", "--network", "own", "busybox", "sleep", "1000"]).ok();
    let seen = say(&d, &["run", "--rm", "--network", "host", "busybox", "cat", "/proc/net/unix"]).ok();
    let sockets: BTreeMap<&str, &str> = seen
        .lines()
        .filter_map(|line| Some((line.split_whitespace().nth(6)?, line.split_whitespace().nth(7)?)))
        .filter(|(_, path)| path.starts_with('@'))
        .collect();
    // By inode: whose they are.
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if !name.starts_with("wharf") {
            continue;
        }
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(fd.path()).unwrap_or_default().to_string_lossy().into_owned();
            let inode = target.trim_start_matches("socket:[").trim_end_matches(']');
            assert!(!sockets.contains_key(inode), "{name} listens at {}", sockets[inode]);
        }
    }
}

#[test]
fn the_api_is_reached_by_its_socket_alone() {
    let Some(d) = Daemon::start() else { return };
    let seen = fs::read_to_string(format!("/proc/{}/net/tcp", d.pid())).unwrap();
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{}/fd", d.pid()))
        .unwrap()
        .flatten()
        .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    // 0A is LISTEN (proc(5)).
    for line in seen.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some("0A")) {
        let inode = line.split_whitespace().nth(9).unwrap_or_default();
        assert!(!inodes.contains(&format!("socket:[{inode}]")), "the daemon listens on TCP: {line}");
    }
    let root = d.path().join("none");
    let words = ["daemon", "-H", "tcp://127.0.0.1:0", "--data-root"];
    let refused = Command::new(crate::kit::WHARF).args(words).arg(&root).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--tlsverify"));
    assert!(!root.exists(), "before anything was made");
    // A page in a browser would send these; a container has no way to the socket unless it is mounted.
    let inside = d.sh("--network host", "ls /run /var/run 2>/dev/null; find / -xdev -name '*.sock' 2>/dev/null");
    assert_eq!(inside.ok(), "");
}

/// Configurations that are no configurations: the daemon says so, or takes them for nothing, and lives on.
#[test]
fn odd_configurations_of_images_end_nobody() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "bystander", "busybox", "sleep", "1000"]).ok();
    let pid = d.pid();
    let odd: [(&str, Value); 24] = [
        ("Healthcheck", json!({ "Test": ["CMD"] })),
        ("Healthcheck", json!({ "Test": ["CMD-SHELL"] })),
        ("Healthcheck", json!({ "Test": [] })),
        ("Healthcheck", json!({ "Test": [""] })),
        ("Healthcheck", json!({ "Test": ["CMD", ""], "Interval": 1 })),
        ("Healthcheck", json!({ "Test": ["CMD", "true"], "Interval": -1, "Retries": -5, "Timeout": i64::MIN })),
        ("Healthcheck", json!({ "Test": ["CMD", "true"], "Interval": i64::MAX, "StartPeriod": i64::MAX })),
        ("Entrypoint", json!([])),
        ("Entrypoint", json!([""])),
        ("Cmd", json!([])),
        ("Cmd", Value::Null),
        ("Env", json!(["", "=", "A", "=x", "A=\u{1}"])),
        ("ExposedPorts", json!({ "": {}, "99999/tcp": {}, "x/y": {}, "80-70/tcp": {} })),
        ("Volumes", json!({ "": {}, "..": {}, "relative": {} })),
        ("User", json!(":::")),
        ("User", json!("\n")),
        ("WorkingDir", json!("relative/../..")),
        ("WorkingDir", json!("\n")),
        ("StopSignal", json!("NOSUCH")),
        ("StopSignal", json!("-1")),
        ("Labels", json!({ "": "", "\n": "\u{1b}" })),
        ("OnBuild", json!(["", "RUN", "ONBUILD ONBUILD"])),
        ("Shell", json!([])),
        ("Labels", json!("no map")),
    ];
    for (number, (key, value)) in odd.iter().enumerate() {
        let name = format!("odd{number}");
        let loaded = image::load(&d, &name, |_| {}, |config| config["config"][*key] = value.clone());
        if loaded.code == 0 {
            for words in [
                &["run", "--rm", &name, "true"][..],
                &["run", "--rm", "--health-interval", "1ms", &name, "sleep", "0.1"],
            ] {
                let said = say(&d, words);
                assert!(said.code == 0 || !said.err.is_empty() || !said.out.is_empty(), "{key} {value}: {}", said.code);
            }
            let context = d.path().join("context");
            fs::create_dir_all(&context).unwrap();
            fs::write(context.join("Dockerfile"), format!("FROM {name}\nRUN true\n")).unwrap();
            say(&d, &["build", &context.to_string_lossy()]);
            say(&d, &["inspect", &name]);
            say(&d, &["history", &name]);
        } else {
            assert!(!loaded.err.is_empty(), "{key} {value}");
        }
    }
    for whole in
        [json!(null), json!([]), json!({}), json!("x"), json!({ "rootfs": { "type": "layers", "diff_ids": ["x"] } })]
    {
        let loaded = image::load(&d, "whole", |_| {}, |config| *config = whole.clone());
        assert!(loaded.code != 0 && !loaded.err.is_empty(), "{whole} was loaded");
    }
    assert_eq!(d.pid(), pid);
    assert_eq!(say(&d, &["exec", "bystander", "echo", "alive"]).ok(), "alive");
    assert!(!d.log().contains("panicked"), "{}", d.log());
}

fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Execs and streams that come and go, and clients that do not read, leave nothing in the daemon or the monitor.
#[test]
fn what_comes_and_goes_leaves_nothing() {
    let Some(d) = Daemon::start() else { return };
    let flood = "yes | head -c 30000000; sleep 1000";
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    say(&d, &["run", "-d", "--name", "flood", "busybox", "sh", "-c", flood]).ok();
    let pid = d.docker("inspect -f {{.State.Pid}} idle").ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let monitor: u32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let once = || {
        say(&d, &["exec", "idle", "true"]).ok();
        // One who asks and leaves, and one who is given what nobody takes.
        let id = |body: &str| -> String {
            let (_, text) = d.post("/containers/idle/exec", body, true).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["Id"].as_str().unwrap().to_owned()
        };
        let exec = id(r#"{"Cmd":["sh","-c","yes | head -c 1000000"],"AttachStdout":true}"#);
        let mut stream = std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
        let body = r#"{"Detach":false}"#;
        write!(stream, "POST /exec/{exec}/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut first = [0; 16];
        stream.read_exact(&mut first).unwrap();
        drop(stream);
        d.post("/containers/flood/attach?stream=1&stdout=1&logs=1", "", false);
        d.post("/containers/idle/wait", "", false);
    };
    let before = (fds(d.pid()), fds(monitor));
    for _ in 0..40 {
        once();
    }
    d.eventually("all is closed again", || fds(d.pid()) <= before.0 + 4 && fds(monitor) <= before.1 + 2);
    assert_eq!(say(&d, &["exec", "flood", "echo", "alive"]).ok(), "alive");
}

/// `docker top` looks at the host's `/proc`, with the host's `ps`, whatever the container has under these names.
#[test]
fn a_list_of_processes_is_made_by_the_host() {
    let Some(d) = Daemon::start() else { return };
    let tree = |root: &Path| {
        let _ = fs::remove_file(root.join("bin/ps"));
        fs::write(root.join("bin/ps"), "#!/bin/sh\necho lies\n").unwrap();
        fs::set_permissions(root.join("bin/ps"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    image::load(&d, "lies", tree, |_| {}).ok();
    for options in [&[][..], &["--userns", "auto"]] {
        wharf(&d, &[&["run", "-d", "--name", "lies"], options, &["lies", "sleep", "1000"]].concat()).ok();
        let said = d.docker("top lies").ok();
        assert!(said.contains("sleep 1000") && !said.contains("lies\n"), "{said}");
        let said = say(&d, &["top", "lies", "-o", "pid,cmd; touch /x"]);
        assert!(said.code != 0 || !Path::new("/x").exists());
        d.docker("rm -f lies").ok();
    }
}
