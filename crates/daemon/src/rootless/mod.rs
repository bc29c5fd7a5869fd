//! The daemon of an ordinary user: it works in namespaces of its own, where it is root.
//!
//! There are two processes more than root's daemon has. The *launcher* is what the user has started: it stays in the host's
//! namespaces, passes signals on, binds published ports (`ports`), and ends with the daemon. The *anchor* is the first in
//! the namespaces, does nothing, and keeps them while containers go on without a daemon; it ends when nobody is there any
//! more. The daemon joins the anchor's namespaces, at its first start as at every later one.
//!
//! - [`for_user`]: the launcher; [`beside_daemon`]: for what is not the daemon. [`arrive`], [`user`]: the daemon in the namespaces; `inside`: how it comes there.
//! - `anchor`: found or made; `record`: where it is noted; `guard`: what it waits for. `ids`: the user's IDs.
//! - `way_out`: the program that leads from the namespaces to the host's network; `resolvers`: name servers there.
//! - `ports`: the host's ports, asked for by the daemon.

mod anchor;
mod guard;
mod ids;
mod inside;
mod launcher;
mod ports;
mod record;
mod resolvers;
mod way_out;

use std::ffi::OsString;
use std::process::ExitCode;

use rustix::process::geteuid;

use crate::options::{Options, Parsed};

pub(crate) use inside::{VARIABLE, arrive, is_inside, pass_on};
pub(crate) use ports::host_ports;

/// The user whose daemon this is or is to be; `None` for root's.
pub(crate) fn user() -> Option<u32> {
    let own = geteuid();
    if own.is_root() { inside::user() } else { Some(own.as_raw()) }
}

/// Whether `--rootless` can be.
///
/// # Errors
/// The message for the user: of root's daemon it cannot.
pub(crate) fn check() -> Result<(), String> {
    if user().is_some() {
        return Ok(());
    }
    Err("--rootless is for ordinary users, and this is root: start the daemon as the user whose it is to be, or leave the \
         option out"
        .into())
}

/// Runs the daemon of who is not root, in namespaces of its own, until it ends. `None` for root, and in those namespaces:
/// then this process is the daemon. Must be called while the process has one thread.
pub fn for_user(args: &[OsString]) -> Option<ExitCode> {
    if geteuid().is_root() {
        return None;
    }
    let options = match Options::parse(args) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Say(text)) => {
            crate::print(&text);
            return Some(ExitCode::SUCCESS);
        }
        Err(message) => {
            eprintln!("{message}");
            return Some(ExitCode::from(125));
        }
    };
    crate::run::log(&options);
    Some(launcher::launch(&options.exec_root, true).unwrap_or_else(|message| {
        eprintln!("failed to start daemon: {message}");
        ExitCode::FAILURE
    }))
}

/// Runs this program once more in the namespaces of this user's daemon, for what is to be done with its data root. `None`
/// for root, and there.
pub(crate) fn beside_daemon() -> Option<ExitCode> {
    if geteuid().is_root() {
        return None;
    }
    let exec_root = match Options::parse(&[]) {
        Ok(Parsed::Run(options)) => Ok(options.exec_root),
        Ok(Parsed::Say(text)) | Err(text) => Err(text),
    };
    Some(exec_root.and_then(|exec_root| launcher::launch(&exec_root, false)).unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::FAILURE
    }))
}
