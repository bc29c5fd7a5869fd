//! Many clients at once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kit::Daemon;

/// Kibibytes that a process has in memory.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn idle_connections_cost_little_and_nothing_when_they_are_over() {
    const MANY: usize = 1000;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
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
