//! `delete`: what is left of a container goes.

use std::os::fd::OwnedFd;
use std::time::Duration;

use regex::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::launch::run_poststop_hooks;
use crate::lent::Lent;
use crate::place::{self, Place};
use crate::state::{Container, Status};
use crate::words::Given;

/// How long the end of a killed process may take, as with runc.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so much of it something is in its way.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// What is said of an ID that is nobody's.
const GONE: &str = "container does not exist";

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let force = given.is("force");
    let name = &given.arguments[0];
    if given.is("regex") { delete_matching(global, name, force) } else { delete(global, name, force).map(|()| 0) }
}

/// Deletes all containers with an ID in which `pattern` is found, as crun does. One that cannot be deleted is told, and
/// does not keep the others.
fn delete_matching(global: &Global, pattern: &str, force: bool) -> Result<u8> {
    let pattern = Regex::new(pattern).map_err(|error| Failure::new(format!("invalid regular expression: {error}")))?;
    let mut code = 0;
    for id in place::all(&global.root)?.iter().filter(|id| pattern.is_match(id)) {
        match delete(global, id, force) {
            // Somebody else was faster.
            Err(failure) if failure.message == GONE => {}
            Err(failure) => {
                global.log.warning(&format!("container {id} is not deleted: {}", failure.message));
                code = 1;
            }
            Ok(()) => {}
        }
    }
    Ok(code)
}

fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let place = match Place::open(&global.root, id) {
        // Who forces it wants it gone; it is.
        Err(failure) if force && failure.message == GONE => return Ok(()),
        opened => opened?,
    };
    place.lock()?;
    if place.read()?.is_none() {
        // A creation that was broken off before anything was made.
        if force {
            return place.remove();
        }
        return Err(Failure::new(GONE));
    }
    let container = Container::at(place)?;
    let lent = Lent::hold(&container);
    match container.status() {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        _ if force => end(&container)?,
        other => {
            return Err(Failure::new(format!("cannot delete container {id} that is not stopped: {}", other.name())));
        }
    }
    lent.give_back(global, &container);
    undo(global, container, true)
}

/// Kills the first process and waits until it has ended.
pub(crate) fn end(container: &Container) -> Result<()> {
    let Some((_, pidfd)) = container.process() else { return Ok(()) };
    // It may have ended meanwhile.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    // What is frozen does not even die.
    if container.group.is_frozen() {
        container.group.freeze(false)?;
    }
    if ends(&pidfd, IMPATIENCE)? {
        return Ok(());
    }
    // Somebody may have put it into a freezer of theirs.
    container.group.take_back_from_freezers();
    if ends(&pidfd, PATIENCE)? {
        Ok(())
    } else {
        Err(Failure::new("one or more processes of the container do not end"))
    }
}

/// Whether a process has ended, or does so in that time.
fn ends(pidfd: &OwnedFd, time: Duration) -> Result<bool> {
    let limit = Timespec { tv_sec: time.as_secs().try_into().unwrap_or(10), tv_nsec: time.subsec_nanos().into() };
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&limit)) {
        Err(rustix::io::Errno::INTR) => Ok(true),
        done => Ok(done.map_err(|errno| Failure::os("wait for the container's end", errno))? > 0),
    }
}

/// Undoes the creation. `hooks`: those for the end are run.
pub(crate) fn undo(global: &Global, container: Container, hooks: bool) -> Result<()> {
    if container.group.is_frozen() {
        container.group.freeze(false)?;
    }
    if !container.group.remove_empty()? {
        // What the container left behind in its group (a daemon of its own) ends with it.
        container.group.kill()?;
        if container.group.remove().is_err() {
            container.group.take_back_from_freezers();
            container.group.remove()?;
        }
    }
    if let Some(scope) = &container.record.scope {
        scope.stop()?;
    }
    if hooks {
        run_poststop_hooks(global, &container);
    }
    container.place.remove()
}
