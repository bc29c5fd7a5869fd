//! Why a container is as it is, and events of daemons before this one.

use crate::kit::{Daemon, Said};

#[test]
fn what_happened_to_a_container_is_said() {
    let Some(mut d) = Daemon::start() else { return };
    let client = |words: &[&str]| Said::from(d.client().args(words).output().unwrap());
    client(&["run", "--name", "failed", "busybox", "sh", "-c", "echo no such file >&2; exit 3"]);
    client(&["run", "--name", "found", "busybox", "nonexistent"]);
    d.docker("run -d --name stopped busybox sleep 1000").ok();
    d.docker("stop -t 0 stopped").ok();
    d.docker("run -d --name killed --restart on-failure:1 busybox sleep 1000").ok();
    let pid = |name: &str| d.docker(&format!("inspect -f {{{{.State.Pid}}}} {name}")).ok().parse::<i32>().unwrap();
    let mut killed = 0;
    for _ in 0..2 {
        let mut now = 0;
        // Another process than the one that was killed before, whose end may not have been told yet.
        d.eventually("it runs", || {
            now = pid("killed");
            now > 0 && now != killed
        });
        killed = now;
        let process = rustix::process::Pid::from_raw(killed).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    }
    d.eventually("it has ended for good", || d.docker("inspect -f {{.State.Status}} killed").ok() == "exited");
    client(&["run", "--name", "greedy", "-m", "16m", "busybox", "sh", "-c", "tail /dev/zero"]);
    let health = ["run", "-d", "--name", "ill", "--health-cmd", "echo broken; exit 7", "--health-interval", "100ms"];
    client(&[&health[..], &["--health-retries", "1", "busybox", "sleep", "1000"]].concat()).ok();
    d.eventually("it is unhealthy", || d.docker("inspect -f {{.State.Health.Status}} ill").ok() == "unhealthy");
    d.docker("create --name new busybox true").ok();
    // What was sent last did not end these.
    client(&["run", "-d", "--name", "woken", "busybox", "sleep", "1000"]).ok();
    d.docker("kill -s CONT woken").ok();
    let process = rustix::process::Pid::from_raw(pid("woken")).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    let script = "trap '' USR1; echo ready; sleep 1; exit 143";
    client(&["run", "-d", "--name", "deaf", "busybox", "sh", "-c", script]).ok();
    d.eventually("it listens", || d.docker("logs deaf").ok() == "ready");
    d.docker("kill -s USR1 deaf").ok();
    // Memory ran out in it, and then somebody ended it.
    let script = "(tail /dev/zero); echo survived; sleep 1000";
    client(&["run", "-d", "--name", "spared", "-m", "16m", "busybox", "sh", "-c", script]).ok();
    d.eventually("it lives on", || d.docker("logs spared").out.contains("survived"));
    d.docker("kill spared").ok();
    d.docker("wait woken deaf spared").ok();

    // A daemon that comes later knows it all the same.
    d.kill();
    d.launch();
    for (name, parts) in [
        ("failed", &["by itself, with 3", "no restart policy", "no such file", "die", "exitCode=3"][..]),
        ("found", &["could not be started", "nonexistent"]),
        ("stopped", &["docker (process ", "user 0) sent it SIGTERM", "then SIGKILL", "ended with 137", "signal=15"]),
        (
            "killed",
            &["SIGKILL that nobody sent through this engine", "on-failure:1, allows no more tries", "again once"],
        ),
        ("greedy", &["memory ran out", "limit of 16 MiB"]),
        ("ill", &["is unhealthy", "ended with 7 and said: broken", "health_status: unhealthy"]),
        ("new", &["never started"]),
        ("woken", &["SIGKILL that nobody sent through this engine", "sent it SIGCONT"]),
        ("deaf", &["It ended with 143", "Before, ", "sent it SIGUSR1"]),
        ("spared", &["sent it SIGKILL; it ended with 137", "had been killed before, as memory ran out"]),
    ] {
        let said = d.wharf(&format!("why {name}")).ok();
        for part in parts {
            // Our own client has another name.
            let part = if *part == "docker (process " { " (process " } else { part };
            assert!(said.contains(part), "{name}: {part}: {said}");
        }
    }
    let json: serde_json::Value = serde_json::from_str(&d.wharf("why --format json new").ok()).unwrap();
    assert_eq!((json["Name"].as_str(), json["Status"].as_str()), (Some("new"), Some("created")));
    let missing = d.wharf("why nobody");
    assert!(missing.code == 1 && missing.err.contains("No such container: nobody"), "{}", missing.err);
}

