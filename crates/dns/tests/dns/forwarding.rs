//! Names of others.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::Case;
use crate::client::{A, Reply, ask, ask_tcp, exchange, labels, query, query_edns, receive, send, tcp, udp};
use crate::fixture::{Fixture, container, network};
use crate::upstream::{Upstream, closed, dead};

pub(crate) const CASES: &[Case] = &[
    ("answers_are_kept_as_long_as_they_say", answers_are_kept_as_long_as_they_say),
    ("servers_have_addresses_of_both_families", servers_have_addresses_of_both_families),
    ("equal_questions_are_asked_once", equal_questions_are_asked_once),
    ("a_dead_server_is_waited_for_once", a_dead_server_is_waited_for_once),
    ("a_server_that_is_back_is_found", a_server_that_is_back_is_found),
    ("a_name_that_takes_long_moves_nobody_to_another_server", a_name_that_takes_long_moves_nobody_to_another_server),
    ("a_server_that_refuses_costs_nothing", a_server_that_refuses_costs_nothing),
    ("without_any_server_there_is_an_answer_in_time", without_any_server_there_is_an_answer_in_time),
    ("what_is_too_large_goes_over_tcp", what_is_too_large_goes_over_tcp),
    ("answers_of_others_pass_by", answers_of_others_pass_by),
    ("clients_over_tcp_ask_many_things_at_once", clients_over_tcp_ask_many_things_at_once),
    ("no_query_is_like_another", no_query_is_like_another),
];

/// Not after waiting for a server, which takes a second.
fn quick(since: Instant) -> bool {
    since.elapsed() < Duration::from_millis(900)
}

fn with_network() -> Fixture {
    let fixture = Fixture::new();
    fixture.server().put_network(&network("n", vec![])).unwrap();
    fixture
}

fn answers_are_kept_as_long_as_they_say() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let other = Upstream::new([192, 0, 2, 2]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let neighbour = fixture.container("c2", &["n"], &[upstream.address]);
    let elsewhere = fixture.container("c3", &["n"], &[other.address]);
    let first = ask(&netns, "short.test", A);
    assert_eq!((first.addresses(), first.records[0].0, first.id), (vec!["192.0.2.1".into()], 2, 0x1234));
    let again = ask(&neighbour, "SHORT.test", A);
    assert_eq!((again.addresses(), again.spelled), (vec!["192.0.2.1".into()], labels("SHORT.test")));
    assert_eq!(upstream.asked("short.test"), 1);
    // Another server may know better.
    assert_eq!(ask(&elsewhere, "short.test", A).addresses(), ["192.0.2.2"]);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&netns, "short.test", A).records[0].0, 1);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(ask(&netns, "short.test", A).records[0].0, 2);
    assert_eq!(upstream.asked("short.test"), 2);
    for _ in 0..3 {
        assert_eq!(ask(&netns, "nx.test", A).code, 3);
    }
    assert_eq!(upstream.asked("nx.test"), 1);
    // Kept for clients of one kind only: an answer to EDNS is none for those who do not know it.
    for _ in 0..2 {
        exchange(&udp(&netns), &query_edns(1, "nx.test", A, 4096));
    }
    assert_eq!(upstream.asked("nx.test"), 2);
}

fn servers_have_addresses_of_both_families() {
    let Some(upstream) = Upstream::at(Ipv6Addr::LOCALHOST.into(), [192, 0, 2, 6]) else {
        return println!("  skipped: there is no IPv6");
    };
    let fixture = with_network();
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    assert_eq!(ask(&netns, "one.test", A).addresses(), ["192.0.2.6"]);
    assert_eq!(ask_tcp(&netns, "two.test", A).addresses(), ["192.0.2.6"]);
}

fn equal_questions_are_asked_once() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let sockets: Vec<_> = (0..50).map(|_| udp(&netns)).collect();
    for (id, socket) in (0..).zip(&sockets) {
        socket.send(&query(id, "late.test", A)).unwrap();
    }
    for (id, socket) in (0..).zip(&sockets) {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(Reply::parse(&buffer[..length]).id, id);
    }
    assert_eq!(upstream.asked("late.test"), 1);
}

fn a_dead_server_is_waited_for_once() {
    let fixture = with_network();
    let (_held, silent) = dead();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[silent, upstream.address]);
    let start = Instant::now();
    assert_eq!(ask(&netns, "one.test", A).addresses(), ["192.0.2.1"]);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    for n in 0..20 {
        let start = Instant::now();
        assert_eq!(ask(&netns, &format!("n{n}.test"), A).addresses(), ["192.0.2.1"]);
        assert!(quick(start), "{:?}", start.elapsed());
    }
}

