//! The API by TCP, with and without certificates, and on sockets that somebody else has opened.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::kit::{Daemon, Said, WHARF};

/// The address that the daemon says it listens on.
fn address(d: &Daemon) -> String {
    d.eventually("it listens", || d.log().contains("API listen on"));
    let log = d.log();
    let line = log.lines().rfind(|line| line.contains("API listen on")).unwrap();
    line.rsplit("tcp://").next().unwrap().trim().to_owned()
}

/// Docker's client for `tcp://address`, with the certificates of a folder, if there is one.
fn by_tcp(d: &Daemon, address: &str, certificates: Option<&Path>, words: &[&str]) -> Command {
    let mut client = Command::new(d.client().get_program());
    client.arg("-H").arg(format!("tcp://{address}"));
    if let Some(dir) = certificates {
        client.args(["--tlsverify", "--tlscacert"]).arg(dir.join("ca.pem"));
        client.arg("--tlscert").arg(dir.join("cert.pem")).arg("--tlskey").arg(dir.join("key.pem"));
    }
    client.env("DOCKER_CONFIG", d.path().join("config")).stdin(Stdio::null()).args(words);
    client
}

fn say(mut command: Command) -> Said {
    command.output().unwrap().into()
}

/// An authority in `dir`, with a certificate for a server on the loopback and one for a client; false without `openssl`.
fn certificates(dir: &Path) -> bool {
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    std::fs::write(dir.join("client"), "extendedKeyUsage=clientAuth\n").unwrap();
    let run = |line: &str| Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
    for line in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} -keyout ca-key.pem -out ca.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server-key.pem -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile names -out server.pem",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=client -keyout key.pem -out client.csr",
        "x509 -req -in client.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile client -out cert.pem",
    ] {
        let Ok(made) = run(&line.replace("{name}", &dir.file_name().unwrap().to_string_lossy())) else {
            println!("skipped: `openssl` is not installed");
            return false;
        };
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
    }
    true
}

#[test]
fn only_those_with_a_certificate_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (dir.path().join("good"), dir.path().join("other"));
    if !certificates(&good) || !certificates(&other) {
        return;
    }
    let authority = dir.path().join("authority.pem");
    std::fs::copy(good.join("ca.pem"), &authority).unwrap();
    let path = |name: &str| good.join(name).display().to_string();
    let (ca, cert, key) = (authority.display().to_string(), path("server.pem"), path("server-key.pem"));
    let options = ["-H", "tcp://127.0.0.1:0", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let Some(d) = Daemon::start_given(&options) else { return };
    let address = address(&d);
    let run = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo err >&2; exit 3"];
    let mut client =
        by_tcp(&d, &address, Some(&good), &run).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // More than any buffer on the way holds, both ways at once.
    let sent = "0123456789abcdef\n".repeat(1 << 16);
    let mut input = client.stdin.take().unwrap();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(bytes.as_bytes()).unwrap());
    let mut came = String::new();
    client.stdout.take().unwrap().read_to_string(&mut came).unwrap();
    writer.join().unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(3));
    assert!(came == sent, "{} of {} bytes came back", came.len(), sent.len());

    // The authority changes: who came in before does so no more once the daemon has read it again.
    std::fs::copy(other.join("ca.pem"), &authority).unwrap();
    let hup = || {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(d.pid().cast_signed()).unwrap(),
            rustix::process::Signal::HUP,
        )
    };
    hup().unwrap();
    d.eventually("it has read its files again", || d.log().contains("Reloaded configuration"));
    assert_ne!(say(by_tcp(&d, &address, Some(&good), &["version"])).code, 0);
    std::fs::copy(good.join("ca.pem"), &authority).unwrap();
    hup().unwrap();
    d.eventually("and again", || say(by_tcp(&d, &address, Some(&good), &["version"])).code == 0);

    // Nobody, somebody of another authority's, and one who does not speak TLS.
    std::fs::copy(good.join("ca.pem"), other.join("ca.pem")).unwrap();
    let stranger = say(by_tcp(&d, &address, Some(&other), &["version"]));
    assert!(stranger.code != 0 && stranger.err.contains("certificate"), "{}", stranger.err);
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"), "{answer:?}");
    assert_ne!(say(by_tcp(&d, &address, None, &["version"])).code, 0);

    // Our own client says what is wrong, where, and what may be done.
    let own = |address: &str, certificates: &Path, ca: &Path| {
        let mut client = Command::new(WHARF);
        client.env("WHARF_CONFIG", d.path()).args(["-H", &format!("tcp://{address}")]);
        if certificates != Path::new("") {
            client.args(["--tlsverify", "--tlscacert"]).arg(ca);
            client.arg("--tlscert").arg(certificates.join("cert.pem"));
            client.arg("--tlskey").arg(certificates.join("key.pem"));
        }
        client.arg("version");
        say(client).err
    };
    let right = good.join("ca.pem");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut s| drop(s.write_all(b"HTTP/1.1 400 x\r\n")))
    });
    for (address, certificates, ca, words) in [
        (&address, Path::new(""), &right, "Are you trying to connect to a TLS-enabled daemon without TLS?"),
        (&address, &other, &right, "the daemon may want another certificate of this client"),
        (&address, &good, &path_of_another_authority(&dir.path().join("third")), "signed by unknown authority"),
        (&plain, &good, &right, "does not look like a TLS handshake"),
    ] {
        let said = own(address, certificates, ca);
        assert!(said.contains(words) && said.contains(&format!("tcp://{address}")), "{words}: {said}");
    }
}

