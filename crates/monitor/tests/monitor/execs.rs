//! Further programs in a container.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use wharf_cgroup::{Group, Hierarchies};
use wharf_monitor::client::{self, ExecRequest, RunningExec};
use wharf_monitor::{Launch, Restart};

use crate::Case;
use crate::fixture::{Fixture, next, output, pair, read_all, read_until, wait_for_exit, watch};

pub(crate) const CASES: &[Case] = &[
    ("an_exec_has_its_own_streams_and_code", an_exec_has_its_own_streams_and_code),
    ("an_exec_takes_input_until_a_half_close", an_exec_takes_input_until_a_half_close),
    ("an_exec_can_have_a_terminal", an_exec_can_have_a_terminal),
    ("an_exec_that_cannot_be_says_why", an_exec_that_cannot_be_says_why),
    ("what_an_exec_leaves_behind_does_not_hold_it", what_an_exec_leaves_behind_does_not_hold_it),
    ("a_stream_ends_only_when_the_code_is_noted", a_stream_ends_only_when_the_code_is_noted),
    (
        "an_end_that_was_sent_and_not_read_is_told_to_who_watches",
        an_end_that_was_sent_and_not_read_is_told_to_who_watches,
    ),
    ("execs_end_with_the_container", execs_end_with_the_container),
    ("who_stops_all_that_comes_stops_nothing_else", who_stops_all_that_comes_stops_nothing_else),
    ("the_time_of_an_exec", the_time_of_an_exec),
];

fn sleeping(fixture: &Fixture) -> Launch {
    let launch = fixture.container(&["sleep", "60"]);
    fixture.launch(&launch).expect("launches");
    launch
}

fn end(launch: &Launch) {
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(launch);
}

fn request(launch: &Launch, args: &[&str], terminal: bool) -> ExecRequest {
    let mut process = launch.spec.process().clone().expect("a process");
    process.set_args(Some(args.iter().map(|&word| word.to_owned()).collect())).set_terminal(Some(terminal));
    ExecRequest {
        id: args.join(" "),
        process,
        stdin: true,
        stdout: true,
        stderr: true,
        detach_keys: None,
        note: Default::default(),
    }
}

fn exec(launch: &Launch, args: &[&str], terminal: bool) -> (RunningExec, UnixStream) {
    let (ours, theirs) = pair();
    let running = client::exec(&launch.dir, &request(launch, args, terminal), Some(theirs.as_fd())).expect("runs");
    (running, ours)
}

fn an_exec_has_its_own_streams_and_code(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let both: Vec<_> = (0..4)
        .map(|n| exec(&launch, &["sh", "-c", &format!("echo {n}; echo e{n} >&2; seq 1 5000; exit {n}")], false))
        .collect();
    for (n, (running, stream)) in both.into_iter().enumerate() {
        assert!(running.pid() > 0);
        let waiter = std::thread::spawn(move || running.wait().expect("ends"));
        let bytes = read_all(&stream);
        assert!(output(&bytes, 1).starts_with(&format!("{n}\n1\n")) && output(&bytes, 1).ends_with("\n5000\n"));
        assert_eq!(output(&bytes, 2), format!("e{n}\n"));
        assert_eq!(waiter.join().expect("no panic"), i32::try_from(n).expect("small"));
    }
    let detached = client::exec(&launch.dir, &request(&launch, &["sh", "-c", "echo unseen; exit 9"], false), None);
    assert_eq!(detached.expect("runs").wait().expect("ends"), 9);
    end(&launch);
    assert!(crate::fixture::log(&launch).is_empty(), "the log is the container's alone");
}

fn an_exec_takes_input_until_a_half_close(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let (running, stream) = exec(&launch, &["cat"], false);
    (&stream).write_all(b"through\n").expect("types");
    stream.shutdown(Shutdown::Write).expect("half-closes");
    let waiter = std::thread::spawn(move || running.wait().expect("ends"));
    assert_eq!(output(&read_all(&stream), 1), "through\n");
    assert_eq!(waiter.join().expect("no panic"), 0);
    end(&launch);
}

