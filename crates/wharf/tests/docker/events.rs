//! What is told of a container's life, and in which order.

use crate::kit::Daemon;

#[test]
fn events_come_in_docker_s_order() {
    let Some(d) = Daemon::start() else { return };
    d.docker("create --name box -v named:/data busybox sleep 100").ok();
    d.docker("start box").ok();
    d.docker("stop -t 0 box").ok();
    d.docker("rm box").ok();
    // The client says whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let said =
        d.client().args(["events", "--since", "1", "--until", "0s", "--format", "{{.Type}} {{.Action}}"]).output();
    let said = String::from_utf8(said.unwrap().stdout).unwrap();
    let all: Vec<&str> = said.lines().skip_while(|line| *line != "volume create").collect();
    let wanted = [
        "volume create",
        "container create",
        "network connect",
        "volume mount",
        "container start",
        "container kill",
        "container kill",
        "container die",
        "network disconnect",
        "volume unmount",
        "container stop",
        "container destroy",
    ];
    assert_eq!(all, wanted, "{said}");
}

#[test]
fn probes_are_told_as_execs_are() {
    use std::io::BufRead;
    let Some(d) = Daemon::start() else { return };
    let mut command = d.client();
    command.args(["events", "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}"]);
    let mut listener = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(listener.stdout.take().unwrap()).lines().map(Result::unwrap);
    // What is told before it listens is not there.
    d.eventually("the client listens", || d.get("/info")["NEventsListener"].as_u64() > Some(0));
    let health = ["run", "-d", "--name", "ill", "--health-cmd", "exit 7", "--health-interval", "100ms"];
    let run = d.client().args(health).args(["--health-retries", "1", "busybox", "sleep", "1000"]).output().unwrap();
    assert!(run.status.success());
    let told: Vec<String> = lines.by_ref().skip_while(|line| !line.starts_with("exec_create")).take(4).collect();
    let die = "exec_die 7";
    let said: Vec<&str> = told.iter().map(|line| line.trim_end_matches(" <no value>").trim_end()).collect();
    assert_eq!(
        said,
        ["exec_create: /bin/sh -c exit 7", "exec_start: /bin/sh -c exit 7", die, "health_status: unhealthy"]
    );
    d.docker("rm -f ill").ok();
    // With the shell of the image.
    let dir = d.path().join("shelled");
    std::fs::create_dir(&dir).unwrap();
    let dockerfile = "FROM busybox\nSHELL [\"busybox\", \"sh\", \"-c\"]\nHEALTHCHECK --interval=100ms CMD exit 3\n";
    std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    d.docker(&format!("build -q -t shelled {}", dir.display())).ok();
    d.docker("run -d --name ill shelled sleep 1000").ok();
    let told = lines.find(|line| line.starts_with("exec_create") && line.contains("exit 3")).unwrap();
    assert!(told.starts_with("exec_create: busybox sh -c exit 3"), "{told}");
    let died = lines.find(|line| line.starts_with("exec_die")).unwrap();
    assert!(died.starts_with("exec_die 3"), "{died}");
    listener.kill().unwrap();
    listener.wait().unwrap();
    d.docker("rm -f ill").ok();
    // They push nothing else out of what is kept.
    let kept = d.client().args(["events", "--since", "1", "--until", "0s", "--format", "{{.Action}}"]).output();
    assert!(!String::from_utf8(kept.unwrap().stdout).unwrap().contains("exec_"));
}

#[test]
fn logs_have_the_attributes_that_were_asked_for() {
    let Some(d) = Daemon::start() else { return };
    let options = "--log-opt labels=one --log-opt env-regex=^W --log-opt tag={{.Name}}";
    d.docker(&format!("run --name box {options} -l one=1 -l two=2 -e WORD=a=b busybox echo line")).ok();
    assert_eq!(d.docker("logs box").ok(), "line");
    assert_eq!(d.docker("logs --details box").ok(), "WORD=a%3Db,one=1,tag=box line");
}
