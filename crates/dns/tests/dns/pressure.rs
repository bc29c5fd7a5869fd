//! Containers that mean no good, or much.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use wharf_dns::Sockets;

use crate::Case;
use crate::client::{A, Reply, ask, ask_tcp, exchange, query, send, tcp, udp};
use crate::fixture::{Fixture, container, member, netns, network};
use crate::upstream::{Upstream, dead};

pub(crate) const CASES: &[Case] = &[
    ("what_is_no_query_breaks_nothing", what_is_no_query_breaks_nothing),
    ("one_that_floods_holds_up_nobody", one_that_floods_holds_up_nobody),
    ("many_connections_hold_up_nobody", many_connections_hold_up_nobody),
    ("five_hundred_containers", five_hundred_containers),
    ("how_quick_it_is", how_quick_it_is),
];

fn known_names(fixture: &Fixture) {
    fixture.server().put_network(&network("n", vec![member("c1", "172.18.0.2", &["web"])])).unwrap();
}

fn what_is_no_query_breaks_nothing() {
    let fixture = Fixture::new();
    known_names(&fixture);
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let socket = udp(&netns);
    let mut state: u64 = 88_172_645_463_325_252;
    for round in 0..5000 {
        let mut message = query(1, if round % 2 == 0 { "web" } else { "example.com" }, A);
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = usize::try_from(state >> 40).unwrap() % message.len();
            message[at] = state.to_le_bytes()[0];
            if state.is_multiple_of(16) {
                message.truncate(at);
                message.push(0xc0);
            }
        }
        socket.send(&message).unwrap();
    }
    // The socket may be so full that this one is lost.
    let patient = udp(&netns);
    patient.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 512];
    let answered = (0..20).find_map(|_| {
        patient.send(&query(1, "web", A)).unwrap();
        patient.recv(&mut buffer).ok()
    });
    assert_eq!(Reply::parse(&buffer[..answered.expect("an answer")]).addresses(), ["172.18.0.2"]);
    // An answer is not answered.
    let socket = udp(&netns);
    let mut response = query(9, "web", A);
    response[2] |= 0x80;
    socket.send(&response).unwrap();
    assert_eq!(Reply::parse(&exchange(&socket, &query(10, "web", A))).id, 10);
}

fn one_that_floods_holds_up_nobody() {
    let fixture = Fixture::new();
    known_names(&fixture);
    let (_held, silent) = dead();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let flooding = fixture.container("c1", &["n"], &[silent]);
    let netns = fixture.container("c2", &["n"], &[upstream.address]);
    let socket = udp(&flooding);
    socket.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let (mut sent, mut refused, mut slowest) = (0u32, 0, Duration::ZERO);
    let mut buffer = [0; 512];
    while start.elapsed() < Duration::from_secs(2) {
        for _ in 0..200 {
            sent += u32::from(socket.send(&query(1, &format!("n{sent}.test"), A)).is_ok());
            while let Ok(length) = socket.recv(&mut buffer) {
                refused += u32::from(Reply::parse(&buffer[..length]).code == 5);
            }
        }
        let asked = Instant::now();
        assert_eq!(ask(&netns, "web", A).addresses(), ["172.18.0.2"]);
        assert_eq!(ask(&netns, &format!("n{sent}.test"), A).addresses(), ["192.0.2.1"]);
        slowest = slowest.max(asked.elapsed());
    }
    println!("  {sent} queries in two seconds, {refused} refused; a neighbour waited {slowest:?} at most");
    assert!(refused > 100 && slowest < Duration::from_millis(900), "{refused} {slowest:?}");
    let files = std::fs::read_dir(format!("/proc/{}/fd", fixture.server().pid())).unwrap().count();
    assert!(files < 1400, "{files} files");
}

