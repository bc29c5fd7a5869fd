//! What passes between a container and its clients.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use wharf_monitor::{Attach, client};

use crate::Case;
use crate::fixture::{Fixture, frames, log_text, output, pair, read_all, read_until, set_terminal, wait_for_exit};

pub(crate) const CASES: &[Case] = &[
    ("log_and_client_get_all_in_order", log_and_client_get_all_in_order),
    ("a_terminal_is_plain_and_can_be_resized", a_terminal_is_plain_and_can_be_resized),
    ("keys_detach_and_the_container_goes_on", keys_detach_and_the_container_goes_on),
    ("a_half_close_ends_the_input", a_half_close_ends_the_input),
    ("without_once_a_client_s_end_is_its_own", without_once_a_client_s_end_is_its_own),
    ("much_goes_in_and_out_unharmed", much_goes_in_and_out_unharmed),
    ("a_client_that_does_not_read_loses_nothing", a_client_that_does_not_read_loses_nothing),
    ("a_client_that_has_gone_stops_nobody", a_client_that_has_gone_stops_nobody),
    ("the_rest_is_there_for_who_reads_late", the_rest_is_there_for_who_reads_late),
    ("clients_come_later_and_choose", clients_come_later_and_choose),
];

fn client_of(stdin: bool, stdout: bool, stderr: bool) -> Attach {
    Attach { stdin, stdout, stderr, detach_keys: None }
}

fn attach(dir: &std::path::Path, attach: &Attach) -> UnixStream {
    let (ours, theirs) = pair();
    client::attach(dir, attach, theirs.as_fd()).expect("attaches");
    ours
}

fn log_and_client_get_all_in_order(fixture: &Fixture) {
    let mut launch = fixture.shell("seq 1 20000; printf end");
    let (bytes, _) = fixture.run(&mut launch);
    let want: String = (1..=20_000).map(|n| format!("{n}\n")).chain(["end".to_owned()]).collect();
    assert!(output(&bytes, 1) == want, "the client's");
    assert!(log_text(&launch) == want, "the log's");
}

fn a_terminal_is_plain_and_can_be_resized(fixture: &Fixture) {
    let mut launch = fixture.shell("trap 'stty size; exit 3' WINCH; tty; echo ready; while :; do sleep 0.1; done");
    set_terminal(&mut launch);
    let (_, stream) = fixture.attached(&mut launch);
    let text = read_until(&stream, "ready\r\n");
    assert!(text.starts_with("/dev/pts/0\r\n"), "{text:?}");
    client::resize(&launch.dir, 33, 77).expect("resizes");
    let rest = String::from_utf8(read_all(&stream)).expect("text");
    assert_eq!(rest, "33 77\r\n");
    assert_eq!(wait_for_exit(&launch).code, 3);
    assert!(log_text(&launch).ends_with("33 77\r\n"));
    let plain = fixture.container(&["sleep", "30"]);
    fixture.launch(&plain).expect("launches");
    let error = client::resize(&plain.dir, 1, 1).expect_err("there is no terminal");
    assert!(error.to_string().contains("no terminal"), "{error}");
    client::signal(&plain.dir, 9, true).expect("signals");
    wait_for_exit(&plain);
}

fn keys_detach_and_the_container_goes_on(fixture: &Fixture) {
    let mut launch = fixture.container(&["cat"]);
    set_terminal(&mut launch);
    launch.open_stdin = true;
    launch.stdin_once = true;
    let (_, stream) = fixture.attached(&mut launch);
    (&stream).write_all(b"one\n").expect("types");
    read_until(&stream, "one\r\none\r\n");
    (&stream).write_all(b"tw\x10").expect("types");
    read_until(&stream, "tw");
    (&stream).write_all(b"\x11never").expect("types");
    assert!(read_all(&stream).is_empty(), "detached");
    let own = Attach { detach_keys: Some("ctrl-a,x".into()), ..client_of(true, true, true) };
    let second = attach(&launch.dir, &own);
    (&second).write_all(b"o\n").expect("types");
    read_until(&second, "o\r\ntwo\r\n");
    (&second).write_all(b"\x01x").expect("types");
    assert!(read_all(&second).is_empty(), "detached by keys of its own");
    let third = attach(&launch.dir, &client_of(true, true, true));
    // The end of input, as a terminal has it.
    (&third).write_all(b"\x04").expect("types");
    read_all(&third);
    assert_eq!(wait_for_exit(&launch).code, 0);
}

fn a_half_close_ends_the_input(fixture: &Fixture) {
    let mut launch = fixture.shell("cat; echo after");
    launch.open_stdin = true;
    launch.stdin_once = true;
    let (_, stream) = fixture.attached(&mut launch);
    (&stream).write_all(b"typed\n").expect("types");
    stream.shutdown(Shutdown::Write).expect("half-closes");
    assert_eq!(output(&read_all(&stream), 1), "typed\nafter\n");
    assert_eq!(wait_for_exit(&launch).code, 0);

    // A client that goes altogether ends it as well, after what it had typed.
    let mut launch = fixture.shell("wc -c");
    launch.open_stdin = true;
    launch.stdin_once = true;
    let (_, stream) = fixture.attached(&mut launch);
    (&stream).write_all(&[b'x'; 200_000]).expect("types");
    drop(stream);
    assert_eq!(wait_for_exit(&launch).code, 0);
    assert_eq!(log_text(&launch).trim(), "200000");

    // And so does the engine's word.
    let mut launch = fixture.container(&["cat"]);
    launch.open_stdin = true;
    fixture.launch(&launch).expect("launches");
    client::stdin_close(&launch.dir).expect("closes");
    assert_eq!(wait_for_exit(&launch).code, 0);
}