#[test]
fn events_outlive_the_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("create --name one busybox true").ok();
    d.kill();
    d.launch();
    d.docker("rename one two").ok();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let words = ["events", "--since", "1", "--until", "0s", "--filter", "type=container", "--format", "{{.Action}}"];
    let said = Said::from(d.client().args(words).output().unwrap()).ok();
    assert_eq!(said, "create\nrename");
    assert!(d.wharf("system fsck").ok().starts_with("clean"));
}

/// The times are those at which it happened, not that of the daemon's start.
#[test]
fn what_no_daemon_saw_is_told_by_the_next_one() {
    let Some(mut d) = Daemon::start() else { return };
    let script = "echo x | tee -a /n; [ $(wc -l </n) -lt 4 ] && exit 3; test -e /stay && exec sleep 1000; exit 0";
    for (name, policy) in [("ends", "on-failure"), ("stays", "always")] {
        let mut create = d.client();
        create.args(["create", "--name", name, "--restart", policy, "busybox", "sh", "-c"]);
        Said::from(create.arg(format!("while test -e /hold; do sleep 0.05; done; {script}")).output().unwrap()).ok();
    }
    std::fs::write(d.path().join("empty"), "").unwrap();
    for file in ["ends:/hold", "stays:/hold", "stays:/stay"] {
        d.docker(&format!("cp {}/empty {file}", d.path().display())).ok();
    }
    d.docker("start ends stays").ok();
    let own = |name: &str| {
        let all = d.get(&format!("/containers/{name}/json"));
        let log = std::path::PathBuf::from(all["LogPath"].as_str().unwrap());
        (format!("/proc/{}/root/hold", all["State"]["Pid"]), log)
    };
    let (ends, stays) = (own("ends"), own("stays"));
    d.kill();
    for (hold, _) in [&ends, &stays] {
        std::fs::remove_file(hold).unwrap();
    }
    for (_, log) in [&ends, &stays] {
        d.eventually("it has run four times", || std::fs::read_to_string(log).unwrap().lines().count() == 4);
    }
    d.eventually("it has ended", || ends.1.with_file_name("exit.json").exists());
    // In the API's seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let until = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().to_string();
    d.launch();
    let state = d.get("/containers/ends/json");
    assert_eq!((&state["RestartCount"], &state["State"]["ExitCode"]), (&3.into(), &0.into()));
    assert_eq!(d.get("/containers/stays/json")["RestartCount"], 3);
    for (name, last) in [("ends", &["die 0"][..]), ("stays", &[])] {
        let mut words = vec!["events", "--since", "1", "--filter", "event=start", "--filter", "event=die"];
        let filter = format!("container={name}");
        words.extend([
            "--filter",
            &filter,
            "--until",
            &until,
            "--format",
            "{{.Action}} {{.Actor.Attributes.exitCode}}",
        ]);
        let said = Said::from(d.client().args(words).output().unwrap()).ok().replace(" <no value>", "");
        let wanted = [&["start", "die 3", "start", "die 3", "start", "die 3", "start"], last].concat();
        assert_eq!(said.lines().map(str::trim).collect::<Vec<_>>(), wanted, "{name}");
    }
}

