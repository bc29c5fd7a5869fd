//! The monitor's loop, and what follows from a container's end.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use wharf_logs::Stream;

use crate::connection::Connection;
use crate::container::{Container, Held, exit_code, now, number};
use crate::exec::{Exec, Surroundings};
use crate::exit;
use crate::late::Late;
use crate::launch::Launch;
use crate::log::Log;
use crate::oom::Oom;
use crate::place::Place;
use crate::probe::{News, Prober};
use crate::ready::{Interest, Part, Source, Who};
use crate::reaper::Reaper;
use crate::restart::History;
use crate::state::{ExecState, Exit};
use crate::wire::{EventFrame, Started};

mod telling;

const KILL: i32 = 9;
/// The kernel tells of a want of memory before it has ended anything for it: looked at again after this, then after
/// twice as long, and so on.
const OOM_FIRST: Duration = Duration::from_millis(5);
const OOM_LAST: Duration = Duration::from_secs(2);
/// A monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) launch: Launch,
    pub(crate) place: Place,
    held: Held,
    /// `None` while it waits for its next start.
    pub(crate) container: Option<Container>,
    /// Its exit code, found in this round.
    code: Option<i32>,
    pub(crate) execs: Vec<Exec>,
    pub(crate) connections: Vec<Connection>,
    late: Late,
    /// `exit.json`, on its way to the disk.
    unsynced: Option<File>,
    reaper: Reaper,
    prober: Option<Prober>,
    pub(crate) history: History,
    /// It is not to be started again.
    pub(crate) stopped: bool,
    /// It is to be started again whatever the policy says: its probes have asked for it.
    forced: bool,
    /// When what its probes have asked to end is killed.
    grace: Option<Instant>,
    /// When it is started again.
    pub(crate) wake: Option<Instant>,
    /// Its last end.
    last: Option<Exit>,
    /// For [`State::untold`].
    untold: VecDeque<Exit>,
    /// Execs that have ended and whose askers had gone, while nobody watched.
    pub(crate) unheard: VecDeque<ExecState>,
    oom: Oom,
    oom_killed: bool,
    /// When to look next, and how long that was waited for.
    oom_look: Option<(Instant, Duration)>,
}

impl Monitor {
    pub(crate) fn new(launch: Launch, place: Place, held: Held, container: Container) -> Self {
        let oom = Oom::new(&place.group);
        let mut monitor = Self {
            launch,
            place,
            held,
            container: Some(container),
            code: None,
            execs: Vec::new(),
            connections: Vec::new(),
            late: Late::default(),
            unsynced: None,
            reaper: Reaper::new(),
            prober: None,
            history: History::default(),
            stopped: false,
            forced: false,
            grace: None,
            wake: None,
            last: None,
            untold: VecDeque::new(),
            unheard: VecDeque::new(),
            oom,
            oom_killed: false,
            oom_look: None,
        };
        // They are the group's from now on, and may be changed there: another start does not set them again.
        if let Some(linux) = monitor.launch.spec.linux_mut() {
            linux.set_resources(None);
        }
        monitor.start_probes();
        monitor
    }

    /// Number and start of what runs.
    pub(crate) fn running(&self) -> (Option<i32>, Option<String>) {
        self.container.as_ref().map(|container| (number(container.pid), container.started_at.clone())).unzip()
    }

