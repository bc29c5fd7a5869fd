//! Health probes: the container is asked, and the answers are counted (moby's `daemon/health.go`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use wharf_runtime::Stdio;
use wharf_sys::reaping::reap;

use crate::ask::Question;
use crate::coming::{Coming, send};
use crate::container::{Container, exit_code, now, number};
use crate::error::{LaunchError, Result};
use crate::exec::Surroundings;
use crate::launch::Health;
use crate::ready::{Interest, Part, Source, Who};
use crate::state::{HealthState, Probe};
use crate::streams::{Streams, plumb};

/// Results that are kept.
const KEPT: usize = 5;
/// Bytes of a probe's output that are kept.
const OUTPUT: usize = 4096;
/// How long one that is killed may take to end.
const ENDING: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The code of a probe that did not come to an end of its own.
const FAILED: i32 = -1;

pub(crate) const STARTING: &str = "starting";
const HEALTHY: &str = "healthy";
const UNHEALTHY: &str = "unhealthy";

/// What the results amount to. Pure.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) state: HealthState,
    start_period: Duration,
    retries: u32,
}

impl Count {
    fn new(config: &Health) -> Self {
        Self {
            state: HealthState { status: STARTING.into(), failing_streak: 0, log: Vec::new() },
            start_period: Duration::from_nanos(config.start_period_ns),
            retries: config.retries.max(1),
        }
    }

    /// Takes a result of a probe that was begun so long after the start. True when the container has become unhealthy
    /// with it.
    fn add(&mut self, probe: Probe, after: Duration) -> bool {
        let before = self.state.status == UNHEALTHY;
        if probe.exit_code == 0 {
            self.state.failing_streak = 0;
            self.state.status = HEALTHY.into();
        } else if !(self.state.status == STARTING && after < self.start_period) {
            self.state.failing_streak += 1;
            if self.state.failing_streak >= self.retries {
                self.state.status = UNHEALTHY.into();
            }
        }
        if self.state.log.len() == KEPT {
            self.state.log.remove(0);
        }
        self.state.log.push(probe);
        !before && self.state.status == UNHEALTHY
    }
}

/// The prober of one run of a container.
#[derive(Debug)]
pub(crate) struct Prober {
    config: Health,
    /// Of a probe without a program.
    question: Option<Question>,
    process: Process,
    pub(crate) count: Count,
    began: Instant,
    next: Instant,
    coming: Option<Begun>,
    current: Option<Current>,
}

/// A probe whose program does not run yet.
#[derive(Debug)]
struct Begun {
    coming: Coming,
    streams: Streams,
    start: String,
    after: Duration,
}

/// A probe on its way.
#[derive(Debug)]
struct Current {
    number: i32,
    pidfd: OwnedFd,
    streams: Streams,
    output: Vec<u8>,
    cut: bool,
    start: String,
    after: Duration,
    /// `None` when it has passed: the probe was killed then.
    deadline: Option<Instant>,
    code: Option<i32>,
}

/// What a result means to who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    None,
    Result,
    /// The container has become unhealthy.
    Unhealthy,
}

impl Prober {
    /// Probes run as the container's own process does, without its terminal.
    pub(crate) fn new(config: &Health, process: &Process) -> Self {
        let words = match config.test.split_first() {
            Some((kind, rest)) if kind == "CMD-SHELL" => {
                let shell = ["/bin/sh", "-c"].map(str::to_owned);
                shell.into_iter().chain(rest.iter().cloned()).collect()
            }
            Some((kind, rest)) if kind == "CMD" => rest.to_vec(),
            _ => config.test.clone(),
        };
        let mut process = process.clone();
        process.set_terminal(Some(false)).set_args(Some(words)).set_console_size(None);
        let began = Instant::now();
        let count = Count::new(config);
        // What is wrong with it was said before it came here.
        let question = Question::of(&config.test).ok().flatten();
        let config = config.clone();
        let mut prober = Self { config, question, process, count, began, next: began, coming: None, current: None };
        prober.next = began + prober.interval();
        prober
    }

    fn interval(&self) -> Duration {
        let starting = self.count.state.status == STARTING && self.began.elapsed() < self.count.start_period;
        Duration::from_nanos(if starting { self.config.start_interval_ns } else { self.config.interval_ns })
    }

