//! The command line: Docker's, to the letter.
//!
//! [`main`] reads the words, finds the command in the tree ([`commands`]) and runs it. Flags are data ([`flag`]), read by
//! pflag's rules ([`parse`]); help is made of the same data ([`help`]). A command speaks to the engine through
//! `wharf-client` and to the user through [`app::App`]; what it fails with carries its exit code ([`failure`]).

mod app;
mod as_run;
mod auth;
mod autostart;
mod command;
mod commands;
mod config;
mod confirm;
mod contexts;
mod detach_keys;
mod dispatch;
mod download;
mod dry_run;
mod each;
mod endpoint;
mod failure;
mod filters;
mod flag;
mod format;
mod help;
mod inspect;
mod json;
mod man;
mod natural;
mod nearest;
mod options;
mod parse;
mod platform;
mod plugins;
mod ports;
mod progress;
mod proxies;
mod references;
mod signals;
mod sink;
mod stream;
mod table;
mod tar;
mod terminal;
mod timestamps;
mod types;
mod units;
mod upload;
mod values;
mod visible;

use std::ffi::OsString;
use std::process::ExitCode;

/// The first word of the command line of the role that looks at a data root without a daemon.
pub const CHECK: &str = "check-data-root";

/// Runs the command line. `program` is the name that help and messages use (`wharf` or `docker`), `args` are the words
/// after it.
pub fn main(program: &str, args: Vec<OsString>) -> ExitCode {
    let words = args.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    ExitCode::from(dispatch::dispatch(program, words))
}
