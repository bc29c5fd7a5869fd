//! The process, from its start until it serves.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf_sys::process::{Namespaces, clone3};
use wharf_sys::{disposition, fds};

/// Where the listening socket is, behind the standard streams.
const ONLY_FD: i32 = 3;
/// Out of reach of the OOM killer, as the monitors are: containers need what it does.
const OOM_SCORE: &str = "-998";
/// Sockets for each container, and for each client.
const FILES: u64 = 65536;

/// Which process it is.
#[derive(Debug)]
pub struct Role {
    /// By which the program knows that it is to be this process; at most 15 bytes.
    pub name: &'static CStr,
    /// Name of the socket in the daemon's volatile directory.
    pub socket: &'static str,
    /// Its task, behind "the process that".
    pub does: &'static str,
    /// What both sides must have in common; the process may serve a later daemon.
    pub version: &'static str,
}

impl Role {
    /// Whether a program that is called by this name is to be this process.
    pub fn is_called(&self, name: &OsStr) -> bool {
        name.as_bytes() == self.name.to_bytes()
    }

    /// The program, when it is called by its [`Role::name`]: takes the listening socket from its standard input, and goes
    /// on in a child that belongs to nobody. `serve` is its task, until it has nothing to do any more.
    pub fn main(&self, serve: impl FnOnce(UnixListener) -> io::Result<()>) -> ExitCode {
        let name = self.name.to_string_lossy();
        if !socket_acceptconn(io::stdin().as_fd()).unwrap_or(false) {
            eprintln!("{name}: is started by the daemon, which passes it a socket");
            return ExitCode::from(2);
        }
        let forked = clone3(Namespaces::default(), None, || match settle(self.name) {
            Some(listener) => u8::from(serve(UnixListener::from(listener)).is_err()),
            None => 1,
        });
        match forked {
            Ok(_) => ExitCode::SUCCESS,
            Err(errno) => {
                eprintln!("{name}: {errno}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Leaves what is the daemon's: its session, its fds, what ends it.
fn settle(name: &CStr) -> Option<OwnedFd> {
    rustix::process::setsid().ok()?;
    disposition::ignore_passing().ok()?;
    fds::keep_only(0, ONLY_FD).ok()?;
    let listener = fds::adopt(ONLY_FD).ok()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    rustix::stdio::dup2_stdout(&null).ok()?;
    rustix::stdio::dup2_stderr(&null).ok()?;
    rustix::process::chdir("/").ok()?;
    let _ = wharf_sys::process::set_name(name);
    // A daemon without the right keeps its own score, and its own limit.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = hard.map_or(FILES, |hard| hard.max(FILES));
    let raised = Rlimit { current: Some(wanted), maximum: hard.map(|hard| hard.max(FILES)) };
    if setrlimit(Resource::Nofile, raised).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
    Some(listener)
}
