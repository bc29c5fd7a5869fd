//! Containers run, and are what was asked for.

use std::io::Write;
use std::process::Stdio;

use crate::kit::{Daemon, Said};

#[test]
fn output_codes_and_streams() {
    let Some(d) = Daemon::start() else { return };
    let said = d.sh("", "echo out; echo err >&2; exit 7");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "out\n", "err\n"));
    assert_eq!(d.docker("run --rm busybox nosuch").code, 127);
    assert_eq!(d.docker("run --rm busybox /etc").code, 126);
    let missing = d.docker("run --rm --pull never nosuch.example/image true");
    assert_eq!(missing.code, 125, "{}", missing.err);
    assert_eq!(d.sh("", "sh -c 'kill -9 $$'; exit $?").code, 137);
    // All three failed or were removed: nothing is left of them.
    assert_eq!(d.docker("ps -aq").ok(), "");
}

#[test]
fn standard_input_is_passed_on_to_its_end() {
    let Some(d) = Daemon::start() else { return };
    let mut client = d.client();
    client.args(["run", "--rm", "-i", "busybox", "sha256sum"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = client.spawn().unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = wharf_reference::Digest::sha256(&bytes);
    assert_eq!(String::from_utf8_lossy(&output.stdout).split(' ').next(), Some(expected.hex()));
}

#[test]
fn names_ports_and_their_conflicts() {
    let Some(d) = Daemon::start() else { return };
    let port = free_port();
    d.docker(&format!("run -d --name web -p {port}:80 busybox httpd -f -p 80 -h /etc")).ok();
    d.eventually("the page is served", || fetch(port).contains("root:x:0:0"));
    let name = d.docker("run --name web busybox true");
    assert!(name.code == 125 && name.err.contains("already in use by container"), "{}", name.err);
    let taken = d.docker(&format!("run --rm -p {port}:80 busybox true"));
    assert!(taken.code == 125 && taken.err.contains("port is already allocated"), "{}", taken.err);
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = held.local_addr().unwrap().port();
    let taken = d.docker(&format!("run --rm -p 127.0.0.1:{number}:80 busybox true"));
    assert!(taken.code == 125 && taken.err.contains("port is already allocated"), "{}", taken.err);
    let address = d.docker("inspect -f {{.NetworkSettings.IPAddress}} web").ok();
    assert!(d.sh("", &format!("wget -qO- http://{address}/passwd")).ok().contains("root:x"));
    d.docker("rm -f web").ok();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is free again");
}

#[test]
fn it_is_apart_from_the_host_and_bounded() {
    let Some(d) = Daemon::start() else { return };
    let said = d.sh(
        "-m 64m --pids-limit 20 --cpus 0.5 --hostname inside",
        "hostname; echo $$; id -u; ls /proc | grep -c ^[0-9]",
    );
    let lines: Vec<String> = said.ok().lines().map(str::to_owned).collect();
    assert_eq!(lines[..3], ["inside", "1", "0"]);
    assert!(lines[3].parse::<u32>().unwrap() < 10, "it sees its own processes only");
    // tail keeps the last line, which is all of them here.
    let oom = d.sh("-m 16m", "head -c 100000000 /dev/zero | tail");
    assert_eq!(oom.code, 137, "{}{}", oom.out, oom.err);
    let forks = d.sh("--pids-limit 10", "for i in $(seq 30); do sleep 1 & done; wait");
    assert!(forks.err.contains("can't fork"), "{}", forks.err);
    assert_eq!(d.sh("", "mount -t tmpfs none /tmp 2>/dev/null; echo $?").ok(), "1");
    assert_eq!(d.sh("-u web -w /tmp -e A=b", "id -un; pwd; echo $A").ok(), "web\n/tmp\nb");
    assert_eq!(d.sh("--read-only", "touch /x 2>/dev/null || echo refused").ok(), "refused");
}

#[test]
fn exec_logs_and_the_way_of_a_life() {
    let Some(d) = Daemon::start() else { return };
    let mut client = d.client();
    client.args([
        "run",
        "-d",
        "--name",
        "alive",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo begun; while :; do sleep 0.1; done",
    ]);
    assert!(client.output().unwrap().status.success());
    d.eventually("it has begun", || d.docker("logs alive").out.contains("begun"));
    let exec = d.client().args(["exec", "alive", "sh", "-c", "echo in; exit 5"]).output().unwrap();
    assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(5), b"in\n".as_slice()));
    assert_eq!(d.docker("exec alive nosuch").code, 127);
    d.docker("pause alive").ok();
    assert!(d.docker("ps --format {{.Status}}").ok().contains("(Paused)"));
    d.docker("unpause alive").ok();
    d.docker("stop alive").ok();
    assert_eq!(d.docker("inspect -f {{.State.ExitCode}} alive").ok(), "4");
    d.docker("start alive").ok();
    d.docker("rename alive other").ok();
    assert!(d.docker("rm other").err.contains("stop the container before removing or force remove"));
    d.docker("kill other").ok();
    assert_eq!(d.docker("inspect -f {{.State.ExitCode}} other").ok(), "137");
}