fn many_connections_hold_up_nobody() {
    let fixture = Fixture::new();
    known_names(&fixture);
    let greedy = fixture.container("c1", &["n"], &[]);
    let netns = fixture.container("c2", &["n"], &[]);
    let mut held: Vec<_> = (0..200).map(|_| tcp(&greedy)).collect();
    // One that asks and does not read.
    for _ in 0..20_000 {
        let _ = held[0].set_nonblocking(true);
        let message = query(1, "web", A);
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        if std::io::Write::write(&mut held[0], &[&length, &message[..]].concat()).is_err() {
            break;
        }
    }
    assert_eq!(ask_tcp(&netns, "web", A).addresses(), ["172.18.0.2"]);
    assert_eq!(ask(&greedy, "web", A).addresses(), ["172.18.0.2"]);
    let files = std::fs::read_dir(format!("/proc/{}/fd", fixture.server().pid())).unwrap().count();
    assert!(files < 60, "{files} files");
    drop(held);
    // Their places are free again.
    let start = Instant::now();
    loop {
        let mut stream = tcp(&greedy);
        send(&mut stream, &query(1, "web", A));
        if crate::client::receive(&mut stream).is_some() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

fn five_hundred_containers() {
    let fixture = Fixture::new();
    let address = |n: usize| format!("172.18.{}.{}", n / 250, n % 250 + 2);
    fixture.server().put_network(&network("n", vec![])).unwrap();
    let start = Instant::now();
    let all: Vec<OwnedFd> = (0..500)
        .map(|n| {
            fixture.server().put_member("n", &member(&format!("c{n}"), &address(n), &[&format!("name{n}")])).unwrap();
            fixture.container(&format!("c{n}"), &["n"], &[])
        })
        .collect();
    println!("  500 containers, each with a namespace, in {:?}", start.elapsed());
    for n in (0..500).step_by(25) {
        assert_eq!(ask(&all[n], &format!("name{}", 499 - n), A).addresses(), [address(499 - n)]);
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", fixture.server().pid())).unwrap();
    println!("  {}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default());
    for n in 0..500 {
        fixture.server().remove_container(&format!("c{n}")).unwrap();
    }
    let files = std::fs::read_dir(format!("/proc/{}/fd", fixture.server().pid())).unwrap().count();
    assert!(files < 20, "{files} files");
}

/// How long the process has run on a processor.
fn busy(fixture: &Fixture) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", fixture.server().pid())).unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0))
}

/// Queries in a second, and the slowest of a hundred, from one program that asks one after the other.
fn measure(netns: &OwnedFd, name: &str) -> (u32, Duration) {
    let socket = udp(netns);
    let message = query(1, name, A);
    let mut buffer = [0; 512];
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < Duration::from_secs(1) {
        let asked = Instant::now();
        socket.send(&message).unwrap();
        socket.recv(&mut buffer).unwrap();
        times.push(asked.elapsed());
    }
    times.sort_unstable();
    (u32::try_from(times.len()).unwrap(), times[times.len() * 99 / 100])
}

fn how_quick_it_is() {
    let start = Instant::now();
    let fixture = Fixture::new();
    println!("  started in {:?}", start.elapsed());
    known_names(&fixture);
    let upstream = Upstream::new([192, 0, 2, 1]);
    let mut opened = Vec::new();
    let mut put = Vec::new();
    for n in 0..20 {
        let netns = netns();
        let start = Instant::now();
        let sockets = Sockets::open(netns.as_fd()).unwrap();
        opened.push(start.elapsed());
        let start = Instant::now();
        fixture.server().put_container(&container(&format!("x{n}"), &["n"], &[]), Some(&sockets), None).unwrap();
        put.push(start.elapsed());
    }
    opened.sort_unstable();
    put.sort_unstable();
    println!("  sockets and rules: median {:?}, slowest {:?}; telling: median {:?}", opened[10], opened[19], put[10]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    for (what, name) in [("known", "web"), ("kept", "example.com")] {
        let before = busy(&fixture);
        let (queries, slowest) = measure(&netns, name);
        let cost = (busy(&fixture) - before) / queries.max(1);
        println!(
            "  {what}: {queries} queries per second, one after the other, p99 {slowest:?}; {cost:?} of the process each"
        );
    }
    // Many under way, from two programs.
    let before = busy(&fixture);
    let start = Instant::now();
    let mut answered = 0u32;
    let sockets: Vec<_> = (0..2).map(|_| udp(&netns)).collect();
    let mut buffer = [0; 512];
    while start.elapsed() < Duration::from_secs(1) {
        for socket in &sockets {
            for _ in 0..64 {
                socket.send(&query(1, "web", A)).unwrap();
            }
        }
        for socket in &sockets {
            for _ in 0..64 {
                socket.recv(&mut buffer).unwrap();
                answered += 1;
            }
        }
    }
    let cost = (busy(&fixture) - before) / answered.max(1);
    println!("  known: {answered} queries per second, 128 at a time; {cost:?} of the process each");
    let before = busy(&fixture);
    let start = Instant::now();
    let socket = udp(&netns);
    let mut forwarded = 0u32;
    while start.elapsed() < Duration::from_secs(1) {
        exchange(&socket, &query(1, &format!("n{forwarded}.test"), A));
        forwarded += 1;
    }
    let cost = (busy(&fixture) - before) / forwarded.max(1);
    println!(
        "  asked for elsewhere: {forwarded} queries per second, one after the other; {cost:?} of the process each"
    );
}
