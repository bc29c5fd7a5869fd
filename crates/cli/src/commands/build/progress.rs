//! `--progress`: how a build is shown.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::parse::Matches;
use crate::progress::{Screen, Target};

/// Its values, and what they are for the variable `BUILDKIT_PROGRESS`.
const KINDS: [&str; 5] = ["auto", "quiet", "plain", "tty", "rawjson"];
const VARIABLE: &str = "BUILDKIT_PROGRESS";

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bars where there is a terminal.
    Auto,
    /// Lines.
    Plain,
    /// Nothing but the image's ID.
    Quiet,
    /// What the engine says, line by line.
    RawJson,
}

pub(super) fn check(text: &str) -> Result<(), String> {
    match KINDS.contains(&text) {
        true => Ok(()),
        false => Err(format!("{text:?} is no type of progress output: there are {}", KINDS.join(", "))),
    }
}

/// What is asked for.
pub(super) fn of(matches: &Matches) -> Outcome<Kind> {
    let variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty() && !matches.changed("progress"));
    let text = match &variable {
        Some(text) => {
            check(text).map_err(|reason| format!("invalid {VARIABLE}: {reason}"))?;
            text
        }
        None => matches.text("progress"),
    };
    Ok(match text {
        _ if matches.on("quiet") => Kind::Quiet,
        "quiet" => Kind::Quiet,
        "plain" => Kind::Plain,
        "rawjson" => Kind::RawJson,
        "tty" if !io::stdout().is_terminal() => {
            return Err(Failure::new("--progress tty needs a terminal, and standard output is none"));
        }
        _ => Kind::Auto,
    })
}

/// Shows what the engine says.
#[derive(Debug)]
pub(super) struct Shown {
    screen: Screen,
    /// Where it goes as it is.
    raw: Option<Target>,
}

impl Shown {
    pub(super) fn new(kind: Kind, target: Target) -> Self {
        let screen = Screen::new(if kind == Kind::RawJson { Target::Nowhere } else { target }).with_codes();
        let screen = if kind == Kind::Plain { screen.plain() } else { screen };
        Self { screen, raw: (kind == Kind::RawJson).then_some(target) }
    }

    /// Shows one message, of those that only programs hear too.
    pub(super) fn message(&mut self, message: &Value) -> Outcome {
        let written = match self.raw {
            Some(Target::Stderr) => writeln!(io::stderr(), "{message}"),
            Some(_) => writeln!(io::stdout().lock(), "{message}"),
            None => Ok(()),
        };
        written.map_err(|error| wharf_report::os(&error))?;
        if message.get("aux").is_some() { Ok(()) } else { self.screen.message(message) }
    }
}
