//! A live upgrade: a new program is started over the daemon that runs.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kit::{Daemon, Said, WHARF};
use crate::run::{fetch, free_port};

#[test]
fn a_new_daemon_takes_over_what_runs_and_nobody_is_refused() {
    let Some(mut d) = Daemon::start() else { return };
    let port = free_port();
    d.docker("network create net").ok();
    d.docker(&format!("run -d --name web --network net -p {port}:80 busybox httpd -f -p 80 -h /etc")).ok();
    let run = |words: &[&str], script: &str| {
        let said = d.client().args(["run", "-d"]).args(words).args(["busybox", "sh", "-c", script]).output().unwrap();
        Said::from(said).ok()
    };
    run(&["--name", "talks"], "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done");
    run(
        &[
            "--name",
            "looks",
            "--network",
            "net",
            "--health-cmd",
            "echo x >>/probes; true",
            "--health-interval",
            "100ms",
        ],
        "sleep 1000",
    );
    d.docker("run -d --name waits -i busybox cat").ok();
    d.eventually("the page is served", || fetch(port).contains("root:x"));
    let pids = |d: &Daemon| d.docker("inspect -f {{.Id}}{{.State.Pid}}{{.State.StartedAt}} web talks looks waits").ok();
    let probes = |d: &Daemon| d.docker("exec looks sh -c wc</probes").ok();
    d.eventually("it is healthy", || d.docker("inspect -f {{.State.Health.Status}} looks").ok() == "healthy");
    let (before, probed) = (pids(&d), probes(&d));
    // Another file: where the new version would be.
    let new = d.path().join("wharf-new");
    std::fs::hard_link(WHARF, &new).or_else(|_| std::fs::copy(WHARF, &new).map(drop)).unwrap();
    let old = d.pid();
    let (socket, done) = (d.socket(), AtomicBool::new(false));
    let (asked, refused) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut refused) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                asked += 1;
                refused += u32::from(UnixStream::connect(&socket).is_err());
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            (asked, refused)
        });
        d.take_over(&new);
        // Who came in between is answered by the new one.
        d.docker("ps").ok();
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert_eq!(refused, 0, "of {asked}");
    assert_ne!(d.pid(), old);
    let words = std::fs::read(format!("/proc/{}/cmdline", d.pid())).unwrap();
    assert!(words.starts_with(new.as_os_str().as_encoded_bytes()));
    assert!(d.log().contains(&format!("taking the place of the daemon that is process {old}")), "{}", d.log());
    assert_eq!(pids(&d), before);
    assert!(fetch(port).contains("root:x"), "the port is served");
    assert_eq!(d.docker("exec looks wget -qO- http://web/passwd").ok().lines().count(), 2, "names are answered");
    d.eventually("probes go on", || probes(&d) != probed);
    assert_eq!(d.docker("inspect -f {{.State.Health.Status}} looks").ok(), "healthy");
    let log = d.docker("logs talks").out;
    let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 3 && numbers.iter().enumerate().all(|(at, number)| at == *number), "{log}");
    let more = numbers.len();
    d.eventually("its log goes on", || d.docker("logs talks").out.lines().count() > more);
    // The pid file and the socket are the new one's and not gone with the old one.
    assert!(d.socket().exists());
    assert_eq!(d.docker("stop -t 1 waits").ok(), "waits");
    // Once more, with nobody there: it is a start like any other.
    d.kill();
    let said = Said::from(d.client().arg("ps").output().unwrap());
    assert_ne!(said.code, 0);
    d.launch();
    assert_eq!(d.docker("inspect -f {{.State.Running}} web").ok(), "true");
}

#[test]
fn without_being_told_to_it_takes_no_place() {
    let Some(d) = Daemon::start() else { return };
    let said = Said::from(d.command().args(["--pidfile", "/dev/null"]).output().unwrap());
    assert!(said.code == 1 && said.err.contains("--take-over puts this daemon in its place"), "{}", said.err);
    assert_eq!(d.docker("ps -q").ok(), "");
    // What cannot be listened on is found out before the other one hears of it.
    let bad = d.path().join("no-directory");
    std::fs::write(&bad, "").unwrap();
    let host = format!("unix://{}/socket", bad.display());
    let said = Said::from(d.command().args(["--take-over", "-H", &host]).output().unwrap());
    assert!(said.code == 1 && said.err.contains("cannot make"), "{}", said.err);
}

