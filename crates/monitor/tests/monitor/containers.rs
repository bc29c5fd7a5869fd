//! Launching, and what a launch that fails leaves.

use std::fs;
use std::time::Instant;

use wharf_cgroup::{Group, Hierarchies};
use wharf_monitor::{Given, client};

use crate::Case;
use crate::fixture::{Fixture, eventually, is_alive, log, output, set_user, wait_for_exit};

pub(crate) const CASES: &[Case] = &[
    ("a_container_runs_and_its_end_is_written_down", a_container_runs_and_its_end_is_written_down),
    ("failures_have_docker_s_codes_and_leave_nothing", failures_have_docker_s_codes_and_leave_nothing),
    ("a_container_sees_nothing_of_its_monitor", a_container_sees_nothing_of_its_monitor),
    ("a_user_can_open_its_own_streams_again", a_user_can_open_its_own_streams_again),
    ("fifty_launches_leave_nothing", fifty_launches_leave_nothing),
    ("eight_at_a_time", eight_at_a_time),
    ("a_container_can_be_started_again_at_once", a_container_can_be_started_again_at_once),
    ("the_time_of_a_launch", the_time_of_a_launch),
];

fn a_container_runs_and_its_end_is_written_down(fixture: &Fixture) {
    let mut launch = fixture.shell("echo out; echo err >&2; exit 7");
    let (bytes, exit) = fixture.run(&mut launch);
    assert_eq!((output(&bytes, 1).as_str(), output(&bytes, 2).as_str()), ("out\n", "err\n"));
    assert_eq!((exit.code, exit.oom_killed, exit.error.as_str()), (7, false, ""));
    assert!(exit.started_at < exit.finished_at, "{exit:?}");
    let mut lines = log(&launch);
    lines.sort();
    assert_eq!(lines, [("stderr".into(), "err\n".into()), ("stdout".into(), "out\n".to_owned())]);
    eventually("the socket goes", || !launch.dir.join("monitor.sock").exists());
    assert!(client::watch(&launch.dir).expect_err("nobody is there").is_gone());
    let mut killed = fixture.shell("kill -9 $$; sleep 5");
    // The first process of a PID namespace cannot kill itself.
    killed.spec.set_process(fixture.shell("exec sleep 30").spec.process().clone());
    fixture.launch(&killed).expect("launches");
    client::signal(&killed.dir, 9, false).expect("signals");
    assert_eq!(wait_for_exit(&killed).code, 137);
}

fn failures_have_docker_s_codes_and_leave_nothing(fixture: &Fixture) {
    let hierarchies = Hierarchies::detect().expect("hierarchies");
    let mut missing = fixture.container(&["true"]);
    missing.spec.set_mounts(Some(
        serde_json::from_str(r#"[{"destination":"/x","type":"bind","source":"/does/not/exist","options":["bind"]}]"#)
            .expect("a list"),
    ));
    let mut driver = fixture.container(&["true"]);
    driver.log.as_mut().expect("a log").driver = "syslog".into();
    for (launch, code, message) in [
        (fixture.container(&["nothing-there"]), 127, "exec: \"nothing-there\": executable file not found in $PATH"),
        (fixture.container(&["/no/such"]), 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
        (fixture.container(&["/bin/plain"]), 126, "exec: \"/bin/plain\": permission denied"),
        (fixture.container(&["/etc"]), 126, "exec: \"/etc\": permission denied"),
        (missing, 125, "/does/not/exist"),
        (driver, 125, "syslog"),
    ] {
        let error = fixture.launch(&launch).expect_err("must fail");
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        // At once, not some time later.
        let group = Group::open(&hierarchies, &launch.cgroup).expect("a path");
        assert!(group.directories().iter().all(|dir| !dir.exists()), "a group is left after: {error}");
        assert!(!launch.dir.join("monitor.sock").exists());
        assert!(!launch.state_dir.join("exit.json").exists());
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!mounts.contains(fixture.dir.path().to_str().expect("text")), "{mounts}");
}

fn a_container_sees_nothing_of_its_monitor(fixture: &Fixture) {
    let script = "ls /proc/self/fd; cat /proc/self/oom_score_adj; cat /proc/self/status | while read k v; do \
                  case $k in SigBlk:|SigIgn:) echo $k $v;; esac; done; cat /proc/1/comm";
    let mut launch = fixture.shell(script);
    let (launched, stream) = fixture.attached(&mut launch);
    assert_ne!(launched.pid, launched.monitor_pid);
    let bytes = crate::fixture::read_all(&stream);
    let text = output(&bytes, 1);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["0", "1", "2", "3"], "3 is the directory that ls itself reads: {text}");
    assert_eq!(words[4], "0", "the score is not its monitor's");
    assert!(text.contains("SigBlk: 0000000000000000\n"), "{text}");
    // 32 and 33 are the C library's own, whatever this test's caller has done to them.
    let ignored = text.lines().find_map(|line| line.strip_prefix("SigIgn: ")).expect("a mask");
    assert_eq!(u64::from_str_radix(ignored, 16).expect("a number") & !(3 << 31), 0, "{text}");
    assert_eq!(wait_for_exit(&launch).code, 0);
}

fn a_user_can_open_its_own_streams_again(fixture: &Fixture) {
    for terminal in [false, true] {
        let mut launch = fixture.shell("id -u; echo again > /dev/stdout && echo error > /proc/self/fd/2; exit $?");
        set_user(&mut launch, 1000);
        if terminal {
            crate::fixture::set_terminal(&mut launch);
        }
        let (bytes, exit) = fixture.run(&mut launch);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("1000") && text.contains("again") && text.contains("error"), "{text}");
        assert_eq!(exit.code, 0, "{text}");
    }
}

