//! What an ordinary user starts: it makes the namespaces or finds them, starts the daemon there, and stays for it.

use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use wharf_sys::process::Child;
use wharf_sys::signals::Signals;

use super::anchor::Anchor;
use super::ports::Broker;
use super::{guard, inside, resolvers, way_out};
use crate::activation;

/// What is for the daemon.
const PASSED_ON: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR2];

/// Runs this program's words in the namespaces until it ends there; `leads_out`: with a way out of them.
///
/// # Errors
/// The message for the user.
pub(super) fn launch(exec_root: &Path, leads_out: bool) -> Result<ExitCode, String> {
    // Before a file of ours has their numbers.
    activation::adopt()?;
    let at = |error: std::io::Error| format!("cannot use {}: {}", exec_root.display(), wharf_report::os(&error));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(exec_root)
        .map_err(|e| format!("cannot make {}: {}", exec_root.display(), wharf_report::os(&e)))?;
    let exec_root = &exec_root.canonicalize().map_err(at)?;
    let _there = guard::be_there(exec_root).map_err(at)?;
    let turn = guard::turn(exec_root).map_err(at)?;
    let anchor = Anchor::find_or_make(exec_root)?;
    let resolvers = leads_out && way_out::lead(exec_root, anchor.pid) && resolvers::write(exec_root).map_err(at)?;
    drop(turn);
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| format!("cannot make a pair of sockets: {e}"))?;
    // Before there is somebody to pass them on to.
    let signals = Signals::block(&PASSED_ON).map_err(|e| format!("cannot wait for signals: {e}"))?;
    let daemon = inside::start(&anchor, theirs.as_fd(), resolvers.then_some(exec_root.as_path()))
        .map_err(|e| format!("cannot start the daemon: {e}"))?;
    drop(theirs);
    let ended = stay(&daemon, &signals, Broker::new(ours)).map_err(|e| format!("cannot wait for the daemon: {e}"));
    if anchor.has_ended() {
        let _turn = guard::turn(exec_root).map_err(at)?;
        Anchor::replace(exec_root);
    }
    ended
}

/// Does what the daemon needs until it ends; its exit code.
fn stay(daemon: &Child, signals: &Signals, mut broker: Broker) -> Result<ExitCode, Errno> {
    let mut is_asked = true;
    loop {
        let (comes, has_ended) = {
            let mut fds = [
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(&daemon.pidfd, PollFlags::IN),
                PollFd::new(&broker, PollFlags::IN),
            ];
            let count = if is_asked { 3 } else { 2 };
            match poll(&mut fds[..count], None) {
                Err(Errno::INTR) => continue,
                ready => ready?,
            };
            (!fds[2].revents().is_empty(), !fds[1].revents().is_empty())
        };
        while let Some(signal) = signals.next()? {
            // One that has ended needs none.
            let _ = pidfd_send_signal(&daemon.pidfd, signal);
        }
        if has_ended {
            break;
        }
        if comes {
            is_asked = broker.serve();
        }
    }
    let status = waitid(WaitId::PidFd(daemon.pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(ExitCode::from(status.as_ref().map_or(1, code)))
}

/// As a shell has it.
fn code(status: &WaitIdStatus) -> u8 {
    let number = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}
