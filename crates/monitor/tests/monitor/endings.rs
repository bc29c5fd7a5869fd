//! Ends, restarts, and monitors whose daemon is killed.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use wharf_monitor::Restart;
use wharf_monitor::client::{self, Event};

use crate::Case;
use crate::fixture::{Fixture, eventually, is_alive, log_text, next, read_until, wait_for_exit, watch};

pub(crate) const CASES: &[Case] = &[
    ("watchers_are_told_all", watchers_are_told_all),
    ("failures_are_tried_again_so_often", failures_are_tried_again_so_often),
    ("ends_are_kept_for_who_comes_late", ends_are_kept_for_who_comes_late),
    ("a_stop_calls_off_the_next_start", a_stop_calls_off_the_next_start),
    ("a_policy_can_change", a_policy_can_change),
    ("signals_arrive_real_time_ones_too", signals_arrive_real_time_ones_too),
    ("a_want_of_memory_is_told", a_want_of_memory_is_told),
    ("requests_that_are_none_harm_nobody", requests_that_are_none_harm_nobody),
    // Last: nothing can be launched afterwards.
    ("monitors_outlive_a_killed_daemon", monitors_outlive_a_killed_daemon),
];

fn watchers_are_told_all(fixture: &Fixture) {
    let mut launch = fixture.shell("read x; exit 4");
    launch.open_stdin = true;
    let launched = fixture.launch(&launch).expect("launches");
    let (first, second) = (watch(&launch.dir), watch(&launch.dir));
    for events in [&first, &second] {
        let Some(Event::State(state)) = next(events) else { panic!("the state comes first") };
        assert_eq!((state.pid, state.restarting, state.restart_count), (launched.pid, false, 0));
        assert_eq!(state.started_at, launched.started_at);
    }
    client::stdin_close(&launch.dir).expect("closes");
    for events in [&first, &second] {
        let Some(Event::Exited { exit, restarting }) = next(events) else { panic!("its end comes next") };
        assert_eq!((exit.code, restarting), (4, false));
        // Before anybody was told.
        assert_eq!(wait_for_exit(&launch), exit);
        assert_eq!(next(events), None);
    }
}

fn failures_are_tried_again_so_often(fixture: &Fixture) {
    let mut launch = fixture.shell("echo try; exit 3");
    launch.restart = Restart { name: "on-failure".into(), max: 2 };
    let start = Instant::now();
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    let mut told = Vec::new();
    while let Some(event) = next(&events) {
        match event {
            // The first end may have been before we watched.
            Event::State(state) => {
                told.extend(state.untold.iter().map(|exit| format!("exited {} true", exit.code)));
                told.extend((state.restart_count > 0 && !state.restarting).then(|| "started 1".to_owned()));
            }
            Event::Exited { exit, restarting } => told.push(format!("exited {} {restarting}", exit.code)),
            Event::Started { restart_count, pid, .. } => {
                assert!(pid > 0);
                told.push(format!("started {restart_count}"));
            }
            _ => {}
        }
    }
    assert_eq!(told, ["exited 3 true", "started 1", "exited 3 true", "started 2", "exited 3 false"]);
    assert!(start.elapsed() >= Duration::from_millis(300), "0.1 s and 0.2 s between them");
    assert_eq!(log_text(&launch), "try\ntry\ntry\n");
    assert_eq!(wait_for_exit(&launch).code, 3);

    let mut well = fixture.shell("exit 0");
    well.restart = Restart { name: "on-failure".into(), max: 0 };
    fixture.launch(&well).expect("launches");
    assert_eq!(wait_for_exit(&well).code, 0);
}