fn an_exec_can_have_a_terminal(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let (running, stream) = exec(&launch, &["sh", "-i"], true);
    client::exec_resize(&launch.dir, "sh -i", 20, 50).expect("resizes");
    (&stream).write_all(b"stty size; tty\n").expect("types");
    read_until(&stream, "20 50\r\n/dev/pts/0\r\n");
    client::exec_signal(&launch.dir, "sh -i", 9).expect("signals");
    assert_eq!(running.wait().expect("ends"), 137);
    assert!(client::exec_resize(&launch.dir, "none", 1, 1).is_err());
    end(&launch);
}

fn an_exec_that_cannot_be_says_why(fixture: &Fixture) {
    let launch = sleeping(fixture);
    for (args, code) in [(&["nothing-there"][..], 127), (&["/bin/plain"], 126)] {
        let (_, theirs) = pair();
        let error = client::exec(&launch.dir, &request(&launch, args, false), Some(theirs.as_fd())).expect_err("fails");
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().starts_with("exec: \""), "{error}");
    }
    end(&launch);
    crate::fixture::eventually("the socket goes", || !launch.dir.join("monitor.sock").exists());
    assert!(client::exec(&launch.dir, &request(&launch, &["true"], false), None).expect_err("too late").is_gone());
}

fn what_an_exec_leaves_behind_does_not_hold_it(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let start = Instant::now();
    let (running, stream) = exec(&launch, &["sh", "-c", "sleep 50 & echo started"], false);
    let waiter = std::thread::spawn(move || running.wait().expect("ends"));
    assert_eq!(output(&read_all(&stream), 1), "started\n");
    assert_eq!(waiter.join().expect("no panic"), 0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    end(&launch);
}

/// Whoever sees the end of the stream asks for the code next.
fn a_stream_ends_only_when_the_code_is_noted(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let (running, mut stream) = exec(&launch, &["true"], false);
    assert_eq!(running.wait().expect("ends"), 0);
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("bounds");
    let blocked = std::io::Read::read(&mut stream, &mut [0]).expect_err("still open");
    assert_eq!(blocked.kind(), std::io::ErrorKind::WouldBlock);
    drop(running);
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).expect("ends"), 0);
    end(&launch);
}

/// As where the daemon that has begun it is killed just then, or gives way to another.
fn an_end_that_was_sent_and_not_read_is_told_to_who_watches(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let told = || {
        let Some(client::Event::State(state)) = next(&watch(&launch.dir)) else { panic!("the state comes first") };
        state.execs.iter().map(|exec| (exec.id.clone(), exec.exit)).collect::<Vec<_>>()
    };
    let asked = request(&launch, &["sh", "-c", "exit 7"], false);
    let both = [0, 1].map(|_| client::exec(&launch.dir, &asked, None).expect("runs"));
    std::thread::sleep(Duration::from_millis(300));
    let ended = (asked.id.clone(), Some(7));
    // Its asker is there, and may not have heard it.
    assert_eq!(told(), [ended.clone(), ended.clone()]);
    let [unheard, heard] = both;
    assert_eq!(heard.wait().expect("ends"), 7);
    drop((heard, unheard));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(told(), [ended]);
    assert!(told().is_empty());
    end(&launch);
}

fn execs_end_with_the_container(fixture: &Fixture) {
    for restarts in [false, true] {
        let mut launch = fixture.container(&["sleep", "60"]);
        if restarts {
            launch.restart = Restart { name: "always".into(), max: 0 };
        }
        fixture.launch(&launch).expect("launches");
        let (running, stream) = exec(&launch, &["sh", "-c", "echo up; sleep 50"], false);
        read_until(&stream, "up");
        client::signal(&launch.dir, 9, false).expect("signals");
        assert_eq!(running.wait().expect("ends"), 137);
        drop(running);
        assert!(read_all(&stream).is_empty());
        if restarts {
            client::no_restart(&launch.dir).expect("calls off");
            // It may be between two runs, or in one.
            let _ = client::signal(&launch.dir, 9, true);
        }
        wait_for_exit(&launch);
    }
}

