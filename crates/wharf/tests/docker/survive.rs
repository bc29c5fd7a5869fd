//! Nothing that the daemon has begun ends with it.

use crate::kit::{Daemon, Said};
use crate::run::{fetch, free_port};

#[test]
fn containers_ports_logs_and_codes_outlive_a_killed_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    let port = free_port();
    d.docker(&format!("run -d --name web -p {port}:80 busybox httpd -f -p 80 -h /etc")).ok();
    let talk = [
        "run",
        "-d",
        "--name",
        "talks",
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done",
    ];
    assert!(d.client().args(talk).output().unwrap().status.success());
    d.client().args(["run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 0.5; exit 9"]).output().unwrap();
    d.client()
        .args(["run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "sleep 0.2; exit 3"])
        .output()
        .unwrap();
    d.eventually("the page is served", || fetch(port).contains("root:x"));
    let before = d.docker("logs talks").out.lines().count();
    d.kill();
    assert!(fetch(port).contains("root:x"), "the port is served while no daemon is there");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    d.launch();
    assert!(fetch(port).contains("root:x"));
    assert_eq!(d.docker("inspect -f {{.State.Status}}{{.State.ExitCode}} ends").ok(), "exited9");
    assert_eq!(d.docker("inspect -f {{.State.Running}} web").ok(), "true");
    let count = d.docker("inspect -f {{.RestartCount}} again").ok();
    assert!(count.parse::<u32>().unwrap() >= 2, "it was started again meanwhile: {count}");
    let log = d.docker("logs talks").out;
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > before + 10, "its log went on");
    assert!(numbers.iter().enumerate().all(|(at, number)| at == *number), "and nothing of it is lost");
    assert_eq!(d.docker("exec web echo still").ok(), "still");
    d.docker("stop -t 1 again").ok();
    assert_eq!(d.docker("inspect -f {{.State.Status}} again").ok(), "exited");
}

#[test]
fn an_init_passes_on_the_signals_that_tini_does() {
    let Some(d) = Daemon::start() else { return };
    let script =
        "for s in USR1 ABRT SEGV TTIN SYS; do trap \"echo $s\" $s; done; echo set; while :; do sleep 0.02; done";
    Said::from(
        d.client().args(["run", "-d", "--name", "box", "--init", "busybox", "sh", "-c", script]).output().unwrap(),
    )
    .ok();
    d.eventually("it listens", || d.docker("logs box").out.contains("set"));
    for signal in ["ABRT", "SEGV", "TTIN", "SYS", "USR1"] {
        d.docker(&format!("kill -s {signal} box")).ok();
    }
    d.eventually("the last one has come", || d.docker("logs box").out.contains("USR1"));
    assert_eq!(d.docker("logs box").ok(), "set\nUSR1");
    assert_eq!(d.docker("inspect -f {{.State.Running}} box").ok(), "true");
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    let Some(d) = Daemon::start() else { return };
    let mut second = d.command();
    second.args(["--pidfile", "/dev/null"]);
    let said = Said::from(second.output().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("is in use by process"), "{}", said.err);
}

