//! An init of our own as the container's first process: it starts the program, reaps what is orphaned, passes
//! signals on, and ends as the program does.
//!
//! It is a copy of the runtime's process and no program of its own, so nothing has to be found or executed in the
//! container. What that copy holds is nothing for the container: it stays undumpable, so nobody without the right to
//! trace any process of the host can look into it, and it takes on the program's own identity, capabilities and
//! filter, so taking it over would gain nothing.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use wharf_sys::process::{Namespaces, clone3, exit_now, pidfd_signal};
use wharf_sys::{disposition, fds};

use crate::identity::{become_program, confine_ourselves, forbid_privileges, settle, settle_ourselves};
use crate::process::ProcessPlan;
use crate::report::Failure;

/// What cannot be: the program's end was not seen.
const UNKNOWN: u8 = 255;

/// Becomes the init.
pub(crate) fn become_init(process: &ProcessPlan, socket: BorrowedFd<'_>) -> Result<Infallible, Failure> {
    // Before there is anybody to send one: none is lost.
    disposition::block_all().map_err(Failure::at("hold back signals"))?;
    // It has the runtime's capabilities until it is confined: the program starts only then.
    let (confined, confines) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(Failure::at("make a pipe to the program's process"))?;
    let (socket_number, confines_number) = (socket.as_raw_fd(), confines.into_raw_fd());
    let child = clone3(Namespaces::default(), None, || match program(process, &confined, confines_number) {
        Err(failure) => {
            failure.send(socket);
            125
        }
        Ok(never) => match never {},
    });
    let pid = child.map_err(Failure::at("make the program's process"))?.pid;
    // The socket is kept so far that a failure can be told; with its closing here and in the program the runtime
    // knows that all went well.
    fds::close_all_but(3, &[socket_number, confines_number])
        .map_err(Failure::at("close what the init does not need"))?;
    let adopt = |number| fds::adopt(number).map_err(Failure::at("keep the connection to the runtime"));
    let (socket, confines) = (adopt(socket_number)?, adopt(confines_number)?);
    let confined = wharf_sys::process::set_name(c"wharf-init")
        .and_then(|()| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .map_err(Failure::at("watch the program"))
        .and_then(|pidfd| {
            settle_ourselves(process)?;
            confine_ourselves(process)?;
            forbid_privileges(process)?;
            Ok(pidfd)
        });
    match confined {
        Ok(pidfd) => {
            drop((confines, socket));
            exit_now(serve(pid, pidfd.as_fd()))
        }
        Err(failure) => {
            // Before the pipe is closed; all others end with this process.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            failure.send(socket.as_fd());
            exit_now(125)
        }
    }
}

/// The program: in a process group of its own, in the foreground of the terminal if there is one.
fn program(process: &ProcessPlan, confined: &OwnedFd, confines: i32) -> Result<Infallible, Failure> {
    // This process's copy of the init's end.
    drop(fds::adopt(confines));
    rustix::process::setpgid(None, None).map_err(Failure::at("start a process group"))?;
    if process.terminal.is_some() {
        let own = rustix::process::getpid();
        rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own).map_err(Failure::at("come to the foreground"))?;
    }
    settle(process)?;
    // The end of the pipe is the sign.
    retry_on_intr(|| rustix::io::read(confined, &mut [0_u8; 1])).map_err(Failure::at("wait for the init"))?;
    become_program(process, || Ok(()))
}

/// Until the program has ended; the value is the init's own exit status.
fn serve(program: Pid, pidfd: BorrowedFd<'_>) -> u8 {
    loop {
        match disposition::next_blocked() {
            Ok(signal) if signal == Signal::CHILD.as_raw() => {
                if let Some(status) = reap(program) {
                    return status;
                }
            }
            // It may have ended meanwhile.
            Ok(signal) => drop(pidfd_signal(pidfd, signal)),
            Err(Errno::INTR) => {}
            Err(_) => return UNKNOWN,
        }
    }
}

/// Reaps all that have ended; the program's status if it is among them. One signal may stand for several ends.
fn reap(program: Pid) -> Option<u8> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => {
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                return Some(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return None,
            Err(_) => return Some(UNKNOWN),
        }
    }
}