#[test]
fn files_volumes_and_changes() {
    let Some(d) = Daemon::start() else { return };
    d.docker("volume create data").ok();
    d.sh("-v data:/d", "echo kept > /d/file").ok();
    assert_eq!(d.sh("-v data:/d:ro", "cat /d/file; touch /d/x 2>/dev/null || echo refused").ok(), "kept\nrefused");
    d.docker("create --name holder -v data:/d busybox true").ok();
    assert!(d.docker("volume rm data").err.contains("volume is in use"));
    d.docker("rm holder").ok();
    d.docker("volume rm data").ok();

    d.client()
        .args(["run", "--name", "changed", "busybox", "sh", "-c", "echo 1 > /new; rm /etc/group"])
        .output()
        .unwrap();
    assert_eq!(d.docker("diff changed").ok(), "C /etc\nD /etc/group\nA /new");
    let file = d.path().join("copied");
    d.docker(&format!("cp changed:/new {}", file.display())).ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1\n");
    std::fs::write(&file, "2\n").unwrap();
    d.docker(&format!("cp {} changed:/tmp/up", file.display())).ok();
    d.docker("commit changed snapshot:1").ok();
    assert_eq!(d.docker("run --rm snapshot:1 cat /new /tmp/up").ok(), "1\n2");
    assert_eq!(d.docker("run --rm snapshot:1 ls /etc/group").code, 1);
}

/// As deep as a path can be: a container makes them deeper than a stack.
#[test]
fn a_deep_tree_is_compared_committed_and_removed() {
    let Some(d) = Daemon::start() else { return };
    let script = "mkdir /t; cd /t; i=0; while [ $i -lt 2000 ]; do mkdir d; cd d; i=$((i+1)); done; echo >leaf";
    let mut run = d.client();
    run.args(["run", "--name", "deep", "busybox", "sh", "-c", script]);
    Said::from(run.output().unwrap()).ok();
    let leaf = format!("A /t/{}leaf", "d/".repeat(2000));
    assert_eq!(d.docker("diff deep").ok().lines().last(), Some(leaf.as_str()));
    d.docker("commit deep deep").ok();
    d.docker(&format!("export deep -o {}", d.path().join("deep.tar").display())).ok();
    d.docker("rm deep").ok();
    assert_eq!(d.docker("run --rm deep ls /t/d").ok(), "d");
}

#[test]
fn a_user_namespace_of_its_own() {
    let Some(d) = Daemon::start() else { return };
    // Docker's client knows no `auto`; ours does.
    let wharf = |words: &[&str]| {
        let output = std::process::Command::new(crate::kit::WHARF)
            .arg("-H")
            .arg(format!("unix://{}", d.socket().display()))
            .args(words)
            .output()
            .unwrap();
        crate::kit::Said::from(output).ok()
    };
    let said = wharf(&[
        "run",
        "--rm",
        "--userns",
        "auto",
        "busybox",
        "sh",
        "-c",
        "id -u; echo x > /f; cat /f; cat /proc/self/uid_map",
    ]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..3], ["0", "x", "0"]);
    assert!(words[3].parse::<u32>().unwrap() > 65_536, "{said}");
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a port serves at `/passwd`.
pub(crate) fn fetch(port: u16) -> String {
    use std::io::Read;
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let mut text = String::new();
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(5)));
    let _ = stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n");
    let _ = stream.read_to_string(&mut text);
    text
}
