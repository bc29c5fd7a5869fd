//! The process, from its start until it serves.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::socket_acceptconn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf_sys::process::{Namespaces, clone3};
use wharf_sys::{disposition, fds};

use crate::process::Process;

/// Where the listening socket is, behind the standard streams.
const ONLY_FD: i32 = 3;
/// Out of reach of the OOM killer, as the monitors are: without it published ports are closed.
const OOM_SCORE: &str = "-998";
/// A socket for each port, two for each client.
const FILES: u64 = 65536;

/// The program, when it is called [`PROGRAM_NAME`](crate::PROGRAM_NAME): takes the listening socket from its standard
/// input, and goes on in a child that belongs to nobody. `arguments` are for people who look at `ps`.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    if !socket_acceptconn(std::io::stdin().as_fd()).unwrap_or(false) {
        eprintln!("wharf-relay: is started by the daemon, which passes it a socket");
        return ExitCode::from(2);
    }
    match clone3(Namespaces::default(), None, serve) {
        Ok(_) => ExitCode::SUCCESS,
        Err(errno) => {
            eprintln!("wharf-relay: {errno}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> u8 {
    let Some(listener) = settle() else { return 1 };
    match Process::new(UnixListener::from(listener)) {
        Ok(process) => u8::from(process.run().is_err()),
        Err(_) => 1,
    }
}

/// Leaves what is the daemon's: its session, its fds, what ends it.
fn settle() -> Option<OwnedFd> {
    rustix::process::setsid().ok()?;
    disposition::ignore_passing().ok()?;
    fds::keep_only(0, ONLY_FD).ok()?;
    let listener = fds::adopt(ONLY_FD).ok()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    rustix::stdio::dup2_stdout(&null).ok()?;
    rustix::stdio::dup2_stderr(&null).ok()?;
    rustix::process::chdir("/").ok()?;
    let _ = wharf_sys::process::set_name(c"wharf-relay");
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
