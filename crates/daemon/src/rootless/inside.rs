//! The daemon's way into the namespaces, and what it knows there of the launcher.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getppid, getuid, set_parent_process_death_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use wharf_sys::process::{Child, Namespaces, Words, clone3, reset_signals};

use super::anchor::Anchor;
use super::resolvers;
use crate::activation;

/// What the launcher tells the daemon in its environment: `UID:LAUNCHER:FD`.
pub(crate) const VARIABLE: &str = "WHARF_ROOTLESS";

/// What a daemon in the namespaces was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    /// The user, as the host knows it.
    uid: u32,
    launcher: i32,
    /// The socket over which ports are asked for.
    socket: i32,
}

impl Told {
    fn of_environment() -> Option<Self> {
        Self::parse(&std::env::var(VARIABLE).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let told = Self {
            uid: words.next()?.parse().ok()?,
            launcher: words.next()?.parse().ok()?,
            socket: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(told)
    }
}

static SOCKET: OnceLock<OwnedFd> = OnceLock::new();

/// The user whose daemon this process is in the namespaces.
pub(super) fn user() -> Option<u32> {
    Told::of_environment().map(|told| told.uid)
}

/// Whether this process is the daemon in the namespaces.
pub(crate) fn is_inside() -> bool {
    SOCKET.get().is_some()
}

/// The launcher's socket.
pub(super) fn socket() -> Option<&'static OwnedFd> {
    SOCKET.get()
}

/// Takes what the launcher has left for this process, if there was one: to be called once, before anything else opens a
/// file. From then on this process ends when the launcher does.
///
/// # Errors
/// The message for the user.
pub(crate) fn arrive() -> Result<(), String> {
    let Some(told) = Told::of_environment() else { return Ok(()) };
    let socket = wharf_sys::fds::adopt(told.socket).map_err(|e| format!("{VARIABLE} names no socket: {e}"))?;
    let _ = SOCKET.set(socket);
    // A launcher that is killed would leave a daemon that cannot publish ports, and that nobody can start anew beside.
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| format!("cannot watch the launcher: {e}"))?;
    if getppid() != Pid::from_raw(told.launcher) {
        return Err("the process that has started it has ended".into());
    }
    Ok(())
}

/// Lets the program that this process becomes have them again.
pub(crate) fn pass_on() {
    if let Some(socket) = SOCKET.get() {
        let _ = fcntl_setfd(socket, FdFlags::empty());
    }
}

/// Starts this program with the same words as the daemon in the anchor's namespaces.
///
/// # Errors
/// As clone(2).
pub(super) fn start(anchor: &Anchor, socket: BorrowedFd<'_>, resolvers: Option<&Path>) -> Result<Child, Errno> {
    let program = rustix::fs::readlink("/proc/self/exe", Vec::new())?;
    let here = openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(OsStr::from_bytes(program.to_bytes()));
    let directory = std::env::current_dir().ok();
    let launcher = std::process::id();
    clone3(Namespaces::default(), None, || {
        let failed = enter(anchor, directory.as_deref(), resolvers)
            .and_then(|()| become_daemon(&path, here.as_fd(), socket, launcher))
            .err();
        eprintln!("cannot start the daemon in its namespaces: {}", failed.unwrap_or(Errno::IO));
        1
    })
}

/// Joins the namespaces of a process, as root there.
///
/// # Errors
/// As setns(2).
pub(super) fn join(process: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let all = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK;
    move_into_thread_name_spaces(process, all)
}

fn enter(anchor: &Anchor, directory: Option<&Path>, resolvers: Option<&Path>) -> rustix::io::Result<()> {
    reset_signals()?;
    join(anchor.process.as_fd())?;
    if let Some(exec_root) = resolvers
        && let Err(errno) = resolvers::mount(exec_root)
    {
        eprintln!("name servers on the host's loopback are not reached: {errno}");
    }
    // Joining a mount namespace leads to its root.
    if let Some(directory) = directory {
        let _ = rustix::process::chdir(directory);
    }
    Ok(())
}

/// Becomes the program, by its path in these namespaces where that leads to the same file: only of a mount that is here can
/// a read-only one be made.
fn become_daemon(path: &Path, here: BorrowedFd<'_>, socket: BorrowedFd<'_>, launcher: u32) -> rustix::io::Result<()> {
    fcntl_setfd(socket, FdFlags::empty())?;
    activation::pass_on();
    let there = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let same = |there: &OwnedFd| {
        let both = fstat(there).and_then(|there| Ok((there, fstat(here)?)));
        both.is_ok_and(|(there, here)| (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
    };
    let there = there.ok().filter(same);
    let words = |list: Vec<Vec<u8>>| {
        let strings: Result<Vec<_>, _> = list.into_iter().map(CString::new).collect();
        strings.map(Words::new).map_err(|_| Errno::INVAL)
    };
    let arguments = words(std::env::args_os().map(|word| word.as_bytes().to_vec()).collect())?;
    let own = std::process::id().to_string();
    // Sockets that were passed to the launcher are this process's.
    let mut pairs: Vec<Vec<u8>> = std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .map(|(name, value)| {
            let value =
                if name == "LISTEN_PID" && value == *launcher.to_string() { own.as_bytes() } else { value.as_bytes() };
            [name.as_bytes(), value].join(&b'=')
        })
        .collect();
    let told = format!("{VARIABLE}={}:{launcher}:{}", launcher_uid(), socket.as_raw_fd());
    pairs.push(told.into_bytes());
    let program = there.as_ref().map_or(here, AsFd::as_fd);
    Err(wharf_sys::own_program::start(program, &arguments, &words(pairs)?))
}

/// The user's number on the host: in the namespace it is root.
fn launcher_uid() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let root = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace();
        (numbers.next()? == "0").then(|| numbers.next()?.parse().ok())?
    });
    root.unwrap_or_else(|| getuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_launcher_says_is_whole_or_nothing() {
        assert_eq!(Told::parse("1000:7:4"), Some(Told { uid: 1000, launcher: 7, socket: 4 }));
        for bad in ["", "1000", "1000:7", "1000:7:4:1", "a:7:4"] {
            assert_eq!(Told::parse(bad), None, "{bad}");
        }
    }
}
