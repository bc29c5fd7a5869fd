//! The daemon: the composition root.
//!
//! Reads its configuration, makes the prepared process for monitors while it is still alone, opens the store and what
//! lives on it, takes up the containers that run, listens. It can be killed at any moment: everything that it knows is
//! in the store, with the monitors, or in the kernel under its mark.
//!
//! - [`main`]: the command `wharf daemon`.
//! - [`check`]: `wharf system fsck` where no daemon is.
//! - `budget`: what goes when the data root may take no more. `outside`: what builds need of the daemon.
//! - `flags`: dockerd's flags; `values`: what they say; `options`: joined with the file; `defaults`: what is so otherwise; `unsupported`: what is refused. `file`:
//!   `daemon.json`. `listen`: where clients come; `bound`: its sockets; `activation`: those that were passed; `tcp`, `tls`: clients from elsewhere; `crowd`: how many.
//!   `reload`: SIGHUP. `take_over`: the place of one that runs, `early`, `inherit`: with its sockets. `networks`: their options. `telemetry`: traces of requests. `run`: the order of start and stop.
//! - `rootless`: an ordinary user's daemon, and the namespaces that it works in.

mod activation;
mod bound;
mod budget;
mod check;
mod crowd;
mod defaults;
mod early;
mod exec_root;
mod file;
mod flags;
mod group;
mod id_range;
mod inherit;
mod listen;
mod lookup;
mod networks;
mod options;
mod outside;
mod pid_file;
mod reload;
mod rootless;
mod run;
mod take_over;
mod tcp;
mod telemetry;
mod tls;
mod unsupported;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

pub use defaults::{DEFAULT_DATA_ROOT, DEFAULT_EXEC_ROOT, DEFAULT_HOST};
pub use rootless::for_user;
pub use wharf_monitor::{INIT_NAME, init_main, offer_init};

/// Runs `wharf daemon ARGS` until it is told to stop. Must be called while the process has one thread.
pub fn main(args: &[OsString]) -> ExitCode {
    let options = match options::Options::parse(args) {
        Ok(options::Parsed::Run(options)) => options,
        Ok(options::Parsed::Say(text)) => {
            print(&text);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(125);
        }
    };
    if let Err(message) = rootless::arrive() {
        eprintln!("failed to start daemon: {message}");
        return ExitCode::FAILURE;
    }
    match run::run(args, *options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to start daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Looks at a data root that no daemon has; for `wharf system fsck`.
pub fn check(args: &[OsString]) -> ExitCode {
    check::main(args)
}

/// Data goes to standard output; a reader that went away is no error of ours.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
