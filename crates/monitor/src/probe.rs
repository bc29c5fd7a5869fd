//! Health probes: the container is asked, and the answers are counted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxSeccomp, Process};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, pidfd_send_signal};
use wharf_cgroup::Group;

use crate::container::{Container, exit_code, now};
use crate::exec;
use crate::launch::Health;
use crate::state::{HealthState, Probe};
use crate::streams::Streams;

/// Docker's bounds: the last five probes, four KiB of each one's output.
const KEPT: usize = 5;
const OUTPUT: usize = 4096;
/// The exit code of a probe that took too long, or could not run.
const FAILED: i32 = -1;

/// The prober of one run of a container.
#[derive(Debug)]
pub(crate) struct Prober {
    config: Health,
    process: Process,
    pub(crate) state: HealthState,
    began: Instant,
    next: Instant,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    pidfd: OwnedFd,
    streams: Streams,
    output: Vec<u8>,
    start: String,
    deadline: Instant,
    timed_out: bool,
}

impl Prober {
    /// Probes run as the container's own process does, without its terminal.
    pub(crate) fn new(config: &Health, process: &Process) -> Self {
        let words = match config.test.split_first() {
            Some((kind, rest)) if kind == "CMD-SHELL" => {
                let mut words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                words.extend(rest.iter().cloned());
                words
            }
            Some((_, rest)) => rest.to_vec(),
            None => Vec::new(),
        };
        let mut process = process.clone();
        process.set_terminal(Some(false)).set_args(Some(words)).set_console_size(None);
        let began = Instant::now();
        let state = HealthState { status: "starting".into(), failing_streak: 0, log: Vec::new() };
        let mut prober = Self { config: config.clone(), process, state, began, next: began, current: None };
        prober.next = began + prober.interval();
        prober
    }

    fn interval(&self) -> Duration {
        let starting = self.state.status == "starting" && self.in_start_period();
        Duration::from_nanos(if starting { self.config.start_interval_ns } else { self.config.interval_ns })
    }

    fn in_start_period(&self) -> bool {
        self.began.elapsed() < Duration::from_nanos(self.config.start_period_ns)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.current.as_ref().map_or(self.next, |current| current.deadline)
    }

    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(current) = &self.current {
            fds.push(PollFd::new(&current.pidfd, PollFlags::IN));
            current.streams.interest(fds);
        }
    }

    /// Does what is due. True when the state has changed.
    pub(crate) fn pass(&mut self, container: &Container, group: &Group, seccomp: Option<&LinuxSeccomp>) -> bool {
        match self.current.take() {
            Some(current) => self.look(current),
            None if Instant::now() >= self.next => self.begin(container, group, seccomp),
            None => false,
        }
    }

    fn begin(&mut self, container: &Container, group: &Group, seccomp: Option<&LinuxSeccomp>) -> bool {
        let start = now();
        match exec::start(container, group, seccomp, &self.process, false, None) {
            Ok((_, pidfd, streams)) => {
                let deadline = Instant::now() + Duration::from_nanos(self.config.timeout_ns);
                let current = Current { pidfd, streams, output: Vec::new(), start, deadline, timed_out: false };
                self.current = Some(current);
                false
            }
            Err(error) => {
                let probe = Probe { start, end: now(), exit_code: FAILED, output: error.to_string() };
                self.count(probe)
            }
        }
    }

    fn look(&mut self, mut current: Current) -> bool {
        let output = &mut current.output;
        current.streams.pass(&mut |_, bytes| {
            let room = OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        let Some(code) = exit_code(&current.pidfd) else {
            if !current.timed_out && Instant::now() >= current.deadline {
                // It may have ended meanwhile.
                let _ = pidfd_send_signal(current.pidfd.as_fd(), Signal::KILL);
                current.timed_out = true;
                // Only so that the loop does not spin; the kill ends it at once.
                current.deadline = Instant::now() + Duration::from_secs(1);
            }
            self.current = Some(current);
            return false;
        };
        let timeout = Duration::from_nanos(self.config.timeout_ns);
        let (exit_code, output) = if current.timed_out {
            (FAILED, format!("Health check exceeded timeout ({}s)", timeout.as_secs_f64()))
        } else {
            (code, String::from_utf8_lossy(&current.output).into_owned())
        };
        self.count(Probe { start: current.start, end: now(), exit_code, output })
    }

    /// Counts a result. True when the state has changed.
    fn count(&mut self, probe: Probe) -> bool {
        if probe.exit_code == 0 {
            self.state.failing_streak = 0;
            self.state.status = "healthy".into();
        } else if !(self.state.status == "starting" && self.in_start_period()) {
            self.state.failing_streak += 1;
            if self.state.failing_streak >= self.config.retries {
                self.state.status = "unhealthy".into();
            }
        }
        if self.state.log.len() == KEPT {
            self.state.log.remove(0);
        }
        self.state.log.push(probe);
        self.next = Instant::now() + self.interval();
        true
    }

    /// What is done about an unhealthy container.
    pub(crate) fn remedy(&self) -> Option<&str> {
        (self.state.status == "unhealthy" && self.config.on_failure != "none").then_some(&self.config.on_failure)
    }
}