/// An end of which nobody heard is told to the first who watches, and to nobody else.
fn ends_are_kept_for_who_comes_late(fixture: &Fixture) {
    let mut launch = fixture.shell("echo try; exit 3");
    launch.restart = Restart { name: "always".into(), max: 0 };
    fixture.launch(&launch).expect("launches");
    eventually("it is started again", || log_text(&launch).starts_with("try\ntry\n"));
    let codes = |stream| match next(stream) {
        Some(Event::State(state)) => state.untold.iter().map(|exit| exit.code).collect::<Vec<_>>(),
        other => panic!("the state comes first, not {other:?}"),
    };
    let (first, second) = (watch(&launch.dir), watch(&launch.dir));
    let told = codes(&first);
    assert!(!told.is_empty() && told.iter().all(|code| *code == 3), "{told:?}");
    assert_eq!(codes(&second), [0; 0]);
    client::no_restart(&launch.dir).expect("tells");
    wait_for_exit(&launch);
}

fn a_stop_calls_off_the_next_start(fixture: &Fixture) {
    let mut launch = fixture.shell("exit 1");
    launch.restart = Restart { name: "always".into(), max: 0 };
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    // Until it waits for some time.
    let mut ends = 0;
    while ends < 4 {
        if let Some(Event::Exited { restarting: true, .. }) = next(&events) {
            ends += 1;
        }
    }
    let late = watch(&launch.dir);
    let Some(Event::State(state)) = next(&late) else { panic!("the state comes first") };
    assert_eq!((state.restarting, state.pid), (true, 0));
    assert!(client::signal(&launch.dir, 15, false).is_err(), "nothing runs");
    client::signal(&launch.dir, 15, true).expect("calls it off");
    let Some(Event::Exited { exit, restarting: false }) = next(&late) else { panic!("that was for good") };
    assert_eq!((exit.code, next(&late)), (1, None));
    assert_eq!(wait_for_exit(&launch).code, 1);
}

fn a_policy_can_change(fixture: &Fixture) {
    let launch = fixture.shell("read x; exit 1");
    let launch = wharf_monitor::Launch { open_stdin: true, ..launch };
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    next(&events);
    client::update(&launch.dir, &Restart { name: "always".into(), max: 0 }).expect("updates");
    client::stdin_close(&launch.dir).expect("closes");
    assert!(matches!(next(&events), Some(Event::Exited { restarting: true, .. })));
    assert!(matches!(next(&events), Some(Event::Started { restart_count: 1, .. })));
    client::no_restart(&launch.dir).expect("tells");
    client::stdin_close(&launch.dir).expect("its input is open again, and closed");
    assert!(matches!(next(&events), Some(Event::Exited { restarting: false, .. })));
}

fn signals_arrive_real_time_ones_too(fixture: &Fixture) {
    let script = "trap 'echo usr1' USR1; trap 'exit 9' 37; echo ready; while :; do sleep 0.02; done";
    let mut launch = fixture.shell(script);
    let (_, stream) = fixture.attached(&mut launch);
    read_until(&stream, "ready");
    client::signal(&launch.dir, 10, false).expect("signals");
    read_until(&stream, "usr1");
    assert!(client::signal(&launch.dir, 99, true).is_err(), "there is no such signal");
    client::signal(&launch.dir, 37, false).expect("signals");
    assert_eq!(wait_for_exit(&launch).code, 9);
}

