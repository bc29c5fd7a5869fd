//! Ports of the host's IPv6 for containers that have IPv4 alone.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::kit::Daemon;

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// What a server says of a path.
fn ask(host: impl Into<IpAddr>, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((host.into(), port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn answers(port: u16) -> bool {
    ask(Ipv6Addr::LOCALHOST, port, "/").is_ok_and(|answer| answer.contains("HTTP/1"))
}

/// The number of the process that relays a daemon's ports.
fn relay(d: &Daemon) -> Option<i32> {
    let dir = d.path().to_string_lossy().into_owned();
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let words = String::from_utf8_lossy(&std::fs::read(entry.path().join("cmdline")).ok()?).into_owned();
        (words.starts_with("wharf-relay") && words.contains(&dir)).then(|| entry.file_name().to_str()?.parse().ok())?
    })
}

/// Sends back what comes to a port of a container.
fn echo_datagrams(d: &Daemon, container: &str, port: u16) {
    let pid = d.docker(&format!("inspect -f {{{{.State.Pid}}}} {container}")).ok();
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    // The thread alone goes there, and ends with the test.
    std::thread::spawn(move || {
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(netns.as_fd(), network).unwrap();
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        drop(netns);
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

fn end(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn ports_are_on_the_host_s_ipv6_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name plain busybox sleep 1000").ok();
    assert_eq!(relay(&d), None, "nobody needs it");
    let mut run = d.client();
    run.args(["run", "-d", "--name", "web", "-p", "80", "-p", "53/udp", "busybox", "sh", "-c"]);
    run.arg("exec httpd -f -p 80 -h /etc");
    assert!(run.output().unwrap().status.success());
    let ports = d.docker("port web 80/tcp").ok();
    let lines: Vec<&str> = ports.lines().collect();
    let port: u16 = lines[0].strip_prefix("0.0.0.0:").unwrap().parse().unwrap();
    assert!(lines.len() == 2 && lines[1].ends_with(&format!(":{port}")), "{ports}");
    let bindings = &d.get("/containers/web/json")["NetworkSettings"]["Ports"]["80/tcp"];
    assert_eq!(bindings[1], serde_json::json!({ "HostIp": "::", "HostPort": port.to_string() }));
    d.eventually("the server answers at ::1", || answers(port));

    echo_datagrams(&d, "web", 53);
    // Datagrams, answered from where they were sent to.
    let udp: u16 =
        d.docker("port web 53/udp").ok().lines().next().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let socket = UdpSocket::bind("[::1]:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 16];
    d.eventually("a datagram comes back", || {
        socket.send_to(b"hello", (Ipv6Addr::LOCALHOST, udp)).unwrap();
        socket.recv_from(&mut buffer).is_ok_and(|got| got == (5, (Ipv6Addr::LOCALHOST, udp).into()))
    });

    // Who has a port is named, for others too.
    let taken = d.docker(&format!("run --rm -p [::1]:{port}:80 busybox true"));
    assert!(taken.code == 125 && taken.err.contains("port is already allocated"), "{}", taken.err);
    assert!(TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_err());

    // What goes through it goes on without a daemon, and for the next one.
    let mut open = connect(port).unwrap();
    let before = relay(&d);
    d.kill();
    assert!(answers(port));
    d.launch();
    assert_eq!(relay(&d), before);
    open.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("HTTP/1"));
    assert!(answers(port) && d.docker("port web 80/tcp").ok() == ports);

    // Somebody ends it: it comes back.
    end(before.unwrap());
    d.eventually("it is started again", || relay(&d).is_some_and(|pid| Some(pid) != before));
    d.eventually("the server answers at ::1", || answers(port));

    // A restart keeps them; with the container they go.
    d.docker("restart -t 0 web").ok();
    d.docker("rm -f web").ok();
    d.eventually("the port is free", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok());

    // By address.
    d.docker("run -d --name one -p [::1]::80 busybox httpd -f -p 80 -h /etc").ok();
    let place = d.docker("port one 80/tcp").ok();
    let port: u16 = place.rsplit(':').next().unwrap().parse().unwrap();
    assert!(place.lines().count() == 1 && place.contains("::1"), "{place}");
    d.eventually("the server answers at ::1", || answers(port));
    // Another daemon of these tests may have the number at the other family; this container is not there.
    let id = d.docker("inspect -f {{.Config.Hostname}} one").ok();
    let six = ask(Ipv6Addr::LOCALHOST, port, "/hostname").unwrap();
    assert!(six.contains(id.trim()), "{six}");
    let four = ask(Ipv4Addr::LOCALHOST, port, "/hostname").unwrap_or_default();
    assert!(!four.contains(id.trim()), "{four}");
    // It ends while no daemon is there: so does the port.
    let pid = d.docker("inspect -f {{.State.Pid}} one").ok().parse().unwrap();
    d.kill();
    end(pid);
    d.eventually("the port is free", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok());
    d.launch();
    let refused = d.docker("run --rm -p [::1]:8099:80/sctp busybox true");
    assert!(refused.err.contains("only TCP and UDP"), "{}", refused.err);
}

#[test]
fn there_is_no_relay_when_told_so() {
    let Some(d) = Daemon::start_given(&["--userland-proxy=false"]) else { return };
    d.docker("run -d --name web -p 80 busybox sleep 1000").ok();
    assert_eq!(d.docker("port web 80/tcp").ok().lines().count(), 1);
    let refused = d.docker("run --rm -p [::1]:8099:80 busybox true");
    assert!(refused.err.contains("the container has no IPv6 address"), "{}", refused.err);
    assert_eq!(relay(&d), None);
}

#[test]
fn the_host_s_policy_holds_for_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let Some(d) = Daemon::start_given(&["--publish-policy", "host"]) else { return };
    d.docker("run -d --name web -p 80 busybox sleep 1000").ok();
    let ports = d.docker("port web 80/tcp").ok();
    assert!(ports.contains("127.0.0.1:") && ports.contains("::1"), "{ports}");
}
