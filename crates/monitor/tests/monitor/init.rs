//! The init of our own.

use wharf_monitor::client;

use crate::Case;
use crate::fixture::{Fixture, log_text, output, read_all, read_until, set_terminal, set_user, wait_for_exit};

pub(crate) const CASES: &[Case] = &[
    ("an_init_ends_as_its_program_and_reaps", an_init_ends_as_its_program_and_reaps),
    ("an_init_passes_signals_on", an_init_passes_signals_on),
    ("an_init_holds_nothing_and_may_nothing", an_init_holds_nothing_and_may_nothing),
    ("an_init_leaves_the_terminal_to_its_program", an_init_leaves_the_terminal_to_its_program),
    ("an_init_s_failures_are_the_program_s", an_init_s_failures_are_the_program_s),
];

fn an_init_ends_as_its_program_and_reaps(fixture: &Fixture) {
    // Two orphans end, the program looks for what is left of them, and goes.
    let script = "(sleep 0.05 & sleep 0.05 &) ; sleep 0.3; cat /proc/[0-9]*/stat | while read a b c d; do \
                  case $c in Z) echo zombie $b;; esac; done; cat /proc/1/comm; echo $$; exit 11";
    let mut launch = fixture.shell(script);
    launch.init = true;
    let (bytes, exit) = fixture.run(&mut launch);
    assert_eq!(output(&bytes, 1), "wharf-init\n2\n");
    assert_eq!(exit.code, 11);
    let mut launch = fixture.shell("kill -9 $$");
    launch.init = true;
    fixture.launch(&launch).expect("launches");
    assert_eq!(wait_for_exit(&launch).code, 137);
    // What it leaves behind ends with it.
    let mut launch = fixture.shell("sleep 60 & exit 0");
    launch.init = true;
    fixture.launch(&launch).expect("launches");
    assert_eq!(wait_for_exit(&launch).code, 0);
}

fn an_init_passes_signals_on(fixture: &Fixture) {
    let script =
        "trap 'echo usr1' USR1; trap 'echo rt' 40; trap 'exit 12' TERM; echo ready; while :; do sleep 0.02; done";
    let mut launch = fixture.shell(script);
    launch.init = true;
    let (_, stream) = fixture.attached(&mut launch);
    read_until(&stream, "ready");
    client::signal(&launch.dir, 10, false).expect("signals");
    read_until(&stream, "usr1");
    client::signal(&launch.dir, 40, false).expect("signals");
    read_until(&stream, "rt");
    client::signal(&launch.dir, 15, true).expect("signals");
    read_all(&stream);
    assert_eq!(wait_for_exit(&launch).code, 12);
    // A program without a handler, which as the first process would not be ended by this.
    let mut plain = fixture.container(&["sleep", "60"]);
    plain.init = true;
    fixture.launch(&plain).expect("launches");
    client::signal(&plain.dir, 15, true).expect("signals");
    assert_eq!(wait_for_exit(&plain).code, 143);
}

fn an_init_holds_nothing_and_may_nothing(fixture: &Fixture) {
    let script = "cat /proc/1/status | while read k v; do case $k in Uid:|Cap*|NoNewPrivs:|Seccomp:) echo $k $v;; esac; done; \
                  echo; cat /proc/self/status | while read k v; do case $k in Uid:|Cap*|NoNewPrivs:|Seccomp:) echo $k $v;; esac; done; \
                  echo; cat /proc/1/exe 2>&1 | head -c 200; cat /proc/1/fd/1 2>&1; cat /proc/1/environ 2>&1; cat /proc/1/maps 2>&1; tr '\\0' ' ' < /proc/1/cmdline";
    for user in [0, 1000] {
        let mut launch = fixture.shell(script);
        launch.init = true;
        set_user(&mut launch, user);
        let mut linux = launch.spec.linux().clone().expect("a section");
        let filter = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        linux.set_seccomp(Some(serde_json::from_str(filter).expect("a filter")));
        launch.spec.set_linux(Some(linux));
        let (bytes, exit) = fixture.run(&mut launch);
        let text = output(&bytes, 1);
        let parts: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(parts[0], parts[1], "confined as the program is");
        assert!(parts[0].contains("Seccomp: 2"), "{text}");
        // Nobody looks into it, not even the container's root.
        assert_eq!(parts[2].matches("ermission denied").count(), 4, "{text}");
        // What is seen of it says nothing of the host.
        assert!(!parts[2].contains("monitor-"), "{text}");
        assert!(exit.error.is_empty());
    }
}

fn an_init_leaves_the_terminal_to_its_program(fixture: &Fixture) {
    let mut launch = fixture.shell("trap 'echo interrupted; exit 13' INT; echo ready; while :; do sleep 0.02; done");
    launch.init = true;
    launch.open_stdin = true;
    set_terminal(&mut launch);
    let (_, stream) = fixture.attached(&mut launch);
    read_until(&stream, "ready");
    std::io::Write::write_all(&mut &stream, b"\x03").expect("types");
    read_until(&stream, "interrupted");
    assert_eq!(wait_for_exit(&launch).code, 13);
    assert!(log_text(&launch).contains("interrupted"));
}

fn an_init_s_failures_are_the_program_s(fixture: &Fixture) {
    for (args, code) in [(&["nothing-there"][..], 127), (&["/bin/plain"], 126)] {
        let mut launch = fixture.container(args);
        launch.init = true;
        let error = fixture.launch(&launch).expect_err("fails");
        assert_eq!(error.exit_code(), code, "{error}");
    }
}
