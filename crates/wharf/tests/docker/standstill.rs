//! What does not get on, because something has stopped it, holds up nobody who wants its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{Daemon, Said};

const PATIENCE: Duration = Duration::from_secs(60);

/// The processes in the groups of a daemon's containers, with the directory of each.
fn processes(d: &Daemon) -> Vec<(PathBuf, Pid)> {
    let top = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
    let top = top.into_iter().map(|top| Path::new(top).join(d.group())).find(|top| top.exists());
    let groups = top.and_then(|top| std::fs::read_dir(top).ok()).into_iter().flatten().flatten();
    let mut all = Vec::new();
    for group in groups.map(|group| group.path()) {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        all.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).map(|pid| (group.clone(), pid)));
    }
    all
}

/// Stops whatever comes into a container's group and is not its program yet, and answers when it has caught one.
fn catch(d: &Daemon, until: &AtomicBool) -> bool {
    while !until.load(Ordering::SeqCst) {
        for (_, pid) in processes(d) {
            let exe = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap_or_default();
            if exe.ends_with("busybox") || kill_process(pid, Signal::STOP).is_err() {
                continue;
            }
            let exe = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap_or_default();
            if !exe.as_os_str().is_empty() && !exe.ends_with("busybox") {
                return true;
            }
            // It has become its program meanwhile.
            let _ = kill_process(pid, Signal::CONT);
        }
    }
    false
}

/// Runs in a thread of its own: what hangs must not hang the test.
fn ask(d: &Daemon, words: &[&str]) -> Receiver<Said> {
    let (tell, told) = std::sync::mpsc::channel();
    let mut client = d.client();
    client.args(words);
    std::thread::spawn(move || tell.send(Said::from(client.output().unwrap())));
    told
}

/// A container whose start was stopped on its way, and what its client waits for.
fn held(d: &Daemon, options: &[&str]) -> (String, Receiver<Said>) {
    for number in 0..100 {
        let name = format!("held-{number}");
        let done = AtomicBool::new(false);
        let caught = std::thread::scope(|scope| {
            let catcher = scope.spawn(|| catch(d, &done));
            let words = [&["run", "-d", "--name", &name][..], options, &["busybox", "sleep", "1000"]].concat();
            let told = ask(d, &words);
            let begun = Instant::now();
            let mut answer = None;
            while answer.is_none() && !catcher.is_finished() {
                assert!(begun.elapsed() < PATIENCE, "neither runs nor is stopped");
                answer = told.recv_timeout(Duration::from_millis(1)).ok();
            }
            done.store(true, Ordering::SeqCst);
            match answer {
                None => catcher.join().unwrap().then_some(told),
                Some(said) => {
                    let _ = said.ok();
                    None
                }
            }
        });
        // It may have been said before it was stopped that it runs.
        if let Some(told) = caught
            && told.recv_timeout(Duration::from_millis(500)).is_err()
        {
            return (name, told);
        }
        d.docker(&format!("rm -f {name}")).ok();
    }
    panic!("none was slow enough to be stopped on its way");
}

#[test]
fn a_start_that_makes_no_progress_is_called_off() {
    let Some(d) = Daemon::start() else { return };
    for end in [&["stop"][..], &["rm", "-f"]] {
        let (name, told) = held(&d, &[]);
        ask(&d, &[end, &[&name]].concat()).recv_timeout(PATIENCE).expect("is not held up").ok();
        let said = told.recv_timeout(PATIENCE).expect("has an answer");
        assert!(said.code == 125 && said.err.contains("it was called off"), "{end:?}: {}", said.err);
        assert_eq!(processes(&d), []);
        if end[0] == "stop" {
            // Nothing of it is in the way.
            d.docker(&format!("start {name}")).ok();
            d.docker(&format!("rm -f {name}")).ok();
        }
    }
}

#[test]
fn who_removes_by_force_waits_for_no_stop() {
    let Some(d) = Daemon::start() else { return };
    d.client()
        .args(["run", "-d", "--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; echo up; sleep 1000"])
        .output()
        .unwrap();
    d.eventually("it hears nothing", || d.docker("logs deaf").out == "up\n");
    let stop = ask(&d, &["stop", "-t", "1000", "deaf"]);
    d.eventually("it was asked to stop", || {
        d.docker("events --since 1h --until 0s --filter event=kill").out.contains("signal=15")
    });
    ask(&d, &["rm", "-f", "deaf"]).recv_timeout(PATIENCE).expect("is not held up").ok();
    stop.recv_timeout(PATIENCE).expect("has an answer").ok();
}