fn fifty_launches_leave_nothing(fixture: &Fixture) {
    let launches: Vec<_> = (0..50)
        .map(|n| {
            let launch = fixture.shell(&format!("exit {}", n % 5));
            let launched = fixture.launch(&launch).expect("launches");
            (launch, launched.monitor_pid)
        })
        .collect();
    for (n, (launch, _)) in launches.iter().enumerate() {
        assert_eq!(wait_for_exit(launch).code, i32::try_from(n % 5).expect("small"));
    }
    let hierarchies = Hierarchies::detect().expect("hierarchies");
    for (launch, monitor) in &launches {
        let group = Group::open(&hierarchies, &launch.cgroup).expect("a path");
        eventually("the group goes", || group.directories().iter().all(|dir| !dir.exists()));
        let left: Vec<_> = fs::read_dir(&launch.dir).expect("lists").collect();
        assert!(left.is_empty(), "{left:?}");
        let process = std::path::PathBuf::from(format!("/proc/{monitor}"));
        eventually("the monitor goes, and is no zombie", || !process.exists());
    }
}

fn eight_at_a_time(fixture: &Fixture) {
    let launches: Vec<_> = (0..32).map(|_| fixture.shell("echo $MARK")).collect();
    let start = Instant::now();
    let spawner = fixture.spawner();
    std::thread::scope(|scope| {
        for part in launches.chunks(4) {
            let spawner = &*spawner;
            scope.spawn(move || {
                for launch in part {
                    spawner.launch(launch, &Given::default(), &[]).expect("launches");
                }
            });
        }
    });
    let started = start.elapsed();
    for launch in &launches {
        assert_eq!(wait_for_exit(launch).code, 0);
        assert_eq!(log(launch), [("stdout".to_owned(), "seen\n".to_owned())]);
    }
    println!("    32 containers, 8 at a time, in {started:?}");
}

/// The monitor of the last run is still removing what it had.
fn a_container_can_be_started_again_at_once(fixture: &Fixture) {
    let launch = fixture.shell("echo run");
    for n in 1..=5 {
        let launched = fixture.launch(&launch).expect("launches");
        wait_for_exit(&launch);
        fs::remove_file(launch.state_dir.join("exit.json")).expect("removes");
        assert_eq!(log(&launch).len(), n);
        assert!(launched.monitor_pid > 0);
    }
    let running = fixture.container(&["sleep", "30"]);
    let launched = fixture.launch(&running).expect("launches");
    client::signal(&running.dir, 9, true).expect("signals");
    wait_for_exit(&running);
    eventually("the monitor goes", || !is_alive(launched.monitor_pid));
}

/// Not a check on time, which no test makes: printed so that a slip is seen.
fn the_time_of_a_launch(fixture: &Fixture) {
    let mut times = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..30 {
        let mut launch = fixture.container(&["true"]);
        let start = Instant::now();
        let (_, stream) = fixture.attached(&mut launch);
        times.push(start.elapsed().as_micros());
        crate::fixture::read_all(&stream);
        ends.push(start.elapsed().as_micros());
        assert_eq!(wait_for_exit(&launch).code, 0);
    }
    times.sort_unstable();
    ends.sort_unstable();
    println!("    launch: median {} µs, fastest {} µs; to the end: median {} µs", times[15], times[0], ends[15]);
}
