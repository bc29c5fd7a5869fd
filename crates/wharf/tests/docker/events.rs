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
fn logs_have_the_attributes_that_were_asked_for() {
    let Some(d) = Daemon::start() else { return };
    let options = "--log-opt labels=one --log-opt env-regex=^W --log-opt tag={{.Name}}";
    d.docker(&format!("run --name box {options} -l one=1 -l two=2 -e WORD=a=b busybox echo line")).ok();
    assert_eq!(d.docker("logs box").ok(), "line");
    assert_eq!(d.docker("logs --details box").ok(), "WORD=a%3Db,one=1,tag=box line");
}
