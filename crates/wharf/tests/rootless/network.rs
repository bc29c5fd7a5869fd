//! Networks, published ports, and the way out.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::kit::User;

/// A port of the host's that nobody has at the moment.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

fn get(address: IpAddr, port: u16) -> String {
    let mut text = String::new();
    let Ok(mut stream) = TcpStream::connect((address, port)) else { return text };
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = stream.read_to_string(&mut text);
    text
}

/// An address of the host's by which others reach it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

const SERVES: &str = "mkdir /w; echo from-within > /w/index.html; exec httpd -f -p 80 -h /w";

#[test]
fn names_and_published_ports_work() {
    let Some(user) = User::start() else { return };
    user.wharf("network create own").ok();
    let port = free_port();
    let mut run = user.client();
    run.args([
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "own",
        "-p",
        &format!("{port}:80"),
        "busybox",
        "sh",
        "-c",
        SERVES,
    ]);
    assert!(run.status().unwrap().success());
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    user.eventually("the port is reached", || get(local, port).contains("from-within"));
    if let Some(address) = own_address() {
        assert!(get(address, port).contains("from-within"), "{address}");
    }
    let ask = "cat /etc/resolv.conf; (echo GET / HTTP/1.0; echo; sleep 1) | nc web 80";
    assert!(user.sh("--network own", ask).ok().contains("from-within"));
    // It is the user's, and nobody else's.
    let again = user.sh(&format!("-p {port}:80"), "true");
    assert!(again.err.contains("port is already allocated"), "{}", again.err);
    user.wharf("rm -f web").ok();
    user.eventually("the port is given back", || TcpListener::bind((local, port)).is_ok());
}

/// Answers what comes to port 5353 of the namespace that it is started in.
const ECHO: &str = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 5353))\n\
    while True:\n    data, who = s.recvfrom(2048)\n    s.sendto(b'from within: ' + data, who)";

#[test]
fn datagrams_come_and_go() {
    let Some(user) = User::start() else { return };
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    user.wharf(&format!("run -d --name names -p 127.0.0.1:{port}:5353/udp busybox sleep 1000")).ok();
    let pid = user.wharf("inspect --format {{.State.Pid}} names").ok();
    let mut server = Command::new("nsenter").args(["--net", "--target", &pid, "python3", "-c", ECHO]).spawn().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let mut buffer = [0; 64];
    user.eventually("a datagram is answered", || {
        let _ = socket.send(b"word");
        socket.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *b"from within: word")
    });
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_host_is_reached_from_within() {
    let Some(user) = User::start() else { return };
    reaches_the_host(&user);
}

#[test]
fn slirp4netns_leads_out_without_pasta() {
    let Some(user) = User::start_with_ways_out(&["slirp4netns"]) else { return };
    assert!(!user.log().contains("no way out"), "{}", user.log());
    reaches_the_host(&user);
}

#[test]
fn without_a_way_out_everything_else_goes_on() {
    let Some(user) = User::start_with_ways_out(&[]) else { return };
    assert!(user.log().contains("containers have no way out"), "{}", user.log());
    let port = free_port();
    let mut run = user.client();
    run.args(["run", "-d", "-p", &format!("{port}:80"), "busybox", "sh", "-c", SERVES]);
    assert!(run.status().unwrap().success());
    user.eventually("the port is reached", || get(Ipv4Addr::LOCALHOST.into(), port).contains("from-within"));
}

fn reaches_the_host(user: &User) {
    let Some(address) = own_address().filter(|_| user.has_way_out()) else { return };
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("echo out-of-the-namespace | nc -w 10 {address} {port}");
    let mut run = user.client();
    assert!(run.args(["run", "-d", "busybox", "sh", "-c", &script]).status().unwrap().success());
    let (mut stream, _) = listener.accept().unwrap();
    let mut word = [0; 20];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"out-of-the-namespace");
    // And its loopback is not.
    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = local.local_addr().unwrap().port();
    let said = user.sh("", &format!("nc -w 2 10.0.2.2 {port} < /dev/null || nc -w 2 127.0.0.1 {port} < /dev/null"));
    assert_ne!(said.code, 0);
}

/// Answers every question with the address 192.0.2.77.
fn answer_names(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, who)) = socket.recv_from(&mut buffer) {
        let question = &buffer[..length];
        // An empty question is the end of the test.
        let Some(end) = question.get(12..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else { return };
        let end = 12 + end + 5;
        let is_a = question[end - 3] == 1;
        let mut answer = vec![question[0], question[1], 0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
        answer.extend(&question[12..end]);
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
        }
        let _ = socket.send_to(&answer, who);
    }
}

#[test]
fn a_name_server_on_the_host_s_loopback_answers() {
    let address = "127.0.0.77:53";
    let Ok(socket) = UdpSocket::bind(address) else { return eprintln!("skipped: port 53 is not to be had") };
    let Some(user) = User::start_with_resolvers("nameserver 127.0.0.77\n") else { return };
    if !user.has_way_out() {
        return;
    }
    let server = std::thread::spawn(move || answer_names(&socket));
    user.wharf("network create own").ok();
    for network in ["bridge", "own"] {
        let said = user.sh(&format!("--network {network}"), "cat /etc/resolv.conf; nslookup host.test");
        assert!(said.out.contains("192.0.2.77"), "{network}: {}{}", said.out, said.err);
    }
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], address).unwrap();
    server.join().unwrap();
}
