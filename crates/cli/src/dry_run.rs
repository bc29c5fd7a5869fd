//! `--dry-run`: what a command would do. Docker has it for none of these.

use wharf_client::Request;

use crate::app::App;
use crate::confirm;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;
use crate::units;

/// Refuses an engine that knows no dry runs: it would do what it is only asked about.
pub(crate) async fn check_engine(app: &App) -> Outcome {
    app.needs_own_engine("--dry-run").await
}

pub(crate) const FLAG: Flag = Flag::switch("dry-run", "Only say what would be done");

/// Whether a prune prunes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prune {
    Real,
    /// It only says what it would remove, once what `after` names were gone.
    Dry {
        after: &'static str,
    },
}

impl Prune {
    pub(crate) fn of(matches: &Matches) -> Self {
        if matches.on("dry-run") { Self::Dry { after: "" } } else { Self::Real }
    }

    /// The same, in a row of prunes.
    pub(crate) fn after(self, after: &'static str) -> Self {
        if let Self::Dry { .. } = self { Self::Dry { after } } else { self }
    }

    /// Asks whether to go on, where something is going to be removed.
    pub(crate) async fn confirm(self, app: &App, warning: &str, force: bool) -> Outcome {
        match self {
            Self::Real => confirm::prune(warning, force).await,
            Self::Dry { .. } => check_engine(app).await,
        }
    }

    pub(crate) fn ask<'a>(self, request: Request<'a>) -> Request<'a> {
        match self {
            Self::Real => request,
            Self::Dry { after } => {
                request.query("dry-run", 1).query_some("after", Some(after).filter(|after| !after.is_empty()))
            }
        }
    }

    /// What is shown of a kind; nothing where there is none.
    pub(crate) fn list(self, what: &str, lines: &[impl AsRef<str>]) -> String {
        if lines.is_empty() {
            return String::new();
        }
        let title = match self {
            Self::Real => "Deleted",
            Self::Dry { .. } => "Would delete",
        };
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        format!("{title} {what}:\n{}\n", lines.join("\n"))
    }

    pub(crate) fn total(self, app: &App, bytes: i64) -> Outcome {
        let words = match self {
            Self::Real => "Total reclaimed space",
            Self::Dry { .. } => "Total space that would be reclaimed",
        };
        app.say(&format!("{words}: {}", units::human_size(bytes as f64)))
    }
}
