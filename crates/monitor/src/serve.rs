//! What is asked of a monitor, and its answers.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::container::now;
use crate::exec::{Exec, Surroundings};
use crate::launch::Attach;
use crate::supervise::Monitor;
use crate::wire::{EventFrame, NOT_RUNNING, Reply, Request};

const PAUSED: &str = "the container is paused, unpause it first";

impl Monitor {
    /// Serves the request that has come on the connection at `n`.
    pub(crate) fn request(&mut self, n: usize, bytes: &[u8], fds: Vec<OwnedFd>) {
        let request = match serde_json::from_slice(bytes) {
            Ok(request) => request,
            Err(error) => {
                let reply = Reply::error(format!("the request is not understood: {error}"), 125);
                return self.connections[n].finish(&reply);
            }
        };
        match request {
            Request::Watch => {
                let state = Some(self.first_word());
                let connection = &mut self.connections[n];
                connection.watching = true;
                connection.send(&EventFrame { state, ..EventFrame::default() });
            }
            Request::Exec(request) => self.exec(n, *request, fds),
            Request::Attach(attach) => {
                let reply = match self.attach(attach, fds) {
                    Ok(()) => Reply { attached_at: Some(now()), ..Reply::ok() },
                    Err(message) => Reply::error(message, 125),
                };
                self.connections[n].finish(&reply);
            }
            other => {
                let reply = match self.simple(other) {
                    Ok(()) => Reply::ok(),
                    Err(message) => Reply::error(message, 125),
                };
                self.connections[n].finish(&reply);
            }
        }
    }

    fn attach(&mut self, attach: Attach, mut fds: Vec<OwnedFd>) -> Result<(), String> {
        let container = self.container.as_mut().ok_or(NOT_RUNNING)?;
        container.streams.add(fds.pop().ok_or("there is no stream to attach")?, attach);
        Ok(())
    }

    /// A request that has one answer.
    fn simple(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Resize { rows, cols } => {
                let container = self.container.as_ref().ok_or(NOT_RUNNING)?;
                container.streams.resize(rows, cols).map_err(|errno| match errno {
                    Errno::NOTTY => "the container has no terminal".to_owned(),
                    errno => format!("cannot resize the terminal: {errno}"),
                })
            }
            Request::Signal { signal, no_restart } => {
                let sent = self.signal(signal);
                if no_restart && sent != Err(Errno::INVAL) {
                    let waits = self.wake.is_some();
                    self.call_off();
                    if waits {
                        return Ok(());
                    }
                }
                sent.map_err(|errno| match errno {
                    Errno::SRCH => NOT_RUNNING.to_owned(),
                    errno => format!("cannot send signal {signal}: {errno}"),
                })
            }
            Request::StdinClose => {
                self.container.as_mut().ok_or(NOT_RUNNING)?.streams.end_input();
                Ok(())
            }
            Request::Update { restart } => {
                self.launch.restart = restart;
                Ok(())
            }
            Request::NoRestart => {
                self.call_off();
                Ok(())
            }
            Request::ExecResize { id, rows, cols } => {
                let exec =
                    self.execs.iter().find(|exec| exec.id == id).ok_or_else(|| format!("there is no exec {id}"))?;
                exec.streams.resize(rows, cols).map_err(|errno| format!("cannot resize the terminal: {errno}"))
            }
            Request::ExecSignal { id, signal } => {
                let exec =
                    self.execs.iter().find(|exec| exec.id == id).ok_or_else(|| format!("there is no exec {id}"))?;
                let pidfd = exec.pidfd.as_ref().ok_or_else(|| format!("exec {id} does not run yet"))?;
                let sent = wharf_sys::process::pidfd_signal(std::os::fd::AsFd::as_fd(pidfd), signal);
                sent.map_err(|errno| format!("cannot send signal {signal}: {errno}"))
            }
            // Have their own answers.
            Request::Watch | Request::Attach(_) | Request::Exec(_) => Ok(()),
        }
    }

    fn exec(&mut self, n: usize, request: crate::wire::ExecRequest, mut fds: Vec<OwnedFd>) {
        let Some(container) = &self.container else {
            return self.connections[n].finish(&Reply::error(NOT_RUNNING, 125));
        };
        if self.place.is_paused() {
            return self.connections[n].finish(&Reply::error(PAUSED, 125));
        }
        // The connection is the exec's from now on; what is left in its place is closed and forgotten.
        let asker = std::mem::take(&mut self.connections[n]);
        let default_filter = self.launch.default_filter.as_ref();
        let surroundings = Surroundings { spec: &self.launch.spec, default_filter, place: &self.place };
        match Exec::new(container, surroundings, request, fds.pop(), asker) {
            Ok(exec) => self.execs.push(exec),
            Err(asker) => self.connections[n] = asker,
        }
    }
}
