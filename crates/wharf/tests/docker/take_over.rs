//! A live upgrade: a new program is started over the daemon that runs.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

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
