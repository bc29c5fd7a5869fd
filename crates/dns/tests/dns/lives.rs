//! What outlives what.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use wharf_dns::{Server, Sockets};
use wharf_netlink::route::{Batch, Connection, Peer, Veth};
use wharf_netlink::{MacAddress, namespace};
use wharf_sys::message;

use crate::Case;
use crate::client::{A, Reply, ask, exchange, query, udp};
use crate::fixture::{Fixture, container, member, netns, network};
use crate::upstream::Upstream;

pub(crate) const CASES: &[Case] = &[
    ("the_process_goes_on_without_a_daemon", the_process_goes_on_without_a_daemon),
    ("a_daemon_that_is_killed_takes_nothing_along", a_daemon_that_is_killed_takes_nothing_along),
    ("a_process_that_was_killed_is_replaced", a_process_that_was_killed_is_replaced),
    ("a_removed_container_frees_its_namespace", a_removed_container_frees_its_namespace),
    ("a_container_goes_with_its_monitor", a_container_goes_with_its_monitor),
    ("a_daemon_that_hangs_holds_up_nobody", a_daemon_that_hangs_holds_up_nobody),
    ("a_process_of_another_version_is_replaced", a_process_of_another_version_is_replaced),
    ("the_process_ends_when_nobody_is_left", the_process_ends_when_nobody_is_left),
];

/// A process of another version, as far as a daemon sees.
fn a_process_of_another_version_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("dns.sock")).unwrap();
    let mut old = Command::new("/bin/busybox").args(["sleep", "60"]).spawn().unwrap();
    let pid = old.id();
    let acting = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while let Some((bytes, _)) = message::receive(&stream).unwrap() {
            asked.push(String::from_utf8(bytes).unwrap());
            if asked.len() == 2 {
                message::send(&stream, b"{}", &[]).unwrap();
                break;
            }
            message::send(&stream, format!(r#"{{"version":"0 0.0.1","pid":{pid}}}"#).as_bytes(), &[]).unwrap();
        }
        drop(listener);
        old.kill().unwrap();
        old.wait().unwrap();
        asked
    });
    let server = Server::start(dir.path()).unwrap();
    assert_eq!(acting.join().unwrap(), [r#""hello""#, r#""quit""#]);
    assert_ne!(server.pid().unsigned_abs(), pid);
    assert_eq!(server.known().unwrap(), wharf_dns::Known::default());
    server.quit().unwrap();
}

fn wait_for(process: &OwnedFd, seconds: i64) -> bool {
    let bound = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&bound)).unwrap() == 1
}

fn the_process_goes_on_without_a_daemon() {
    let mut fixture = Fixture::new();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let server = fixture.server.take().unwrap();
    let pid = server.pid();
    fixture.server = Some(server);
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    fixture.server = None;
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    assert_eq!(ask(&netns, "example.com", A).addresses(), ["192.0.2.1"]);
    // Longer than it would stay without a container.
    std::thread::sleep(Duration::from_secs(6));
    let server = Server::start(fixture.root()).unwrap();
    assert_eq!(server.pid(), pid);
    let known = server.known().unwrap();
    assert_eq!((known.networks, known.containers), (vec!["n".to_owned()], vec!["c1".to_owned()]));
    // All is said again, and nothing changes.
    server.put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    server.put_container(&container("c1", &["n"], &[upstream.address]), None, None).unwrap();
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "wharf-dns");
    let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(arguments.starts_with("wharf-dns\0"), "{arguments:?}");
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    // A terminal that closes, a system that goes down, do not end it; nor is it of our session.
    let process = Pid::from_raw(pid).unwrap();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        kill_process(process, signal).unwrap();
    }
    assert_eq!(rustix::process::getsid(Some(process)).unwrap(), process);
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    fixture.server = Some(server);
}

/// The word that makes this program a daemon, as far as it matters here.
pub(crate) const DAEMON: &str = "daemon-of-the-test";

/// Starts the process from one thread of several, says so, and waits for its end.
pub(crate) fn daemon(dir: &Path) -> ExitCode {
    let started = std::thread::scope(|scope| {
        scope.spawn(|| Server::start(dir).map(|server| server.pid()).map_err(|error| format!("{error:?}"))).join()
    });
    println!("{}", started.unwrap().unwrap());
    loop {
        std::thread::park();
    }
}

fn a_daemon_that_is_killed_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .arg(DAEMON)
        .arg(dir.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server::start(dir.path()).unwrap();
    assert_eq!(server.pid().to_string(), line.trim());
    let fixture = Fixture { dir, server: Some(server) };
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    assert_eq!(fixture.server().known().unwrap().containers, ["c1"]);
    // Nothing of the daemon's: its own socket, what it waits with, and the container's two.
    let files = std::fs::read_dir(format!("/proc/{}/fd", fixture.server().pid())).unwrap().count();
    assert!(files <= 3 + 2 + 1 + 2, "{files} files");
}

