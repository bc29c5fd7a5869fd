//! What a process does with the signals that come to it (signal(7)).

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

use crate::{Result, check};

/// Lets these signals pass by. Inherited by children, and through exec.
///
/// Ignoring SIGCHLD makes the kernel reap children: nobody can wait for them then.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn ignore(signals: &[Signal]) -> Result<()> {
    signals.iter().try_for_each(|signal| set(*signal, libc::SIG_IGN))
}

/// Lets all pass by that a terminal, or a system that goes down, sends to everybody: for processes that stay until they
/// are told otherwise.
///
/// # Errors
/// None that a caller could cause.
pub fn ignore_passing() -> Result<()> {
    ignore(&[
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::TERM,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::TSTP,
        Signal::TTIN,
        Signal::TTOU,
        Signal::PIPE,
    ])
}

/// Has a program that is to be started let these signals pass by, and end with the thread that starts it (`PR_SET_PDEATHSIG`).
pub fn tied_and_ignoring(command: &mut Command, signals: &'static [Signal]) {
    let prepare = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        ignore(signals).map_err(Into::into)
    };
    // SAFETY: between fork and exec it calls prctl(2) and signal(2) alone, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Gives a signal its default action again.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn restore(signal: Signal) -> Result<()> {
    set(signal, libc::SIG_DFL)
}

fn set(signal: Signal, action: libc::sighandler_t) -> Result<()> {
    // SAFETY: neither SIG_IGN nor SIG_DFL is a function of ours that could be called at a bad moment.
    if unsafe { libc::signal(signal.as_raw(), action) } == libc::SIG_ERR {
        check(-1)?;
    }
    Ok(())
}

/// Blocks every signal that can be blocked, real-time ones too: they wait for [`next_blocked`].
///
/// # Errors
/// None that a caller could cause.
pub fn block_all() -> Result<()> {
    // SAFETY: the set is initialised by sigfillset before it is read; the old mask is not asked for.
    let returned = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut())
    };
    check(returned.into()).map(drop)
}

/// Waits for a signal of this process (after [`block_all`]) and takes it. The number, as real-time signals have no
/// names.
///
/// # Errors
/// `EINTR`, when a signal that cannot be blocked has stopped the process for a while.
pub fn next_blocked() -> Result<i32> {
    // SAFETY: the set is initialised by sigfillset before it is read; no information about the signal is asked for.
    let signal = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    let signal = check(signal.into())?;
    i32::try_from(signal).map_err(|_| rustix::io::Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Namespaces, clone3};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    #[test]
    fn blocked_signals_are_taken_in_a_child_of_its_own() {
        let child = clone3(Namespaces::default(), None, || {
            let own = rustix::process::getpid();
            let sent = block_all().is_ok() && rustix::process::kill_process(own, Signal::USR1).is_ok();
            u8::from(sent && next_blocked() == Ok(Signal::USR1.as_raw()))
        })
        .expect("clones");
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
        assert_eq!(status.and_then(|s| s.exit_status()), Some(1));
    }

    #[test]
    fn a_program_lets_signals_pass_by() {
        let mut command = Command::new("sh");
        tied_and_ignoring(command.args(["-c", "kill -INT $$; kill -TERM $$; exit 3"]), &[Signal::INT, Signal::TERM]);
        assert_eq!(command.status().expect("runs").code(), Some(3));
    }

    #[test]
    fn an_ignored_signal_passes_by() {
        let child = clone3(Namespaces::default(), None, || {
            let own = rustix::process::getpid();
            let done = ignore(&[Signal::TERM]).is_ok() && rustix::process::kill_process(own, Signal::TERM).is_ok();
            u8::from(done)
        })
        .expect("clones");
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
        assert_eq!(status.and_then(|s| s.exit_status()), Some(1));
        assert!(ignore(&[Signal::KILL]).is_err());
    }
}
