//! `--init`: the first process is ours, and the container's program its child.

use crate::bundle::on_terminal;
use crate::canary::{exec, say, wharf};
use crate::kit::{Daemon, WHARF};

#[test]
fn orphans_are_reaped() {
    let Some(d) = Daemon::start() else { return };
    // Each leaves a grandchild, which becomes the init's.
    let script = "for i in $(seq 200); do (sleep 0 &) ; done; echo forked; sleep 1000";
    say(&d, &["run", "-d", "--init", "--name", "forks", "busybox", "sh", "-c", script]).ok();
    d.eventually("it has forked", || d.docker("logs forks").out.contains("forked"));
    let zombies = "grep -h ^State /proc/[0-9]*/status | grep -c Z";
    d.eventually("none is left", || exec(&d, "forks", zombies).out.trim() == "0");
    assert_eq!(exec(&d, "forks", "cat /proc/1/comm").ok(), "wharf-init");
    let children = exec(&d, "forks", "cat /proc/1/task/1/children").ok();
    assert_eq!(children.split_whitespace().count(), 1, "{children}");
    // Without one they stay: this one ends when the shell, which would have waited for it, is another program.
    let script = "(sleep 2 &); exec sleep 1000";
    say(&d, &["run", "-d", "--name", "alone", "busybox", "sh", "-c", script]).ok();
    d.eventually("it stays", || exec(&d, "alone", zombies).out.trim() == "1");
}

/// All that can be caught: not KILL and STOP, nor CHLD, which the init gets of its own.
/// But for those that a first process gets for its own mistakes and its terminal.
const SIGNALS: &str = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM STKFLT CONT TSTP URG XCPU XFSZ VTALRM PROF WINCH IO PWR";

#[test]
fn signals_reach_the_program() {
    let Some(d) = Daemon::start() else { return };
    let traps: String = SIGNALS.split_whitespace().map(|name| format!("trap 'echo got {name}' {name}; ")).collect();
    let script = format!("{traps} echo ready; while :; do sleep 0.05; done");
    for options in [&["--init"][..], &["--init", "-t"]] {
        say(&d, &[&["run", "-d", "--name", "traps"], options, &["busybox", "sh", "-c", &script]].concat()).ok();
        d.eventually("it is ready", || d.docker("logs traps").out.contains("ready"));
        for name in SIGNALS.split_whitespace() {
            d.docker(&format!("kill -s {name} traps")).ok();
            d.eventually(name, || d.docker("logs traps").out.contains(&format!("got {name}")));
        }
        d.docker("rm -f traps").ok();
    }
}

#[test]
fn the_container_s_code_is_the_program_s() {
    let Some(d) = Daemon::start() else { return };
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
        ("(sleep 1000 &); exit 3", 3),
    ] {
        assert_eq!(say(&d, &["run", "--rm", "--init", "busybox", "sh", "-c", script]).code, code, "{script}");
    }
    assert_eq!(say(&d, &["run", "--rm", "--init", "busybox", "nosuch"]).code, 127);
    assert_eq!(say(&d, &["run", "--rm", "--init", "busybox", "/etc"]).code, 126);
    say(&d, &["run", "-d", "--init", "--name", "stops", "busybox", "sleep", "1000"]).ok();
    d.docker("stop -t 20 stops").ok();
    assert_eq!(d.docker("inspect -f {{.State.ExitCode}} stops").ok(), "143");
    // By the daemon's own word, for all.
    let said = wharf(&d, &["run", "--rm", "--init=false", "busybox", "cat", "/proc/1/comm"]).ok();
    assert_eq!(said, "cat");
}

