//! The process on this kernel: each case starts one, and sends real bytes through it over the host's loopback.
//!
//! Has its own `main`, since the process under test is this program, called by another name.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_ipv6_v6only;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
use wharf_relay::{Port, Protocol, Relay};

/// A named check; it panics when it fails.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("bytes_go_both_ways_and_each_way_ends_by_itself", bytes_go_both_ways_and_each_way_ends_by_itself),
    ("many_clients_at_once", many_clients_at_once),
    ("who_is_refused_is_told", who_is_refused_is_told),
    ("datagrams_come_back_from_where_they_went", datagrams_come_back_from_where_they_went),
    ("the_process_outlives_who_started_it", the_process_outlives_who_started_it),
    ("ports_end_with_what_they_hang_on", ports_end_with_what_they_hang_on),
    ("what_is_no_socket_for_a_port_is_refused", what_is_no_socket_for_a_port_is_refused),
    ("a_process_that_was_stopped_is_replaced", a_process_that_was_stopped_is_replaced),
    ("a_version_is_the_same_as_a_number", a_version_is_the_same_as_a_number),
];

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| wharf_relay::ROLE.is_called(name)) {
        return wharf_relay::main();
    }
    if TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 here");
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    ExitCode::from(u8::from(failed > 0))
}

/// A bound socket of the host's, and its port.
fn held(kind: SocketType) -> (OwnedFd, SocketAddrV6) {
    let socket = socket_with(AddressFamily::INET6, kind, SocketFlags::CLOEXEC, None).unwrap();
    set_ipv6_v6only(&socket, true).unwrap();
    bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)).unwrap();
    let SocketAddr::V6(place) = getsockname(&socket).unwrap().try_into().unwrap() else { panic!("IPv6") };
    (socket, place)
}

fn port(container: &str, protocol: Protocol, host: SocketAddrV6, target: SocketAddr) -> Port {
    Port { container: container.into(), protocol, host, target }
}

/// A relay whose process ends with the case, also with one that fails.
struct Ending(Option<Relay>);

impl std::ops::Deref for Ending {
    type Target = Relay;

    fn deref(&self) -> &Relay {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(relay) = self.0.take() else { return };
        for port in relay.known().unwrap_or_default() {
            // It may have ended meanwhile.
            let _ = relay.remove(&port.container, &[]);
        }
        relay.leave();
    }
}

/// A relay in a directory of its own, with one port that leads to `target`.
fn relay(target: SocketAddr, protocol: Protocol) -> (tempfile::TempDir, Ending, u16) {
    let dir = tempfile::tempdir().unwrap();
    let relay = Ending(Some(Relay::new(dir.path())));
    assert!(relay.known().unwrap().is_empty() && !relay.is_there(), "nothing is started before it is needed");
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let (socket, place) = held(kind);
    relay.put(&[(port("a", protocol, place, target), socket.as_fd())]).unwrap();
    (dir, relay, place.port())
}

fn end(relay: &Relay) {
    relay.remove("a", &[]).unwrap();
    relay.leave();
    assert!(!relay.is_there());
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends back all that comes, and ends when that has.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut from = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut stream);
                let _ = stream.write_all(b"end");
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let (_dir, relay, port) = relay(echo(), Protocol::Tcp);
    let mut stream = connect(port);
    // More than all buffers on the way have room for.
    let sent: Vec<u8> = (0..32u32 << 20).map(|i| (i % 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    thread.join().unwrap();
    assert_eq!(&got[sent.len()..], b"end", "said after the client's end had come through");
    assert!(got[..sent.len()] == sent[..]);
    end(&relay);
}

fn many_clients_at_once() {
    let (_dir, relay, port) = relay(echo(), Protocol::Tcp);
    let mut all: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
    for (number, stream) in all.iter_mut().enumerate().rev() {
        stream.write_all(format!("{number:04}").as_bytes()).unwrap();
    }
    for (number, stream) in all.iter_mut().enumerate() {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("{number:04}").as_bytes());
    }
    // What goes through a port ends with it.
    relay.remove("a", &[]).unwrap();
    let mut rest = Vec::new();
    match all[0].read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    end(&relay);
}

fn who_is_refused_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_dir, relay, port) = relay(nobody, Protocol::Tcp);
    let mut stream = connect(port);
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    end(&relay);
}

fn datagrams_come_back_from_where_they_went() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..length], from);
        }
    });
    let (_dir, relay, port) = relay(target, Protocol::Udp);
    let clients: Vec<UdpSocket> = (0..8).map(|_| UdpSocket::bind("[::1]:0").unwrap()).collect();
    let words = [vec![b'x'; 1], vec![b'y'; 1400], vec![b'z'; 9000], Vec::new()];
    for word in &words {
        for client in &clients {
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.send_to(word, (Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        for client in &clients {
            let mut buffer = vec![0; 65536];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&word[..], (Ipv6Addr::LOCALHOST, port).into()));
        }
    }
    end(&relay);
}