/// Also where the daemon goes between an end and the start after it.
#[test]
fn each_end_has_its_start_before_it() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name loops --restart always busybox echo x").ok();
    let log = std::path::PathBuf::from(d.get("/containers/loops/json")["LogPath"].as_str().unwrap());
    let lines = || std::fs::read_to_string(&log).unwrap().lines().count();
    for _ in 0..3 {
        // Until the next start is some moments away.
        d.eventually("it waits", || {
            let all = d.get("/containers/loops/json");
            all["State"]["Status"] == "restarting" && all["RestartCount"].as_u64() > Some(3)
        });
        d.kill();
        let before = lines();
        d.eventually("it is started", || lines() > before);
        d.launch();
    }
    let words = ["events", "--since", "1", "--until", "0s", "--filter", "event=start", "--filter", "event=die"];
    let said = Said::from(d.client().args(words).args(["--format", "{{.Action}}"]).output().unwrap()).ok();
    let wrong = said.lines().enumerate().find(|(at, word)| *word != ["start", "die"][at % 2]);
    assert!(wrong.is_none() && said.lines().count() > 10, "{wrong:?} {said}");
}

/// Events are told at once and rows are written a moment later: of what was told nothing is told again, and no signal is
/// forgotten.
#[test]
fn an_end_right_before_the_daemon_s_is_told_once() {
    let Some(mut d) = Daemon::start() else { return };
    let script = "trap '' USR1; echo ready; while test ! -e /go; do sleep 0.02; done; exit 3";
    let names = ["one", "two", "three"];
    std::fs::write(d.path().join("empty"), "").unwrap();
    for (round, name) in names.iter().enumerate() {
        let all = ["run", "-d", "--name", name, "-v", &format!("data{round}:/data"), "busybox", "sh", "-c", script];
        Said::from(d.client().args(all).output().unwrap()).ok();
        d.eventually("it listens", || d.docker(&format!("logs {name}")).ok() == "ready");
        d.docker(&format!("kill -s USR1 {name}")).ok();
        let go = format!("cp {}/empty {name}:/go", d.path().display());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| d.docker(&format!("wait {name}")).ok());
            d.docker(&go).ok();
            assert_eq!(waits.join().unwrap(), "3");
        });
        d.kill();
        d.launch();
        let why = d.wharf(&format!("why {name}")).ok();
        assert!(why.contains("with 3") && why.contains("sent it SIGUSR1"), "{why}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let words = ["events", "--since", "1", "--until", "0s", "--format", "{{.Action}}"];
    for (filter, actions) in [
        ("event=start", "start"),
        ("event=die", "die"),
        ("event=unmount", "unmount"),
        ("event=disconnect", "disconnect"),
    ] {
        let said = Said::from(d.client().args(words).args(["--filter", filter]).output().unwrap()).ok();
        assert_eq!(said, [actions; 3].join("\n"), "{filter}");
    }
}

/// What it prints, run again, makes a container whose settings are the same.
#[test]
fn a_container_is_shown_as_the_command_that_makes_it() {
    let Some(d) = Daemon::start() else { return };
    d.docker("network create own").ok();
    let flags = [
        "-e A=1 -e B=two -l label=x=y -w /tmp -u web --hostname h --restart on-failure:3 -m 32m --cpus 0.5 --pids-limit 50",
        "--cap-add NET_ADMIN --cap-drop MKNOD --read-only --tmpfs /run:size=1m --shm-size 1m --ulimit nofile=100:200 --init",
        "-p 127.0.0.1:0:80 -p 90/udp --expose 99 --network own --network-alias a1 --dns 9.9.9.9 --add-host h2:1.2.3.4",
        "-v named:/data:ro -v /anonymous --mount type=tmpfs,destination=/m,tmpfs-size=4096 --sysctl net.core.somaxconn=9",
        "--health-cmd true --health-interval 5s --stop-signal INT --stop-timeout 3 --log-opt max-size=1m --group-add 7",
    ];
    let mut first = d.client();
    first.args(["create", "--name", "first"]).args(flags.iter().flat_map(|line| line.split(' ')));
    first.args(["--entrypoint", "/bin/sh", "busybox", "-c", "echo \"it's $A\"; sleep 1000"]);
    Said::from(first.output().unwrap()).ok();
    let shown = d.wharf("inspect --as run first").ok();
    assert!(shown.contains(" \\\n  --name first \\\n"), "{shown}");
    // As the user would: by a shell, under another name.
    let made = shown.replacen("wharf run", "\"$@\" create", 1).replacen("--name first", "--name second", 1);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &made.replace(" -d \\\n", " \\\n"), "sh", crate::kit::WHARF, "-H"]);
    shell.arg(format!("unix://{}", d.socket().display()));
    Said::from(shell.output().unwrap()).ok();
    let settings = |name: &str| {
        let mut all = d.get(&format!("/containers/{name}/json"));
        let networks: Vec<String> = all["NetworkSettings"]["Networks"].as_object().unwrap().keys().cloned().collect();
        (all["Config"].take(), all["HostConfig"].take(), networks)
    };
    let (first, second) = (settings("first"), settings("second"));
    assert_eq!(first, second, "{shown}");
    assert_ne!(d.wharf("inspect --as compose first").code, 0);
}

