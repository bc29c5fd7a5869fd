//! Containers and their ports outlive the daemon and who has started it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::kit::User;

fn answers(port: u16) -> bool {
    let mut text = String::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let _ = stream.read_to_string(&mut text);
    text.contains("still-there")
}

#[test]
fn a_killed_daemon_finds_its_containers_again() {
    let Some(mut user) = User::start() else { return };
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let script = "mkdir /w; echo still-there > /w/index.html; exec httpd -f -p 80 -h /w";
    let mut run = user.client();
    run.args(["run", "-d", "--name", "web", "-p", &format!("{port}:80"), "busybox", "sh", "-c", script]);
    assert!(run.status().unwrap().success());
    user.eventually("the port is reached", || answers(port));
    let started = user.wharf("inspect --format {{.State.StartedAt}} web").ok();
    let (inner, launcher) = (user.inner(), user.launcher());
    user.kill(inner, "KILL");
    assert_eq!(user.ended(), Some(137), "the launcher ends as the daemon does");
    assert!(answers(port));
    user.launch();
    assert_ne!((user.inner(), user.launcher()), (inner, launcher));
    assert_eq!(user.wharf("inspect --format {{.State.StartedAt}} web").ok(), started);
    assert!(answers(port));
    // Without the launcher there is no daemon.
    let (inner, launcher) = (user.inner(), user.launcher());
    user.kill(launcher, "KILL");
    user.ended();
    user.eventually("the daemon ends with its launcher", || {
        !std::path::Path::new(&format!("/proc/{inner}/cwd")).exists()
    });
    assert!(answers(port));
    user.launch();
    assert!(answers(port));
    assert_eq!(user.wharf("exec web cat /w/index.html").ok(), "still-there");
    // Nor without what keeps the namespaces, as long as somebody is there.
    for with_daemon in [true, false] {
        let (launcher, anchor) = (user.launcher(), user.anchor());
        if with_daemon {
            user.kill(anchor, "KILL");
            user.kill(launcher, "TERM");
            assert_eq!(user.ended(), Some(0));
        } else {
            user.kill(launcher, "KILL");
            user.kill(anchor, "KILL");
            user.ended();
        }
        user.eventually("the daemon has ended", || !user.answers());
        user.launch();
        assert_ne!(user.anchor(), anchor);
        assert!(answers(port));
        assert_eq!(user.sh("", "(echo GET / HTTP/1.0; echo; sleep 1) | nc 172.17.0.2 80 | head -n 1").code, 0);
    }
    let another = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    user.wharf(&format!("update --publish-add {another}:80 web")).ok();
    user.eventually("a port of the later daemon is reached", || answers(another));
    // A container that ends after the daemon takes the namespaces with it.
    let launcher = user.launcher();
    let pid = user.wharf("inspect --format {{.State.Pid}} web").ok().parse().unwrap();
    user.kill(launcher, "TERM");
    assert_eq!(user.ended(), Some(0));
    assert!(answers(port) && !user.processes().is_empty());
    user.kill(pid, "KILL");
    user.eventually("nobody is left", || user.processes().is_empty());
    // And the next daemon begins anew.
    user.launch();
    assert_eq!(user.wharf("start web").ok(), "web");
    user.eventually("the port is reached again", || answers(port));
}

#[test]
fn a_running_daemon_is_upgraded() {
    let Some(mut user) = User::start() else { return };
    user.wharf("run -d --name one busybox sleep 1000").ok();
    let started = user.wharf("inspect --format {{.State.StartedAt}} one").ok();
    user.take_over();
    assert_eq!(user.wharf("inspect --format {{.State.StartedAt}} one").ok(), started);
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    user.wharf(&format!("run -d -p {port}:80 busybox sleep 1000")).ok();
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "the new launcher has it bound");
}

#[test]
fn a_start_that_is_killed_at_any_moment_leaves_nothing() {
    let Some(mut user) = User::new() else { return };
    for tenth in 0..25 {
        user.begin_and_kill(std::time::Duration::from_millis(tenth * 10));
    }
    user.eventually("nobody is left", || user.processes().is_empty());
    user.launch();
    assert_eq!(user.wharf("volume create kept").ok(), "kept");
}