fn a_server_that_is_back_is_found() {
    let fixture = with_network();
    let first = Upstream::new([192, 0, 2, 1]);
    let second = Upstream::new([192, 0, 2, 2]);
    let netns = fixture.container("c1", &["n"], &[first.address, second.address]);
    first.mute(true);
    assert_eq!(ask(&netns, "one.test", A).addresses(), ["192.0.2.2"]);
    assert_eq!(ask(&netns, "two.test", A).addresses(), ["192.0.2.2"]);
    assert_eq!(first.asked("two.test"), 0, "it rests");
    first.mute(false);
    let start = Instant::now();
    let mut number = 0;
    // It is looked at with a question of its own.
    while first.asked("") < 2 {
        number += 1;
        assert!(start.elapsed() < Duration::from_secs(20));
        let start = Instant::now();
        assert_eq!(ask(&netns, &format!("n{number}.test"), A).code, 0);
        // Being looked at again costs nobody anything.
        assert!(quick(start), "{:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(250));
    }
    let now = ask(&netns, "afterwards.test", A);
    assert_eq!(now.addresses(), ["192.0.2.1"]);
}

fn a_name_that_takes_long_moves_nobody_to_another_server() {
    let fixture = with_network();
    let first = Upstream::new([192, 0, 2, 1]);
    let second = Upstream::new([192, 0, 2, 2]);
    let netns = fixture.container("c1", &["n"], &[first.address, second.address]);
    let neighbour = fixture.container("c2", &["n"], &[first.address, second.address]);
    for _ in 0..2 {
        // Neither knows it.
        let silent = exchange(&udp(&netns), &query(1, "silent.test", A));
        assert_eq!(Reply::parse(&silent).code, 2);
        assert_eq!(ask(&neighbour, "one.test", A).addresses(), ["192.0.2.1"]);
    }
    assert_eq!(second.asked("one.test"), 0);
    assert!(first.asked("") > 0, "it was asked whether it answers at all");
}

fn a_server_that_refuses_costs_nothing() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[closed(), upstream.address]);
    let start = Instant::now();
    assert_eq!(ask(&netns, "one.test", A).addresses(), ["192.0.2.1"]);
    assert_eq!(ask_tcp(&netns, "two.test", A).addresses(), ["192.0.2.1"]);
    assert!(quick(start), "{:?}", start.elapsed());
    // What a server says is passed on when no other knows better.
    let start = Instant::now();
    assert_eq!(ask(&netns, "servfail.test", A).code, 2);
    assert!(quick(start), "{:?}", start.elapsed());
}

fn without_any_server_there_is_an_answer_in_time() {
    let fixture = with_network();
    let (_held, silent) = dead();
    let netns = fixture.container("c1", &["n"], &[silent]);
    let start = Instant::now();
    assert_eq!(ask(&netns, "one.test", A).code, 2);
    assert!(start.elapsed() < Duration::from_millis(4900), "{:?}", start.elapsed());
    fixture.server().put_container(&container("c1", &["n"], &[closed(), closed()]), None, None).unwrap();
    let start = Instant::now();
    assert_eq!(ask(&netns, "two.test", A).code, 2);
    fixture.server().put_container(&container("c1", &["n"], &[]), None, None).unwrap();
    assert_eq!(ask(&netns, "three.test", A).code, 2);
    // The same over a network that the host has no way to.
    let nowhere = "[fe80::1%4242]:53".parse().unwrap();
    fixture.server().put_container(&container("c1", &["n"], &[nowhere]), None, None).unwrap();
    assert_eq!(ask(&netns, "four.test", A).code, 2);
    assert!(quick(start), "{:?}", start.elapsed());
}

fn what_is_too_large_goes_over_tcp() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let reply = ask(&netns, "big.test", A);
    assert_eq!((reply.truncated, reply.records.len()), (true, 0));
    let reply = ask_tcp(&netns, "big.test", A);
    assert_eq!((reply.truncated, reply.records.len()), (false, 100));
    // All of it was kept when the first client asked.
    assert_eq!((upstream.asked("big.test"), upstream.over_tcp()), (2, 1));
    let reply = Reply::parse(&exchange(&udp(&netns), &query_edns(1, "big.test", A, 4096)));
    assert_eq!((reply.truncated, reply.records.len()), (false, 100));
    // A client over TCP is asked for over TCP.
    assert_eq!(ask_tcp(&netns, "big.other", A).records.len(), 100);
    assert_eq!(upstream.asked("big.other"), 1);
    // What makes no sense is not passed on; that there is more, is.
    assert!(ask(&netns, "liar.test", A).truncated);
    assert_eq!(ask_tcp(&netns, "liar.test", A).code, 2);
}

fn answers_of_others_pass_by() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    assert_eq!(ask(&netns, "spoofed.test", A).addresses(), ["192.0.2.1"]);
    assert_eq!(ask(&netns, "spoofed.test", A).addresses(), ["192.0.2.1"]);
}

fn clients_over_tcp_ask_many_things_at_once() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let mut stream = tcp(&netns);
    for id in 0..100 {
        send(&mut stream, &query(id, &format!("n{}.test", id % 30), A));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut ids: Vec<u16> = std::iter::from_fn(|| receive(&mut stream)).map(|reply| reply.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
    // One that says nothing does not stay for ever, nor does one that says too much.
    let mut idle = tcp(&netns);
    let mut long = tcp(&netns);
    send(&mut long, &[0; 5000]);
    assert_eq!(receive(&mut long), None);
    idle.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let start = Instant::now();
    assert_eq!(receive(&mut idle), None);
    assert!(start.elapsed() < Duration::from_secs(13));
}

fn no_query_is_like_another() {
    let fixture = with_network();
    let upstream = Upstream::new([192, 0, 2, 1]);
    let netns = fixture.container("c1", &["n"], &[upstream.address]);
    let socket = udp(&netns);
    for n in 0..200 {
        exchange(&socket, &query(7, &format!("n{n}.test"), A));
    }
    let (asked, ids, ports) = upstream.spread();
    assert_eq!(asked, 200);
    assert!(ids > 190 && ports > 190, "{ids} numbers, {ports} ports");
}