#[test]
fn a_detached_run_waits_until_it_is_ready() {
    let Some(d) = Daemon::start() else { return };
    let run = |more: &[&str]| -> Said {
        let mut command = std::process::Command::new(crate::kit::WHARF);
        command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(["run", "-d", "--wait"]).args(more);
        command.env("WHARF_CONFIG", d.path()).output().unwrap().into()
    };
    let healthy = ["--health-interval", "100ms", "--health-start-period", "60s", "--health-cmd"];
    let script = "sleep 0.5; touch /ready; sleep 1000";
    run(&[&["--name", "good"], &healthy[..], &["test -e /ready", "busybox", "sh", "-c", script]].concat()).ok();
    assert_eq!(d.docker("inspect -f {{.State.Health.Status}} good").ok(), "healthy");
    run(&["--name", "plain", "busybox", "sleep", "1000"]).ok();
    let ill =
        run(&[&healthy[..2], &["--health-cmd", "false", "--health-retries", "1", "busybox", "sleep", "1000"]].concat());
    assert!(ill.code == 1 && ill.err.contains("is unhealthy"), "{} {}", ill.code, ill.err);
    let ended = run(&[&healthy[..], &["true", "busybox", "sh", "-c", "exit 4"]].concat());
    assert!(ended.code == 1 && ended.err.contains("ended with 4 before it was ready"), "{} {}", ended.code, ended.err);
    let ended = run(&["busybox", "sh", "-c", "exit 5"]);
    assert!(ended.code == 1 && ended.err.contains("ended with 5 before it was ready"), "{} {}", ended.code, ended.err);
    let slow =
        run(&[&healthy[..], &["false", "--health-retries", "1000", "--wait-timeout", "1", "busybox", "sleep", "9"]]
            .concat());
    assert!(slow.code == 1 && slow.err.contains("is not ready after 1 s"), "{} {}", slow.code, slow.err);
    assert_ne!(d.wharf("run --wait busybox true").code, 0);
    // What ends and begins again for ever is not ready, whenever it is looked at.
    for more in [&["busybox", "false"][..], &[&healthy[..], &["true", "busybox", "false"]].concat()] {
        let again = run(&[&["--restart", "always"], more].concat());
        assert!(
            again.code == 1 && again.err.contains("would be started again and again"),
            "{} {}",
            again.code,
            again.err
        );
    }
    let script = "test -e /once && sleep 1000; touch /once";
    run(&[&["--restart", "always"], &healthy[..], &["true", "busybox", "sh", "-c", script]].concat()).ok();
    let ended = run(&["--restart", "on-failure:1", "busybox", "sh", "-c", "exit 6"]);
    assert!(ended.code == 1 && ended.err.contains("ended with 6 before it was ready"), "{} {}", ended.code, ended.err);
}

/// What is detached is nobody's who waits for it.
#[test]
fn who_stops_waiting_ends_no_container() {
    let Some(d) = Daemon::start() else { return };
    let mut command = std::process::Command::new(crate::kit::WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).env("WHARF_CONFIG", d.path());
    command.args(["run", "-d", "--wait", "--name", "box", "--health-cmd", "false", "--health-retries", "1000"]);
    let mut client = command.args(["busybox", "sleep", "1000"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    d.eventually("it runs", || d.docker("inspect -f {{.State.Running}} box").out.trim() == "true");
    let pid = rustix::process::Pid::from_child(&client);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    client.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(d.docker("inspect -f {{.State.Running}} box").ok(), "true");
}