    pub(crate) fn on_failure(&self) -> (&str, i32, Option<u64>) {
        (&self.config.on_failure, self.config.stop_signal, self.config.stop_timeout_ns)
    }

    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        match (&self.coming, &self.current) {
            (Some(begun), _) => begun.coming.interest(Who::Probe, interest),
            (None, None) => interest.until(Some(self.next)),
            (None, Some(current)) => {
                interest.add(&current.pidfd, PollFlags::IN, Source::Program(Who::Probe, Part::Process));
                current.streams.interest(Who::Probe, false, interest);
                interest.until(current.deadline);
            }
        }
    }

    /// Whether a child of the monitor is reaped here. A probe on its way may have several.
    pub(crate) fn waits_for(&self, child: i32) -> bool {
        self.coming.is_some()
            || self.current.as_ref().is_some_and(|current| current.number == child && current.code.is_none())
    }

    /// Something can be done at `part`.
    pub(crate) fn ready(&mut self, part: Part, flags: PollFlags) {
        let Some(current) = &mut self.current else { return };
        if part == Part::Process {
            current.code = exit_code(&current.pidfd);
            return;
        }
        let (output, cut) = (&mut current.output, &mut current.cut);
        current.streams.ready(part, flags, &mut |_, bytes| *cut |= keep(output, bytes));
    }

    /// Does what is due.
    pub(crate) fn tidy(&mut self, now_is: Instant, container: &Container, surroundings: Surroundings<'_>) -> News {
        if let Some(begun) = self.coming.take() {
            return self.advance(now_is, begun);
        }
        match self.current.take() {
            // As Docker does: a paused container is not asked.
            None if now_is >= self.next && surroundings.place.is_paused() => {
                self.next = now_is + self.interval();
                News::None
            }
            None if now_is >= self.next => self.begin(container, surroundings),
            None => News::None,
            Some(current) if current.code.is_some() => self.end(current),
            Some(mut current) => {
                if current.deadline.is_some_and(|deadline| now_is >= deadline) && surroundings.place.is_paused() {
                    current.deadline = Some(now_is + Duration::from_nanos(self.config.timeout_ns));
                } else if current.deadline.is_some_and(|deadline| now_is >= deadline) {
                    // It may have ended meanwhile. Either way its end comes as an event.
                    let _ = pidfd_send_signal(current.pidfd.as_fd(), Signal::KILL);
                    current.deadline = None;
                }
                self.current = Some(current);
                News::None
            }
        }
    }

    fn begin(&mut self, container: &Container, surroundings: Surroundings<'_>) -> News {
        let (start, after) = (now(), self.began.elapsed());
        if let Some(question) = self.question.take() {
            let asked = Self::ask(&question, container);
            self.question = Some(question);
            return match asked {
                Ok((pid, pidfd, streams)) => self.goes_on(pid, pidfd, streams, start, after),
                Err(error) => self.fail(&error, start, after),
            };
        }
        match send(container, surroundings, &self.process, false, None) {
            Ok((coming, streams)) => {
                self.coming = Some(Begun { coming, streams, start, after });
                News::None
            }
            Err(error) => self.fail(&error, start, after),
        }
    }

    /// Lets a probe go on that does not run yet.
    fn advance(&mut self, now_is: Instant, mut begun: Begun) -> News {
        match begun.coming.advance(now_is, &mut begun.streams) {
            Ok(None) => {
                self.coming = Some(begun);
                News::None
            }
            Ok(Some((pid, pidfd))) => {
                let Begun { streams, start, after, .. } = begun;
                self.goes_on(pid, pidfd, streams, start, after)
            }
            Err(error) => self.fail(&error, begun.start, begun.after),
        }
    }

    /// Begins a probe without a program.
    fn ask(question: &Question, container: &Container) -> Result<(Pid, OwnedFd, Streams)> {
        let (stdio, streams) = plumb(false, false, false, 0)?;
        let Stdio::Fds { stdout, .. } = stdio else { unreachable!("no terminal was asked for") };
        let (pid, pidfd) = question.begin(container.pidfd.as_fd(), &stdout)?;
        Ok((pid, pidfd, streams))
    }

    /// Its process runs: from now on it has so long.
    fn goes_on(&mut self, pid: Pid, pidfd: OwnedFd, streams: Streams, start: String, after: Duration) -> News {
        let deadline = Some(Instant::now() + Duration::from_nanos(self.config.timeout_ns));
        let (number, output, cut, code) = (number(pid), Vec::new(), false, None);
        self.current = Some(Current { number, pidfd, streams, output, cut, start, after, deadline, code });
        News::None
    }

    fn fail(&mut self, error: &LaunchError, start: String, after: Duration) -> News {
        let output = format!("OCI runtime exec failed: {error}");
        self.add(Probe { start, end: now(), exit_code: FAILED, output }, after)
    }

    fn end(&mut self, mut current: Current) -> News {
        let (output, cut) = (&mut current.output, &mut current.cut);
        current.streams.drain(&mut |_, bytes| *cut |= keep(output, bytes));
        let mut text = String::from_utf8_lossy(&current.output).into_owned();
        if current.cut {
            text.push_str("...");
        }
        let timed_out = current.deadline.is_none();
        if timed_out {
            let limit = duration(Duration::from_nanos(self.config.timeout_ns));
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("Health check exceeded timeout ({limit}){colon}{text}");
        }
        let exit_code = if timed_out { FAILED } else { current.code.unwrap_or(FAILED) };
        self.add(Probe { start: current.start, end: now(), exit_code, output: text }, current.after)
    }

    fn add(&mut self, probe: Probe, after: Duration) -> News {
        let unhealthy = self.count.add(probe, after);
        self.next = Instant::now() + self.interval();
        if unhealthy { News::Unhealthy } else { News::Result }
    }

    /// The container has ended: a probe on its way ends with it, but has to be reaped.
    pub(crate) fn abandon(self) {
        if let Some(current) = self.current {
            end(current.pidfd.as_fd());
        }
    }
}