#[test]
fn killed_at_any_moment_it_starts_again() {
    let Some(mut d) = Daemon::start() else { return };
    for round in 0..8u64 {
        let mut clients: Vec<_> = (0..3)
            .map(|n| {
                let mut client = d.client();
                client.args(["run", "--rm", "--name", &format!("round-{round}-{n}"), "busybox", "sleep", "0.1"]);
                client.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(10 + round * 35));
        d.kill();
        for client in &mut clients {
            let _ = client.wait();
        }
        d.launch();
        assert_eq!(d.sh("", "echo alive").ok(), "alive");
    }
    d.eventually("what was to be removed is", || {
        let left = d.docker("ps -a --format {{.State}}").ok();
        // Created and never started is what a kill between the two leaves, as with Docker.
        left.lines().all(|state| state == "created")
    });
}

#[test]
fn the_program_on_the_host_cannot_be_written_through_its_processes() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name one --init busybox sleep 1000").ok();
    let container: u32 = d.docker("inspect -f {{.State.Pid}} one").ok().parse().unwrap();
    let parent = |pid: u32| -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let monitor = parent(container);
    for pid in [container, monitor, d.pid()] {
        let exe = format!("/proc/{pid}/exe");
        let mount = rustix::fs::statvfs(&*exe).unwrap().f_flag;
        assert!(mount.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{exe}");
        // While it runs the kernel refuses anyway.
        std::fs::File::options().write(true).open(&exe).unwrap_err();
    }
    d.docker("rm -f one").ok();
}

#[test]
fn a_killed_spawner_is_made_again() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name kept busybox sleep 1000").ok();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", d.pid())).unwrap();
    let spawner: Vec<i32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(spawner.len(), 1, "one child: {children}");
    let spawner = rustix::process::Pid::from_raw(spawner[0]).unwrap();
    rustix::process::kill_process(spawner, rustix::process::Signal::KILL).unwrap();
    d.eventually("containers are started", || d.docker("run --rm busybox echo again").out.trim() == "again");
    assert_eq!(d.docker("exec kept echo here").ok(), "here");
    d.docker("rm -f kept").ok();
}

#[test]
fn what_goes_with_its_end_has_gone_also_after_a_kill() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("create --rm --name waits busybox true").ok();
    for round in 0..6 {
        // Its row may still be on the disk when it is said to be gone; it is not taken for a container then.
        assert_eq!(d.sh("--name once", "echo x >/made").code, 0);
        d.docker("create --rm --name never busybox true").ok();
        d.docker("rm never").ok();
        if round % 2 == 1 {
            assert_eq!(d.sh("--name once", "true").code, 0, "a name is free with its container");
        }
        d.kill();
        if round % 3 == 2 {
            // A directory whose removal the kill has cut off is all that may be left.
            let said = d.wharf(&format!("system fsck --data-root {}", d.data().display()));
            let left = said.out.lines().filter(|line| !line.starts_with("unowned: containers/"));
            assert!(said.code == 0 || left.count() == 1, "{}{}", said.out, said.err);
        }
        d.launch();
        assert_eq!(d.docker("ps -a --format {{.Names}}").ok(), "waits");
        assert_eq!(std::fs::read_dir(d.data().join("containers")).unwrap().count(), 1);
    }
    // What was to be written a moment later was.
    d.docker("run -d --name runs busybox sleep 600").ok();
    d.docker("stop -t 0 runs").ok();
    let ended = d.docker("inspect -f {{.State.FinishedAt}} runs").ok();
    d.stop();
    d.launch();
    assert_eq!(d.docker("inspect -f {{.State.FinishedAt}} runs").ok(), ended);
    assert_eq!(d.docker("start -a waits").code, 0);
    d.eventually("it went with its end", || d.docker("ps -aq --filter name=waits").ok().is_empty());
}

#[test]
fn tries_that_nobody_saw_are_counted() {
    let Some(mut d) = Daemon::start() else { return };
    let fails =
        ["run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo once; exit 9"];
    let id = crate::kit::Said::from(d.client().args(fails).output().unwrap()).ok();
    d.kill();
    let ended = d.data().join("containers").join(id).join("exit.json");
    d.eventually("it has failed for good", || ended.exists());
    d.launch();
    let state = "inspect -f {{.State.Status}},{{.State.ExitCode}},{{.RestartCount}} fails";
    assert_eq!(d.docker(state).ok(), "exited,9,2");
    d.kill();
    d.launch();
    assert_eq!(d.docker(state).ok(), "exited,9,2");
    assert_eq!(d.docker("logs fails").ok(), "once\nonce\nonce");
    d.docker("rm fails").ok();
}

