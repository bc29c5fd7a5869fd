//! An init of our own as the container's first process: it starts the program, reaps what is orphaned, passes
//! signals on, and ends as the program does.
//!
//! It is a copy of the runtime's process until it is confined as the program is: undumpable, for what that copy holds
//! is nothing for the container. Then it becomes a program of its own, this binary in a role that is nothing but an init,
//! so that those in the container may look at it as at any other first process (`/proc/1/environ`, `/proc/1/fd/1`).
//! The binary is executed as what cannot be written to (CVE-2019-5736). Where the caller has not offered that role, or
//! the container's filter does not allow it, the copy goes on by itself, and stays undumpable.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Signal, WaitOptions};
use wharf_sys::process::{Namespaces, clone3, exit_now};
use wharf_sys::{disposition, fds, own_program};

use crate::filter::SystemCalls;
use crate::identity::{become_program, confine_ourselves, forbid_privileges, home_variable, settle, settle_ourselves};
use crate::process::ProcessPlan;
use crate::report::Failure;

/// What cannot be: the program's end was not seen.
const UNKNOWN: u8 = 255;

/// The name that this binary is called by in the role of an init, [`init_main`]: as Docker's is.
pub const INIT_NAME: &str = "docker-init";
/// Where that role is told the number of the program's process.
const TOLD: i32 = 3;
/// What the program waits for the end of.
const HELD: i32 = 4;
/// Bytes of addresses that are enough for it, whatever symbols it has.
const ADDRESSES: u64 = 512 << 20;
/// This process's program has that role.
static OFFERED: AtomicBool = AtomicBool::new(false);

/// Says that this process's program calls [`init_main`] when its name is [`INIT_NAME`]: inits of its containers may be
/// that.
pub fn offer_init() {
    OFFERED.store(true, Ordering::Relaxed);
}

/// The program that an init goes on as, unless the container's filter or limits are against it: what has begun to become
/// it cannot go back.
pub(crate) fn program_of_init(process: &ProcessPlan) -> Option<OwnedFd> {
    let filter = process.filter.as_ref().is_none_or(SystemCalls::permits_start);
    let room = process
        .rlimits
        .iter()
        .all(|(resource, limit)| *resource != Resource::As || limit.current.is_none_or(|bytes| bytes >= ADDRESSES));
    if OFFERED.load(Ordering::Relaxed) && filter && room { own_program::read_only_handle() } else { None }
}

/// The role of an init, which [`crate::create_with_init`] starts.
pub fn init_main() -> ExitCode {
    let mut number = [0; 4];
    let told = fds::adopt(TOLD).and_then(|pipe| rustix::io::read(pipe, &mut number));
    let program = Pid::from_raw(i32::from_ne_bytes(number)).filter(|_| told == Ok(4));
    let Some(program) = program else {
        eprintln!("{INIT_NAME}: this is the first process of containers with `--init`, and is started by Wharf alone");
        return ExitCode::from(125);
    };
    // What it is called by is nothing that it depends on.
    let _ = wharf_sys::process::set_name(c"wharf-init");
    // From here on the program finds it as it stays.
    if let Ok(held) = fds::adopt(HELD) {
        // By a word and not by the end of it: a filter may be against close(2).
        let _ = rustix::io::write(&held, &[0]);
    }
    exit_now(reap(program).unwrap_or_else(|| serve(program)))
}

/// Goes on as [`init_main`]. Returns when that cannot be.
fn go_on_as(file: BorrowedFd<'_>, process: &ProcessPlan, program: Pid, confines: BorrowedFd<'_>) -> Result<(), Errno> {
    let (number, told) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::write(&told, &program.as_raw_nonzero().get().to_ne_bytes())?;
    let above = above_all(&number)?;
    drop((told, number));
    fds::pass_on(above.as_fd(), TOLD)?;
    fds::pass_on(confines, HELD)?;
    // As Docker's init is called.
    let arguments = process.arguments.after([c"/sbin/docker-init".to_owned(), c"--".to_owned()]);
    let home = home_variable(process);
    let failure = own_program::start(file, &arguments, home.as_ref().unwrap_or(&process.environment));
    drop((fds::adopt(TOLD), fds::adopt(HELD)));
    Err(failure)
}

/// A copy that is not at the places of [`TOLD`] and [`HELD`].
fn above_all(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, HELD + 1)
}

/// Becomes the init.
pub(crate) fn become_init(
    process: &ProcessPlan,
    socket: BorrowedFd<'_>,
    own: Option<BorrowedFd<'_>>,
) -> Result<Infallible, Failure> {
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
    let own_number = own.map_or(socket_number, |own| own.as_raw_fd());
    fds::close_all_but(3, &[socket_number, confines_number, own_number])
        .map_err(Failure::at("close what the init does not need"))?;
    let adopt = |number| {
        let keep = fds::adopt(number).and_then(above_all);
        keep.map_err(Failure::at("keep the connection to the runtime"))
    };
    let own = own.map(|own| adopt(own.as_raw_fd())).transpose()?;
    let (socket, confines) = (adopt(socket_number)?, adopt(confines_number)?);
    let confined = wharf_sys::process::set_name(c"wharf-init")
        .map_err(Failure::at("say what the init is"))
        .and_then(|()| settle_ourselves(process))
        .and_then(|()| confine_ourselves(process))
        .and_then(|()| forbid_privileges(process));
    match confined {
        Ok(()) => {
            if let Some(own) = own {
                // It has failed where it returns: the container's filter is against it.
                let _ = go_on_as(own.as_fd(), process, pid, confines.as_fd());
            }
            let _ = rustix::io::write(&confines, &[0]);
            drop((confines, socket));
            exit_now(serve(pid))
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
    // A word, or the end of the pipe, is the sign.
    retry_on_intr(|| rustix::io::read(confined, &mut [0_u8; 1])).map_err(Failure::at("wait for the init"))?;
    become_program(process, || Ok(()))
}

/// Signals that a first process gets for its own mistakes and its terminal: tini leaves them to the kernel, which ignores
/// them there, and passes none of them on.
const OWN: [Signal; 9] = [
    Signal::FPE,
    Signal::ILL,
    Signal::SEGV,
    Signal::BUS,
    Signal::ABORT,
    Signal::TRAP,
    Signal::SYS,
    Signal::TTIN,
    Signal::TTOU,
];

/// Until the program has ended; the value is the init's own exit status.
fn serve(program: Pid) -> u8 {
    let is_first = rustix::process::getpid() == Pid::INIT;
    loop {
        match disposition::next_blocked() {
            Ok(signal) if signal == Signal::CHILD.as_raw() => {
                if let Some(status) = reap(program) {
                    return status;
                }
            }
            Ok(signal) if is_first && OWN.iter().any(|own| own.as_raw() == signal) => {}
            // It may have ended, and its number stays its own until it is reaped here. By kill(2), which every filter permits.
            Ok(signal) => drop(wharf_sys::process::signal(program, signal)),
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