#[test]
fn a_start_outlives_its_daemon_and_can_be_called_off() {
    let Some(mut d) = Daemon::start() else { return };
    let state = |d: &Daemon, name: &str| d.docker(&format!("inspect -f {{{{.State.Status}}}} {name}")).ok();
    for end in ["", "stop", "rm -f"] {
        let (name, told) = held(&d, &["--restart", "always"]);
        d.kill();
        d.launch();
        told.recv_timeout(PATIENCE).expect("has an answer");
        assert_eq!(state(&d, &name), "created");
        if end.is_empty() {
            for (_, pid) in processes(&d) {
                kill_process(pid, Signal::CONT).unwrap();
            }
            d.eventually("it goes on", || state(&d, &name) == "running");
            assert_eq!(d.docker(&format!("exec {name} echo runs")).ok(), "runs");
        } else {
            let words: Vec<&str> = end.split(' ').chain([name.as_str()]).collect();
            ask(&d, &words).recv_timeout(PATIENCE).expect("is not held up").ok();
            assert_eq!(processes(&d), []);
        }
        if end == "stop" {
            let said = d.docker(&format!("inspect -f {{{{.State.ExitCode}}}}-{{{{.State.Error}}}} {name}")).ok();
            assert!(said.starts_with("128-the daemon ended while it was being started"), "{said}");
            d.docker(&format!("start {name}")).ok();
        }
        d.docker(&format!("rm -f {name}"));
    }
}

#[test]
fn a_monitor_that_takes_no_connections_holds_up_nobody() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name full busybox sleep 1000").ok();
    let id = d.docker("inspect -f {{.Id}} full").ok();
    kill_process(monitor(&d, "full"), Signal::STOP).unwrap();
    // The whole path is too long for an address.
    let dir = std::fs::File::open(d.path().join("run/containers").join(&id)).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
    let address = rustix::net::SocketAddrUnix::new(format!("/proc/self/fd/{fd}/monitor.sock")).unwrap();
    let mut waiting = Vec::new();
    loop {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match connect(&fd, &address) {
            Ok(()) => waiting.push(fd),
            Err(errno) => break assert_eq!(errno, rustix::io::Errno::AGAIN),
        }
    }
    d.kill();
    d.launch();
    assert_eq!(d.docker("inspect -f {{.State.Status}} full").ok(), "running");
    ask(&d, &["rm", "-f", "full"]).recv_timeout(PATIENCE).expect("is not held up").ok();
    assert_eq!(processes(&d), []);
}

/// A running container's monitor.
fn monitor(d: &Daemon, name: &str) -> Pid {
    let pid: i32 = d.docker(&format!("inspect -f {{{{.State.Pid}}}} {name}")).ok().parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    Pid::from_raw(stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()).unwrap()
}

#[test]
fn a_monitor_that_was_stopped_is_taken_up_and_ended() {
    let Some(mut d) = Daemon::start() else { return };
    for end in [&["stop", "-t", "1"][..], &["kill"], &["rm", "-f"]] {
        d.docker("run -d --name quiet busybox sleep 1000").ok();
        kill_process(monitor(&d, "quiet"), Signal::STOP).unwrap();
        d.kill();
        d.launch();
        assert_eq!(d.docker("inspect -f {{.State.Status}} quiet").ok(), "running");
        ask(&d, &[end, &["quiet"]].concat()).recv_timeout(PATIENCE).expect("is not held up").ok();
        assert_eq!(processes(&d), []);
        if end[0] != "rm" {
            assert_eq!(d.docker("inspect -f {{.State.Status}}-{{.State.ExitCode}} quiet").ok(), "exited-255");
            d.docker("rm quiet").ok();
        }
    }
}

#[test]
fn a_stop_does_not_wait_for_longer_because_of_another() {
    let Some(d) = Daemon::start() else { return };
    let script = "trap '' TERM; while :; do sleep 0.1; done";
    d.client().args(["run", "-d", "--name", "deaf", "busybox", "sh", "-c", script]).output().unwrap();
    let first = ask(&d, &["stop", "-t", "1000", "deaf"]);
    d.eventually("it is being stopped", || {
        d.docker("events --since 1 --until 0s --filter event=kill").ok().contains("signal=15")
    });
    ask(&d, &["stop", "-t", "1", "deaf"]).recv_timeout(PATIENCE).expect("is not held up").ok();
    first.recv_timeout(PATIENCE).expect("has an answer").ok();
    assert_eq!(d.docker("inspect -f {{.State.ExitCode}} deaf").ok(), "137");
}
