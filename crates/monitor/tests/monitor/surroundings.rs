//! Monitors in surroundings that are not the usual ones, and what they cost.

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::json;
use wharf_cgroup::{Group, Hierarchies};
use wharf_monitor::client::{self, Event, ExecRequest};
use wharf_monitor::{Attach, Given, Health, Launch, Restart};

use crate::Case;
use crate::fixture::{
    Fixture, change_linux, eventually, is_alive, log_text, next, output, pair, read_all, read_until, wait_for_exit,
    watch,
};

pub(crate) const CASES: &[Case] = &[
    ("a_network_namespace_is_joined_at_every_start", a_network_namespace_is_joined_at_every_start),
    ("without_a_pid_namespace_nothing_stays_either", without_a_pid_namespace_nothing_stays_either),
    ("a_user_namespace_s_user_has_its_streams", a_user_namespace_s_user_has_its_streams),
    ("limits_that_were_changed_hold_after_a_restart", limits_that_were_changed_hold_after_a_restart),
    ("a_start_that_fails_later_is_the_end", a_start_that_fails_later_is_the_end),
    ("a_paused_container_is_left_in_peace", a_paused_container_is_left_in_peace),
    ("an_idle_monitor_sleeps", an_idle_monitor_sleeps),
    ("a_killed_monitor_s_place_can_be_taken", a_killed_monitor_s_place_can_be_taken),
    ("paths_may_be_long", paths_may_be_long),
    ("what_a_monitor_weighs", what_a_monitor_weighs),
    ("the_time_with_docker_s_filter", the_time_with_docker_s_filter),
];

fn run(launch: &Launch, args: &[&str]) -> Result<i32, client::ClientError> {
    let mut process = launch.spec.process().clone().expect("a process");
    process.set_args(Some(args.iter().map(|&word| word.to_owned()).collect()));
    let request = ExecRequest {
        id: "x".into(),
        process,
        stdin: false,
        stdout: false,
        stderr: false,
        detach_keys: None,
        note: Default::default(),
    };
    client::exec(&launch.dir, &request, None)?.wait()
}

fn kill(launch: &Launch) {
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(launch);
}

fn a_network_namespace_is_joined_at_every_start(fixture: &Fixture) {
    let netns: OwnedFd = std::thread::spawn(|| {
        wharf_sys::namespace::unshare_network().expect("unshares");
        fs::File::open("/proc/thread-self/ns/net").expect("opens").into()
    })
    .join()
    .expect("no panic");
    let inode = rustix::fs::fstat(&netns).expect("stats").st_ino;
    let mut launch = fixture.shell("readlink /proc/self/ns/net; exit 1");
    launch.restart = Restart { name: "on-failure".into(), max: 1 };
    change_linux(&mut launch, |linux| {
        let all = linux["namespaces"].as_array_mut().expect("a list");
        all.retain(|namespace| namespace["type"] != "network");
    });
    fixture
        .spawner()
        .launch(&launch, &Given { netns: Some(netns.as_fd()), ..Given::default() }, &[])
        .expect("launches");
    drop(netns);
    wait_for_exit(&launch);
    assert_eq!(log_text(&launch), format!("net:[{inode}]\n").repeat(2));
}

fn without_a_pid_namespace_nothing_stays_either(fixture: &Fixture) {
    for (ends_itself, again) in [(true, 0), (false, 0), (true, 2)] {
        let script = if ends_itself { "sleep 77 & echo $!; exit 3" } else { "sleep 77 & echo $!; sleep 78" };
        let mut launch = fixture.shell(script);
        change_linux(&mut launch, |linux| {
            let all = linux["namespaces"].as_array_mut().expect("a list");
            all.retain(|namespace| namespace["type"] != "pid");
        });
        launch.restart = Restart { name: "on-failure".into(), max: again };
        if again == 0 {
            launch.restart.name = "no".into();
        }
        let (launched, stream) = fixture.attached(&mut launch);
        let pid: i32 = read_until(&stream, "\n")[8..].trim().parse().expect("the host's number");
        assert!(pid > 1 && pid != launched.pid);
        if !ends_itself {
            client::signal(&launch.dir, 9, true).expect("signals");
        }
        assert_eq!(wait_for_exit(&launch).code, if ends_itself { 3 } else { 137 });
        eventually("the other process ends too", || !is_alive(pid));
        assert_eq!(log_text(&launch).lines().count(), 1 + again as usize);
    }
}

