//! The monitor's beginning: from a request to a container that runs, or to nothing.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, getpid};
use wharf_report::chain;
use wharf_sys::{disposition, message};

use crate::container::{Container, Held, number};
use crate::error::{LaunchError, Result};
use crate::place::Place;
use crate::silent::SETTLED;
use crate::spawner::Incoming;
use crate::supervise::Monitor;
use crate::wire::Reply;

/// Runs a monitor in a process that was forked for it. The value is its exit status.
pub(crate) fn monitor(asker: OwnedFd) -> u8 {
    // Its own session, so that nothing that is sent to another reaches it; and its children are for it to wait for.
    let settled = rustix::process::setsid().and_then(|_| disposition::restore(Signal::CHILD));
    let begun = settled.map_err(LaunchError::system("leave the session")).and_then(|()| begin(&asker));
    let (reply, monitor) = match begun {
        Ok(monitor) => {
            let (pid, started_at) = monitor.running();
            let monitor_pid = Some(number(getpid()));
            (Reply { pid, monitor_pid, started_at, ..Reply::ok() }, Some(monitor))
        }
        Err(error) => (Reply::error(chain(&error), error.exit_code()), None),
    };
    // A daemon that has gone meanwhile finds the container by its socket.
    let _ = message::send(&asker, &serde_json::to_vec(&reply).unwrap_or_default(), &[]);
    drop(asker);
    match monitor {
        Some(monitor) => {
            // So that `ps` shows whose it is.
            let _ = wharf_sys::process::set_name(SETTLED);
            let _ = wharf_sys::title::set(format!("wharf-monitor {}", monitor.launch.id).as_bytes());
            monitor.run();
            0
        }
        None => 1,
    }
}

fn begin(asker: &OwnedFd) -> Result<Monitor> {
    let request = message::receive(asker).map_err(LaunchError::system("receive the request"))?;
    let (json, mut fds) = request.ok_or(LaunchError::NoAnswer)?;
    let incoming: Incoming = serde_json::from_slice(&json)
        .map_err(|e| LaunchError::Failed { message: format!("the request is not understood: {e}"), code: 125 })?;
    drop(json);
    let Incoming { netns, layers, mut launch } = incoming;
    let netns = (netns && !fds.is_empty()).then(|| fds.remove(0));
    let layers = fds.drain(..layers.min(fds.len())).collect();
    let held = Held { netns, layers };
    let clients = fds.into_iter().zip(std::mem::take(&mut launch.attach)).collect();
    let place = Place::take(&launch)?;
    match Container::start(&launch, &place.group, &held, clients, Some(asker.as_fd())) {
        Ok(container) => Ok(Monitor::new(launch, place, held, container)),
        Err(error) => {
            place.leave(&launch.dir);
            Err(error)
        }
    }
}
