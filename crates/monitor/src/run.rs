//! The monitor: its launch, its loop, its end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxSeccomp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, getpid, pidfd_send_signal};
use wharf_cgroup::{Group, Hierarchies};
use wharf_logs::{LogOptions, Stream, Writer};
use wharf_sys::message;

use crate::client::with_address;
use crate::container::{Container, now};
use crate::error::{LaunchError, Result};
use crate::exec::{ExecRun, answer};
use crate::exit;
use crate::launch::Launch;
use crate::probe::Prober;
use crate::restart::History;
use crate::state::{Exit, State};
use crate::wire::{EventFrame, Reply, Request, SOCKET, Started};

/// How long the output of a container that has ended is waited for. Its processes are gone, so only a stream that it
/// has given to another container can still be open.
const DRAIN: Duration = Duration::from_secs(2);
/// How long clients that read slowly have to take the rest.
const FAREWELL: Duration = Duration::from_secs(10);
/// A daemon writes its request at once, or it was killed in the middle of it.
const REQUEST: Duration = Duration::from_secs(2);
/// Requests that wait to be accepted.
const BACKLOG: i32 = 128;

/// Runs a monitor in the child of the prepared process. The value is its exit status.
pub(crate) fn monitor(bytes: &[u8], fds: Vec<OwnedFd>, asker: &OwnedFd) -> u8 {
    // Its own session, and a name by which `ps` shows it; neither can fail for a reason that matters.
    let _ = rustix::process::setsid();
    let _ = wharf_sys::process::set_name(c"wharf-monitor");
    let started = begin(bytes, fds);
    match started {
        Ok(monitor) => {
            let Some(container) = &monitor.container else { return 1 };
            let reply = Reply {
                pid: Some(number(container.pid)),
                monitor_pid: Some(number(getpid())),
                started_at: Some(container.started_at.clone()),
                ..Reply::ok()
            };
            answer(asker, &reply);
            monitor.run();
            0
        }
        Err(error) => {
            answer(asker, &Reply::error(error.to_string(), error.exit_code()));
            1
        }
    }
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn begin(bytes: &[u8], mut fds: Vec<OwnedFd>) -> Result<Monitor> {
    let (with_netns, json) = bytes.split_first().ok_or(LaunchError::BadAnswer("a launch".into()))?;
    let mut launch: Launch = serde_json::from_slice(json).map_err(|_| LaunchError::BadAnswer("a launch".into()))?;
    let netns = (*with_netns == 1 && !fds.is_empty()).then(|| fds.remove(0));
    let clients = fds.into_iter().zip(std::mem::take(&mut launch.attach)).collect();
    let cgroup = |error: wharf_cgroup::CgroupError| LaunchError::Failed {
        message: match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
        code: 125,
    };
    let log = match &launch.log {
        Some(config) => {
            let options = LogOptions {
                driver: config.driver.parse().unwrap_or_default(),
                max_size: config.max_size,
                max_files: config.max_files,
            };
            let opened = Writer::open(&config.path, options);
            Some(opened.map_err(|error| LaunchError::Failed { message: error.to_string(), code: 125 })?)
        }
        None => None,
    };
    let listener = listen(&launch)?;
    let hierarchies = Hierarchies::detect().map_err(cgroup)?;
    let group = Group::create(&hierarchies, &launch.cgroup).map_err(cgroup)?;
    match Container::start(&launch, &group, netns.as_ref().map(AsFd::as_fd), clients) {
        Ok(container) => {
            let seccomp = launch.spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
            let mut monitor = Monitor {
                history: History::default(),
                stopped: false,
                forced: false,
                wake: None,
                last: None,
                oom_kills: group.usage().oom_kills,
                container: Some(container),
                execs: Vec::new(),
                watchers: Vec::new(),
                prober: None,
                log,
                listener,
                netns,
                group,
                seccomp,
                launch,
            };
            monitor.start_probes();
            Ok(monitor)
        }
        Err(error) => {
            let _ = group.kill();
            let _ = group.remove();
            let _ = std::fs::remove_file(launch.dir.join(SOCKET));
            Err(error)
        }
    }
}

fn listen(launch: &Launch) -> Result<OwnedFd> {
    let fail = LaunchError::system;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(fail("make a socket"))?;
    // Of a run before, whose monitor was killed.
    let _ = std::fs::remove_file(launch.dir.join(SOCKET));
    with_address(&launch.dir, |address| rustix::net::bind(&socket, address))
        .map_err(fail("bind the monitor's socket"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(fail("listen on the monitor's socket"))?;
    Ok(socket)
}

#[derive(Debug)]
struct Monitor {
    launch: Launch,
    group: Group,
    seccomp: Option<LinuxSeccomp>,
    netns: Option<OwnedFd>,
    listener: OwnedFd,
    log: Option<Writer>,
    /// `None` while it waits for its next start.
    container: Option<Container>,
    execs: Vec<ExecRun>,
    watchers: Vec<OwnedFd>,
    prober: Option<Prober>,
    history: History,
    /// It is not to be started again.
    stopped: bool,
    /// It is to be started again whatever the policy says: its probes have asked for it.
    forced: bool,
    /// When it is started again.
    wake: Option<Instant>,
    last: Option<Exit>,
    oom_kills: u64,
}

impl Monitor {
    fn run(mut self) {
        loop {
            self.wait();
            self.hear();
            self.pass();
            if let Some(code) = self.container.as_ref().and_then(Container::ended)
                && !self.ended(code)
            {
                break;
            }
            if self.wake.is_some_and(|wake| Instant::now() >= wake) && !self.start_again() {
                break;
            }
            if self.container.is_none() && self.wake.is_none() {
                break;
            }
        }
        self.leave();
    }

    /// Waits until something happens or is due.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(container) = &self.container {
            fds.push(PollFd::new(&container.pidfd, PollFlags::IN));
            container.streams.interest(&mut fds);
        }
        for exec in &self.execs {
            if exec.deadline().is_none() {
                fds.push(PollFd::new(&exec.pidfd, PollFlags::IN));
            }
            exec.streams.interest(&mut fds);
        }
        if let Some(prober) = &self.prober {
            prober.interest(&mut fds);
        }
        // A watcher says nothing; that it has gone shows as readable.
        fds.extend(self.watchers.iter().map(|watcher| PollFd::new(watcher, PollFlags::IN)));
        let due = self.execs.iter().filter_map(ExecRun::deadline);
        let due = due.chain(self.wake).chain(self.prober.as_ref().map(Prober::deadline)).min();
        let timeout = due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up, or the last fraction of a millisecond would be spent turning round.
            let nanoseconds = left.subsec_nanos().saturating_add(100_000).min(999_999_999);
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: nanoseconds.into() }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Without memory for the list there is nothing to do but to try again.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }

    /// Accepts requests, and forgets watchers that have gone.
    fn hear(&mut self) {
        self.watchers.retain(|watcher| {
            let mut byte = [0u8; 64];
            let flags = rustix::net::RecvFlags::DONTWAIT;
            matches!(rustix::net::recv(watcher, &mut byte, flags), Err(Errno::AGAIN | Errno::INTR))
        });
        while let Ok(asker) = rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            let patience = Some(REQUEST);
            let bounded =
                rustix::net::sockopt::set_socket_timeout(&asker, rustix::net::sockopt::Timeout::Recv, patience)
                    .and_then(|()| {
                        rustix::net::sockopt::set_socket_timeout(&asker, rustix::net::sockopt::Timeout::Send, patience)
                    });
            if bounded.is_err() {
                continue;
            }
            let Ok(Some((bytes, fds))) = message::receive(&asker) else { continue };
            match serde_json::from_slice(&bytes) {
                Ok(request) => self.serve(request, fds, asker),
                Err(error) => answer(&asker, &refusal(format!("the request is not understood: {error}"))),
            }
        }
    }

    fn serve(&mut self, request: Request, mut fds: Vec<OwnedFd>, asker: OwnedFd) {
        let done = |result: std::result::Result<(), String>| match result {
            Ok(()) => Reply::ok(),
            Err(message) => refusal(message),
        };
        let not_running = || "the container is not running".to_owned();
        match request {
            Request::Watch => {
                if send_event(&asker, &EventFrame { state: Some(self.state()), ..EventFrame::default() }) {
                    self.watchers.push(asker);
                }
            }
            Request::Attach(attach) => {
                let result = match (&mut self.container, fds.pop()) {
                    (Some(container), Some(client)) => {
                        container.streams.add(client, attach).map_err(|error| error.to_string())
                    }
                    _ => Err(not_running()),
                };
                answer(&asker, &done(result));
            }
            Request::Resize { rows, cols: columns } => {
                let result = match &self.container {
                    Some(container) => container.streams.resize(rows, columns).map_err(|errno| errno.to_string()),
                    None => Err(not_running()),
                };
                answer(&asker, &done(result));
            }
            Request::Signal { signal, no_restart } => {
                self.stopped |= no_restart;
                if no_restart && self.container.is_none() {
                    // It waits for its next start, which does not come now.
                    self.wake = None;
                }
                answer(&asker, &done(self.signal(signal)));
            }
            Request::Update { restart } => {
                self.launch.restart = restart;
                answer(&asker, &Reply::ok());
            }
            Request::NoRestart => {
                self.stopped = true;
                if self.container.is_none() {
                    self.wake = None;
                }
                answer(&asker, &Reply::ok());
            }
            Request::StdinClose => {
                if let Some(container) = &mut self.container {
                    container.streams.end_input();
                }
                answer(&asker, &Reply::ok());
            }
            Request::ExecSignal { id, signal } => {
                let exec = self.execs.iter().find(|exec| exec.id == id);
                let result = match exec {
                    Some(exec) => {
                        wharf_sys::process::pidfd_signal(exec.pidfd.as_fd(), signal).map_err(|e| e.to_string())
                    }
                    None => Err(format!("there is no exec {id}")),
                };
                answer(&asker, &done(result));
            }
            Request::Exec(request) => match &self.container {
                Some(container) => {
                    let seccomp = self.seccomp.as_ref();
                    self.execs.extend(ExecRun::new(container, &self.group, seccomp, *request, fds.pop(), asker));
                }
                None => answer(&asker, &refusal(not_running())),
            },
            Request::ExecResize { id, rows, cols: columns } => {
                let exec = self.execs.iter().find(|exec| exec.id == id);
                let result = match exec {
                    Some(exec) => exec.streams.resize(rows, columns).map_err(|errno| errno.to_string()),
                    None => Err(format!("there is no exec {id}")),
                };
                answer(&asker, &done(result));
            }
        }
    }

    fn signal(&self, signal: i32) -> std::result::Result<(), String> {
        let Some(container) = &self.container else { return Ok(()) };
        // A real-time signal has no name in rustix, and is sent by number.
        let sent = match Signal::from_named_raw(signal) {
            Some(signal) => pidfd_send_signal(&container.pidfd, signal),
            None => wharf_sys::process::pidfd_signal(container.pidfd.as_fd(), signal),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(format!("cannot send signal {signal}: {errno}")),
        }
    }

    /// Passes streams on, and does what the probes want.
    fn pass(&mut self) {
        if let Some(container) = &mut self.container {
            let log = &mut self.log;
            container.streams.pass(&mut |stream, bytes| keep(log, stream, bytes));
        }
        if let Some(log) = &mut self.log {
            // A full disk loses lines and nothing else.
            let _ = log.flush();
        }
        self.execs.retain_mut(|exec| !exec.pass());
        let (Some(container), Some(prober)) = (&self.container, &mut self.prober) else { return };
        if !prober.pass(container, &self.group, self.seccomp.as_ref()) {
            return;
        }
        let event = EventFrame { health: Some(prober.state.clone()), ..EventFrame::default() };
        let remedy = prober.remedy().map(str::to_owned);
        self.tell(&event);
        match remedy.as_deref() {
            Some("restart") => {
                self.forced = true;
                let _ = self.signal(KILL);
            }
            Some("kill") => drop(self.signal(KILL)),
            Some("stop") => {
                self.stopped = true;
                let _ = self.signal(TERM);
            }
            _ => {}
        }
    }

    fn start_probes(&mut self) {
        let process = self.launch.spec.process().as_ref();
        self.prober = self.launch.health.as_ref().zip(process).map(|(config, process)| Prober::new(config, process));
    }

    /// The container has ended. False when that was for good.
    fn ended(&mut self, code: i32) -> bool {
        let Some(mut container) = self.container.take() else { return true };
        self.prober = None;
        let deadline = Instant::now() + DRAIN;
        while !container.streams.is_drained() && Instant::now() < deadline {
            let log = &mut self.log;
            container.streams.pass(&mut |stream, bytes| keep(log, stream, bytes));
            if !container.streams.is_drained() {
                let mut fds = Vec::new();
                container.streams.interest(&mut fds);
                let short = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                let _ = poll(&mut fds, Some(&short));
            }
        }
        container.streams.stop_reading();
        if let Some(log) = &mut self.log {
            let time = jiff::Timestamp::now();
            let _ =
                log.end(Stream::Stdout, time).and_then(|()| log.end(Stream::Stderr, time)).and_then(|()| log.flush());
        }
        let oom_kills = self.group.usage().oom_kills;
        let oom_killed = oom_kills > self.oom_kills;
        self.oom_kills = oom_kills;
        let exit = Exit {
            code,
            oom_killed,
            started_at: container.started_at.clone(),
            finished_at: now(),
            error: String::new(),
        };
        // Its first process has taken the others with it; what had left its PID namespace would stay.
        for exec in &mut self.execs {
            exec.streams.stop_reading();
            exec.pass();
        }
        self.execs.clear();
        let wait = if self.forced && !self.stopped {
            self.forced = false;
            self.history.count += 1;
            Some(Duration::ZERO)
        } else {
            self.history.next(&self.launch.restart, code, container.began.elapsed(), self.stopped)
        };
        self.wake = wait.map(|wait| Instant::now() + wait);
        if wait.is_none() {
            self.write_exit(&exit);
        }
        self.tell(&exited(exit.clone(), wait.is_some()));
        self.last = Some(exit);
        farewell(&mut container);
        wait.is_some()
    }

    fn write_exit(&self, exit: &Exit) {
        // Without it the daemon, if it is not there now, will say that the code is not known.
        let _ = exit::write(&self.launch.state_dir, exit);
    }

    /// Starts it again. False when that failed, or is not wanted any more.
    fn start_again(&mut self) -> bool {
        self.wake = None;
        if self.stopped {
            return false;
        }
        let netns = self.netns.as_ref().map(AsFd::as_fd);
        match Container::start(&self.launch, &self.group, netns, Vec::new()) {
            Ok(container) => {
                let started = Started {
                    pid: number(container.pid),
                    started_at: container.started_at.clone(),
                    restart_count: self.history.count,
                };
                let event = EventFrame { started: Some(started), ..EventFrame::default() };
                self.container = Some(container);
                self.start_probes();
                self.tell(&event);
                true
            }
            Err(error) => {
                let exit = Exit {
                    code: error.exit_code().into(),
                    error: error.to_string(),
                    finished_at: now(),
                    ..self.last.clone().unwrap_or_default()
                };
                self.write_exit(&exit);
                self.tell(&exited(exit, false));
                self.last = None;
                false
            }
        }
    }

    /// The end of the monitor: nothing of the container stays. The group goes last, as that is slow on v1.
    fn leave(mut self) {
        // Stopped while it waited for its next start: its last end was for good after all.
        if self.stopped
            && self.container.is_none()
            && let Some(exit) = self.last.take()
            && !self.launch.state_dir.join("exit.json").exists()
        {
            self.write_exit(&exit);
            self.tell(&exited(exit, false));
        }
        let _ = std::fs::remove_file(self.launch.dir.join(SOCKET));
        self.watchers.clear();
        drop(self.netns.take());
        let _ = self.group.kill();
        let _ = self.group.remove();
    }

    fn state(&self) -> State {
        let last = |pick: fn(&Exit) -> &String| self.last.as_ref().map(pick).cloned().unwrap_or_default();
        State {
            pid: self.container.as_ref().map_or(0, |container| number(container.pid)),
            started_at: self
                .container
                .as_ref()
                .map_or_else(|| last(|exit| &exit.started_at), |container| container.started_at.clone()),
            restart_count: self.history.count,
            restarting: self.container.is_none(),
            health: self.prober.as_ref().map(|prober| prober.state.clone()),
        }
    }

    /// Tells all watchers; one that does not listen is forgotten.
    fn tell(&mut self, event: &EventFrame) {
        self.watchers.retain(|watcher| send_event(watcher, event));
    }
}

const KILL: i32 = 9;
const TERM: i32 = 15;

/// A line that the disk does not take is lost; the container goes on.
fn keep(log: &mut Option<Writer>, stream: Stream, bytes: &[u8]) {
    if let Some(log) = log {
        let _ = log.write(stream, bytes, jiff::Timestamp::now());
    }
}

/// Gives clients the rest, within bounds.
fn farewell(container: &mut Container) {
    let deadline = Instant::now() + FAREWELL;
    while container.streams.has_unsent() && Instant::now() < deadline {
        container.streams.flush();
        let mut fds = Vec::new();
        container.streams.interest(&mut fds);
        let short = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let _ = poll(&mut fds, Some(&short));
    }
}

fn refusal(message: String) -> Reply {
    Reply::error(message, 125)
}

fn exited(exit: Exit, restarting: bool) -> EventFrame {
    EventFrame { exited: Some(exit), restarting: Some(restarting), ..EventFrame::default() }
}

fn send_event(watcher: impl AsFd, event: &EventFrame) -> bool {
    message::send(watcher, &serde_json::to_vec(event).unwrap_or_default(), &[]).is_ok()
}
