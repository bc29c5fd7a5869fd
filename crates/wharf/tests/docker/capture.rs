//! Packets of networks and containers, read by tcpdump.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{Daemon, WHARF};

/// What tcpdump makes of a capture, a line for each packet.
fn read(capture: &[u8]) -> Vec<String> {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-e", "-r", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tcpdump = tcpdump.spawn().unwrap();
    let mut input = tcpdump.stdin.take().unwrap();
    let bytes = capture.to_vec();
    let writer = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let output = tcpdump.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("truncated"), "{said}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A capture that has begun: the file's header has come.
struct Going {
    child: Child,
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Going {
    fn start(d: &Daemon, words: &str) -> Self {
        let mut child = command(d, words).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut header = vec![0; 24];
        stdout.read_exact(&mut header).unwrap();
        let bytes = Arc::new(Mutex::new(header));
        let own = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                own.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, bytes, reader }
    }

    /// What has come until now, as each write has whole packets.
    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// Waits for its end.
    fn lines(self) -> Vec<String> {
        self.reader.join().unwrap();
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read(&self.bytes.lock().unwrap())
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }
}

fn command(d: &Daemon, words: &str) -> Command {
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(words.split(' '));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Packets from or to port 80 of `b` that `a` has to do with, and the end of a connection.
fn between(lines: &[String], a: &str, b: &str) -> usize {
    lines.iter().filter(|line| line.contains(&format!("{a}.")) && line.contains(&format!("{b}.80"))).count()
}

#[test]
fn packets_of_networks_and_containers_are_captured() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        eprintln!("skipped: there is no tcpdump");
        return;
    }
    let Some(d) = Daemon::start() else { return };
    d.docker("network create net").ok();
    for name in ["one", "two", "three"] {
        d.docker(&format!("run -d --name {name} --network net busybox httpd -f -p 80 -h /etc")).ok();
    }
    let of = |name: &str, field: &str| {
        d.docker(&format!("inspect -f {{{{.NetworkSettings.Networks.net.{field}}}}} {name}")).ok()
    };
    let fetch = |from: &str, to: &str| {
        let fetch = format!("exec {from} wget -q -O - http://{to}/passwd");
        d.eventually("the server answers", || d.docker(&fetch).out.contains("root:"));
    };
    ["one", "two", "three"].iter().for_each(|name| fetch("one", name));

    // Between two containers the bridge sees all of it; one filter for a container, one for a port.
    let all = Going::start(&d, "network capture net --protocol tcp --port 80");
    let filtered = Going::start(&d, "network capture --container three net");
    fetch("one", "two");
    fetch("one", "three");
    let (one, two, three) = (of("one", "IPAddress"), of("two", "IPAddress"), of("three", "IPAddress"));
    // A connection has its opening, data and end, both ways.
    let enough = |going: &Going, to: &str| between(&read(&going.so_far()), &one, to) >= 6;
    d.eventually("both connections are seen", || {
        enough(&all, &two) && enough(&all, &three) && enough(&filtered, &three)
    });
    all.interrupt();
    filtered.interrupt();
    let (all, filtered) = (all.lines(), filtered.lines());
    assert!(all.iter().all(|line| line.contains(".80 > ") || line.contains(".80: ")), "{all:#?}");
    let mac = of("three", "MacAddress");
    assert!(filtered.iter().all(|line| line.contains(&mac)), "{filtered:#?}");

    // Of a container all links; it ends by itself after so many, or with the container.
    let counted = Going::start(&d, "network capture -c 3 -s 60 -p 80 two");
    let until = Going::start(&d, "network capture two");
    fetch("three", "two");
    let counted = counted.lines();
    assert_eq!(counted.len(), 3, "{counted:#?}");
    assert!(counted[0].contains("Flags [S]"), "{counted:#?}");
    d.eventually("the connection is seen", || between(&read(&until.so_far()), &three, &two) >= 6);
    d.docker("rm -f two").ok();
    assert!(between(&until.lines(), &three, &two) >= 6);

    // Who has seen enough closes the pipe.
    let mut closed = command(&d, "network capture net").spawn().unwrap();
    drop(closed.stdout.take());
    assert!(closed.wait().unwrap().success());

    for (words, why) in [
        ("network capture nosuch", "no such network or container: nosuch"),
        ("network capture host", "has no bridge that could be listened to"),
        ("network capture --container two net", "No such container: two"),
        ("network capture --container three one", "only what goes over a network can be filtered by a container"),
        ("network capture --protocol ip net", "invalid proto: ip"),
        ("network capture --port 70000 net", "for --port: it is from 1 to 65535"),
    ] {
        let said = d.wharf(words);
        assert!(said.code != 0 && said.err.contains(why), "{words}: {}", said.err);
    }
    d.docker("run -d --name host --network host busybox sleep 1000").ok();
    let said = d.wharf("network capture host");
    assert!(said.code != 0, "{}", said.err);
    d.docker("rm -f one three host").ok();
    d.docker("network rm net").ok();
}
