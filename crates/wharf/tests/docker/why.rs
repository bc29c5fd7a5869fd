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
    for _ in 0..2 {
        d.eventually("it runs", || {
            d.docker("inspect -f {{.State.Running}} killed").ok() == "true" && pid("killed") > 0
        });
        let process = rustix::process::Pid::from_raw(pid("killed")).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    }
    d.eventually("it has ended for good", || d.docker("inspect -f {{.State.Status}} killed").ok() == "exited");
    client(&["run", "--name", "greedy", "-m", "16m", "busybox", "sh", "-c", "tail /dev/zero"]);
    let health = ["run", "-d", "--name", "ill", "--health-cmd", "echo broken; exit 7", "--health-interval", "100ms"];
    client(&[&health[..], &["--health-retries", "1", "busybox", "sleep", "1000"]].concat()).ok();
    d.eventually("it is unhealthy", || d.docker("inspect -f {{.State.Health.Status}} ill").ok() == "unhealthy");
    d.docker("create --name new busybox true").ok();

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
