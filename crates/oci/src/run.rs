//! `run`: create and start in one, and by default wait for the end.

use std::os::fd::AsFd;

use crate::delete;
use crate::failure::{Failure, Result};
use crate::foreground::{Signals, look_after};
use crate::global::Global;
use crate::launch::{Made, after_start, launch};
use crate::notify::Notify;
use crate::steps;
use crate::words::Given;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    run_container(global, given).map_err(|failure| failure.during("runc run failed"))
}

fn run_container(global: &Global, given: &Given) -> Result<u8> {
    let detach = given.is("detach");
    // Before there is anybody to end: none is lost.
    let signals = if detach { None } else { Some(Signals::block()?) };
    if !detach && !given.is("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| Failure::os("become the parent of orphans", errno))?;
    }
    let Made { container, created } = launch(global, given, false, detach)?;
    let pid = created.pid.as_raw_nonzero().get();
    let notify = match Notify::listen(&container.place) {
        Ok(notify) => notify,
        Err(failure) => {
            drop(created);
            delete::undo(global, container, true)?;
            return Err(failure);
        }
    };
    let (pidfd, master) = match created.start() {
        Ok((_, pidfd, master)) => (pidfd, master),
        Err(error) => {
            delete::undo(global, container, true)?;
            return Err(error.into());
        }
    };
    steps::executed(&global.log);
    let container = after_start(global, container, pid)?;
    // From now on others may work on it.
    container.place.unlock();
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            notify.pass_on(&global.log, pid, pidfd.as_fd());
        }
        return Ok(0);
    };
    let code = std::thread::scope(|scope| {
        if let Some(notify) = &notify {
            // Whoever is here as long as the container is the one to look after.
            let own = rustix::process::getpid().as_raw_nonzero().get();
            let ended = pidfd.as_fd();
            scope.spawn(move || notify.pass_on(&global.log, own, ended));
        }
        look_after(&signals, &pidfd, master)
    });
    if given.is("keep") {
        return code;
    }
    // Somebody else may have deleted it meanwhile.
    if container.place.lock().is_ok() {
        delete::undo(global, container, true)?;
    }
    code
}
