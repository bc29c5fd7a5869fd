//! Commands as data, and the tree they hang in.

use std::future::Future;
use std::pin::Pin;

use crate::app::App;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;

/// What a command does. The code is the program's exit code.
pub(crate) type Run = for<'a> fn(&'a App, &'a Matches) -> Pin<Box<dyn Future<Output = Outcome<u8>> + 'a>>;

/// A command, whatever the name it is called by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command {
    /// What follows the name in the usage line; more lines are more forms.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    /// The text of `--help` when it is more than `about`.
    pub(crate) long: Option<&'static str>,
    pub(crate) flags: &'static [Flag],
    /// Flags that it has in common with another command.
    pub(crate) shared_flags: &'static [Flag],
    pub(crate) arity: Arity,
    /// Flags may also come after the first argument.
    pub(crate) interspersed: bool,
    pub(crate) run: Run,
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    None,
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

impl Command {
    pub(crate) const fn new(usage: &'static str, about: &'static str, arity: Arity, run: Run) -> Self {
        Self { usage, about, long: None, flags: &[], shared_flags: &[], arity, interspersed: true, run }
    }

    pub(crate) const fn flags(mut self, flags: &'static [Flag]) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) const fn shared_flags(mut self, flags: &'static [Flag]) -> Self {
        self.shared_flags = flags;
        self
    }

    /// All flags, by name.
    pub(crate) fn all_flags(&self) -> Vec<Flag> {
        let mut flags = [self.flags, self.shared_flags].concat();
        flags.sort_by_key(|flag| flag.long);
        flags
    }

    pub(crate) const fn long(mut self, long: &'static str) -> Self {
        self.long = Some(long);
        self
    }

    /// Everything after the first argument belongs to the container.
    pub(crate) const fn stops_at_argument(mut self) -> Self {
        self.interspersed = false;
        self
    }
}

/// A place in the tree where a command can be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The group it is in; empty at the top.
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    /// Other names in the same group.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) command: &'static Command,
    pub(crate) hidden: bool,
    /// Where the list of commands shows it.
    pub(crate) section: Section,
}

/// The part of `--help` that lists a command at the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Common(u8),
    Other,
}

/// A group of commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) hidden: bool,
}

impl Entry {
    /// `container ls`.
    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() { self.name.to_owned() } else { format!("{} {}", self.group, self.name) }
    }
}

impl Arity {
    /// Refuses a wrong number of arguments, in the words that follow `'docker x' `.
    pub(crate) fn refuse(self, count: usize) -> Option<String> {
        let arguments = |n: usize| if n == 1 { "argument" } else { "arguments" };
        match self {
            Self::None if count > 0 => Some("accepts no arguments".to_owned()),
            Self::Exactly(n) if count != n => Some(format!("requires {n} {}", arguments(n))),
            Self::AtLeast(n) if count < n => Some(format!("requires at least {n} {}", arguments(n))),
            Self::AtMost(n) if count > n => Some(format!("requires at most {n} {}", arguments(n))),
            Self::Between(low, high) if count < low || count > high => {
                Some(format!("requires at least {low} and at most {high} {}", arguments(high)))
            }
            _ => None,
        }
    }
}
