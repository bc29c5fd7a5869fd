//! The `wharf` binary: picks the role by the name that it was called by and the first word.
//!
//! Roles that need a process with one thread (`daemon`, `oci`) come before anything that could start another.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let program = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or("wharf").to_owned();
    let args: Vec<OsString> = words.collect();
    let first = args.first().and_then(|word| word.to_str()).unwrap_or("");
    match (program.as_str(), first) {
        (name, _) if wharf_dns::ROLE.is_called(OsStr::new(name)) => wharf_dns::main(),
        (wharf_daemon::INIT_NAME, _) => wharf_daemon::init_main(),
        (name, _) if wharf_relay::ROLE.is_called(OsStr::new(name)) => wharf_relay::main(),
        ("dockerd", _) => daemon(&args),
        ("runc" | "crun" | "wharf-oci", _) => oci(&args),
        (_, "daemon") => daemon(&args[1..]),
        (_, wharf_cli::CHECK) => wharf_daemon::check(&args[1..]),
        (_, "oci") => oci(&args[1..]),
        (_, "registry") => wharf_registry::main(&args[1..]),
        _ => wharf_cli::main(&program, args),
    }
}

/// An ordinary user's is started once more in a user namespace, where it may have its program protected.
fn daemon(args: &[OsString]) -> ExitCode {
    wharf_daemon::for_user(args).unwrap_or_else(|| protected(|| wharf_daemon::main(args)))
}

fn oci(args: &[OsString]) -> ExitCode {
    // The others make no process in a container, and start once instead of twice.
    if args.iter().any(|word| word == "run" || word == "create" || word == "exec") {
        return protected(|| wharf_oci::main(args));
    }
    wharf_oci::main(args)
}

/// For roles whose processes containers may come to see.
fn protected(role: impl FnOnce() -> ExitCode) -> ExitCode {
    if let Err(errno) = wharf_sys::own_program::protect() {
        eprintln!("wharf: containers may come to write to this program: it cannot be started read-only: {errno}");
    }
    wharf_daemon::offer_init();
    role()
}
