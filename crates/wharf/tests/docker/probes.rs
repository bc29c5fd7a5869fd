//! Health checks that run no program, and what is done with who fails them.

use crate::kit::Daemon;

/// Serves one file by HTTP; without it the answer is 404.
const SERVER: &str = "busybox sh -c";
const SERVES: &str = "mkdir /www; echo fine >/www/up; httpd -p 8080 -h /www; sleep 1000";

fn run(d: &Daemon, options: &str, script: &str) -> crate::kit::Said {
    let mut command = std::process::Command::new(crate::kit::WHARF);
    command.env("DOCKER_HOST", format!("unix://{}", d.socket().display())).args(["run", "-d"]);
    command.args(options.split_whitespace()).args(SERVER.split(' ')).arg(script).output().unwrap().into()
}

fn status(d: &Daemon, name: &str) -> String {
    d.docker(&format!("inspect -f {{{{.State.Health.Status}}}} {name}")).ok()
}

#[test]
fn ports_are_asked_without_a_program() {
    let Some(d) = Daemon::start() else { return };
    let often = "--health-interval 100ms --health-retries 2";
    run(&d, &format!("--name http --health-http 8080/up {often}"), SERVES).ok();
    run(&d, &format!("--name tcp --health-tcp 8080 {often} --network none"), SERVES).ok();
    run(&d, &format!("--name six --health-http http://[::1]:8080/up {often}"), SERVES).ok();
    for name in ["http", "tcp", "six"] {
        d.eventually(&format!("{name} is healthy"), || status(&d, name) == "healthy");
    }
    let log = |name: &str| d.get(&format!("/containers/{name}/json"))["State"]["Health"]["Log"].clone();
    assert!(log("http")[0]["Output"].as_str().unwrap().starts_with("HTTP/1."), "{}", log("http"));
    d.docker("exec http rm /www/up").ok();
    d.eventually("it is ill", || status(&d, "http") == "unhealthy");
    assert!(d.wharf("why http").ok().contains("404 Not Found"));
    d.docker("exec tcp killall httpd").ok();
    d.eventually("nobody listens", || status(&d, "tcp") == "unhealthy");
    assert!(log("tcp").to_string().contains("localhost:8080: connection refused"), "{}", log("tcp"));
    // One that takes connections and says nothing.
    run(&d, &format!("--name mute --health-http 8080 --health-timeout 200ms {often}"), "nc -ll -p 8080 -e sleep 1000")
        .ok();
    d.eventually("it does not answer", || status(&d, "mute") == "unhealthy");
    assert!(log("mute").to_string().contains("Health check exceeded timeout (200ms)"), "{}", log("mute"));
    let shown = d.wharf("inspect --as run http").ok();
    assert!(shown.contains("--health-http 8080/up"), "{shown}");
    for (options, why) in [
        ("--health-http /x", "write PORT[/PATH]"),
        ("--health-http https://localhost", "write PORT[/PATH]"),
        ("--health-http http://web/", "localhost or an address"),
        ("--health-tcp web:1", "expected [HOST:]PORT"),
        ("--health-tcp 1 --health-cmd true", "conflicting options"),
        ("--health-cmd true --health-on-failure explode", "unknown action"),
    ] {
        let said = run(&d, options, "true");
        assert!(said.code == 125 && said.err.contains(why), "{options}: {} {}", said.code, said.err);
    }
}

#[test]
fn who_is_unhealthy_is_dealt_with() {
    let Some(d) = Daemon::start() else { return };
    let fails = "--health-cmd false --health-interval 100ms --health-retries 1";
    for action in ["none", "kill", "stop", "restart"] {
        run(
            &d,
            &format!("--name {action} --health-on-failure {action} {fails}"),
            "trap 'exit 0' TERM; sleep 1000 & wait",
        )
        .ok();
    }
    let state = |name: &str| {
        d.docker(&format!("inspect -f {{{{.State.Status}}}},{{{{.State.ExitCode}}}},{{{{.RestartCount}}}} {name}")).ok()
    };
    d.eventually("it was killed", || state("kill") == "exited,137,0");
    d.eventually("it was stopped", || state("stop") == "exited,0,0");
    d.eventually("it was started again", || state("restart").ends_with(",1") || state("restart").ends_with(",2"));
    assert!(status(&d, "none") == "unhealthy" && state("none") == "running,0,0");
    assert!(d.wharf("inspect --as run stop").ok().contains("--health-on-failure stop"));
}
