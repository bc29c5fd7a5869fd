//! `delete`: what is left of a container goes.

use std::os::fd::OwnedFd;
use std::time::Duration;

use regex::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::kill::has_pid_namespace;
use crate::launch::run_poststop_hooks;
use crate::lent::Lent;
use crate::place::{self, GONE, Place};
use crate::state::{Container, Identity, Status};
use crate::words::Given;

/// How long the end of a killed process may take, as with runc.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so much of it something is in its way.
const IMPATIENCE: Duration = Duration::from_millis(500);

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
    if force && place.is_busy() {
        // Who has the lock waits for the first process, or for a hook that ends with it.
        kill_at_once(&place)?;
    }
    match place.lock() {
        Err(failure) if force && failure.message == GONE => return Ok(()),
        locked => locked?,
    }
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
        // Nobody else has the lock: who made it was killed.
        Status::Creating | Status::Created => end(&container)?,
        _ if force => end(&container)?,
        other => {
            return Err(Failure::new(format!("cannot delete container {id} that is not stopped: {}", other.name())));
        }
    }
    lent.give_back(global, &container);
    undo(global, container, true)
}

/// Kills the first process of a container that somebody else works on.
fn kill_at_once(place: &Place) -> Result<()> {
    let Some((_, pidfd)) = place.read()?.and_then(|record| record.process.get()).and_then(Identity::open) else {
        return Ok(());
    };
    // It may have ended meanwhile.
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    Ok(())
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
    // Whatever becomes of them, the container is no more.
    let group = remove_group(global, &container);
    let scope = container.record.scope.as_ref().map_or(Ok(()), |scope| Ok(scope.stop()?));
    if hooks {
        run_poststop_hooks(global, &container);
    }
    container.place.remove().and(group).and(scope)
}

fn remove_group(global: &Global, container: &Container) -> Result<()> {
    let group = &container.group;
    if group.remove_empty()? {
        return Ok(());
    }
    if has_pid_namespace(container) {
        // All that was the container's has ended, or is about to; who else has come into its group does not end for it.
        return match group.remove() {
            Err(error) => {
                global.log.warning(&format!("the control group `{}` stays: {error}", container.record.group));
                Ok(())
            }
            Ok(()) => Ok(()),
        };
    }
    // What the container left behind in its group (a daemon of its own) ends with it.
    group.kill()?;
    if group.remove().is_err() {
        group.take_back_from_freezers();
        group.remove()?;
    }
    Ok(())
}
