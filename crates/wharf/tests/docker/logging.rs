//! Logs that are rotated, and that go somewhere else: drivers `syslog`, `gelf`, `fluentd`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use crate::kit::Daemon;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn lines_arrive_and_can_be_read_back() {
    let Some(d) = Daemon::start() else { return };
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let options = format!(
        "--rm=false --name said --log-driver syslog --log-opt syslog-address=udp://localhost:{port} \
         --log-opt syslog-format=rfc5424 --log-opt tag={{{{.Name}}}}/{{{{.ImageName}}}} --log-opt syslog-facility=local0"
    );
    d.sh(&options, "echo out; echo err >&2").ok();
    let mut buffer = [0; 2000];
    let mut all: Vec<String> = (0..2)
        .map(|_| {
            let count = receiver.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        })
        .collect();
    all.sort();
    // local0 is 16; 3 an error, 6 an information.
    assert!(all[0].starts_with("<131>1 ") && all[0].ends_with(" said/busybox - err\n"), "{all:?}");
    assert!(all[1].starts_with("<134>1 ") && all[1].ends_with(" said/busybox - out\n"), "{all:?}");
    // A copy is here.
    let said = d.docker("logs said");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));
    assert_eq!(d.docker("inspect -f {{.HostConfig.LogConfig.Type}},{{.LogPath}} said").ok(), "syslog,");
    d.sh(&format!("{options} --log-opt cache-disabled=true").replace("said", "unsaid"), "echo x").ok();
    let refused = d.docker("logs unsaid");
    assert!(refused.err.contains("configured logging driver does not support reading"), "{}", refused.err);
}

#[test]
fn a_mistake_in_a_tag_is_said() {
    let Some(d) = Daemon::start() else { return };
    let run = |tag: &str| d.sh(&format!("--rm=false --label a=b --log-opt tag={tag}"), "echo x");
    let said = run("{{.Bogus}}");
    let words = "executing \"log-tag\" at <.Bogus>: can't evaluate field Bogus in type *logger.Info";
    assert!(said.code == 125 && said.err.contains(words), "{} {}", said.code, said.err);
    run("{{.ContainerLabels.a}}/{{.Command}}").ok();
    let id = d.docker("ps -aqn1").ok();
    assert_eq!(d.docker(&format!("logs --details {id}")).ok(), "tag=b%2Fsh+-c+echo+x x");
}

#[test]
fn a_receiver_of_a_stream_gets_each_line_and_must_be_there() {
    let Some(d) = Daemon::start() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut reader = BufReader::new(listener.accept().unwrap().0);
        reader.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut messages = Vec::new();
        loop {
            let mut message = Vec::new();
            if reader.read_until(0, &mut message).unwrap() == 0 {
                return messages;
            }
            message.pop();
            messages.push(serde_json::from_slice::<serde_json::Value>(&message).unwrap());
        }
    });
    let options =
        format!("--name web --log-driver gelf --log-opt gelf-address=tcp://{address} --label a=b --log-opt labels=a");
    d.sh(&options, "seq 5000").ok();
    let messages = thread.join().unwrap();
    assert_eq!(messages.len(), 5000);
    assert_eq!(messages[4999]["short_message"], "5000");
    assert_eq!((&messages[0]["_container_name"], &messages[0]["_a"]), (&"web".into(), &"b".into()));

    // Nobody listens any more.
    let refused = d.sh(&options, "true");
    assert_eq!(refused.code, 125);
    let words = "failed to create task for container: failed to initialize logging driver: ";
    assert!(refused.err.contains(words), "{}", refused.err);
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let refused = d.sh("--log-driver journald", "true");
        assert_eq!(refused.code, 125);
        assert!(refused.err.contains(&format!("{words}journald is not enabled on this host")), "{}", refused.err);
    }
    for (options, reason) in [
        ("--log-driver gelf", "gelf-address is a required parameter"),
        ("--log-driver syslog --log-opt max-size=1m", "unknown log opt 'max-size' for syslog log driver"),
        ("--log-driver splunk", "no log driver named 'splunk' is registered"),
    ] {
        let refused = d.sh(options, "true");
        assert!(refused.code == 125 && refused.err.contains(reason), "{}", refused.err);
    }
}