#[test]
fn signals_beside_a_removal_bring_nothing_back() {
    let Some(mut d) = Daemon::start() else { return };
    let all: Vec<String> = (0..40).map(|_| d.docker("run -d busybox sleep 600").ok()).collect();
    std::thread::scope(|scope| {
        for some in all.chunks(10) {
            let d = &d;
            scope.spawn(move || {
                for id in some {
                    std::thread::scope(|scope| {
                        for _ in 0..4 {
                            scope.spawn(|| d.post(&format!("/containers/{id}/kill"), "", true));
                        }
                        scope.spawn(|| d.docker(&format!("rm -f {id}")).ok());
                    });
                }
            });
        }
    });
    assert_eq!(d.docker("ps -aq").ok(), "");
    d.kill();
    d.launch();
    assert_eq!(d.docker("ps -aq").ok(), "");
}

#[test]
fn what_ran_when_its_monitor_was_killed_with_the_daemon_is_ended_and_said_to_be() {
    let Some(mut d) = Daemon::start() else { return };
    let id = d.docker("run -d --name runs busybox sleep 600").ok();
    let pid: i32 = d.docker("inspect -f {{.State.Pid}} runs").ok().parse().unwrap();
    let monitor = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = words.starts_with(b"wharf-monitor") && String::from_utf8_lossy(&words).contains(&id);
        is_it.then(|| entry.file_name().to_string_lossy().parse::<i32>().unwrap())
    });
    // Its row does not know yet that it was started.
    d.kill();
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    };
    kill(monitor.unwrap()).unwrap();
    d.launch();
    assert_eq!(d.docker("inspect -f {{.State.Status}}-{{.State.ExitCode}} runs").ok(), "exited-255");
    assert!(!std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists(), "nothing of it runs");
}

#[test]
fn after_the_host_s_start_each_comes_after_those_that_it_needs() {
    let Some(mut d) = Daemon::start() else { return };
    // By name the first ones are those that wait.
    let always = "run -d --stop-timeout 0 --restart always";
    for (name, more) in [
        ("zz", ""),
        ("yy", "--link zz:other"),
        ("xx", "--network container:yy"),
        ("aa", "--ipc shareable --pid container:xx"),
        ("bb", "--restart unless-stopped --ipc container:aa --network none"),
    ] {
        d.docker(&format!("{always} --name {name} {more} busybox sleep 1000")).ok();
    }
    let ids = d.docker("ps -q --no-trunc").ok();
    let monitors = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).into_owned();
        let is_one = words.starts_with("wharf-monitor") && ids.lines().any(|id| words.contains(id));
        is_one.then(|| entry.file_name().to_string_lossy().parse::<i32>().unwrap())
    });
    let monitors: Vec<_> = monitors.collect();
    assert_eq!(monitors.len(), 5);
    // As when the power goes.
    d.kill();
    for pid in monitors {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    d.launch();
    d.eventually("all run", || d.docker("ps -q").ok().lines().count() == 5);
    assert!(d.docker("exec yy cat /etc/hosts").ok().contains("other"));
    assert!(d.docker("exec aa ps").ok().matches("sleep 1000").count() >= 2);
    d.docker("rm -f aa bb xx yy zz").ok();
}

#[test]
fn a_log_is_over_with_each_end_of_its_container() {
    let Some(d) = Daemon::start() else { return };
    let script = "echo run; sleep 0.7; exit 1";
    let mut begun = d.client();
    begun.args(["run", "-d", "--name", "tries", "--restart", "on-failure:2", "busybox", "sh", "-c", script]);
    Said::from(begun.output().unwrap()).ok();
    assert_eq!(d.docker("logs -f tries").ok(), "run");
    d.eventually("it has ended", || d.docker("inspect -f {{.State.Status}} tries").ok() == "exited");
    assert_eq!(d.docker("logs -f tries").ok(), "run\nrun\nrun");
    d.docker("rm tries").ok();
}
