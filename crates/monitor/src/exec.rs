//! Further programs in the container.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxSeccomp, Process};
use rustix::process::Pid;
use wharf_cgroup::Group;

use crate::container::{Container, exit_code, failed};
use crate::error::Result;
use crate::launch::Attach;
use crate::streams::{Streams, plumb};
use crate::wire::{ExecRequest, Reply};

/// How long output of an exec that has ended is waited for while a child of it holds its streams.
const LINGER: Duration = Duration::from_millis(100);

/// A program on its way.
#[derive(Debug)]
pub(crate) struct ExecRun {
    pub(crate) id: String,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    /// Who is told of its end.
    asker: OwnedFd,
    ended: Option<(i32, Instant)>,
}

/// Starts `process` in the container.
pub(crate) fn start(
    container: &Container,
    group: &Group,
    seccomp: Option<&LinuxSeccomp>,
    process: &Process,
    open_stdin: bool,
    client: Option<(OwnedFd, Attach)>,
) -> Result<(Pid, OwnedFd, Streams)> {
    let tty = process.terminal().unwrap_or(false);
    let (stdio, mut streams) = plumb(tty, open_stdin, true)?;
    if let Some((socket, attach)) = client {
        streams.add(socket, attach)?;
    }
    let exec = wharf_runtime::Exec {
        pid: container.pid,
        pidfd: container.pidfd.as_fd(),
        process,
        seccomp,
        stdio,
        group: Some(group),
    };
    let (pid, pidfd, master) = wharf_runtime::exec(exec).and_then(wharf_runtime::Created::start).map_err(failed)?;
    if let Some(master) = master {
        streams.set_terminal(master, open_stdin)?;
    }
    Ok((pid, pidfd, streams))
}

impl ExecRun {
    /// Answers a request for an exec.
    pub(crate) fn new(
        container: &Container,
        group: &Group,
        seccomp: Option<&LinuxSeccomp>,
        request: ExecRequest,
        client: Option<OwnedFd>,
        asker: OwnedFd,
    ) -> Option<Self> {
        let attach = Attach {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            detach_keys: request.detach_keys.clone(),
        };
        let client = client.map(|socket| (socket, attach));
        match start(container, group, seccomp, &request.process, request.stdin, client) {
            Ok((pid, pidfd, streams)) => {
                answer(&asker, &Reply { pid: Some(pid.as_raw_nonzero().get()), ..Reply::ok() });
                Some(Self { id: request.id, pidfd, streams, asker, ended: None })
            }
            Err(error) => {
                answer(&asker, &Reply::error(error.to_string(), error.exit_code()));
                None
            }
        }
    }

    /// Passes its streams on; true when it has ended and everything of it has been passed on.
    pub(crate) fn pass(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = exit_code(&self.pidfd).map(|code| (code, Instant::now()));
        }
        self.streams.pass(&mut |_, _| {});
        let Some((code, at)) = self.ended else { return false };
        // What it wrote before its end is in the pipe; a child that it left behind may hold that open for ever.
        if !self.streams.is_drained() {
            if at.elapsed() < LINGER {
                return false;
            }
            self.streams.stop_reading();
        }
        if self.streams.has_unsent() {
            return false;
        }
        answer(&self.asker, &Reply { exit: Some(code), ..Reply::ok() });
        true
    }

    /// When it has to be looked at again though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ended.map(|(_, at)| at + LINGER)
    }
}

/// Whoever asked may have gone.
pub(crate) fn answer(asker: &OwnedFd, reply: &Reply) {
    let bytes = serde_json::to_vec(reply).unwrap_or_default();
    let _ = wharf_sys::message::send(asker, &bytes, &[]);
}
