//! Probes, and what is done about their results.

use wharf_monitor::client::{self, Event};
use wharf_monitor::{Health, HealthState, Launch, Restart};

use crate::Case;
use crate::fixture::{Fixture, next, wait_for_exit, watch};

pub(crate) const CASES: &[Case] = &[
    ("probes_count_and_are_told", probes_count_and_are_told),
    ("a_probe_that_hangs_is_killed", a_probe_that_hangs_is_killed),
    ("a_probe_that_is_stopped_on_its_way_is_told", a_probe_that_is_stopped_on_its_way_is_told),
    ("what_is_unhealthy_is_ended_or_started_again", what_is_unhealthy_is_ended_or_started_again),
];

const MS: u64 = 1_000_000;

fn probed(fixture: &Fixture, script: &str, test: &str, on_failure: &str) -> Launch {
    let mut launch = fixture.shell(script);
    launch.health = Some(Health {
        test: vec!["CMD-SHELL".into(), test.into()],
        interval_ns: 30 * MS,
        timeout_ns: 500 * MS,
        start_period_ns: 0,
        start_interval_ns: 30 * MS,
        retries: 2,
        on_failure: on_failure.into(),
        stop_signal: 15,
        stop_timeout_ns: Some(10_000 * MS),
    });
    launch
}

fn health(stream: &std::os::unix::net::UnixStream, until: impl Fn(&HealthState) -> bool) -> HealthState {
    loop {
        match next(stream).expect("goes on") {
            Event::Health(state) if until(&state) => return state,
            Event::Health(_) | Event::State(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn probes_count_and_are_told(fixture: &Fixture) {
    let test = "echo $MARK; test -e /tmp/well || exit 4";
    let launch = probed(fixture, "sleep 60", test, "none");
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    let Some(Event::State(state)) = next(&events) else { panic!("the state comes first") };
    assert_eq!(state.health.expect("has probes").status, "starting");
    let ill = health(&events, |state| state.status == "unhealthy");
    assert_eq!(ill.failing_streak, 2);
    assert_eq!((ill.log[0].exit_code, ill.log[0].output.as_str()), (4, "seen\n"));
    std::fs::create_dir_all(launch.state_dir.join("upper/tmp")).expect("is there");
    let well = client::ExecRequest {
        id: "touch".into(),
        process: {
            let mut process = launch.spec.process().clone().expect("a process");
            process.set_args(Some(["sh", "-c", ": > /tmp/well"].map(str::to_owned).to_vec()));
            process
        },
        stdin: false,
        stdout: false,
        stderr: false,
        detach_keys: None,
        note: Default::default(),
    };
    assert_eq!(client::exec(&launch.dir, &well, None).expect("runs").wait().expect("ends"), 0);
    let well = health(&events, |state| state.status == "healthy");
    assert_eq!(well.failing_streak, 0);
    let full = health(&events, |state| state.log.len() == 5);
    assert!(full.log[0].start <= full.log[4].start && full.log[4].start <= full.log[4].end);
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(&launch);
    assert!(crate::fixture::log(&launch).is_empty(), "probes write no log");
}

fn a_probe_that_hangs_is_killed(fixture: &Fixture) {
    let launch = probed(fixture, "sleep 60", "echo waiting; sleep 50", "none");
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    let state = health(&events, |state| !state.log.is_empty());
    assert_eq!(state.log[0].exit_code, -1);
    assert_eq!(state.log[0].output, "Health check exceeded timeout (500ms): waiting\n");
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(&launch);

    // Cut after 4096 bytes.
    let launch = probed(fixture, "sleep 60", "head -c 10000 /dev/zero | tr '\\0' x", "none");
    fixture.launch(&launch).expect("launches");
    let state = health(&watch(&launch.dir), |state| !state.log.is_empty());
    assert_eq!(state.log[0].output, "x".repeat(4096) + "...");
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(&launch);
}

fn a_probe_that_is_stopped_on_its_way_is_told(fixture: &Fixture) {
    let script = "while :; do for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p -gt 1 ] && kill -STOP $p; done; done";
    let launch = probed(fixture, script, "true", "none");
    fixture.launch(&launch).expect("launches");
    let events = watch(&launch.dir);
    // Some are faster than the container does its work.
    let told = |state: &HealthState| state.log.iter().any(|probe| probe.output.contains("come to its next step"));
    let state = health(&events, told);
    let probe = state.log.iter().find(|probe| probe.output.contains("come to its next step")).expect("is there");
    assert!(probe.exit_code == -1 && probe.output.starts_with("OCI runtime exec failed: "), "{probe:?}");
    client::signal(&launch.dir, 9, true).expect("signals");
    wait_for_exit(&launch);
}

fn what_is_unhealthy_is_ended_or_started_again(fixture: &Fixture) {
    let obedient = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
    let mut stopped = probed(fixture, obedient, "false", "stop");
    // Its policy would start it again: who says stop means it.
    stopped.restart = Restart { name: "always".into(), max: 0 };
    fixture.launch(&stopped).expect("launches");
    assert_eq!(wait_for_exit(&stopped).code, 5);

    let killed = probed(fixture, obedient, "false", "kill");
    fixture.launch(&killed).expect("launches");
    assert_eq!(wait_for_exit(&killed).code, 137);

    let restarted = probed(fixture, obedient, "false", "restart");
    fixture.launch(&restarted).expect("launches");
    let events = watch(&restarted.dir);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match next(&events).expect("goes on") {
            Event::Exited { exit, restarting } => seen.push((exit.code, restarting)),
            Event::Started { restart_count, .. } => seen.push((i32::try_from(restart_count).expect("small"), false)),
            _ => {}
        }
    }
    assert_eq!(seen, [(5, true), (1, false)]);
    client::signal(&restarted.dir, 9, true).expect("signals");
    wait_for_exit(&restarted);
}