/// Ends a child for good. One that a tracer or a device holds back is left as it is: others wait for this process.
fn end(pidfd: BorrowedFd<'_>) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&ENDING));
    let _ = reap(pidfd);
}

/// Keeps the first bytes; true when some were left out.
fn keep(output: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let room = OUTPUT.saturating_sub(output.len()).min(bytes.len());
    output.extend_from_slice(&bytes[..room]);
    room < bytes.len()
}

/// As Go writes durations, for the sizes that a timeout has: `1m30s`, `2.5s`, `100ms`.
fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", time.as_secs_f64() * 1000.0);
    }
    let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
    let seconds = time - Duration::from_secs(hours * 3600 + minutes * 60);
    let seconds = format!("{}s", seconds.as_secs_f64());
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use wharf_sys::process::{Namespaces, clone3};
    use wharf_sys::reaping::End;

    use super::*;

    #[test]
    fn what_is_ended_is_reaped_too() {
        let child = clone3(Namespaces::default(), None, || {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        assert_eq!(reap(&child.pidfd), End::NotYet);
        end(child.pidfd.as_fd());
        assert_eq!(reap(&child.pidfd), End::Unknown, "there is no such child any more");
    }

    fn count(retries: u32, start_period: u64) -> Count {
        let (interval_ns, timeout_ns, start_interval_ns) = (1, 1, 1);
        Count::new(&Health {
            test: Vec::new(),
            interval_ns,
            timeout_ns,
            start_period_ns: start_period * 1_000_000_000,
            start_interval_ns,
            retries,
            on_failure: "none".into(),
            stop_signal: 15,
            stop_timeout_ns: None,
        })
    }

    fn add(count: &mut Count, exit_code: i32, after: u64) -> bool {
        let probe = Probe { start: String::new(), end: String::new(), exit_code, output: String::new() };
        count.add(probe, Duration::from_secs(after))
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy_once() {
        let mut count = count(2, 0);
        assert!(!add(&mut count, 1, 0));
        assert!(!add(&mut count, 0, 1) && count.state.failing_streak == 0 && count.state.status == HEALTHY);
        assert!(!add(&mut count, 1, 2) && count.state.status == HEALTHY);
        assert!(add(&mut count, -1, 3) && count.state.status == UNHEALTHY);
        assert!(!add(&mut count, 1, 4), "told once");
        assert!(!add(&mut count, 0, 5) && count.state.status == HEALTHY);
        assert_eq!(count.state.log.len(), KEPT);
    }

    #[test]
    fn failures_while_it_starts_do_not_count_until_it_was_well_once() {
        let mut count = count(1, 10);
        assert!(!add(&mut count, 1, 3) && count.state.failing_streak == 0 && count.state.status == STARTING);
        assert!(!add(&mut count, 0, 4));
        assert!(add(&mut count, 1, 5), "it had started");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let text = |milliseconds| duration(Duration::from_millis(milliseconds));
        assert_eq!(
            [text(30_000), text(2_500), text(100), text(90_000), text(3_600_000)],
            ["30s", "2.5s", "100ms", "1m30s", "1h0m0s"]
        );
    }

    #[test]
    fn output_is_kept_up_to_its_bound() {
        let mut output = Vec::new();
        assert!(!keep(&mut output, &[b'x'; OUTPUT]));
        assert!(keep(&mut output, b"y") && output.len() == OUTPUT);
    }
}