fn a_user_namespace_s_user_has_its_streams(fixture: &Fixture) {
    let mut launch = fixture.shell("id -u; echo again > /dev/stdout; exit $?");
    crate::fixture::set_user(&mut launch, 33);
    change_linux(&mut launch, |linux| {
        linux["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        linux["uidMappings"] = map.clone();
        linux["gidMappings"] = map;
    });
    let (bytes, exit) = fixture.run(&mut launch);
    assert_eq!((output(&bytes, 1).as_str(), exit.code), ("33\nagain\n", 0), "{}", output(&bytes, 2));
}

fn limits_that_were_changed_hold_after_a_restart(fixture: &Fixture) {
    let mut launch = fixture.shell("read x; exit 1");
    launch.open_stdin = true;
    launch.restart = Restart { name: "always".into(), max: 0 };
    change_linux(&mut launch, |linux| linux["resources"] = json!({ "pids": { "limit": 50 } }));
    match fixture.launch(&launch) {
        Err(error) if error.to_string().contains("no cgroup controller") => return println!("    skipped: {error}"),
        launched => launched.expect("launches"),
    };
    let group = Group::open(&Hierarchies::detect().expect("hierarchies"), &launch.cgroup).expect("a path");
    assert_eq!(group.usage().pids_limit, 50);
    group.limit(&serde_json::from_str(r#"{"pids":{"limit":60}}"#).expect("limits")).expect("changes");
    let events = watch(&launch.dir);
    client::stdin_close(&launch.dir).expect("closes");
    while !matches!(next(&events), Some(Event::Started { .. })) {}
    assert_eq!(group.usage().pids_limit, 60);
    kill(&launch);
}

fn a_start_that_fails_later_is_the_end(fixture: &Fixture) {
    // It takes its own program away.
    let mut launch =
        fixture.shell("cat /bin/busybox > /tmp/b; exec 3< /tmp/b; : > /bin/sh.gone; /bin/busybox rm /bin/sh; exit 4");
    launch.restart = Restart { name: "always".into(), max: 0 };
    fixture.launch(&launch).expect("launches");
    let exit = wait_for_exit(&launch);
    assert_eq!(exit.code, 127, "{exit:?}");
    assert_eq!(exit.error, "exec: \"sh\": executable file not found in $PATH");
}

fn a_paused_container_is_left_in_peace(fixture: &Fixture) {
    let mut launch = fixture.container(&["sleep", "60"]);
    launch.health = Some(Health {
        test: vec!["CMD".into(), "true".into()],
        interval_ns: 20_000_000,
        timeout_ns: 1_000_000_000,
        start_period_ns: 0,
        start_interval_ns: 20_000_000,
        retries: 1,
        on_failure: "kill".into(),
        stop_signal: 15,
        stop_timeout_ns: None,
    });
    fixture.launch(&launch).expect("launches");
    let group = Group::open(&Hierarchies::detect().expect("hierarchies"), &launch.cgroup).expect("a path");
    let events = watch(&launch.dir);
    while !matches!(next(&events), Some(Event::Health(_))) {}
    if let Err(error) = group.freeze(true) {
        println!("    skipped: {error}");
        return kill(&launch);
    }
    // A probe that was on its way may have been caught; the monitor answers after it has timed out, or at once.
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    match run(&launch, &["true"]) {
        Err(error) => assert!(error.to_string().contains("paused"), "{error}"),
        Ok(_) => panic!("a paused container takes no exec"),
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    group.freeze(false).expect("thaws");
    assert_eq!(run(&launch, &["true"]).expect("runs"), 0);
    match next(&events) {
        Some(Event::Health(state)) => assert_eq!(state.status, "healthy"),
        other => panic!("unexpected: {other:?}"),
    }
    kill(&launch);
}

/// In each state in which a careless loop would turn round and round.
fn an_idle_monitor_sleeps(fixture: &Fixture) {
    let attach = |stdin| Attach { stdin, stdout: true, stderr: true, detach_keys: None };
    let mut launch = fixture.shell("exec sleep 60");
    launch.open_stdin = true;
    let launched = fixture.launch(&launch).expect("launches");
    let mut held = Vec::new();
    // A client whose input nobody takes, and which has gone; one that has half-closed; one that has gone.
    for (stdin, typed, half, gone) in
        [(true, 400_000, false, true), (false, 0, true, false), (false, 0, false, true), (true, 10, false, false)]
    {
        let (ours, theirs) = pair();
        client::attach(&launch.dir, &attach(stdin), theirs.as_fd()).expect("attaches");
        ours.set_nonblocking(true).expect("sets");
        let _ = (&ours).write(&vec![b'x'; typed]);
        if half {
            ours.shutdown(Shutdown::Write).expect("half-closes");
        }
        if !gone {
            held.push(ours);
        }
    }
    held.push(watch(&launch.dir));
    held.push(client::connect(&launch.dir).expect("connects"));
    std::thread::sleep(Duration::from_millis(100));
    let switches = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", launched.monitor_pid)).expect("reads");
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.map(|line| line.split_whitespace().nth(1).expect("a count").parse::<u64>().expect("a count")).sum()
    };
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", launched.monitor_pid)).expect("reads");
        stat.split_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum()
    };
    let (switched, ran) = (switches(), ticks());
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        switches() - switched <= 2 && ticks() - ran <= 1,
        "{} switches, {} ticks",
        switches() - switched,
        ticks() - ran
    );
    kill(&launch);
}

fn a_killed_monitor_s_place_can_be_taken(fixture: &Fixture) {
    let launch = fixture.container(&["sleep", "60"]);
    let launched = fixture.launch(&launch).expect("launches");
    let pid = rustix::process::Pid::from_raw(launched.monitor_pid).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
    eventually("nobody listens", || client::watch(&launch.dir).is_err());
    assert!(client::watch(&launch.dir).expect_err("gone").is_gone());
    assert!(launch.dir.join("monitor.sock").exists(), "a killed monitor leaves its socket");
    // What it has left runs on, until its place is taken.
    assert!(is_alive(launched.pid));
    fixture.launch(&launch).expect("launches again");
    assert!(!is_alive(launched.pid));
    kill(&launch);
    // As the engine does with what has lost its monitor.
    fs::remove_file(launch.state_dir.join("exit.json")).expect("removes");
    let launched = fixture.launch(&launch).expect("launches");
    let pid = rustix::process::Pid::from_raw(launched.monitor_pid).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kills");
    Group::open(&Hierarchies::detect().expect("hierarchies"), &launch.cgroup).expect("a path").kill().expect("kills");
    eventually("it ends", || !is_alive(launched.pid));
    fixture.launch(&launch).expect("launches again");
    kill(&launch);
}

fn paths_may_be_long(fixture: &Fixture) {
    let mut launch = fixture.container(&["sleep", "60"]);
    launch.dir = launch.dir.join("d".repeat(120));
    fixture.launch(&launch).expect("launches");
    drop(watch(&launch.dir));
    kill(&launch);
    eventually("the socket goes", || !launch.dir.join("monitor.sock").exists());
}

/// Not a check on memory of a debug build: printed so that a slip is seen.
fn what_a_monitor_weighs(fixture: &Fixture) {
    let launches: Vec<_> = (0..10)
        .map(|_| {
            let mut launch = fixture.container(&["sleep", "60"]);
            filter(&mut launch);
            let launched = fixture.launch(&launch).expect("launches");
            (launch, launched.monitor_pid)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    let pss = |pid: i32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("reads");
        let line = text.lines().find(|line| line.starts_with("Pss:")).expect("a size");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    let all: u64 = launches.iter().map(|(_, monitor)| pss(*monitor)).sum();
    println!("    PSS of an idle monitor: {} KiB", all / 10);
    launches.iter().for_each(|(launch, _)| kill(launch));
}

/// The section that the engine gives a container without a word about seccomp.
fn filter(launch: &mut Launch) {
    let section = wharf_seccomp::to_oci(&wharf_seccomp::docker_default(&["CAP_CHOWN", "CAP_KILL"]));
    change_linux(launch, |linux| linux["seccomp"] = section);
}

/// Not a check on time, which no test makes: printed so that a slip is seen.
fn the_time_with_docker_s_filter(fixture: &Fixture) {
    let mut launches = Vec::new();
    for _ in 0..30 {
        let mut launch = fixture.container(&["true"]);
        filter(&mut launch);
        let start = Instant::now();
        let (_, stream) = fixture.attached(&mut launch);
        launches.push(start.elapsed().as_micros());
        read_all(&stream);
        wait_for_exit(&launch);
    }
    let mut launch = fixture.container(&["sleep", "60"]);
    filter(&mut launch);
    fixture.launch(&launch).expect("launches");
    let mut execs: Vec<u128> = (0..30)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(run(&launch, &["true"]).expect("runs"), 0);
            start.elapsed().as_micros()
        })
        .collect();
    launches.sort_unstable();
    execs.sort_unstable();
    println!("    launch: median {} µs, fastest {} µs; exec: median {} µs", launches[15], launches[0], execs[15]);
    kill(&launch);
}