fn without_once_a_client_s_end_is_its_own(fixture: &Fixture) {
    let mut launch = fixture.container(&["cat"]);
    launch.open_stdin = true;
    fixture.launch(&launch).expect("launches");
    for text in ["first\n", "second\n"] {
        let stream = attach(&launch.dir, &client_of(true, true, true));
        (&stream).write_all(text.as_bytes()).expect("types");
        read_until(&stream, text);
        stream.shutdown(Shutdown::Write).expect("half-closes");
        assert!(read_all(&stream).is_empty(), "it has left");
    }
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(&launch);
    assert_eq!(log_text(&launch), "first\nsecond\n");
}

fn much_goes_in_and_out_unharmed(fixture: &Fixture) {
    let mut launch = fixture.container(&["cat"]);
    launch.open_stdin = true;
    launch.stdin_once = true;
    launch.log = None;
    let (_, stream) = fixture.attached(&mut launch);
    let sent: Vec<u8> = (0..12_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    let start = Instant::now();
    let bytes = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(&sent).expect("types");
            stream.shutdown(Shutdown::Write).expect("half-closes");
        });
        read_all(&stream)
    });
    let got: Vec<u8> = frames(&bytes).into_iter().flat_map(|(_, part)| part).collect();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
    assert_eq!(wait_for_exit(&launch).code, 0);
    println!("    12 MB through cat in {:?}", start.elapsed());
}

fn a_client_that_does_not_read_loses_nothing(fixture: &Fixture) {
    // More than its buffer: the container waits for it.
    let mut launch = fixture.shell("head -c 5000000 /dev/zero | tr '\\0' x; echo done >&2");
    let (launched, stream) = fixture.attached(&mut launch);
    std::thread::sleep(Duration::from_millis(400));
    assert!(!launch.state_dir.join("exit.json").exists(), "it must wait");
    let status = std::fs::read_to_string(format!("/proc/{}/status", launched.monitor_pid)).expect("reads");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a size");
    let size: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    assert!(size < 8_000, "what waits is bounded: {line}");
    // It answers others meanwhile.
    drop(client::watch(&launch.dir).expect("watches"));
    let bytes = read_all(&stream);
    assert_eq!(output(&bytes, 1).len(), 5_000_000);
    assert_eq!(output(&bytes, 2), "done\n");
    wait_for_exit(&launch);
    assert_eq!(log_text(&launch).matches('x').count(), 5_000_000);
}

fn a_client_that_has_gone_stops_nobody(fixture: &Fixture) {
    let mut launch = fixture.shell("head -c 5000000 /dev/zero | tr '\\0' x");
    let (_, stream) = fixture.attached(&mut launch);
    let mut some = [0; 1000];
    (&stream).read_exact(&mut some).expect("reads");
    drop(stream);
    assert_eq!(wait_for_exit(&launch).code, 0);
    assert_eq!(log_text(&launch).len(), 5_000_000);
}

fn the_rest_is_there_for_who_reads_late(fixture: &Fixture) {
    let mut launch = fixture.shell("head -c 900000 /dev/zero | tr '\\0' x");
    let (_, stream) = fixture.attached(&mut launch);
    // Ended and told, although nobody has read.
    assert_eq!(wait_for_exit(&launch).code, 0);
    std::thread::sleep(Duration::from_millis(50));
    // And it can be started again, although its last monitor has something to give yet.
    let again = fixture.shell("true");
    let again = wharf_monitor::Launch { dir: launch.dir.clone(), cgroup: launch.cgroup.clone(), ..again };
    fixture.launch(&again).expect("launches");
    assert_eq!(wait_for_exit(&again).code, 0);
    assert_eq!(output(&read_all(&stream), 1).len(), 900_000);
}

fn clients_come_later_and_choose(fixture: &Fixture) {
    let mut launch = fixture.shell("read x; echo out; echo err >&2");
    launch.open_stdin = true;
    launch.stdin_once = true;
    fixture.launch(&launch).expect("launches");
    let errors = attach(&launch.dir, &client_of(false, false, true));
    // Its half-close means nothing: it has no input.
    errors.shutdown(Shutdown::Write).expect("half-closes");
    let typing = attach(&launch.dir, &client_of(true, true, false));
    (&typing).write_all(b"go\n").expect("types");
    assert_eq!(frames(&read_all(&errors)), [(2, b"err\n".to_vec())]);
    assert_eq!(frames(&read_all(&typing)), [(1, b"out\n".to_vec())]);
    wait_for_exit(&launch);
}
