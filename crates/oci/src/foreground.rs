//! A program that somebody waits for: its terminal is ours, our signals are its, its exit code becomes ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use wharf_runtime::Stdio;
use wharf_sys::reaping::{End, reap};

use crate::failure::{Failure, Result};
use crate::terminal::Relay;

/// What the code is of an end that somebody keeps who traces the process.
const UNKNOWN: u8 = 255;

/// What is passed on.
const FORWARDED: &[Signal] = &[
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::CONT,
    Signal::WINCH,
];

/// Signals of this program, held back until they can be passed on.
#[derive(Debug)]
pub(crate) struct Signals(wharf_sys::signals::Signals);

impl Signals {
    pub(crate) fn block() -> Result<Self> {
        wharf_sys::signals::Signals::block(FORWARDED).map(Self).map_err(|errno| Failure::os("read signals", errno))
    }

    /// A signal that would have ended this program if it were not held back. For a time in which there is nobody to pass
    /// one on to.
    pub(crate) fn that_ends(&self) -> Option<Signal> {
        while let Ok(Some(signal)) = self.0.next() {
            if !matches!(signal, Signal::CONT | Signal::WINCH) {
                return Some(signal);
            }
        }
        None
    }
}

/// Readable when there is a signal.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the end; the value is the exit code.
pub(crate) fn look_after(signals: &Signals, pidfd: &OwnedFd, master: Option<OwnedFd>) -> Result<u8> {
    let relay = master.map(Relay::new).transpose();
    let mut relay = relay.map_err(|errno| Failure::os("use the terminal", errno))?;
    let ended = supervise(signals, pidfd, relay.as_mut()).map_err(|errno| Failure::os("watch the process", errno));
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    ended
}

fn supervise(signals: &Signals, pidfd: &OwnedFd, mut relay: Option<&mut Relay>) -> std::result::Result<u8, Errno> {
    loop {
        let ready = {
            let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            if let Some(relay) = &relay {
                fds.extend(relay.poll_fds());
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        while let Some(signal) = signals.0.next()? {
            match (&relay, signal) {
                (Some(relay), Signal::WINCH) => relay.resize(),
                (None, Signal::WINCH) => {}
                // It may have ended meanwhile.
                (_, signal) => drop(pidfd_send_signal(pidfd, signal)),
            }
        }
        if let Some(relay) = relay.as_deref_mut() {
            relay.pass(&ready[2..]);
        }
        match if ready[1] { reap(pidfd) } else { End::NotYet } {
            End::NotYet => {}
            End::Code(code) => return Ok(u8::try_from(code).unwrap_or(UNKNOWN)),
            End::Unknown => return Ok(UNKNOWN),
        }
    }
}

/// Our own streams, as the program's.
pub(crate) fn inherited() -> Result<Stdio> {
    let own = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|e| Failure::new(format!("cannot pass on a standard stream: {e}")))
    };
    Ok(Stdio::Fds {
        stdin: own(std::io::stdin().as_fd())?,
        stdout: own(std::io::stdout().as_fd())?,
        stderr: own(std::io::stderr().as_fd())?,
    })
}