/// Numbers and states of a monitor's children.
fn children(monitor: i32) -> Vec<(i32, String)> {
    let numbers = std::fs::read_dir("/proc").expect("procfs").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let (state, parent) = (fields.next()?, fields.next()?);
        (parent.parse() == Ok(monitor)).then(|| (pid, state.to_owned()))
    };
    numbers.filter_map(child).collect()
}

/// A child of the monitor that has been stopped before it became the exec's program.
fn is_stopped_on_its_way(monitor: i32) -> bool {
    children(monitor).into_iter().any(|(pid, state)| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        state == "T" && !program.ends_with("busybox")
    })
}

fn who_stops_all_that_comes_stops_nothing_else(fixture: &Fixture) {
    let script = "i=0; while :; do i=$((i+1)); [ $((i%100)) = 0 ] && echo round; \
        for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p -gt 1 ] && kill -STOP $p; done; done";
    let launch = fixture.shell(script);
    let launched = fixture.launch(&launch).expect("launches");
    let monitor = launched.monitor_pid;
    let ask = |n: usize| {
        let (mut request, dir) = (request(&launch, &["sleep", "60"], false), launch.dir.clone());
        request.id = n.to_string();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(client::exec(&dir, &request, None)));
        told
    };
    // One that is faster than the container does its work is not the one that is looked for.
    let mut fast = Vec::new();
    let first = loop {
        let told = ask(fast.len());
        let mut answer = None;
        crate::fixture::eventually("an exec runs or is stopped", || {
            answer = told.try_recv().ok();
            answer.is_some() || is_stopped_on_its_way(monitor)
        });
        match answer {
            None => break told,
            Some(answer) => fast.push(answer.expect("runs")),
        }
    };
    let second = ask(100);
    let written = || std::fs::metadata(&launch.log.as_ref().expect("a log").path).map_or(0, |log| log.len());
    for _ in 0..3 {
        let before = written();
        client::signal(&launch.dir, 18, false).expect("signals");
        let events = crate::fixture::watch(&launch.dir);
        assert!(matches!(crate::fixture::next(&events), Some(client::Event::State(_))));
        crate::fixture::eventually("its output is written down", || written() > before);
    }
    assert!(first.try_recv().is_err(), "all that was served while it waits");
    // With v1's freezer it does not even end, and that is nobody's to wait for.
    let hierarchies = Hierarchies::detect().expect("detects");
    let group = Group::open(&hierarchies, &launch.cgroup).expect("a path");
    group.freeze(true).expect("freezes");
    let error = first.recv().expect("is told").expect_err("does not run");
    assert!(error.to_string().contains("did not come to its next step within 10 s"), "{error}");
    assert_eq!(error.exit_code(), 125);
    let second = second.recv().expect("is told");
    let running = fast.len() + usize::from(second.is_ok());
    assert!(crate::fixture::is_alive(launched.pid));
    group.freeze(false).expect("thaws");
    crate::fixture::eventually("who has ended late is reaped", || {
        let left = children(monitor);
        // Those that were too fast for the container run, or are stopped by it by now.
        left.len() == 1 + running && left.iter().all(|(_, state)| state != "Z")
    });
    end(&launch);
}

/// Not a check on time, which no test makes: printed so that a slip is seen.
fn the_time_of_an_exec(fixture: &Fixture) {
    let launch = sleeping(fixture);
    let mut times: Vec<u128> = (0..30)
        .map(|_| {
            let start = Instant::now();
            let (running, _stream) = exec(&launch, &["true"], false);
            assert_eq!(running.wait().expect("ends"), 0);
            start.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    println!("    exec to its end: median {} µs, fastest {} µs", times[15], times[0]);
    end(&launch);
}
