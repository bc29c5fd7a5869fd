//! Further programs in the container.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::event::PollFlags;
use rustix::process::{Signal, pidfd_send_signal};
use wharf_runtime::DefaultFilter;

use crate::attached::Client;
use crate::coming::{Coming, send};
use crate::connection::Connection;
use crate::container::{Container, exit_code, number};
use crate::launch::Attach;
use crate::place::Place;
use crate::ready::{Interest, Part, Source, Who};
use crate::state::ExecState;
use crate::streams::Streams;
use crate::wire::{ExecRequest, NOT_RUNNING, Reply};

/// How long a stream that a child of an ended exec holds open is read on.
const LINGER: Duration = Duration::from_millis(100);
/// How long the end is not told because the client has not taken all yet (as Docker's daemon waits).
const TELLING: Duration = Duration::from_secs(2);
/// How long the client's stream stays open until the asker has noted the code.
const NOTING: Duration = Duration::from_secs(1);

/// How long a program may take to end once whoever it talked to has gone.
const GRACE: Duration = Duration::from_secs(10);

/// 128 and SIGKILL.
const KILLED: i32 = 137;

/// What an exec needs of the container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) default_filter: Option<&'a DefaultFilter>,
    pub(crate) place: &'a Place,
}

/// A program on its way.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    /// `None` until it runs.
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) streams: Streams,
    /// Who is told of its end.
    pub(crate) asker: Connection,
    /// As in [`ExecRequest::note`].
    note: serde_json::Value,
    phase: Phase,
    /// It has ended, and its asker has not heard it.
    unheard: Option<ExecState>,
}

#[derive(Debug)]
enum Phase {
    Coming(Box<Coming>),
    Running {
        number: i32,
        /// When it is killed, as its client has gone.
        until: Option<Instant>,
    },
    /// It has ended; its output has not.
    Ended {
        number: i32,
        code: i32,
        at: Instant,
    },
    /// The asker knows; it is over when that has hung up, and all is sent.
    Told {
        number: i32,
        code: i32,
        at: Instant,
    },
    /// It does not run, and the asker is told why.
    Failed,
}

impl Exec {
    /// Answers a request for an exec. `None` when it does not run; then the connection comes back with the answer.
    pub(crate) fn new(
        container: &Container,
        surroundings: Surroundings<'_>,
        request: ExecRequest,
        client: Option<OwnedFd>,
        mut asker: Connection,
    ) -> std::result::Result<Self, Connection> {
        let attach = Attach {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            detach_keys: request.detach_keys,
        };
        let client = client.map(|socket| (socket, attach));
        match send(container, surroundings, &request.process, request.stdin, client) {
            Ok((coming, streams)) => {
                let phase = Phase::Coming(Box::new(coming));
                Ok(Self { id: request.id, pidfd: None, streams, asker, note: request.note, phase, unheard: None })
            }
            Err(error) => {
                asker.finish(&Reply::error(error.to_string(), error.exit_code()));
                Err(asker)
            }
        }
    }