fn a_want_of_memory_is_told(fixture: &Fixture) {
    // The first process lives on: what is ended is its child.
    let mut launch =
        fixture.shell("read x; dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null; echo code $?; read x; exit 0");
    launch.open_stdin = true;
    let resources = serde_json::from_str(r#"{"memory":{"limit":16777216,"swap":16777216}}"#).expect("limits");
    let mut linux = launch.spec.linux().clone().expect("a section");
    linux.set_resources(Some(resources));
    launch.spec.set_linux(Some(linux));
    match fixture.launch(&launch) {
        Err(error) if error.to_string().contains("no cgroup controller") => return println!("    skipped: {error}"),
        launched => launched.expect("launches"),
    };
    let events = watch(&launch.dir);
    next(&events);
    let (ours, theirs) = crate::fixture::pair();
    let attach = wharf_monitor::Attach { stdin: true, stdout: true, stderr: true, detach_keys: None };
    client::attach(&launch.dir, &attach, theirs.as_fd()).expect("attaches");
    std::io::Write::write_all(&mut &ours, b"go\n").expect("types");
    let group = Some(launch.cgroup.clone());
    assert_eq!(next(&events), Some(Event::Oom { group: group.clone() }), "while it runs");
    client::stdin_close(&launch.dir).expect("closes");
    let exit = wait_for_exit(&launch);
    assert!(exit.oom_killed && exit.oom_group == group && exit.code == 0, "{exit:?}");
    assert_eq!(log_text(&launch), "code 137\n");
}

fn requests_that_are_none_harm_nobody(fixture: &Fixture) {
    use std::io::Write;
    let launch = fixture.container(&["sleep", "60"]);
    fixture.launch(&launch).expect("launches");
    let silent = client::connect(&launch.dir).expect("connects");
    let torn = client::connect(&launch.dir).expect("connects");
    (&torn).write_all(&[0, 0, 1, 0, b'{']).expect("writes");
    let huge = client::connect(&launch.dir).expect("connects");
    (&huge).write_all(&[0xff; 8]).expect("writes");
    let strange = client::connect(&launch.dir).expect("connects");
    wharf_sys::message::send(&strange, br#"{"op":"dance"}"#, &[]).expect("writes");
    let (answer, _) = wharf_sys::message::receive(&strange).expect("answers").expect("answers");
    assert!(String::from_utf8_lossy(&answer).contains("error"), "{}", String::from_utf8_lossy(&answer));
    let keyless = wharf_monitor::Attach::default();
    let (_, theirs) = crate::fixture::pair();
    client::attach(&launch.dir, &keyless, theirs.as_fd()).expect("attaches");
    // A watcher that never reads.
    let _deaf = client::watch(&launch.dir).expect("watches");
    client::signal(&launch.dir, 9, true).expect("still answers");
    assert_eq!(wait_for_exit(&launch).code, 137);
    drop((silent, torn, huge));
}

/// The prepared process and the daemon's side of everything go at once.
fn monitors_outlive_a_killed_daemon(fixture: &Fixture) {
    let mut launch = fixture.shell("while read x; do echo got $x; done; exit 6");
    launch.open_stdin = true;
    launch.restart = Restart { name: "on-failure".into(), max: 1 };
    let (launched, stream) = fixture.attached(&mut launch);
    std::io::Write::write_all(&mut &stream, b"before\n").expect("types");
    read_until(&stream, "got before");
    fixture.kill_spawner();
    drop(stream);
    eventually("it is nobody's child", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", launched.monitor_pid)).expect("lives");
        status.lines().any(|line| line.starts_with("PPid:\t") && line != "PPid:\t0")
    });
    assert!(is_alive(launched.pid) && is_alive(launched.monitor_pid));
    let events = watch(&launch.dir);
    let Some(Event::State(state)) = next(&events) else { panic!("the state comes first") };
    assert_eq!((state.pid, state.started_at), (launched.pid, launched.started_at));
    let (ours, theirs) = crate::fixture::pair();
    let attach = wharf_monitor::Attach { stdin: true, stdout: true, stderr: true, detach_keys: None };
    client::attach(&launch.dir, &attach, theirs.as_fd()).expect("attaches");
    std::io::Write::write_all(&mut &ours, b"after\n").expect("types");
    read_until(&ours, "got after");
    // Its policy holds without a daemon.
    client::stdin_close(&launch.dir).expect("closes");
    assert!(matches!(next(&events), Some(Event::Exited { restarting: true, .. })));
    assert!(matches!(next(&events), Some(Event::Started { restart_count: 1, .. })));
    client::stdin_close(&launch.dir).expect("closes");
    assert_eq!(wait_for_exit(&launch).code, 6);
    assert_eq!(log_text(&launch), "got before\ngot after\n");
    eventually("the monitor goes", || !is_alive(launched.monitor_pid));
}