#[test]
fn a_terminal_is_the_program_s() {
    let Some(d) = Daemon::start() else { return };
    let client = d.client();
    let line = format!(
        "{} {} run --rm --init -it busybox sh -c 'tty; echo $$; ps -o pid,comm | grep -c wharf-init; kill -INT 0; sleep 1; echo no'",
        client.get_program().to_string_lossy(),
        client.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    let said = on_terminal(&line);
    let shown = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(shown.contains("/dev/pts/0") || shown.contains("/dev/console"), "{shown}");
    assert!(shown.contains("\n2\r\n1\r\n"), "{shown}");
    assert!(!shown.contains("no\r\n"), "{shown}");
    assert_eq!(said.status.code(), Some(130));
}

/// It is no file of the container's: nothing there decides what runs as the first process.
#[test]
fn the_init_is_not_the_container_s_to_replace() {
    let Some(d) = Daemon::start() else { return };
    let before = std::fs::read(WHARF).unwrap();
    let tree = |root: &std::path::Path| {
        for name in
            ["sbin/docker-init", "sbin/init", "init", "dev/init", "usr/bin/docker-init", "bin/wharf", "bin/wharf-init"]
        {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "#!/bin/sh\necho replaced\n").unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
    };
    crate::image::load(&d, "replaces", tree, |_| {}).ok();
    assert_eq!(say(&d, &["run", "--rm", "--init", "replaces", "cat", "/proc/1/comm"]).ok(), "wharf-init");
    say(&d, &["run", "-d", "--init", "--cap-add", "SYS_PTRACE", "--name", "init", "replaces", "sleep", "1000"]).ok();
    let tries = "cat /bin/busybox > /proc/1/exe; cp /bin/busybox /proc/1/exe; echo x > /proc/1/mem; tr -d '\\0' < /proc/1/environ; true";
    let said = exec(&d, "init", tries);
    assert_eq!(said.out.replace("HOSTNAME=", " ").split(' ').next(), Some("PATH=/bin"), "{}", said.out);
    assert!(!said.out.contains("wharf"), "it shows what the daemon was started with: {}", said.out);
    assert_eq!(std::fs::read(WHARF).unwrap(), before);
    let shown = exec(&d, "init", "tr '\\0' ' ' < /proc/1/cmdline").ok();
    assert_eq!(shown.trim(), "/sbin/docker-init -- sleep 1000");
}

/// Images log to `/proc/1/fd/1` and read the environment of the first process, as cron's do.
#[test]
fn it_is_looked_at_as_any_first_process_and_not_written_to() {
    let Some(d) = Daemon::start() else { return };
    let look = "echo out > /proc/1/fd/1; tr '\\0' '\\n' < /proc/1/environ | grep ^A=; tr '\\0' ' ' < /proc/1/cmdline; echo; \
                ls /proc/1/fd | tr '\\n' ' '; echo; (: >> /proc/1/exe) 2>/dev/null || echo kept";
    let run = |options: &[&str]| {
        say(&d, &[&["run", "--rm", "--init", "-e", "A=b"], options, &["busybox", "sh", "-c", look]].concat())
    };
    let profile = d.path().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["execveat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    let own = format!("seccomp={}", profile.display());
    for options in [&[][..], &["-u", "web"], &["--privileged"], &["--security-opt", "no-new-privileges"]] {
        let said = run(options).ok();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["out", "A=b"], "{options:?}: {said}");
        assert!(lines[2].starts_with("/sbin/docker-init -- sh -c echo"), "{options:?}: {said}");
        assert_eq!(lines[3..], ["0 1 2 ", "kept"], "{options:?}: {said}");
    }
    // A filter that forbids it to become a program, or what that calls on its way, leaves the copy, which nobody looks into.
    for names in ["execveat", "poll", "rt_sigaction", "pidfd_open\",\"pidfd_send_signal"] {
        for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{names}"],"action":"{action}"}}]}}"#
            );
            std::fs::write(&profile, text).unwrap();
            let script = "grep -q wharf-init /proc/1/comm && exit 9";
            let busybox = ["busybox", "sh", "-c", script];
            let said = say(&d, &[&["run", "--rm", "--init", "--security-opt", &own][..], &busybox].concat());
            // busybox itself may need it.
            let alone = say(&d, &["run", "--rm", "--security-opt", &own, "busybox", "sh", "-c", "exit 7"]);
            assert!(alone.code != 7 || said.code == 9, "{names} {action}: {} {} {}", said.code, said.out, said.err);
        }
    }
    // Who shares the host's processes has none, as with Docker.
    assert_eq!(say(&d, &["run", "--rm", "--init", "--pid", "host", "busybox", "echo", "ran"]).ok(), "ran");
    let called =
        std::process::Command::new("bash").args(["-c", &format!("exec -a docker-init {WHARF} 3<&-")]).output().unwrap();
    let words = String::from_utf8_lossy(&called.stderr).into_owned();
    assert!(called.status.code() == Some(125) && words.contains("started by Wharf alone"), "{words}");
}