    pub(crate) fn interest<'a>(&'a self, who: Who, interest: &mut Interest<'a>) {
        match &self.phase {
            Phase::Coming(coming) => coming.interest(who, interest),
            Phase::Running { until, .. } => {
                if let Some(pidfd) = &self.pidfd {
                    interest.add(pidfd, PollFlags::IN, Source::Program(who, Part::Process));
                }
                interest.until(*until);
            }
            Phase::Ended { at, .. } => {
                interest.until(Some(*at + if self.streams.is_drained() { TELLING } else { LINGER }));
            }
            Phase::Told { at, .. } => {
                if self.asker.is_open() {
                    interest.until(Some(*at + NOTING));
                }
            }
            Phase::Failed => {}
        }
        if self.asker.is_open() {
            self.asker.interest(Source::Program(who, Part::Asker), interest);
        }
        // Nothing of it is told before it runs.
        if self.pidfd.is_some() {
            self.streams.interest(who, false, interest);
        }
    }

    /// Something can be done at `part`.
    pub(crate) fn ready(&mut self, part: Part, flags: PollFlags) {
        match part {
            Part::Process => self.reap(),
            // It has nothing more to say: that it is readable means that it has hung up.
            Part::Asker => self.asker.ready(flags),
            part => self.streams.ready(part, flags, &mut |_, _| {}),
        }
    }

    /// Whether a child of the monitor is reaped here. On its way it may have several.
    pub(crate) fn waits_for(&self, child: i32) -> bool {
        match self.phase {
            Phase::Coming(_) => true,
            Phase::Running { number, .. } => child == number,
            Phase::Ended { .. } | Phase::Told { .. } | Phase::Failed => false,
        }
    }

    fn reap(&mut self) {
        if let (Phase::Running { number, .. }, Some(code)) = (&self.phase, self.pidfd.as_ref().and_then(exit_code)) {
            self.phase = Phase::Ended { number: *number, code, at: Instant::now() };
        }
    }

    /// Goes on where nothing but time or the last byte has to come; true when it is over.
    pub(crate) fn tidy(&mut self, now: Instant) -> bool {
        if let Phase::Coming(coming) = &mut self.phase {
            match coming.advance(now, &mut self.streams) {
                Ok(None) => return false,
                Ok(Some((pid, pidfd))) => {
                    self.pidfd = Some(pidfd);
                    self.phase = Phase::Running { number: number(pid), until: None };
                    self.asker.send(&Reply { pid: Some(number(pid)), ..Reply::default() });
                }
                Err(error) => {
                    self.phase = Phase::Failed;
                    self.asker.finish(&Reply::error(error.to_string(), error.exit_code()));
                }
            }
        }
        let is_lost = self.streams.take_lost();
        if let (Phase::Running { until, .. }, Some(pidfd)) = (&mut self.phase, &self.pidfd) {
            // Either way its end comes as an event, if it comes.
            if is_lost && until.is_none() {
                *until = Some(now + GRACE);
                let _ = pidfd_send_signal(pidfd, Signal::HUP);
            } else if until.is_some_and(|until| now >= until) {
                *until = Some(now + GRACE);
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
        }
        self.streams.tidy(now);
        if let Phase::Ended { number, code, at } = self.phase {
            if !self.streams.is_drained() && now >= at + LINGER {
                self.streams.drain(&mut |_, _| {});
            }
            if self.streams.is_drained() && (!self.streams.has_unsent() || now >= at + TELLING) {
                self.asker.send(&Reply { exit: Some(code), ..Reply::default() });
                if !self.asker.is_open() {
                    self.unheard = self.state(Some((number, code)));
                }
                self.phase = Phase::Told { number, code, at: now };
            }
        }
        match self.phase {
            Phase::Told { number, code, at } => {
                // It was killed before it has heard it.
                if self.asker.take_reset() {
                    self.unheard = self.state(Some((number, code)));
                }
                let noted = !self.asker.is_open() || now >= at + NOTING;
                noted && !self.streams.has_unsent()
            }
            Phase::Failed => !self.asker.is_open(),
            Phase::Coming(_) | Phase::Running { .. } | Phase::Ended { .. } => false,
        }
    }

    /// What it is, if it runs or has ended as said (its process number and its code), or its asker may not know yet that it has.
    pub(crate) fn state(&self, ended: Option<(i32, i32)>) -> Option<ExecState> {
        let (pid, exit) = match (ended, &self.phase) {
            (Some((number, code)), _) => (number, Some(code)),
            (None, Phase::Told { number, code, .. }) => (*number, Some(*code)),
            (None, Phase::Running { number, .. } | Phase::Ended { number, .. }) => (*number, None),
            (None, _) => return None,
        };
        Some(ExecState { id: self.id.clone(), pid, note: self.note.clone(), exit })
    }

    /// Its end, if its asker did not hear it, once.
    pub(crate) fn take_unheard(&mut self) -> Option<ExecState> {
        self.unheard.take()
    }

    /// The container has ended for good, and this with it. The clients that have not taken all yet come back.
    pub(crate) fn close(mut self) -> Vec<Client> {
        self.reap();
        self.streams.drain(&mut |_, _| {});
        let code = match self.phase {
            // It is being killed: its PID namespace, or its group, ends.
            Phase::Running { .. } => Some(KILLED),
            Phase::Ended { code, .. } => Some(code),
            Phase::Coming(_) => {
                self.asker.finish(&Reply::error(NOT_RUNNING, 125));
                None
            }
            Phase::Told { .. } | Phase::Failed => None,
        };
        if let Some(code) = code {
            self.asker.send(&Reply { exit: Some(code), ..Reply::default() });
        }
        self.streams.into_late()
    }
}
