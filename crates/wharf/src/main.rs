//! The `wharf` binary: picks the role by the name that it was called by and the first word.
//!
//! Roles that need a process with one thread (`daemon`, `oci`) come before anything that could start another.

mod bundle;
mod oci;
mod terminal;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const OCI_HELP: &str = "\
Usage:  wharf oci COMMAND

A runtime for OCI bundles

Commands:
  run [--bundle DIR] [--pid-file FILE] ID   Run the OCI bundle in DIR (default: the working directory)
  spec                                      Print a configuration to start from
";

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let program = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or("wharf").to_owned();
    let args: Vec<OsString> = words.collect();
    let first = args.first().and_then(|word| word.to_str()).unwrap_or("");
    match (program.as_str(), first) {
        ("dockerd", _) => protected(|| wharf_daemon::main(&args)),
        (_, "daemon") => protected(|| wharf_daemon::main(&args[1..])),
        (_, "oci") => oci(&args[1..]),
        (_, "registry") => wharf_registry::main(&args[1..]),
        _ => wharf_cli::main(&program, args),
    }
}

/// For roles whose processes containers may come to see.
fn protected(role: impl FnOnce() -> ExitCode) -> ExitCode {
    // Where it cannot be done, as without the right to mount, no container of others can be made either.
    let _ = wharf_sys::own_program::protect();
    role()
}

fn oci(words: &[OsString]) -> ExitCode {
    let texts: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or("\u{fffd}")).collect();
    let done = match texts.as_slice() {
        [] | ["help" | "--help" | "-h"] => return print(OCI_HELP),
        ["spec"] => return print(bundle::EXAMPLE),
        ["run", rest @ ..] => oci::run(rest),
        [other, ..] => Err(oci::Failure::usage(format!("'oci {other}' is not supported; see 'wharf oci --help'"))),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("wharf: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

/// Data goes to standard output; a reader that went away is no error of ours.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