fn path_of_another_authority(dir: &Path) -> PathBuf {
    assert!(certificates(dir));
    dir.join("ca.pem")
}

#[test]
fn without_certificates_it_takes_a_word() {
    let Some(d) = Daemon::start_given(&["-H", "tcp://127.0.0.1:0", "--insecure-tcp"]) else { return };
    assert!(d.log().contains("whoever reaches it is root on this host"));
    let address = address(&d);
    assert_eq!(say(by_tcp(&d, &address, None, &["run", "--rm", "busybox", "echo", "hi"])).ok(), "hi");
    // Clients that vanish while they wait leave nothing open.
    let open = || std::fs::read_dir(format!("/proc/{}/fd", d.pid())).unwrap().count();
    let mut talks = d.client();
    talks.args(["run", "-d", "--name", "talks", "busybox", "sh", "-c", "while sleep 0.1; do echo x; done"]);
    say(talks).ok();
    let before = open();
    let words = [&["logs", "-f", "talks"][..], &["events"], &["stats", "talks"], &["wait", "talks"]].repeat(3);
    let come = |words: &&[&str]| by_tcp(&d, &address, None, words).stdout(Stdio::null()).spawn().unwrap();
    let waiting: Vec<_> = words.iter().map(come).collect();
    d.eventually("they are connected", || open() >= before + 2 * words.len());
    for mut client in waiting {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // What is opened once and kept, as to watch logs, is none of theirs.
    d.eventually("nothing of theirs is open", || open() <= before + 4);
    d.docker("kill talks").ok();

    let refused = Command::new(WHARF).args(["daemon", "-H", "tcp://127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("--tlsverify") && said.contains("--insecure-tcp"),
        "{said}"
    );
}

/// A page that a browser shows on a host that reaches this one: by its own name, once that has become this host's address,
/// or by this host's.
#[test]
fn where_everybody_may_come_pages_of_others_may_not() {
    let options = ["-H", "tcp://127.0.0.1:0", "--insecure-tcp", "--tcp-name", "build.example.org"];
    let Some(d) = Daemon::start_given(&options) else { return };
    let address = address(&d);
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
        let rest = format!("Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        write!(stream, "POST /containers/create HTTP/1.1\r\n{head}\r\n{rest}\r\n\r\n{body}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (text.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok()).unwrap_or(0), text)
    };
    let own = format!("Host: {address}");
    for (head, why) in [
        ("Host: evil.example\r\nOrigin: http://evil.example", "--tcp-name"),
        ("Host: evil.example", "--tcp-name"),
        (&format!("{own}\r\nOrigin: http://evil.example"), "http://evil.example"),
        (&format!("{own}\r\nOrigin: null"), "`null`"),
        (&format!("{own}\r\nHost: evil.example"), "--tcp-name"),
    ] {
        let (status, text) = ask(head);
        assert!(status == 403 && text.contains(why), "{head}: {text}");
    }
    assert_eq!(d.docker("ps -aq").ok(), "");
    let port = address.rsplit(':').next().unwrap();
    for head in [
        own.clone(),
        format!("{own}\r\nOrigin: http://{address}"),
        format!("Host: localhost:{port}"),
        format!("Host: docker:{port}"),
        "Host: build.example.org".to_owned(),
        format!("Host: {}", rustix::system::uname().nodename().to_string_lossy()),
    ] {
        let (status, text) = ask(&head);
        assert_eq!(status, 201, "{head}: {text}");
    }
    // On its socket nobody is asked: a browser has no way there.
    let (status, _) = d.post("/containers/create", r#"{"Image":"busybox","Cmd":["true"]}"#, true).unwrap();
    assert_eq!(status, 201);
    assert_eq!(
        say(by_tcp(&d, &format!("localhost:{port}"), None, &["run", "--rm", "busybox", "echo", "hi"])).ok(),
        "hi"
    );
}

/// As systemd starts a daemon by a socket unit.
#[test]
fn sockets_that_were_passed_are_listened_on() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name stays busybox sleep 1000").ok();
    d.stop();
    let unix = std::os::unix::net::UnixListener::bind(d.path().join("passed.sock")).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    // In the places of its input and output, which it has no use for.
    let passing = "export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:remote; exec \"$@\" 3<&0 4<&1 <&- >&-";
    let own = d.command();
    let mut command = Command::new("bash");
    command.args(["-c", passing, "bash"]).arg(own.get_program());
    // All that it is told, but where it listens.
    command.args(own.get_args().filter(|word| *word != "-H" && !word.to_string_lossy().starts_with("unix://")));
    command.args(["-H", "fd://", "--insecure-tcp"]).stdin(OwnedFd::from(unix)).stdout(OwnedFd::from(tcp));
    let log = std::fs::File::options().append(true).create(true).open(d.path().join("log")).unwrap();
    let mut daemon = command.stderr(log).spawn().unwrap();
    drop(command);
    let local = format!("unix://{}", d.path().join("passed.sock").display());
    let version = || Command::new(WHARF).args(["-H", &local, "version"]).output().unwrap().status.success();
    d.eventually("it answers", version);
    let listed = say(by_tcp(&d, &address, None, &["ps", "--format", "{{.Names}}"]));
    assert_eq!(listed.ok(), "stays");
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap();
    assert!(d.path().join("passed.sock").exists(), "a socket of somebody else's is removed");
    d.launch();
    let none = d.command().args(["-H", "fd://"]).output().unwrap();
    assert!(!none.status.success());
}

/// SIGHUP, with other labels, mirrors and what cannot be had without a new start in the file.
#[test]
fn a_daemon_takes_its_configuration_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.json");
    std::fs::write(&file, r#"{"labels": ["a=1"]}"#).unwrap();
    let Some(d) = Daemon::start_given(&["--config-file", &file.display().to_string()]) else { return };
    d.docker("run -d --name stays busybox sleep 1000").ok();
    assert_eq!(d.get("/info")["Labels"], serde_json::json!(["a=1"]));
    let hup = |text: &str, sign: &str| {
        std::fs::write(&file, text).unwrap();
        let pid = rustix::process::Pid::from_raw(d.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        d.eventually("it has read its file", || d.log().contains(sign));
    };
    let new = r#"{"labels": ["b=2"], "registry-mirrors": ["http://127.0.0.1:9"], "debug": true, "mtu": 1400,
                  "default-shm-size": "32M", "default-ipc-mode": "shareable", "no-new-privileges": true}"#;
    hup(new, "which containers do not notice: mtu, no-new-privileges");
    let info = d.get("/info");
    assert_eq!(info["Labels"], serde_json::json!(["b=2"]));
    assert_eq!(info["RegistryConfig"]["Mirrors"], serde_json::json!(["http://127.0.0.1:9/"]));
    assert_eq!(info["Debug"], true);
    d.docker("create --name new busybox true").ok();
    assert_eq!(
        d.docker("inspect -f {{.HostConfig.IpcMode}}-{{.HostConfig.ShmSize}} new stays").ok(),
        "shareable-33554432\nprivate-67108864"
    );
    let reload = ["events", "--since=1", "--until=-1s", "--filter=event=reload", "--format={{json .Actor.Attributes}}"];
    let told = String::from_utf8(d.client().args(reload).output().unwrap().stdout).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|e| panic!("{e}: {told}"));
    // As Docker 28.5 tells it.
    let keys: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    let all = "debug default-cgroupns-mode default-ipc-mode default-runtime default-shm-size features insecure-registries \
               labels live-restore max-concurrent-downloads max-concurrent-uploads max-download-attempts name \
               registry-mirrors runtimes shutdown-timeout";
    assert_eq!(keys, all.split_whitespace().collect::<Vec<_>>());
    for (key, value) in [
        ("debug", "true"),
        ("default-shm-size", "33554432"),
        ("labels", "[\"b=2\"]"),
        ("features", "map[]"),
        ("max-concurrent-uploads", "5"),
        ("shutdown-timeout", "15"),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    d.eventually("it logs more", || d.log().contains("DEBUG"));
    // The byte budget, from the next bytes on, and what comes and goes at once.
    let budget =
        r#"{"labels": ["c=3"], "storage-max-bytes": "1MB", "max-concurrent-downloads": 1, "shutdown-timeout": 3}"#;
    let reloads = || d.log().matches("Reloaded configuration").count();
    assert_eq!(reloads(), 1);
    hup(budget, "");
    d.eventually("it is reloaded", || reloads() == 2);
    let refused = d.import("large", 2 << 20);
    assert!(refused.code != 0 && refused.err.contains("storage-max-bytes"), "{}", refused.err);
    hup(r#"{"labels": ["b=2"]}"#, "");
    d.eventually("it is reloaded", || reloads() == 3);
    d.import("large", 2 << 20).ok();
    let late: Vec<String> = d.log().lines().filter(|line| line.contains("do not notice")).map(str::to_owned).collect();
    assert!(late.iter().all(|line| !line.contains("storage") && !line.contains("concurrent")), "{late:?}");
    hup("{", "the configuration counts as it was before");
    assert_eq!(d.get("/info")["Labels"], serde_json::json!(["b=2"]));
    assert_eq!(d.docker("inspect -f {{.State.Running}} stays").ok(), "true");
}
