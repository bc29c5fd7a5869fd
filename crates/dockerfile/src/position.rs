//! Where in a Dockerfile something is.

use std::fmt;

/// A place in a file. Lines and columns count from 1; a column is a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The lines of one instruction, heredocs included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: Position,
    /// The last line that belongs to it.
    pub end_line: u32,
}

impl Span {
    /// The line that messages name.
    pub fn line(&self) -> u32 {
        self.start.line
    }
}