#[test]
fn a_receiver_that_comes_later_gets_what_was_said_before() {
    let Some(mut d) = Daemon::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fluentd");
    let options = format!(
        "-d --name early --log-driver fluentd --log-opt fluentd-address=unix://{} --log-opt fluentd-async=true \
         --log-opt fluentd-retry-wait=50ms --log-opt tag=early",
        path.display()
    );
    d.sh(&options, "echo before; sleep 1000").ok();
    d.eventually("it has spoken", || d.docker("logs early").out.contains("before"));
    // The monitor keeps it, whatever becomes of the daemon.
    d.kill();
    d.launch();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut entry = vec![0; 4096];
    let count = stream.read(&mut entry).unwrap();
    let entry = String::from_utf8_lossy(&entry[..count]).into_owned();
    assert!(entry.contains("early") && entry.contains("log\u{fffd}before"), "{entry:?}");
    assert!(entry.contains("/early"), "{entry:?}");
    d.docker("rm -f early").ok();
}

#[test]
fn lost_lines_are_told() {
    let Some(d) = Daemon::start() else { return };
    // Nobody is there, and what waits for somebody has little room.
    let options = "--rm=false --name lossy --log-driver fluentd --log-opt fluentd-async=true \
                   --log-opt fluentd-address=127.0.0.1:1 --log-opt fluentd-buffer-limit=10";
    d.sh(options, "for n in $(seq 2000); do echo line $n; done").ok();
    let why = d.wharf("why lossy").ok();
    assert!(why.contains("lines of its log were lost") && why.contains("fluentd, slow or away"), "{why}");
    assert!(d.log().contains("lines of its log were lost"));
}

/// Clients that look at nothing else while they wait, as Node's with sockets that keep nothing alive, end when only the head
/// of the answer has come.
#[test]
fn the_first_lines_come_with_the_head() {
    use std::io::{Read, Write};

    let Some(d) = Daemon::start() else { return };
    let mut run = d.client();
    let made =
        run.args(["run", "-d", "--name", "says", "busybox", "sh", "-c", "echo first words; sleep 1000"]).output();
    assert!(made.unwrap().status.success());
    d.eventually("it has said something", || d.docker("logs says").ok() == "first words");
    for follow in [0, 1] {
        let mut socket = std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
        let path = format!("/v1.51/containers/says/logs?stdout=1&tail=-1&follow={follow}");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        let mut bytes = vec![0; 1 << 16];
        let read = socket.read(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..read]);
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("first words"), "{text}");
    }
    d.docker("rm -f says").ok();
}

#[test]
fn what_is_rotated_away_is_compressed_where_that_is_asked_for() {
    let Some(d) = Daemon::start() else { return };
    let options = "--rm=false --name many --log-opt max-size=20k --log-opt max-file=3 --log-opt compress=true";
    d.sh(options, "seq 1000").ok();
    let path = d.get("/containers/many/json")["LogPath"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&format!("{path}.1.gz")).exists());
    assert!(!std::path::Path::new(&format!("{path}.1")).exists());
    let all = d.docker("logs many").ok();
    let lines: Vec<&str> = all.lines().collect();
    let numbers: Vec<String> = (1001 - lines.len()..=1000).map(|number| number.to_string()).collect();
    assert!(lines == numbers && lines.len() > 400, "{all}");
    assert_eq!(d.docker("logs --tail 500 many").ok().lines().count(), 500);
    d.docker("start -a many").ok();
    assert_eq!(d.docker("logs --tail 1 many").ok(), "1000");
}

/// Docker's driver `local` keeps bytes as they are; in `json-file` they have no form.
#[test]
fn bytes_that_are_no_text_are_kept_by_local() {
    let Some(d) = Daemon::start() else { return };
    for (driver, expected) in [("local", &b"a\xff\xfeb\n"[..]), ("json-file", "a\u{fffd}\u{fffd}b\n".as_bytes())] {
        let name = format!("of-{driver}");
        let mut run = d.client();
        run.args(["run", "--name", &name, "--log-driver", driver, "busybox", "printf", r"a\377\376b\n"]);
        assert_eq!(run.output().unwrap().stdout, b"a\xff\xfeb\n");
        assert_eq!(d.client().args(["logs", &name]).output().unwrap().stdout, expected, "{driver}");
    }
}
