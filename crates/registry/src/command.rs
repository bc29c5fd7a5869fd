//! The command line: `registry serve`, `registry gc`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::RwLock;
use wharf_store::Store;

use crate::collect::{Collect, collect};
use crate::log;
use crate::repositories::Repositories;
use crate::server::{Options, serve};
use wharf_report::chain;

const HELP: &str = "\
Usage:  wharf registry COMMAND

An OCI registry

Commands:
  serve       Serve a registry
  gc          Delete what nothing names any more

Run 'wharf registry COMMAND --help' for more information on a command.
";

const SERVE_HELP: &str = "\
Usage:  wharf registry serve [OPTIONS]

Serve a registry

Options:
      --data-root DIR           Where it keeps everything (default \"/var/lib/wharf-registry\")
      --gc-interval DURATION    How often what nothing names is deleted; 0 is never (default 24h)
      --htpasswd FILE           Who may come in, as 'htpasswd -B' writes it (default: everybody)
      --listen ADDRESS:PORT     Where to listen (default \"127.0.0.1:5000\")
      --quiet                   Do not log requests
      --read-only               Take nothing in
      --tls-cert FILE           Certificate chain, PEM
      --tls-key FILE            Key of the certificate, PEM
";

const GC_HELP: &str = "\
Usage:  wharf registry gc [OPTIONS]

Delete what nothing names any more. A registry that is being served does so by itself.

Options:
      --data-root DIR           Where the registry keeps everything (default \"/var/lib/wharf-registry\")
      --delete-untagged         Also delete manifests without a tag
      --dry-run                 Only say what would be deleted
      --older-than DURATION     Spare what has come or was asked for since (default 1h)
";

/// What the command line asks for.
#[derive(Debug)]
enum Command {
    Help(&'static str),
    Serve(Options),
    Collect { data_root: PathBuf, what: Collect },
}

/// Runs `registry` with `args`, those after its name.
pub fn main(args: &[OsString]) -> ExitCode {
    match parse(args) {
        Ok(Command::Help(text)) => {
            say(text);
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(options)) => run(options),
        Ok(Command::Collect { data_root, what }) => run_collect(&data_root, what),
        Err(message) => {
            log::note(format_args!("{message}\n\nRun 'wharf registry --help' for more information"));
            ExitCode::from(125)
        }
    }
}

fn run(options: Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("registry").build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let served = runtime.block_on(serve(options));
    // Threads that wait for the disk are not waited for: what they do is whole or not there.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn run_collect(data_root: &std::path::Path, what: Collect) -> ExitCode {
    // Opening makes a root where there is none; of a typing error nothing must come to be.
    if !data_root.join("oci-layout").exists() {
        log::note(format_args!("there is no registry in `{}`", data_root.display()));
        return ExitCode::FAILURE;
    }
    let store = match Store::open(data_root) {
        Ok(store) => store,
        Err(error) => return failed(&error),
    };
    match collect(&Repositories::new(store), &RwLock::new(()), what) {
        Ok(gone) => {
            let verb = if what.dry_run { "Would delete" } else { "Deleted" };
            say(&format!("{verb} {} manifests and {} blobs, {} bytes\n", gone.manifests, gone.blobs, gone.bytes));
            ExitCode::SUCCESS
        }
        // It has been said why.
        Err(_) => ExitCode::FAILURE,
    }
}

/// To whoever reads it, if anybody does.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    log::note(format_args!("{}", chain(error)));
    ExitCode::FAILURE
}

fn parse(args: &[OsString]) -> Result<Command, String> {
    let mut words = args.iter();
    match words.next().and_then(|word| word.to_str()) {
        None | Some("--help" | "-h" | "help") => Ok(Command::Help(HELP)),
        Some("serve") => parse_serve(&mut Flags::new(words.as_slice())),
        Some("gc" | "garbage-collect") => parse_collect(&mut Flags::new(words.as_slice())),
        Some(other) => Err(format!("unknown command: {other}")),
    }
}

fn parse_serve(flags: &mut Flags<'_>) -> Result<Command, String> {
    let mut options = Options::default();
    let (mut certificate, mut key) = (None, None);
    while let Some(flag) = flags.next()? {
        match flag.as_str() {
            "--help" | "-h" => return Ok(Command::Help(SERVE_HELP)),
            "--data-root" => options.data_root = flags.value()?.into(),
            "--gc-interval" => options.collect_every = duration(&flags.text()?)?,
            "--htpasswd" => options.htpasswd = Some(flags.value()?.into()),
            "--listen" => options.listen = flags.text()?,
            "--quiet" => options.access_log = !flags.truth()?,
            "--read-only" => options.read_only = flags.truth()?,
            "--tls-cert" => certificate = Some(PathBuf::from(flags.value()?)),
            "--tls-key" => key = Some(PathBuf::from(flags.value()?)),
            _ => return Err(format!("unknown flag: {flag}")),
        }
    }
    options.tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("--tls-cert and --tls-key need each other".into()),
    };
    Ok(Command::Serve(options))
}

fn parse_collect(flags: &mut Flags<'_>) -> Result<Command, String> {
    let mut data_root = Options::default().data_root;
    let mut what = Collect { older_than: Duration::from_secs(3600), ..Collect::default() };
    while let Some(flag) = flags.next()? {
        match flag.as_str() {
            "--help" | "-h" => return Ok(Command::Help(GC_HELP)),
            "--data-root" => data_root = flags.value()?.into(),
            "--delete-untagged" => what.untagged = flags.truth()?,
            "--dry-run" => what.dry_run = flags.truth()?,
            "--older-than" => what.older_than = duration(&flags.text()?)?,
            _ => return Err(format!("unknown flag: {flag}")),
        }
    }
    Ok(Command::Collect { data_root, what })
}

/// Reads `--flag value`, `--flag=value` and `--flag`.
#[derive(Debug)]
struct Flags<'a> {
    rest: std::slice::Iter<'a, OsString>,
    flag: String,
    /// What stood behind `=`.
    given: Option<String>,
}

impl<'a> Flags<'a> {
    fn new(args: &'a [OsString]) -> Self {
        Self { rest: args.iter(), flag: String::new(), given: None }
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        if self.given.is_some() {
            return Err(format!("{} takes no value", self.flag));
        }
        let Some(word) = self.rest.next() else { return Ok(None) };
        let word = word.to_str().ok_or("an argument is no text")?;
        if !word.starts_with('-') {
            return Err(format!("unexpected argument: {word}"));
        }
        let (flag, given) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value.to_owned())));
        self.flag = flag.to_owned();
        self.given = given;
        Ok(Some(self.flag.clone()))
    }

    fn value(&mut self) -> Result<OsString, String> {
        if let Some(given) = self.given.take() {
            return Ok(given.into());
        }
        self.rest.next().cloned().ok_or_else(|| format!("flag needs an argument: {}", self.flag))
    }

    fn text(&mut self) -> Result<String, String> {
        self.value()?.into_string().map_err(|_| format!("the value of {} is no text", self.flag))
    }

    fn truth(&mut self) -> Result<bool, String> {
        match self.given.take().as_deref() {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value of {}: {other}", self.flag)),
        }
    }
}

