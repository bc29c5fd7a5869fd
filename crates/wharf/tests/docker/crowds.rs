//! Many clients at once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kit::{Daemon, Said};

/// Kibibytes that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn idle_connections_cost_little_and_nothing_when_they_are_over() {
    const MANY: usize = 1000;
    many_files();
    let Some(d) = Daemon::start() else { return };
    let before = resident(d.pid());
    let ask = |mut client: &UnixStream| {
        client.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 4096]).unwrap() > 0);
    };
    let clients: Vec<_> = (0..MANY).map(|_| UnixStream::connect(d.socket()).unwrap()).collect();
    // The last one is answered when all have been accepted.
    ask(clients.last().unwrap());
    let silent = resident(d.pid()).saturating_sub(before);
    clients.iter().for_each(ask);
    let idle = resident(d.pid()).saturating_sub(before);
    // It was 55 and 87 KiB for each.
    assert!(silent < 30 * MANY as u64 && idle < 45 * MANY as u64, "{silent} and {idle} KiB");
    drop(clients);
    d.eventually("the memory has gone back", || resident(d.pid()) < before + 16 * 1024);
}

/// Opens `path` that many times, and reads each answer's head.
fn open(d: &Daemon, path: &str, count: usize) -> Vec<UnixStream> {
    let one = || {
        let mut client = UnixStream::connect(d.socket()).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        client
    };
    let mut clients: Vec<_> = (0..count).map(|_| one()).collect();
    for client in &mut clients {
        let mut head = [0; 15];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    clients
}

fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[test]
fn followers_of_events_share_them_however_slow_they_are() {
    const MANY: usize = 1000;
    many_files();
    let Some(d) = Daemon::start() else { return };
    // With long attributes: an event is some 2 KiB.
    let labels: String = (0..8).map(|n| format!(" -l label{n}={}", "x".repeat(200))).collect();
    let id = d.docker(&format!("create{labels} busybox true")).ok();
    let happen = |count: usize| {
        let mut client = UnixStream::connect(d.socket()).unwrap();
        for number in 0..count {
            write!(client, "POST /containers/{id}/rename?name=n{number} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
            let mut answer = [0; 4096];
            let count = client.read(&mut answer).unwrap();
            assert!(answer[..count].starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer[..count]));
        }
    };
    happen(500);
    let before = resident(d.pid());
    let followers = open(&d, "/events", MANY);
    let idle = resident(d.pid()).saturating_sub(before);
    // It was 800 KiB for each.
    assert!(idle < 45 * MANY as u64, "{idle} KiB");
    // They read nothing of what happens now, some of it waits in their sockets.
    happen(1000);
    let slow = resident(d.pid()).saturating_sub(before);
    assert!(slow < 150 * MANY as u64, "{slow} KiB");
    drop(followers);
}

#[test]
fn half_a_body_of_many_is_bounded_for_all_together() {
    const MANY: usize = 200;
    many_files();
    let Some(d) = Daemon::start() else { return };
    let before = resident(d.pid());
    let half = vec![b' '; 3 << 20];
    let mut clients = Vec::new();
    for _ in 0..MANY {
        let mut client = UnixStream::connect(d.socket()).unwrap();
        let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json";
        write!(client, "{head}\r\nContent-Length: {}\r\n\r\n", half.len() + 2).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push((client, 0));
    }
    // As much as each of them gets rid of.
    for _ in 0..200 {
        for (client, sent) in &mut clients {
            if let Ok(count) = client.write(&half[*sent..]) {
                *sent += count;
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let held = resident(d.pid()).saturating_sub(before);
    // 600 MiB have been offered.
    assert!(held < 300 << 10, "{held} KiB");
    // Nobody else waits for them.
    d.docker("run --rm busybox true").ok();
    drop(clients);
    d.eventually("there is room again", || {
        let body =
            format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"Labels\":{{\"a\":\"{}\"}}}}", "x".repeat(1 << 20));
        d.post("/containers/create", &body, true).unwrap().0 == 201
    });
}

#[test]
fn answers_that_nobody_reads_are_bounded_for_all_together() {
    const MANY: usize = 2500;
    many_files();
    let Some(d) = Daemon::start() else { return };
    let labels: String = (0..8).map(|n| format!(" -l label{n}={}", "x".repeat(200))).collect();
    let id = d.docker(&format!("create{labels} busybox true")).ok();
    let before = resident(d.pid());
    let clients = open(&d, "/events", MANY);
    let mut client = UnixStream::connect(d.socket()).unwrap();
    // More than their sockets take.
    for number in 0..400 {
        write!(client, "POST /containers/{id}/rename?name=n{number} HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 4096]).unwrap() > 0);
    }
    // Others are served.
    d.docker("run --rm busybox true").ok();
    let held = resident(d.pid()).saturating_sub(before);
    // It was 55 KiB for each; now it is what a connection takes, and 32 MiB for all.
    assert!(held < (32 << 10) + 30 * MANY as u64, "{held} KiB");
    drop(clients);
}

#[test]
fn logs_have_more_followers_than_the_kernel_has_watches_and_the_engine_threads() {
    const MANY: usize = 700;
    many_files();
    let Some(d) = Daemon::start() else { return };
    let script = "echo first; while [ ! -e /go ]; do usleep 10000; done; echo last";
    let mut run = d.client();
    Said::from(run.args(["run", "-d", "--name", "talks", "busybox", "sh", "-c", script]).output().unwrap()).ok();
    let mut followers = open(&d, "/containers/talks/logs?stdout=1&follow=1", MANY);
    // Others are served.
    assert_eq!(d.docker("run --rm busybox echo beside them").ok(), "beside them");
    d.docker("exec talks touch /go").ok();
    for follower in &mut followers {
        let mut text = String::new();
        follower.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The connection stays open for the next request: the answer's own end is looked for.
        while !text.ends_with("\r\n0\r\n\r\n") {
            let mut piece = [0; 4096];
            let count = follower.read(&mut piece).unwrap();
            assert!(count > 0, "{text:?}");
            text.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        assert!(text.contains("first\n") && text.contains("last\n"), "{text:?}");
    }
}

#[test]
fn uploads_that_stand_still_hold_up_nobody() {
    const MANY: usize = 600;
    many_files();
    let Some(d) = Daemon::start() else { return };
    let mut clients = Vec::new();
    for path in ["/images/load", "/build"].into_iter().cycle().take(2 * MANY) {
        let mut client = UnixStream::connect(d.socket()).unwrap();
        let head = "POST PATH HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 1000000";
        write!(client, "{}\r\n\r\nhalf", head.replace("PATH", path)).unwrap();
        clients.push(client);
    }
    assert_eq!(d.docker("run --rm busybox echo beside them").ok(), "beside them");
    assert!(d.docker("images -q").ok().lines().count() == 1);
}
