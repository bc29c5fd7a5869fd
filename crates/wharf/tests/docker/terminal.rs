//! People at terminals: the client on a pseudo-terminal, typed to and read from; and those who follow along.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::kit::{Daemon, WHARF};

/// A client on a terminal of its own.
pub(crate) struct Session {
    client: Child,
    master: File,
    shown: String,
    chunks: Receiver<String>,
}

impl Session {
    fn start(daemon: &Daemon, words: &[&str]) -> Self {
        Self::of(&daemon.client(), words)
    }

    pub(crate) fn of(client: &Command, words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        resize(&master, 30, 90);
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(&path).unwrap());
        // So that it is the client's controlling terminal.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(client.get_program()).args(client.get_args()).args(words);
        command.envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let client = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let mut reader = File::from(master.try_clone().unwrap());
        let (sender, chunks) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { client, master: File::from(master), shown: String::new(), chunks }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown after what was waited for before.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.shown.push_str(&chunk),
                Err(_) => panic!("`{text}` does not come, but: {}", self.shown),
            }
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..end);
    }

    /// The rest of the line that is being shown.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.shown.contains('\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            self.shown.push_str(&self.chunks.recv_timeout(left).expect("the line ends"));
        }
        let end = self.shown.find('\n').unwrap();
        self.shown.drain(..=end).collect()
    }

    #[track_caller]
    pub(crate) fn code(mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.client.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "the client does not end: {}", self.shown);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

#[test]
fn a_shell_on_a_terminal() {
    let Some(d) = Daemon::start() else { return };
    let mut session = Session::start(&d, &["run", "-it", "--name", "shell", "busybox", "sh"]);
    // Typed apart, so that the echo is not taken for the answer.
    session.type_in("tty; echo re''ady; stty size\r");
    session.wait_for("/dev/pts/");
    session.wait_for("ready");
    session.wait_for("30 90");
    let master: OwnedFd = session.master.try_clone().unwrap().into();
    d.eventually("the size follows", || {
        // More than once, as the client may not listen yet; and the same size again is no change.
        resize(&master, 40, 100);
        resize(&master, 41, 101);
        std::thread::sleep(Duration::from_millis(200));
        d.docker("exec shell stty -F /dev/console size").out.trim() == "41 101"
    });
    // The terminal's own keys are the program's.
    session.type_in("sleep 1000\r");
    std::thread::sleep(Duration::from_millis(300));
    session.type_in("\u{3}");
    session.type_in("echo inter''rupted; exit 7\r");
    session.wait_for("interrupted");
    assert_eq!(session.code(), 7);
    d.docker("rm shell").ok();
}

#[test]
fn coming_and_going() {
    let Some(d) = Daemon::start() else { return };
    let mut session = Session::start(&d, &["run", "-it", "--name", "kept", "busybox", "sh"]);
    session.type_in("echo on''e\r");
    session.wait_for("one");
    // ctrl-p ctrl-q leaves it as it is.
    session.type_in("\u{10}\u{11}");
    assert_eq!(session.code(), 0);
    assert_eq!(d.docker("inspect -f {{.State.Running}} kept").ok(), "true");
    let mut again = Session::start(&d, &["attach", "kept"]);
    again.type_in("echo tw''o\r");
    again.wait_for("two");
    let mut exec = Session::start(&d, &["exec", "-it", "kept", "sh", "-c", "read line; echo got $line; exit 3"]);
    exec.type_in("typed\r");
    exec.wait_for("got typed");
    assert_eq!(exec.code(), 3);
    again.type_in("exit 4\r");
    assert_eq!(again.code(), 4);
    d.docker("rm kept").ok();
}

/// Lines of a client that goes on until it is killed.
fn follow(daemon: &Daemon, words: &str) -> (Child, impl FnMut(&str)) {
    let mut command = daemon.client();
    let mut client = command.args(words.split_whitespace()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let (sender, receiver) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let until = move |text: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with `{text}`, but: {seen:#?}"),
            }
        }
    };
    (client, until)
}

#[test]
fn logs_and_events_are_followed() {
    let Some(d) = Daemon::start() else { return };
    let (mut events, mut event) =
        follow(&d, "events --since 1 --format {{.Type}}/{{.Action}}/{{.Actor.Attributes.name}}");
    let script = "echo first; while [ ! -e /go ]; do sleep 0.05; done; echo second >&2; sleep 0.3; echo third";
    let run = d.client().args(["run", "-d", "--name", "said", "busybox", "sh", "-c", script]).output().unwrap();
    assert!(run.status.success());
    event("container/create/said");
    event("container/start/said");
    let (mut logs, mut line) = follow(&d, "logs -f --tail 10 said");
    line("first");
    d.docker("exec said touch /go").ok();
    line("third");
    // It ends with the container.
    assert!(logs.wait().unwrap().success());
    event("container/die/said");
    d.docker("rm said").ok();
    event("container/destroy/said");
    events.kill().unwrap();
    events.wait().unwrap();
}

/// CTRL-C goes to all of a terminal's process group: to the container, and not to the connection that carries it there.
#[test]
fn a_signal_from_the_terminal_leaves_the_way_over_ssh() {
    let Some(d) = Daemon::start() else { return };
    let ssh = d.path().join("ssh");
    let far = format!("#!/bin/sh\nexec {WHARF} -H unix://{} system dial-stdio\n", d.socket().display());
    std::fs::write(&ssh, far).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut client = Command::new(WHARF);
    let path = format!("{}:{}", d.path().display(), std::env::var("PATH").unwrap());
    client.args(["-H", "ssh://far"]).env("PATH", path).env("DOCKER_CONFIG", d.path().join("config"));
    let script = "trap 'echo heard; exit 9' INT; echo ready; while :; do sleep 0.1; done";
    let mut session = Session::of(&client, &["run", "--rm", "--name", "far", "busybox", "sh", "-c", script]);
    session.wait_for("ready");
    session.type_in("\x03");
    session.wait_for("heard");
    assert_eq!(session.code(), 9);
    d.eventually("it goes", || d.docker("ps -aq").ok().is_empty());
    // What ends the client ends the connection, of which nobody else has heard.
    let dials = || {
        let words = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let socket = d.socket().display().to_string();
        std::fs::read_dir("/proc").unwrap().flatten().map(words).any(|words| {
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains("dial-stdio") && words.contains(&socket)
        })
    };
    let mut follows = Command::new(client.get_program());
    follows
        .args(client.get_args())
        .envs(client.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .arg("events");
    let mut follows = follows.stdout(Stdio::null()).spawn().unwrap();
    d.eventually("it is connected", dials);
    let pid = rustix::process::Pid::from_child(&follows);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    follows.wait().unwrap();
    d.eventually("its connection has gone", || !dials());
    let missing = client.env("PATH", d.path().join("none")).arg("ps").output().unwrap();
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("exec: \"ssh\": executable file not found in $PATH"), "{said}");
}
