//! Signals as something to read (signalfd(2)), for a loop that waits for fds.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Signal;

use crate::{Result, check};

/// Signals of this process that are read instead of delivered.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Signals {
    /// Blocks `signals` for this thread, and all that it makes, and reads them from now on. A child must call
    /// [`crate::process::reset_signals`] before it becomes another program.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn block(signals: &[Signal]) -> Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it; all pointers are to it and live
        // across the calls, and the old mask is not asked for.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, signal.as_raw());
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
            check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?
        };
        let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
        // SAFETY: signalfd made this descriptor just now; nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal that has come, or `None` when there is none now.
    ///
    /// # Errors
    /// As read(2).
    pub fn next(&self) -> Result<Option<Signal>> {
        let mut bytes = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut bytes) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno),
            // The record begins with the number.
            Ok(_) => Ok(Signal::from_named_raw(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        // Sent to this thread alone: the mask is a thread's own.
        let signals = Signals::block(&[Signal::USR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // SAFETY: a signal to the calling thread, which has blocked it.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.next().unwrap(), Some(Signal::USR2));
    }
}