#[test]
fn what_can_not_be_is_found_before_the_other_one_hears_of_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(d) = Daemon::start() else { return };
    let pid = d.docker("info -f {{.ID}}").ok();
    let file = d.path().join("file");
    std::fs::write(&file, "").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let below = file.join("x").display().to_string();
    let other = d.path().join("other-root").display().to_string();
    for (options, why) in [
        (vec!["--insecure-tcp", "-H", &format!("tcp://{taken}")], "cannot listen on tcp://"),
        (vec!["--metrics-addr", &taken], "cannot listen on tcp://"),
        (vec!["-H", "fd://"], "no socket was passed on"),
        (vec!["-H", &format!("unix://{}", file.display())], "is there and no socket"),
        (vec!["--pidfile", &below], "cannot write"),
        (vec!["--pidfile", &format!("{below}/pid")], "cannot write"),
        (vec!["--exec-root", &other], "has another exec root"),
        (vec!["--default-ulimit", "nofile=x"], "invalid"),
    ] {
        // The last `--exec-root` counts.
        let said = Said::from(d.command().arg("--take-over").args(&options).output().unwrap());
        assert!(said.code != 0 && said.err.contains(why), "{options:?}: {} {}", said.code, said.err);
        assert_eq!(d.docker("info -f {{.ID}}").ok(), pid, "{options:?}");
    }
    assert!(!d.log().contains("stopping; containers run on"), "{}", d.log());
}

#[test]
fn where_the_new_one_fails_the_one_before_is_there_again() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name runs busybox sleep 1000").ok();
    let started = d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok();
    let log = std::fs::File::options().append(true).open(d.path().join("log")).unwrap();
    // No address of a bridge, which is seen when networks are taken up.
    let new = d.command().args(["--take-over", "--ipv6", "--bip6", "fd00:5::/64"]).stderr(log).spawn().unwrap();
    let mut old = d.replace(new);
    assert!(old.wait().unwrap().success(), "{}", d.log());
    d.eventually("the one before answers", || d.docker("ps -q").code == 0);
    assert!(d.log().contains("starting the daemon that was there before"), "{}", d.log());
    assert_eq!(d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok(), started);
    d.take_over(std::path::Path::new(WHARF));
    assert_eq!(d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok(), started);
}

#[test]
fn of_many_that_come_at_once_one_is_the_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name runs busybox sleep 1000").ok();
    for _ in 0..4 {
        let spawn = |_| {
            let log = std::fs::File::options().append(true).open(d.path().join("log")).unwrap();
            d.command().arg("--take-over").stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap()
        };
        let mut all: Vec<_> = (0..5).map(spawn).collect();
        let mut ended = 0;
        // Those that came in each other's turn were refused, and each other one was taken the place of.
        d.eventually("one is left", || {
            all.retain_mut(|one| {
                let has_ended = one.try_wait().unwrap().is_some();
                ended += usize::from(has_ended);
                !has_ended
            });
            all.len() <= 1 && d.docker("ps -q").code == 0
        });
        assert_eq!((all.len(), ended), (1, 4), "{}", d.log());
        let mut old = d.replace(all.remove(0));
        assert!(old.wait().unwrap().success(), "{}", d.log());
        assert_eq!(d.docker("inspect -f {{.State.Running}} runs").ok(), "true");
        assert!(d.socket().exists());
    }
}

