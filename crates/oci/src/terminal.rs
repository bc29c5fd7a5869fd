//! Our terminal and the container's: what is typed goes in, what is shown comes out.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// A copy in both directions. Puts our terminal back as it was when dropped.
pub(crate) struct Relay {
    master: OwnedFd,
    stdin: std::io::Stdin,
    saved: Option<Termios>,
    /// Standard input has not ended.
    typing: bool,
    /// Something may still come from the container.
    showing: bool,
}

impl Relay {
    pub(crate) fn new(master: OwnedFd) -> Result<Self, Errno> {
        let stdin = std::io::stdin();
        let mut relay = Self { master, stdin, saved: None, typing: true, showing: true };
        relay.resize();
        if isatty(&relay.stdin) {
            let saved = tcgetattr(&relay.stdin)?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(&relay.stdin, OptionalActions::Now, &raw)?;
            relay.saved = Some(saved);
        }
        Ok(relay)
    }

    /// Gives the container's terminal the size of ours. Without one of ours there is none to give.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(&self.stdin) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// The container's side, then ours.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let interest = |on: bool| if on { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = Vec::with_capacity(2);
        // Once ended, an fd is always ready: it must not be asked about again.
        if self.showing {
            fds.push(PollFd::new(&self.master, interest(true)));
        }
        if self.typing {
            fds.push(PollFd::new(&self.stdin, interest(true)));
        }
        fds
    }

    /// Copies what is there; `ready` is in the order of [`Self::poll_fds`].
    pub(crate) fn pass(&mut self, ready: &[bool]) {
        let mut ready = ready.iter().copied();
        if self.showing && ready.next() == Some(true) {
            self.showing = copy(&self.master, std::io::stdout().as_fd());
        }
        if self.typing && ready.next() == Some(true) {
            self.typing = copy(&self.stdin, self.master.as_fd());
            if !self.typing {
                // End of input, as a terminal says it.
                let _ = rustix::io::write(&self.master, &[4]);
            }
        }
    }

    /// After the container's end: what it had still shown.
    pub(crate) fn drain(&mut self) {
        while self.showing {
            self.showing = copy(&self.master, std::io::stdout().as_fd());
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, saved);
        }
    }
}

/// Copies one read; false at the end, which a terminal's master tells as `EIO`.
fn copy(from: impl AsFd, to: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut bytes = [0u8; 4096];
    let count = match rustix::io::read(from, &mut bytes) {
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) | Ok(0) => return false,
        Ok(count) => count,
    };
    let mut rest = &bytes[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
