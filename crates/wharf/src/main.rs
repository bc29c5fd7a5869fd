//! The `wharf` binary: picks the role by the first word.

mod bundle;
mod oci;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

const HELP: &str = "\
Usage: wharf COMMAND

A container platform in one static binary.

Commands:
  oci run [--bundle DIR] [--pid-file FILE] ID   Run the OCI bundle in DIR (default: the working directory)
  oci spec                                      Print a configuration to start from
  version                                       Print the version

The commands of `docker` (build, run, push, …) are not in this version.
";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or("\u{fffd}")).collect();
    let done = match texts.as_slice() {
        [] | ["help" | "--help" | "-h"] => return print(HELP),
        ["version" | "--version" | "-v"] => return print(concat!("wharf version ", env!("CARGO_PKG_VERSION"), "\n")),
        ["oci", "spec"] => return print(bundle::EXAMPLE),
        ["oci", "run", rest @ ..] => oci::run(rest),
        ["oci", other, ..] => Err(oci::Failure::usage(format!("'oci {other}' is not supported; see 'wharf --help'"))),
        [other, ..] => Err(oci::Failure::usage(format!("'{other}' is not a wharf command; see 'wharf --help'"))),
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
