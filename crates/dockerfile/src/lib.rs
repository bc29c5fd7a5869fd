//! The Dockerfile language at syntax 1.26, and ignore files. Pure: text in, data out, no file is touched.
//!
//! ```text
//! text ──lines──► logical lines ──statements──► Dockerfile ──graph──► stages that a target needs
//!                  (heredocs, positions)            │
//!                                                   └─expand, scope──► instructions with their values
//! ```
//!
//! - [`Dockerfile::parse`]: all mistakes at once, each with file, line, column and the nearest right word.
//! - [`Instruction`]: what a step does. [`Mount`]: `RUN --mount`. [`Heredoc`]: text in the file itself.
//! - [`Lexer`]: variables in words. [`Globals`], [`Scope`]: which variables there are, and where.
//! - [`Graph`]: stages, what they are based on and copy from, and which of them a target needs.
//! - [`Ignore`], [`Glob`]: `.dockerignore`, and patterns for files.
//! - [`duration`]: Go's durations, which the engine's API has, too.
//! - [`check()`]: what is allowed and probably not meant.
//! - [`Outline`], [`Target`]: what a Dockerfile can be asked for. [`Called`]: all that is asked about one without a build.
//! - [`excerpt()`]: the lines that a message is about.

mod call;
mod check;
mod directive;
pub mod duration;
mod error;
mod excerpt;
mod expand;
mod flag;
mod glob;
mod graph;
mod heredoc;
mod ignore;
mod instruction;
mod line;
mod mount;
mod nearest;
mod needs;
mod outline;
mod parse;
mod pattern;
mod position;
mod scope;
mod statement;
mod subrequest;
mod word;

pub use call::{Asked, Called, Lint, LintFailure, forbidden};
pub use check::{Known, Warning, address, check, check_unresolved, description, first_failure};
pub use directive::{CheckDirective, Directives, is_own_frontend};
pub use error::{ParseError, ParseErrors};
pub use excerpt::excerpt;
pub use expand::{ExpandError, Expanded, Lexer, NoVariables, Variables};
pub use glob::{Glob, GlobError};
pub use graph::{Base, Contexts, Graph, GraphError, Node};
pub use heredoc::Heredoc;
pub use ignore::{Ignore, Verdict};
pub use instruction::{
    Argument, CommandLine, Content, Copy, Healthcheck, Instruction, NAMES, Pair, Run, RunNetwork, Script,
};
pub use mount::{Mount, MountKind, Sharing};
pub use nearest::nearest;
pub use needs::{Needs, Reach};
pub use outline::{Outline, OutlineArgument, OutlineNeed, Target};
pub use parse::{Dockerfile, Source, Stage, Statement};
pub use position::{Position, Span};
pub use scope::{Globals, PREDEFINED, Platform, Platforms, Scope};