#[test]
fn a_new_one_that_is_killed_leaves_everything_to_the_one_before() {
    let port = free_port();
    let tcp = format!("tcp://127.0.0.1:{port}");
    let Some(mut d) = Daemon::start_given(&["--insecure-tcp", "-H", &tcp]) else { return };
    let by_tcp =
        || std::process::Command::new("docker").args(["-H", &tcp, "ps", "-q"]).output().map(Said::from).unwrap();
    by_tcp().ok();
    d.docker("run -d --name runs busybox sleep 1000").ok();
    let started = d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok();
    for delay in (0..160).step_by(8) {
        let log = std::fs::File::options().append(true).open(d.path().join("log")).unwrap();
        let mut new = d.command().arg("--take-over").stderr(log).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        new.kill().unwrap();
        new.wait().unwrap();
        let answers = |d: &Daemon| d.docker("ps -q").code == 0 && by_tcp().code == 0;
        // It had begun by then: what comes next is a start like any other.
        let had_begun = |d: &Daemon| {
            let listens = d.log().lines().last().is_some_and(|line| line.contains("API listen"));
            listens && UnixStream::connect(d.socket()).is_err()
        };
        // Else the one before is there still, or once more: nobody has to start it.
        d.eventually("the one before answers", || answers(&d) || had_begun(&d));
        if had_begun(&d) {
            d.launch();
            d.eventually("a new one answers", || answers(&d));
        }
        assert_eq!(d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok(), started);
    }
    assert!(d.log().contains("was killed: starting the one that was there before"), "{}", d.log());
    // And one that is let be has both.
    d.take_over(std::path::Path::new(WHARF));
    assert_eq!(d.docker("inspect -f {{.State.Pid}}{{.State.StartedAt}} runs").ok(), started);
    by_tcp().ok();
    d.docker("rm -f runs").ok();
    d.stop();
    assert!(!d.socket().exists(), "its name is gone with it");
}

#[test]
fn a_stop_is_brought_to_its_end_by_the_next_one() {
    let Some(mut d) = Daemon::start() else { return };
    let stubborn = |d: &Daemon| {
        let run =
            ["run", "-d", "--name", "stubborn", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
        Said::from(d.client().args(run).output().unwrap()).ok();
    };
    for is_killed in [false, true] {
        stubborn(&d);
        let mut stopping =
            d.client().args(["stop", "-t", "2", "stubborn"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        d.eventually("it is being stopped", || {
            d.docker("events --since 0 --until 0s --filter event=kill").out.lines().count() > 0
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        if is_killed {
            d.kill();
            d.launch();
        } else {
            d.take_over(std::path::Path::new(WHARF));
        }
        assert!(!stopping.wait().unwrap().success());
        d.eventually("it has ended", || d.docker("inspect -f {{.State.Status}} stubborn").ok() == "exited");
        assert_eq!(d.docker("inspect -f {{.State.ExitCode}} stubborn").ok(), "137");
        d.docker("rm stubborn").ok();
    }
}

#[test]
fn a_stop_is_not_that_of_the_run_after_it() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name again busybox sleep 1000").ok();
    d.docker("restart -t 0 again").ok();
    let pid = d.docker("inspect -f {{.State.Pid}} again").ok();
    d.kill();
    d.launch();
    // What would be killed is so at once.
    d.docker("exec again true").ok();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(d.docker("inspect -f {{.State.Pid}} again").ok(), pid);
    d.docker("exec again true").ok();
}

#[test]
fn what_is_answered_in_a_moment_is_answered() {
    let Some(mut d) = Daemon::start() else { return };
    let begun = d.client().args(["run", "-d", "--name", "one", "busybox", "sh", "-c", "sleep 1; exit 3"]).output();
    Said::from(begun.unwrap()).ok();
    let mut wait = d.client();
    let waits = wait.args(["wait", "one"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    d.stop();
    let said = Said::from(waits.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.trim()), (0, "3"), "{}", said.err);
    d.launch();
    d.docker("rm one").ok();
}

/// A connection that the daemon before has taken, and the request that comes by it a moment later.
#[test]
fn who_has_just_come_is_answered() {
    use std::io::{Read as _, Write as _};
    let Some(mut d) = Daemon::start() else { return };
    let mut come = std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let stopping = std::thread::spawn({
        let pid = d.pid();
        move || {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
    });
    stopping.join().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let mut said = String::new();
    let asked = come.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n");
    let heard = asked.and_then(|()| come.read_to_string(&mut said));
    assert!(heard.is_ok() && said.ends_with("OK"), "{heard:?} {said}");
    d.eventually("it has ended", || d.has_ended());
    d.launch();
}