/// Reads `90s`, `5m`, `24h`, `7d` and `0`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("invalid duration: {text} (as 90s, 5m, 24h, 7d)");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" if number == 0 => Some(0),
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        "d" => number.checked_mul(24 * 3600),
        _ => None,
    };
    // A hundred years are for ever, and sums of them stay in range.
    seconds.filter(|seconds| *seconds <= 100 * 365 * 24 * 3600).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines_are_parsed() {
        let line = "serve --listen=:5000 --data-root /d --tls-cert c --tls-key k --quiet --gc-interval 0";
        let Ok(Command::Serve(options)) = parsed(line) else { panic!("no serve") };
        assert_eq!((options.listen.as_str(), options.access_log), (":5000", false));
        assert_eq!(options.tls, Some(("c".into(), "k".into())));
        assert!(options.collect_every.is_zero());
        let Ok(Command::Collect { what, .. }) = parsed("gc --older-than 5m --dry-run --delete-untagged=false") else {
            panic!("no gc")
        };
        assert_eq!((what.older_than, what.dry_run, what.untagged), (Duration::from_secs(300), true, false));
        assert!(matches!(parsed("serve --help"), Ok(Command::Help(_))));
    }

    #[test]
    fn mistakes_are_told() {
        for (line, message) in [
            ("sevre", "unknown command: sevre"),
            ("serve --lisen x", "unknown flag: --lisen"),
            ("serve --listen", "flag needs an argument: --listen"),
            ("serve x", "unexpected argument: x"),
            ("serve --read-only=maybe", "invalid value of --read-only: maybe"),
            ("serve --tls-cert c", "--tls-cert and --tls-key need each other"),
            ("gc --older-than 5", "invalid duration: 5 (as 90s, 5m, 24h, 7d)"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), message);
        }
    }
}