fn the_process_outlives_who_started_it() {
    let target = echo();
    let (dir, mut first, number) = relay(target, Protocol::Tcp);
    let mut stream = connect(number);
    stream.write_all(b"one").unwrap();
    stream.read_exact(&mut [0; 3]).unwrap();
    // As a daemon that dies lets go of it.
    drop(first.0.take());
    stream.write_all(b"two").unwrap();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"two");
    let relay = Ending(Some(Relay::new(dir.path())));
    assert!(relay.is_there());
    let known = relay.known().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].host.port(), known[0].target), (number, target));
    // More ports than go in one message.
    let sockets: Vec<_> = (0..150).map(|_| held(SocketType::STREAM)).collect();
    let more: Vec<_> =
        sockets.iter().map(|(socket, place)| (port("b", Protocol::Tcp, *place, target), socket.as_fd())).collect();
    relay.put(&more).unwrap();
    assert_eq!(relay.known().unwrap().len(), 151);
    relay.remove("b", &[(Protocol::Tcp, sockets[0].1)]).unwrap();
    assert_eq!(relay.known().unwrap().len(), 150);
    relay.leave();
    assert!(relay.is_there(), "it has ports");
    relay.remove("b", &[]).unwrap();
    end(&relay);
}

fn a_process_that_was_stopped_is_replaced() {
    let target = echo();
    let (dir, first, _) = relay(target, Protocol::Tcp);
    for queue in [0, 40] {
        let socket = dir.path().join("relay.sock");
        rustix::process::kill_process(process_in(dir.path()), rustix::process::Signal::STOP).unwrap();
        // More than it has room for wait to be served.
        let waiting: Vec<_> = (0..queue).map_while(|_| try_connect(&socket)).collect();
        assert!(queue == 0 || waiting.len() < queue);
        let later = Ending(Some(Relay::new(dir.path())));
        assert_eq!(later.known().unwrap(), []);
        let (held, place) = held(SocketType::STREAM);
        later.put(&[(port("a", Protocol::Tcp, place, target), held.as_fd())]).unwrap();
        connect(place.port()).write_all(b"one").unwrap();
        // The one before asks the new one when it hears that its own has ended.
        assert_eq!(first.known().unwrap().len(), 1);
        std::mem::forget(later);
    }
    end(&first);
}

/// The relay that was started with this directory.
fn process_in(dir: &Path) -> rustix::process::Pid {
    let line = format!("wharf-relay\0{}\0", dir.display());
    let is = |path: &Path| std::fs::read(path.join("cmdline")).is_ok_and(|text| text == line.as_bytes());
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let number = all.filter(|path| is(path)).find_map(|path| path.file_name()?.to_str()?.parse().ok());
    number.and_then(rustix::process::Pid::from_raw).unwrap()
}

/// `None` when there is no room in the queue.
fn try_connect(socket: &Path) -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    rustix::net::connect(&fd, &rustix::net::SocketAddrUnix::new(socket).unwrap()).is_ok().then_some(fd)
}

/// As the first relays said theirs, which may serve a daemon of today.
fn a_version_is_the_same_as_a_number() {
    use wharf_sys::message;
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("relay.sock")).unwrap();
    let old = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let pid = std::process::id();
        for (asked, answer) in
            [("\"hello\"", format!("{{\"version\":1,\"pid\":{pid}}}")), ("\"known\"", "{\"known\":[]}".into())]
        {
            assert_eq!(message::receive(&stream).unwrap().unwrap().0, asked.as_bytes());
            message::send(&stream, answer.as_bytes(), &[]).unwrap();
        }
    });
    assert_eq!(Relay::new(dir.path()).known().unwrap(), []);
    old.join().unwrap();
}

fn ports_end_with_what_they_hang_on() {
    let (_dir, relay, _) = relay(echo(), Protocol::Tcp);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    relay.hang("a", process.as_fd()).unwrap();
    assert_eq!(relay.known().unwrap().len(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !relay.known().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the ports stay");
        std::thread::yield_now();
    }
    end(&relay);
}

fn what_is_no_socket_for_a_port_is_refused() {
    let target = echo();
    let (_dir, relay, _) = relay(target, Protocol::Tcp);
    let (socket, place) = held(SocketType::DGRAM);
    let refused = relay.put(&[(port("b", Protocol::Tcp, place, target), socket.as_fd())]).unwrap_err();
    assert!(refused.to_string().contains("of another kind"), "{refused}");
    assert_eq!(relay.known().unwrap().len(), 1);
    end(&relay);
}
