//! Sockets that systemd, or who does as it does, has opened for us (`sd_listen_fds(3)`).

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use crate::bound::Bound;
use crate::listen::TcpPolicy;
use rustix::net::{AddressFamily, SocketType};

/// The first of them (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// What was passed. They stay at their numbers, for a start of this daemon in this same process.
static PASSED: Mutex<Vec<Passed>> = Mutex::new(Vec::new());

struct Passed {
    name: String,
    number: i32,
    fd: OwnedFd,
    listened_on: bool,
}

/// Takes over what was passed. To be called once, before anything else opens a file and before a process is made that
/// would inherit them.
///
/// # Errors
/// The message for the user, when the environment names sockets that are not there.
pub(crate) fn adopt() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Ok(());
    }
    let count: i32 = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = PASSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for number in FIRST..FIRST.saturating_add(count) {
        let name = names.next().unwrap_or_default().to_owned();
        let fd = wharf_sys::fds::adopt(number)
            .map_err(|e| format!("LISTEN_FDS is {count}, but file descriptor {number} cannot be had: {e}"))?;
        passed.push(Passed { name, number, fd, listened_on: false });
    }
    Ok(())
}

/// Lets the program that this process becomes inherit them as this one has.
pub(crate) fn pass_on() {
    for passed in PASSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
        let _ = rustix::io::fcntl_setfd(&passed.fd, rustix::io::FdFlags::empty());
    }
}

/// All sockets that were passed, or those with this name or number.
///
/// # Errors
/// The message for the user.
pub(crate) fn sockets(which: Option<&str>, tcp: &TcpPolicy) -> Result<Vec<Bound>, String> {
    let mut passed = PASSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let wanted = |one: &Passed| which.is_none_or(|which| which == one.name || which == one.number.to_string());
    let mut sockets = Vec::new();
    for one in passed.iter_mut().filter(|one| !one.listened_on && wanted(one)) {
        let fail = |e: std::io::Error| format!("cannot listen on fd {}: {e}", one.number);
        sockets.push(one.fd.try_clone().and_then(|fd| bound(fd, tcp)).map_err(fail)?);
        one.listened_on = true;
    }
    if sockets.is_empty() {
        let what = which.map_or_else(String::new, |which| format!(" called {which}"));
        return Err(format!(
            "cannot listen on fd://{}: no socket{what} was passed on by systemd. Start the daemon by its socket unit, or \
             give unix://PATH",
            which.unwrap_or_default()
        ));
    }
    Ok(sockets)
}

fn bound(fd: OwnedFd, tcp: &TcpPolicy) -> std::io::Result<Bound> {
    use std::io::{Error, ErrorKind};
    let invalid = |text: &str| Error::new(ErrorKind::InvalidInput, text.to_owned());
    if rustix::net::sockopt::socket_type(&fd)? != SocketType::STREAM || !rustix::net::sockopt::socket_acceptconn(&fd)? {
        return Err(invalid("it is no stream socket that listens"));
    }
    match rustix::net::sockopt::socket_domain(&fd)? {
        AddressFamily::UNIX => Ok(Bound::Unix(fd.into(), None)),
        AddressFamily::INET | AddressFamily::INET6 if matches!(tcp, TcpPolicy::Nobody) => {
            let text = "it is TCP, and neither --tlsverify nor --insecure-tcp is given";
            Err(Error::new(ErrorKind::PermissionDenied, text))
        }
        AddressFamily::INET | AddressFamily::INET6 => Ok(Bound::Tcp(fd.into())),
        _ => Err(invalid("it is neither a unix socket nor TCP")),
    }
}
