//! The command line by itself, without daemon and runtime: what the comparison with the real `docker` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf_cli::main("docker", std::env::args_os().skip(1).collect())
}
