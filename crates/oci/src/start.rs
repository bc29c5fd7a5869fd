//! `start`: a created container's first process becomes the user's program.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};
use wharf_runtime::{RuntimeError, start_at};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::launch::after_start;
use crate::lent::Lent;
use crate::notify::Notify;
use crate::state::{Container, Status};
use crate::steps;
use crate::words::Given;

/// Times two milliseconds: how long its parent may take to reap it.
const TRIES: u32 = 50;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let container = Container::lock(global, &given.arguments[0])?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        Status::Running => return Err(Failure::new("cannot start an already running container")),
        other => return Err(Failure::new(format!("cannot start a container in the {} state", other.name()))),
    }
    let Some(process) = container.record.spec.process() else {
        return Err(Failure::new("cannot start a container without a process: its configuration has no `process`"));
    };
    let command = process.args().as_ref().and_then(|args| args.first()).map_or("", String::as_str);
    let gate = container.place.connect_to_gate();
    let gate = gate.map_err(|error| {
        Failure::new(format!("the container does not wait for its start: {}", wharf_report::chain(&error)))
    })?;
    let notify = Notify::listen(&container.place)?;
    let lent = Lent::hold(&container);
    let started = start_at(gate.into(), command, &container.record.spec);
    container.place.remove_gate();
    if let (Err(RuntimeError::Silent), Some((_, pidfd))) = (&started, container.process()) {
        // Nobody else will let it go on.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    if started.is_err() {
        await_end(&container);
        lent.give_back(global, &container);
    }
    started?;
    steps::executed(&global.log);
    let pid = container.record.process.get().map_or(0, |process| process.pid);
    let container = after_start(global, container, pid)?;
    if let (Some(notify), Some((_, pidfd))) = (notify, container.process()) {
        // Meanwhile others may work on it.
        container.place.unlock();
        notify.pass_on(&global.log, pid, pidfd.as_fd());
    }
    Ok(0)
}

/// Who asks next what has become of the container must not find its process about to end: containerd takes that for
/// one that waits to be started.
fn await_end(container: &Container) {
    for _ in 0..TRIES {
        if !container.record.process.get().is_some_and(|process| process.is_there()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
