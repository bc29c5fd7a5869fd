//! What can be wrong with a Dockerfile, all of it at once.

use std::fmt;

use crate::position::Position;

/// One mistake. The text is the one that Docker's users know; where it is comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The Dockerfile's path as the user named it.
    pub file: String,
    pub position: Position,
    /// What is wrong, without its place.
    pub message: String,
    /// The nearest thing that would have been right.
    pub hint: Option<String>,
    /// The instruction's own first line.
    pub source: String,
}

impl ParseError {
    /// What is wrong, and what would not be.
    pub fn words(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" (did you mean {hint}?)"));
        format!("dockerfile parse error on line {}: {}{}", self.position.line, self.message, hint.unwrap_or_default())
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}:{}", self.words(), self.file, self.position)?;
        if !self.source.is_empty() {
            write!(f, ": {}", self.source)?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// All mistakes of a file, in the order of their lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseErrors(Vec<ParseError>);

impl ParseErrors {
    pub(crate) fn check<T>(mut errors: Vec<ParseError>, value: T) -> Result<T, Self> {
        if errors.is_empty() {
            return Ok(value);
        }
        errors.sort_by_key(|error| error.position);
        Err(Self(errors))
    }

    pub(crate) fn one(error: ParseError) -> Self {
        Self(vec![error])
    }

    pub fn iter(&self) -> impl Iterator<Item = &ParseError> {
        self.0.iter()
    }
}

impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseErrors {}

/// A mistake in an instruction before it is known where the instruction stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// What of the instruction's text is meant; its beginning when it is not known better.
    pub(crate) about: Option<String>,
}

impl Mistake {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, about: None }
    }

    pub(crate) fn about(mut self, what: impl Into<String>) -> Self {
        self.about = Some(what.into());
        self
    }

    pub(crate) fn hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into);
        self
    }
}
