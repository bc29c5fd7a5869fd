//! What can go wrong in a build, in the user's words and with the line of the Dockerfile.

use std::fmt;
use std::sync::Arc;

use wharf_dockerfile::{ExpandError, GlobError, GraphError, ParseErrors, Source};
use wharf_report::chain;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request or the Dockerfile makes no sense.
    Invalid,
    /// An image that is named is not there.
    NotFound,
    /// Something is asked that this daemon does not permit.
    Denied,
    /// A command of the Dockerfile has failed.
    Command,
    /// Nobody waits for the build any more.
    Cancelled,
    /// The host failed.
    System,
}

/// A failed build: a message that stands alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    pub kind: ErrorKind,
    pub message: String,
    /// `Dockerfile:7: RUN make`, when it happened in a step.
    pub place: Option<String>,
    /// Of the command that failed.
    pub exit_code: Option<i32>,
    /// That command.
    pub command: Option<String>,
    /// The lines that have failed, where it happened in a step of the Dockerfile.
    pub lines: Option<Box<Lines>>,
}

/// Lines of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    pub file: String,
    /// All of it.
    pub text: Arc<str>,
    pub first: u32,
    pub last: u32,
}

/// Shorthand for the results of builds.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

impl BuildError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), place: None, exit_code: None, command: None, lines: None }
    }

    /// What was asked cannot be done as it was asked.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the build was cancelled")
    }

    /// A failure of the host or of a lower layer while doing `what`.
    pub(crate) fn system(what: impl fmt::Display, source: &dyn std::error::Error) -> Self {
        Self::new(ErrorKind::System, format!("{what}: {}", chain(source)))
    }

    pub(crate) fn command(command: &str, code: i32) -> Self {
        let message = format!("The command '{command}' returned a non-zero code: {code}");
        let command = Some(command.to_owned());
        Self { exit_code: Some(code), command, ..Self::new(ErrorKind::Command, message) }
    }

    /// The same failure with the instruction it happened in; one that is known already stays.
    pub(crate) fn at(mut self, file: &str, source: &Source) -> Self {
        if self.place.is_none() && self.kind != ErrorKind::Cancelled {
            let text: String = source.text.chars().take(200).collect();
            self.place = Some(format!("{file}:{}: {text}", source.span.line()));
            let (first, last) = (source.span.line(), source.span.end_line.max(source.span.line()));
            self.lines = Some(Box::new(Lines { file: file.to_owned(), text: Arc::default(), first, last }));
        }
        self
    }

    /// The same with the text of the Dockerfile, if it is about lines of that.
    pub(crate) fn within(self, text: &str, source: &Source) -> Self {
        let own = self.lines.as_ref().is_some_and(|lines| lines.first == source.span.line());
        if own { self.with_text(text) } else { self }
    }

    /// The same with the text that its lines are of.
    pub(crate) fn with_text(mut self, text: &str) -> Self {
        if let Some(lines) = self.lines.as_mut() {
            lines.text = text.into();
        }
        self
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.place {
            Some(place) => write!(f, "\n  {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BuildError {}

impl From<ParseErrors> for BuildError {
    fn from(errors: ParseErrors) -> Self {
        Self::invalid(errors.to_string())
    }
}

impl From<GraphError> for BuildError {
    fn from(error: GraphError) -> Self {
        let lines = error.span.map(|span| {
            let last = span.end_line.max(span.line());
            Box::new(Lines { file: error.file.clone(), text: Arc::default(), first: span.line(), last })
        });
        Self { place: error.place(), lines, ..Self::invalid(error.words()) }
    }
}

impl From<ExpandError> for BuildError {
    fn from(error: ExpandError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<GlobError> for BuildError {
    fn from(error: GlobError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<wharf_rooted_path::RootError> for BuildError {
    fn from(error: wharf_rooted_path::RootError) -> Self {
        Self::new(ErrorKind::System, chain(&error))
    }
}

impl From<wharf_store::StoreError> for BuildError {
    fn from(error: wharf_store::StoreError) -> Self {
        Self::new(ErrorKind::System, chain(&error))
    }
}

impl From<wharf_snapshot::SnapshotError> for BuildError {
    fn from(error: wharf_snapshot::SnapshotError) -> Self {
        Self::new(ErrorKind::System, chain(&error))
    }
}
