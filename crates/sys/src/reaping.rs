//! Reaping a child that somebody else may trace.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Who has ended and is traced is its tracer's to reap first (ptrace(2)), and a tracer in a container need not. Its own
/// end comes with that of the container's first process; anybody else's is told after this time, without its code.
const TRACED: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    NotYet,
    /// Its exit code, or 128 and the signal that ended it. It is reaped.
    Code(i32),
    /// It has ended, and its code is not to be had: somebody traces it, or it is no child of this process's.
    Unknown,
}

/// Reaps a child by its pidfd, if it has ended. Nobody is waited for but a tracer, for a tenth of a second.
pub fn reap(pidfd: impl AsFd) -> End {
    let pidfd = pidfd.as_fd();
    let deadline = Instant::now() + TRACED;
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                return code.map_or(End::Unknown, End::Code);
            }
            Err(Errno::CHILD) => return End::Unknown,
            Ok(None) if has_ended(pidfd) => {}
            _ => return End::NotYet,
        }
        if Instant::now() >= deadline {
            return End::Unknown;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The number of a child that has ended and is not reaped, whichever that is; it stays so.
pub fn next_ended() -> Option<i32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the structure is plain data, for which zeros are a value, lives across the call, and is what it writes to.
    // Its number is set, or still 0, when the call has succeeded (waitid(2)).
    let (returned, number) = unsafe {
        let mut found: libc::siginfo_t = std::mem::zeroed();
        (libc::waitid(libc::P_ALL, 0, &raw mut found, options), found.si_pid())
    };
    (returned == 0 && number != 0).then_some(number)
}

/// Reaps a child by its number, which is its own as long as it is not reaped, if it has ended.
pub fn reap_number(number: i32) {
    if let Some(pid) = Pid::from_raw(number) {
        // Whose end it was nobody asks.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, pidfd_send_signal};

    use super::*;
    use crate::process::{Namespaces, clone3};

    #[test]
    fn an_end_is_told_with_its_code() {
        let (ours, theirs) = std::io::pipe().unwrap();
        let child = clone3(Namespaces::default(), None, || {
            drop(crate::fds::adopt(std::os::fd::AsRawFd::as_raw_fd(&theirs)));
            let _ = rustix::io::read(&ours, &mut [0_u8; 1]);
            7
        })
        .unwrap();
        assert_eq!(reap(&child.pidfd), End::NotYet);
        drop(theirs);
        poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(reap(&child.pidfd), End::Code(7));
        assert_eq!(reap(&child.pidfd), End::Unknown);
    }

    #[test]
    fn a_tracer_that_does_not_let_go_holds_nobody_up() {
        let child = clone3(Namespaces::default(), None, || {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        let (ours, theirs) = std::io::pipe().unwrap();
        let number = child.pid.as_raw_nonzero().get();
        let tracer = clone3(Namespaces::default(), None, || {
            // SAFETY: no memory of this process is touched: PTRACE_SEIZE takes numbers.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, number, 0_usize, 0_usize) } == 0;
            let _ = rustix::io::write(&theirs, &[u8::from(seized)]);
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        let mut seized = [0_u8; 1];
        rustix::io::read(&ours, &mut seized).unwrap();
        pidfd_send_signal(&child.pidfd, Signal::KILL).unwrap();
        poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], None).unwrap();
        let end = reap(&child.pidfd);
        pidfd_send_signal(&tracer.pidfd, Signal::KILL).unwrap();
        for left in [&tracer, &child] {
            let _ = waitid(WaitId::PidFd(left.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        if seized == [0] {
            return eprintln!("skipped: no right to trace");
        }
        assert_eq!(end, End::Unknown);
    }
}