    /// Stays beside the container until its end for good.
    pub(crate) fn run(mut self) {
        self.oom.arm(&self.place.group);
        loop {
            for (source, flags) in self.wait() {
                self.ready(source, flags);
            }
            self.flush_log();
            if self.code.is_some() {
                self.ended();
            }
            let now = Instant::now();
            self.tidy(now);
            if self.wake.is_some_and(|wake| now >= wake) {
                self.start_again();
            }
            if self.container.is_none() && self.wake.is_none() {
                break;
            }
        }
        self.leave();
    }

    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let mut interest = Interest::default();
        interest.add(&self.place.listener, PollFlags::IN, Source::Listener);
        let held = self.place.log.as_ref().is_some_and(Log::is_full);
        if let Some(container) = &self.container {
            interest.add(&container.pidfd, PollFlags::IN, Source::Program(Who::Container, Part::Process));
            container.streams.interest(Who::Container, held, &mut interest);
            if let Some(prober) = &self.prober {
                prober.interest(&mut interest);
            }
        }
        for (n, exec) in self.execs.iter().enumerate() {
            exec.interest(Who::Exec(n), &mut interest);
        }
        for (n, connection) in self.connections.iter().enumerate() {
            connection.interest(Source::Connection(n), &mut interest);
        }
        self.late.interest(&mut interest);
        self.reaper.interest(&mut interest);
        if let Some(log) = &self.place.log {
            log.interest(&mut interest);
        }
        if let Some(alarm) = self.oom.alarm() {
            interest.add(alarm, PollFlags::IN, Source::Oom);
        }
        for due in [self.wake, self.grace, self.oom_look.map(|(due, _)| due)] {
            interest.until(due);
        }
        interest.wait()
    }

    fn ready(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Oom => {
                if self.oom.rang() {
                    self.tell_oom();
                } else {
                    self.oom_look = Some((Instant::now() + OOM_FIRST, OOM_FIRST));
                }
            }
            // With all that time has brought, in `tidy`.
            Source::Log => {}
            Source::Children => self.reaper.ready(),
            Source::Connection(n) => {
                if let Some((bytes, fds)) = self.connections.get_mut(n).and_then(|c| c.receive(flags)) {
                    self.request(n, &bytes, fds);
                }
            }
            Source::Late(n) => self.late.ready(n, flags),
            Source::Program(Who::Container, Part::Process) => {
                self.code = self.container.as_ref().and_then(|container| exit_code(&container.pidfd));
            }
            Source::Program(Who::Container, part) => {
                let log = &mut self.place.log;
                if let Some(container) = &mut self.container {
                    container.streams.careful = log.as_ref().is_some_and(Log::is_sent);
                    container.streams.ready(part, flags, &mut |stream, bytes| keep(log, stream, bytes));
                }
            }
            Source::Program(Who::Exec(n), part) => {
                if let Some(exec) = self.execs.get_mut(n) {
                    exec.ready(part, flags);
                }
            }
            Source::Program(Who::Probe, part) => {
                if let Some(prober) = &mut self.prober {
                    prober.ready(part, flags);
                }
            }
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(&self.place.listener, flags) {
                Ok(socket) => {
                    self.connections.push(Connection::new(socket));
                    // What is asked has usually come with it.
                    let n = self.connections.len() - 1;
                    if let Some((bytes, fds)) = self.connections[n].read() {
                        self.request(n, &bytes, fds);
                    }
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return,
            }
        }
    }

    /// What time has brought, and what is over.
    fn tidy(&mut self, now: Instant) {
        if let Some(container) = &mut self.container {
            container.streams.tidy(now);
        }
        if let Some(log) = &mut self.place.log {
            log.ready();
        }
        self.tidy_execs(now);
        self.connections.retain(Connection::is_open);
        self.late.tidy(now);
        if let Some((due, waited)) = self.oom_look
            && now >= due
        {
            let longer = waited * 2;
            self.oom_look = (longer <= OOM_LAST).then(|| (now + longer, longer));
            if self.oom.look() {
                self.oom_look = None;
                self.tell_oom();
            }
        }
        if self.grace.is_some_and(|due| now >= due) {
            self.grace = None;
            let _ = self.signal(KILL);
        }
        self.probe(now);
        let container = self.container.as_ref().map(|container| number(container.pid));
        let (execs, prober) = (&self.execs, &self.prober);
        self.reaper.tidy(|child| {
            Some(child) == container
                || execs.iter().any(|exec| exec.waits_for(child))
                || prober.as_ref().is_some_and(|prober| prober.waits_for(child))
        });
    }

    fn tell_oom(&mut self) {
        self.oom_killed = true;
        self.tell(&EventFrame { oom: Some(true), oom_group: self.oom.reached(), ..EventFrame::default() });
    }

    fn start_probes(&mut self) {
        let process = self.launch.spec.process().as_ref();
        self.prober = self.launch.health.as_ref().zip(process).map(|(config, process)| Prober::new(config, process));
    }

    fn probe(&mut self, now: Instant) {
        let (Some(container), Some(prober)) = (&self.container, &mut self.prober) else { return };
        let default_filter = self.launch.default_filter.as_ref();
        let surroundings = Surroundings { spec: &self.launch.spec, default_filter, place: &self.place };
        let news = prober.tidy(now, container, surroundings);
        if news == News::None {
            return;
        }
        let (remedy, signal, timeout) = prober.on_failure();
        let remedy = remedy.to_owned();
        let health = Some(prober.count.state.clone());
        self.tell(&EventFrame { health, ..EventFrame::default() });
        if news != News::Unhealthy {
            return;
        }
        match remedy.as_str() {
            // Its restart policy decides what follows.
            "kill" => drop(self.signal(KILL)),
            "stop" | "restart" => {
                if remedy == "stop" {
                    self.stopped = true;
                } else {
                    self.forced = true;
                }
                let _ = self.signal(signal);
                self.grace = timeout.and_then(|timeout| now.checked_add(Duration::from_nanos(timeout)));
            }
            _ => {}
        }
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// `ESRCH` when nothing runs, `EINVAL` for what is no signal.
    pub(crate) fn signal(&self, signal: i32) -> Result<(), Errno> {
        let container = self.container.as_ref().ok_or(Errno::SRCH)?;
        wharf_sys::process::pidfd_signal(container.pidfd.as_fd(), signal)?;
        if signal == KILL && !self.has_pid_namespace() {
            // Nothing takes the others with it.
            self.place.end_all();
        }
        Ok(())
    }

    fn has_pid_namespace(&self) -> bool {
        let linux = self.launch.spec.linux().as_ref();
        let mut namespaces = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
        namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
    }

    /// The container's first process has ended.
    fn ended(&mut self) {
        let Some((code, mut container)) = self.code.take().zip(self.container.take()) else { return };
        if !self.has_pid_namespace() {
            self.place.end_all();
        }
        if let Some(prober) = self.prober.take() {
            prober.abandon();
        }
        self.grace = None;
        let log = &mut self.place.log;
        container.streams.drain(&mut |stream, bytes| keep(log, stream, bytes));
        if let Some(log) = log {
            log.end();
        }
        self.flush_log();
        self.oom_look = None;
        self.oom_killed |= self.oom.look();
        let exit = Exit {
            code,
            oom_killed: std::mem::take(&mut self.oom_killed),
            oom_group: self.oom.forget(),
            started_at: container.started_at,
            finished_at: now(),
            lines_lost: self.place.log.as_ref().map_or(0, |log| log.lost()),
            ..Exit::default()
        };
        let wait = if self.forced && !self.stopped {
            self.history.count += 1;
            Some(Duration::ZERO)
        } else {
            self.history.next(&self.launch.restart, code, container.began.elapsed(), self.stopped)
        };
        self.forced = false;
        self.wake = wait.map(|wait| Instant::now() + wait);
        if wait.is_some() {
            self.tell_exited(&exit, true);
        }
        // Only now, so that who sees the end of a stream finds the end of the container.
        self.last = Some(exit);
        if wait.is_none() {
            self.say_last();
        }
        self.late.extend(container.streams.into_late());
    }

    /// Its end was for good: this is its last word, on the disk before anybody is told.
    fn say_last(&mut self) {
        let Some(mut exit) = self.last.take() else { return };
        exit.restart_count = Some(self.history.count);
        exit.untold = std::mem::take(&mut self.untold).into();
        // Without it the daemon, if it is not there now, will say that the code is not known.
        self.unsynced = exit::write(&self.launch.state_dir, &exit).ok().filter(|_| !self.launch.transient);
        self.tell_exited(&exit, false);
        self.flush_connections();
    }

    fn start_again(&mut self) {
        self.wake = None;
        match Container::start(&self.launch, &self.place.group, &self.held, Vec::new(), None) {
            Ok(container) => {
                let started = Started {
                    pid: number(container.pid),
                    started_at: container.started_at.clone(),
                    restart_count: self.history.count,
                };
                self.container = Some(container);
                self.start_probes();
                self.tell(&EventFrame { started: Some(started), ..EventFrame::default() });
            }
            Err(error) => {
                let last = self.last.take().unwrap_or_default();
                self.last =
                    Some(Exit { code: error.exit_code().into(), finished_at: now(), error: error.to_string(), ..last });
                self.say_last();
            }
        }
    }

    /// The next start is called off: the last end was for good after all.
    pub(crate) fn call_off(&mut self) {
        self.stopped = true;
        if self.container.is_none() && self.wake.take().is_some() {
            self.say_last();
        }
    }

    /// Nothing of the container stays but, for a while, clients that have not taken all yet.
    fn leave(mut self) {
        drop(std::mem::take(&mut self.held));
        let mut late = self.late;
        late.extend(self.execs.into_iter().flat_map(Exec::close));
        self.connections.clear();
        self.place.leave(&self.launch.dir);
        late.tidy(Instant::now());
        // When nobody waits any more who need not.
        if let Some(file) = self.unsynced {
            let _ = file.sync_data();
        }
        late.see_off();
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.place.log {
            log.flush();
        }
    }
}

fn keep(log: &mut Option<Log>, stream: Stream, bytes: &[u8]) {
    if let Some(log) = log {
        log.write(stream, bytes);
    }
}
