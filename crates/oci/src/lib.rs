//! runc's command line over the runtime: `wharf oci`, or this binary called `runc`, `crun` or `wharf-oci`.
//!
//! containerd, Docker, podman and people call a runtime as a program, a command at a time; what is known of a
//! container between two of them is in `ROOT/ID` ([`place`]). Messages, exit codes and forms of output are runc's,
//! as those who call it read them.
//!
//! - `words`, `command`, `global`, `help`: the command line as data.
//! - `bundle`, `keys`, `capabilities`, `check`, `devices`: a configuration, and what is refused of it before anything is made.
//! - `place`, `state`: a container on the disk, and what has become of it.
//! - One file for each command; `launch` is what `create` and `run` have in common.

mod bundle;
mod capabilities;
mod check;
mod checkpoint;
mod command;
mod console;
mod create;
mod delete;
mod devices;
mod events;
mod exec;
mod failure;
mod features;
mod foreground;
mod freeze;
mod global;
mod help;
mod keys;
mod kill;
mod launch;
mod lent;
mod list;
mod log;
mod notify;
mod pidfd_socket;
mod place;
mod ps;
mod review;
mod run;
mod spec;
mod start;
mod state;
mod statistics;
mod steps;
mod terminal;
mod update;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use command::{COMMANDS, Command};
use failure::Failure;
use global::Global;
use log::Log;
use words::{Given, Order};

pub use review::review;

/// The version of the specification that configurations are read by.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// The program; `arguments` are those after its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let done = match read(arguments) {
        Err(failure) => Err((failure, Log::default())),
        Ok(Request::Show(text)) => Ok(print(&text)),
        Ok(Request::Run(command, global, words)) => {
            run(command, &global, &words).map_err(|failure| (failure, global.log))
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err((failure, log)) => {
            log.error(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// What is asked, as far as the global options and the command's name say it.
enum Request {
    Show(String),
    Run(&'static Command, Global, Vec<String>),
}

fn read(arguments: &[OsString]) -> failure::Result<Request> {
    let words = arguments.iter().map(|word| word.to_str().map(str::to_owned));
    let words: Option<Vec<String>> = words.collect();
    let words = words.ok_or_else(|| Failure::new("arguments must be UTF-8"))?;
    let given = Given::read(global::FLAGS, Order::First, &words)?;
    if given.is("version") {
        return Ok(Request::Show(version()));
    }
    let Some((name, rest)) = given.arguments.split_first().filter(|_| !given.help) else {
        return Ok(Request::Show(help::program()));
    };
    let found = |name: &str| COMMANDS.iter().find(|command| command.name == name);
    if matches!(name.as_str(), "help" | "h") {
        let text = rest.first().and_then(|name| found(name)).map_or_else(help::program, help::command);
        return Ok(Request::Show(text));
    }
    let command = found(name).ok_or_else(|| Failure { message: format!("No help topic for '{name}'"), code: 3 })?;
    Ok(Request::Run(command, Global::new(&given)?, rest.to_vec()))
}

fn run(command: &Command, global: &Global, words: &[String]) -> failure::Result<u8> {
    let given = Given::read(command.flags, command.order, words)?;
    if given.help {
        return Ok(print(&help::command(command)));
    }
    if let Some(complaint) = command.arguments.complaint(command.name, given.arguments.len()) {
        return Err(Failure::new(complaint));
    }
    global.log.debug(&format!("{} of the containers in {}", command.name, global.root.display()));
    (command.run)(global, &given)
}

/// In runc's form: engines show it.
fn version() -> String {
    let name = help::called_as().replace(' ', "-");
    let version = env!("CARGO_PKG_VERSION");
    format!("{name} version {version}\ncommit: wharf-{version}\nspec: {SPEC_VERSION}\n")
}

/// Data goes to standard output; a reader that went away is no error of ours.
pub(crate) fn print(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}