fn a_process_that_was_killed_is_replaced() {
    let mut fixture = Fixture::new();
    let upstream = Upstream::new([192, 0, 2, 1]);
    fixture.server().put_network(&network("n", vec![])).unwrap();
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    // A program that keeps its socket.
    let socket = udp(&netns);
    assert_eq!(Reply::parse(&exchange(&socket, &query(1, "one.test", A))).code, 0);
    let watch = fixture.server().watch().unwrap();
    kill_process(Pid::from_raw(fixture.server().pid()).unwrap(), Signal::KILL).unwrap();
    assert!(wait_for(&watch, 5));
    assert!(fixture.server().known().is_err_and(|error| error.is_gone()));
    let server = Server::start(fixture.root()).unwrap();
    assert_eq!(server.known().unwrap(), wharf_dns::Known::default());
    server.put_network(&network("n", vec![])).unwrap();
    // The table of the sockets before is replaced.
    let sockets = Sockets::open(netns.as_fd()).unwrap();
    server.put_container(&container("c1", &["n"], &[upstream.address]), Some(&sockets), None).unwrap();
    assert_eq!(ask(&netns, "example.com", A).addresses(), ["192.0.2.1"]);
    assert_eq!(Reply::parse(&exchange(&socket, &query(2, "two.test", A))).code, 0);
    // As is what a container that is known asks through.
    let sockets = Sockets::open(netns.as_fd()).unwrap();
    server.put_container(&container("c1", &["n"], &[upstream.address]), Some(&sockets), None).unwrap();
    assert_eq!(ask(&netns, "another.test", A).addresses(), ["192.0.2.1"]);
    fixture.server = Some(server);
}

/// A namespace with one end of a link whose other end is in `netns`: it goes when that does.
fn linked(netns: &OwnedFd) -> OwnedFd {
    let near = crate::fixture::netns();
    namespace::within(near.as_fd(), || {
        let peer = Peer { name: "far", mac: MacAddress([2, 0x42, 1, 2, 3, 4]), netns: netns.as_fd() };
        let mut batch = Batch::new();
        batch.create_veth(&Veth { name: "near", mtu: 1500, master: None, peer });
        Connection::open().unwrap().apply(batch).unwrap();
    })
    .unwrap();
    near
}

fn is_linked(near: &OwnedFd) -> bool {
    namespace::within(near.as_fd(), || Connection::open().unwrap().link("near").unwrap().is_some()).unwrap()
}

fn goes(near: &OwnedFd) -> bool {
    let start = Instant::now();
    while is_linked(near) {
        if start.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn a_removed_container_frees_its_namespace() {
    let fixture = Fixture::new();
    let netns = fixture.container("c1", &["n"], &[]);
    let near = linked(&netns);
    let client = crate::client::tcp(&netns);
    drop(client);
    drop(netns);
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_linked(&near), "the sockets hold it");
    let start = Instant::now();
    fixture.server().remove_container("c1").unwrap();
    assert!(goes(&near));
    println!("  a namespace has gone {:?} after its container", start.elapsed());
    fixture.server().remove_container("c1").unwrap();
    assert_eq!(fixture.server().known().unwrap().containers, Vec::<String>::new());
}

fn a_container_goes_with_its_monitor() {
    let fixture = Fixture::new();
    let mut monitor = Command::new("/bin/busybox").args(["sleep", "60"]).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(monitor.id()).unwrap()).unwrap();
    let until = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let netns = netns();
    let near = linked(&netns);
    let sockets = Sockets::open(netns.as_fd()).unwrap();
    let said = container("c1", &["n"], &[]);
    fixture.server().put_container(&said, Some(&sockets), Some(until.as_fd())).unwrap();
    // Said again, it still hangs on it.
    fixture.server().put_container(&said, None, Some(until.as_fd())).unwrap();
    fixture.server().put_container(&said, None, None).unwrap();
    drop((sockets, netns));
    assert_eq!(fixture.server().known().unwrap().containers, ["c1"]);
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    assert!(goes(&near));
    assert_eq!(fixture.server().known().unwrap().containers, Vec::<String>::new());
}

fn a_daemon_that_hangs_holds_up_nobody() {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
    let netns = fixture.container("c1", &["n"], &[]);
    let mut halves = Vec::new();
    for sent in [&[0, 0][..], &[0, 0, 0, 9], &[0, 0, 0, 9, b'{'], &[0xff, 0xff, 0xff, 0xff], &[0, 0, 0, 2, b'n', b'o']]
    {
        let mut stream = UnixStream::connect(fixture.root().join("dns.sock")).unwrap();
        stream.write_all(sent).unwrap();
        halves.push(stream);
    }
    let start = Instant::now();
    assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
    assert_eq!(fixture.server().known().unwrap().containers, ["c1"]);
    assert!(start.elapsed() < Duration::from_millis(500));
}

fn the_process_ends_when_nobody_is_left() {
    let mut fixture = Fixture::new();
    let netns = fixture.container("c1", &["n"], &[]);
    let server = fixture.server.take().unwrap();
    let watch = server.watch().unwrap();
    server.remove_container("c1").unwrap();
    assert!(!wait_for(&watch, 6), "a daemon is there");
    drop((server, netns));
    let start = Instant::now();
    assert!(wait_for(&watch, 10));
    assert!(start.elapsed() > Duration::from_secs(4), "{:?}", start.elapsed());
    // Another takes its place.
    fixture.server = Some(Server::start(fixture.root()).unwrap());
}
