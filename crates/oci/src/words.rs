//! The words of a command line: flags as data, read as runc's are.

use std::collections::HashMap;

use crate::failure::{Failure, Result};

/// A flag: `--name`, maybe `-s`.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<&'static str>,
    pub(crate) takes: Takes,
    pub(crate) help: &'static str,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Nothing,
    /// A value; of several the last counts.
    Value,
    /// A value each time.
    Values,
}

pub(crate) const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Nothing, help }
}

pub(crate) const fn value(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Value, help }
}

pub(crate) const fn values(name: &'static str, help: &'static str) -> Flag {
    Flag { name, short: None, takes: Takes::Values, help }
}

impl Flag {
    pub(crate) const fn short(self, short: &'static str) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Anywhere before `--`.
    Any,
    /// Before the first argument; what comes after it belongs to another program.
    First,
}

/// What was given.
#[derive(Debug, Default)]
pub(crate) struct Given {
    flags: HashMap<&'static str, Vec<String>>,
    pub(crate) arguments: Vec<String>,
    /// `--help` was among the flags.
    pub(crate) help: bool,
}

impl Given {
    pub(crate) fn read(known: &[Flag], order: Order, words: &[String]) -> Result<Self> {
        let mut given = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(text) = word.strip_prefix('-').filter(|text| !text.is_empty()) else {
                given.arguments.push(word.clone());
                if order == Order::First {
                    break;
                }
                continue;
            };
            if text == "-" {
                break;
            }
            // Go's flags do not tell one dash from two.
            let text = text.strip_prefix('-').unwrap_or(text);
            let (name, inline) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            if matches!(name, "help" | "h") {
                given.help = true;
                continue;
            }
            let flag = known.iter().find(|flag| flag.name == name || flag.short == Some(name));
            let flag = flag.ok_or_else(|| Failure::new(format!("flag provided but not defined: -{name}")))?;
            let value = match (flag.takes, inline) {
                (_, Some(value)) => value.to_owned(),
                (Takes::Nothing, None) => "true".to_owned(),
                (_, None) => {
                    let value = words.next();
                    value.cloned().ok_or_else(|| Failure::new(format!("flag needs an argument: -{name}")))?
                }
            };
            if flag.takes == Takes::Nothing && !matches!(value.as_str(), "true" | "false" | "1" | "0") {
                return Err(Failure::new(format!("invalid boolean value \"{value}\" for -{name}: parse error")));
            }
            given.flags.entry(flag.name).or_default().push(value);
        }
        given.arguments.extend(words.cloned());
        Ok(given)
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self.value(name), Some("true" | "1"))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags.get(name).and_then(|all| all.last()).map(String::as_str)
    }

    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.flags.get(name).map_or(&[], Vec::as_slice)
    }

    /// A number, if the flag was given.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(text) = self.value(name) else { return Ok(None) };
        let bad = |_| Failure::new(format!("invalid value \"{text}\" for flag -{name}: parse error"));
        text.parse().map(Some).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] =
        &[value("bundle", "").short("b"), switch("detach", "").short("d"), values("env", "").short("e")];

    fn read(order: Order, line: &str) -> Result<Given> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Given::read(FLAGS, order, &words)
    }

    #[test]
    fn flags_come_in_every_form_and_order() {
        let given = read(Order::Any, "id -b=/x --env A=1 -e B -detach=false --bundle /y").unwrap();
        assert_eq!(given.arguments, ["id"]);
        assert_eq!(given.value("bundle"), Some("/y"));
        assert_eq!(given.values("env"), ["A=1", "B"]);
        assert!(given.has("detach") && !given.is("detach"));
    }

    #[test]
    fn a_program_s_own_flags_are_left_to_it() {
        let given = read(Order::First, "-d id ls -l --help").unwrap();
        assert!(given.is("detach") && !given.help);
        assert_eq!(given.arguments, ["id", "ls", "-l", "--help"]);
        assert_eq!(read(Order::Any, "-- -d").unwrap().arguments, ["-d"]);
        assert!(read(Order::Any, "a --help").unwrap().help);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, text) in [
            ("--frob", "flag provided but not defined: -frob"),
            ("-b", "flag needs an argument: -b"),
            ("-d=maybe", "invalid boolean value \"maybe\""),
        ] {
            assert!(read(Order::Any, line).unwrap_err().message.contains(text), "{line}");
        }
        assert!(read(Order::Any, "-b x").unwrap().number::<u32>("bundle").is_err());
    }
}
