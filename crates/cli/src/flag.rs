//! Flags as data.

use crate::values;

/// A flag of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) shape: Shape,
    /// The type as `--help` names it; empty for a switch.
    pub(crate) label: &'static str,
    pub(crate) check: Check,
    /// The value without the flag; shown by `--help` unless it is the type's zero.
    pub(crate) default: &'static str,
    pub(crate) usage: &'static str,
    pub(crate) hidden: bool,
    /// What to say when it is used all the same.
    pub(crate) deprecated: Option<&'static str>,
}

/// How often a flag may come and what becomes of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On or off; the value may be left out.
    Switch,
    /// The last one counts.
    One,
    /// All count.
    Many,
    /// All count, and each may be several, with commas between them.
    Commas,
}

/// Refuses a value, in the words that follow `invalid argument "x" for "--flag" flag: `.
pub(crate) type Check = fn(&str) -> Result<(), String>;

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

impl Flag {
    const fn new(long: &'static str, shape: Shape, label: &'static str, check: Check, usage: &'static str) -> Self {
        Self { long, short: None, shape, label, check, default: "", usage, hidden: false, deprecated: None }
    }

    pub(crate) const fn switch(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::Switch, "", values::check_bool, usage)
    }

    pub(crate) const fn text(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::One, "string", anything, usage)
    }

    pub(crate) const fn int(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::One, "int", values::check_int, usage)
    }

    pub(crate) const fn duration(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::One, "duration", values::check_duration, usage)
    }

    pub(crate) const fn bytes(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::One, "bytes", values::check_bytes, usage)
    }

    pub(crate) const fn list(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::Many, "list", anything, usage)
    }

    pub(crate) const fn strings(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::Commas, "strings", anything, usage)
    }

    pub(crate) const fn map(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::Many, "map", anything, usage).default("map[]")
    }

    pub(crate) const fn filter(long: &'static str, usage: &'static str) -> Self {
        Self::new(long, Shape::Many, "filter", crate::filters::check, usage)
    }

    /// A flag of a type of its own.
    pub(crate) const fn one(long: &'static str, label: &'static str, check: Check, usage: &'static str) -> Self {
        Self::new(long, Shape::One, label, check, usage)
    }

    /// The same, and it may be repeated.
    pub(crate) const fn many(long: &'static str, label: &'static str, check: Check, usage: &'static str) -> Self {
        Self::new(long, Shape::Many, label, check, usage)
    }

    pub(crate) const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    pub(crate) const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub(crate) const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    pub(crate) const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    pub(crate) const fn deprecated(mut self, words: &'static str) -> Self {
        self.deprecated = Some(words);
        self.hidden = true;
        self
    }

    /// As error messages name it: `-m, --memory`.
    pub(crate) fn name(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }
}
