//! What was acknowledged is so, whoever is killed.

use std::time::Duration;

use crate::kit::{Daemon, Said};

fn status(d: &Daemon, name: &str) -> String {
    d.docker(&format!("inspect -f {{{{.State.Status}}}} {name}")).ok()
}

#[test]
fn the_user_s_last_word_survives_the_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    let run = |d: &Daemon, name: &str| {
        d.docker(&format!("run -d --network none --restart unless-stopped --name {name} busybox sleep 1000")).ok()
    };
    for gently in [true, false] {
        for name in ["killed", "paused", "resumed"] {
            run(&d, name);
        }
        d.docker("kill killed").ok();
        d.docker("pause paused").ok();
        d.docker("pause resumed").ok();
        d.docker("unpause resumed").ok();
        if gently {
            d.stop()
        } else {
            d.kill()
        }
        d.launch();
        // What its policy wanted to run would run by then.
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(status(&d, "killed"), "exited");
        assert_eq!(status(&d, "paused"), "paused");
        assert_eq!(status(&d, "resumed"), "running");
        d.docker("unpause paused").ok();
        assert_eq!(d.docker("exec paused echo awake").ok(), "awake");
        d.docker("pause paused").ok();
        d.docker("rm -f killed paused resumed").ok();
    }
}

#[test]
fn a_killed_daemon_leaves_nothing_frozen_that_nobody_has_paused() {
    let Some(mut d) = Daemon::start() else { return };
    let script = "head -c 120000000 /dev/urandom > /big; echo ready; sleep 1000";
    let begun =
        d.client().args(["run", "-d", "--network", "none", "--name", "big", "busybox", "sh", "-c", script]).output();
    Said::from(begun.unwrap()).ok();
    d.eventually("it has written", || d.docker("logs big").out.contains("ready"));
    let commit = |d: &Daemon| {
        let mut client = d.client();
        client.args(["commit", "big", "image"]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        client.spawn().unwrap()
    };
    let mut client = commit(&d);
    d.eventually("it is paused for the commit", || status(&d, "big") == "paused");
    d.kill();
    let _ = client.wait();
    d.launch();
    assert_eq!(status(&d, "big"), "running");
    assert_eq!(d.docker("exec big echo awake").ok(), "awake");
    // One that is told to stop leaves nothing to be thawed by the next one.
    let pid: u32 = d.docker("inspect -f {{.State.Pid}} big").ok().parse().unwrap();
    let mut client = commit(&d);
    d.eventually("it is paused for the commit", || status(&d, "big") == "paused");
    d.stop();
    let _ = client.wait();
    let stopped = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // proc(5): a process in a freezer's hands is in an uninterruptible wait (v1).
    assert!(!stopped.contains(") D "), "{stopped}");
    d.launch();
    assert_eq!(status(&d, "big"), "running");
    // A kill does not wait for the end of a commit, and the commit comes to its end without the container.
    let mut client = commit(&d);
    d.eventually("it is paused for the commit", || status(&d, "big") == "paused");
    d.docker("kill big").ok();
    assert_eq!(status(&d, "big"), "exited");
    assert!(client.wait().unwrap().success());
    assert_eq!(d.docker("inspect -f {{.State.ExitCode}} big").ok(), "137");
}

#[test]
fn a_killed_monitor_does_not_end_what_is_always_to_run() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --network none --restart always --name again busybox sleep 1000").ok();
    let pid = || d.docker("inspect -f {{.State.Pid}} again").ok();
    let before = pid();
    let stat = std::fs::read_to_string(format!("/proc/{before}/stat")).unwrap();
    // proc(5): the number of the parent is the second field after the name.
    let monitor = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    d.eventually("it runs again", || pid() != before && status(&d, "again") == "running");
    d.docker("stop -t 0 again").ok();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(status(&d, "again"), "exited");
}

#[test]
fn the_time_of_a_start_is_known_afterwards() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --network none --name short busybox sleep 0.5").ok();
    d.kill();
    std::thread::sleep(Duration::from_secs(1));
    d.launch();
    assert_eq!(status(&d, "short"), "exited");
    let started = d.docker("inspect -f {{.State.StartedAt}} short").ok();
    assert!(!started.starts_with("0001"), "{started}");
}

#[test]
fn two_daemons_do_not_share_an_exec_root() {
    let Some(d) = Daemon::start() else { return };
    let other = tempfile::tempdir().unwrap();
    let mut second = std::process::Command::new(crate::kit::WHARF);
    second.arg("daemon").arg("-H").arg(format!("unix://{}/s.sock", other.path().display()));
    second.arg("--data-root").arg(other.path().join("data")).arg("--exec-root").arg(d.path().join("run"));
    let said = Said::from(second.args(["--pidfile", "/dev/null"]).output().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("exec root") && said.err.contains("is in use by process"), "{}", said.err);
}

#[test]
fn a_client_that_leaves_leaves_no_half_a_container() {
    let Some(d) = Daemon::start() else { return };
    for n in 0..20 {
        d.post("/containers/create", r#"{"Image":"busybox","Cmd":["true"]}"#, false);
        std::thread::sleep(Duration::from_millis(n % 5));
    }
    let directories = || std::fs::read_dir(d.data().join("containers")).unwrap().count();
    d.eventually("every directory is a container's", || {
        let known = d.docker("ps -aq").ok().lines().count();
        std::thread::sleep(Duration::from_millis(100));
        known == directories()
    });
}
