//! Words into flags and arguments, by pflag's rules.

use std::collections::HashMap;

use crate::flag::{Flag, Shape};
use crate::values;

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    values: HashMap<&'static str, Vec<String>>,
    defaults: HashMap<&'static str, &'static str>,
    /// What is no flag.
    pub(crate) arguments: Vec<String>,
    /// Things to say before the command runs: a deprecated flag was used.
    pub(crate) notes: Vec<String>,
    /// `--help` was asked for.
    pub(crate) help: bool,
    /// It was, by its old letter.
    pub(crate) help_by_letter: bool,
}

/// The command line cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    pub(crate) message: String,
    /// The flag that was probably meant.
    pub(crate) nearest: Option<String>,
}

impl ParseError {
    fn new(message: String) -> Self {
        Self { message, nearest: None }
    }
}

/// Reads the words of a command. `interspersed`: flags may also come after arguments.
pub(crate) fn parse(flags: &[Flag], interspersed: bool, words: &[String]) -> Result<Matches, ParseError> {
    let mut matches = Matches::default();
    matches.defaults.extend(flags.iter().map(|flag| (flag.long, flag.default)));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            matches.arguments.extend(words.cloned());
            break;
        }
        if let Some(long) = word.strip_prefix("--") {
            matches.long(flags, word, long, &mut words)?;
        } else if word.len() > 1 && word.starts_with('-') {
            matches.short(flags, &word[1..], &mut words)?;
        } else {
            matches.arguments.push(word.clone());
            if !interspersed {
                matches.arguments.extend(words.cloned());
                break;
            }
        }
    }
    Ok(matches)
}

type Words<'a> = std::slice::Iter<'a, String>;

impl Matches {
    fn long(&mut self, flags: &[Flag], word: &str, long: &str, words: &mut Words<'_>) -> Result<(), ParseError> {
        if long.starts_with(['-', '=']) {
            return Err(ParseError::new(format!("bad flag syntax: {word}")));
        }
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.long == name) else {
            if name == "help" {
                self.help = value.is_none_or(|value| values::parse_bool(&value) != Ok(false));
                return Ok(());
            }
            let names = flags.iter().filter(|flag| !flag.hidden).map(|flag| flag.long);
            let nearest = crate::nearest::nearest(name, names).map(|name| format!("--{name}"));
            return Err(ParseError { message: format!("unknown flag: --{name}"), nearest });
        };
        let value = match value {
            Some(value) => value,
            None if flag.shape == Shape::Switch => "true".to_owned(),
            None => match words.next() {
                Some(value) => value.clone(),
                None => return Err(ParseError::new(format!("flag needs an argument: --{name}"))),
            },
        };
        self.set(flag, value)?;
        self.help |= name == "help" && self.on("help");
        Ok(())
    }

    fn short(&mut self, flags: &[Flag], letters: &str, words: &mut Words<'_>) -> Result<(), ParseError> {
        let mut rest = letters;
        while let Some(letter) = rest.chars().next() {
            let after = &rest[letter.len_utf8()..];
            let Some(flag) = flags.iter().find(|flag| flag.short == Some(letter)) else {
                if letter == 'h' {
                    self.help = true;
                    self.help_by_letter = true;
                    return Ok(());
                }
                return Err(ParseError::new(format!("unknown shorthand flag: '{letter}' in -{rest}")));
            };
            let (value, left) = match after.strip_prefix('=') {
                Some(value) if !value.is_empty() => (value.to_owned(), ""),
                _ if flag.shape == Shape::Switch => ("true".to_owned(), after),
                _ if !after.is_empty() => (after.to_owned(), ""),
                _ => match words.next() {
                    Some(value) => (value.clone(), ""),
                    None => {
                        return Err(ParseError::new(format!("flag needs an argument: '{letter}' in -{rest}")));
                    }
                },
            };
            self.set(flag, value)?;
            rest = left;
        }
        Ok(())
    }

    fn set(&mut self, flag: &Flag, value: String) -> Result<(), ParseError> {
        let parts = if flag.shape == Shape::Commas { commas(&value) } else { vec![value.clone()] };
        for part in &parts {
            (flag.check)(part).map_err(|reason| {
                ParseError::new(format!("invalid argument {value:?} for {:?} flag: {reason}", flag.name()))
            })?;
        }
        if let Some(words) = flag.deprecated {
            self.notes.push(format!("Flag --{} has been deprecated, {words}", flag.long));
        }
        let values = self.values.entry(flag.long).or_default();
        if matches!(flag.shape, Shape::Switch | Shape::One) {
            values.clear();
        }
        values.extend(parts);
        Ok(())
    }

    /// Whether the flag was given.
    pub(crate) fn changed(&self, flag: &str) -> bool {
        self.values.contains_key(flag)
    }

    /// Whether the switch is on.
    pub(crate) fn on(&self, flag: &str) -> bool {
        self.one(flag).is_some_and(|value| values::parse_bool(value) == Ok(true))
    }

    /// The value that was given, or the flag's default.
    pub(crate) fn text(&self, flag: &str) -> &str {
        self.one(flag).unwrap_or_default()
    }

    /// The value, unless it is empty.
    pub(crate) fn some(&self, flag: &str) -> Option<&str> {
        self.one(flag).filter(|value| !value.is_empty())
    }

    /// The number that was given, or the flag's default, or 0.
    pub(crate) fn int(&self, flag: &str) -> i64 {
        self.one(flag).and_then(|value| values::parse_int(value).ok()).unwrap_or(0)
    }

    /// The number, when one was given.
    pub(crate) fn int_given(&self, flag: &str) -> Option<i64> {
        if self.changed(flag) { Some(self.int(flag)) } else { None }
    }

    /// The size in bytes, or 0.
    pub(crate) fn bytes(&self, flag: &str) -> i64 {
        match self.one(flag) {
            Some("-1") => -1,
            Some(value) => values::parse_bytes(value).unwrap_or(0),
            None => 0,
        }
    }

    /// The duration in nanoseconds, or 0.
    pub(crate) fn duration(&self, flag: &str) -> i64 {
        self.one(flag).and_then(|value| values::parse_duration(value).ok()).unwrap_or(0)
    }

    /// All values, in order.
    pub(crate) fn all(&self, flag: &str) -> &[String] {
        self.values.get(flag).map_or(&[], Vec::as_slice)
    }

    fn one(&self, flag: &str) -> Option<&str> {
        let given = self.values.get(flag).and_then(|values| values.last()).map(String::as_str);
        given.or_else(|| self.defaults.get(flag).copied().filter(|default| !default.is_empty()))
    }

    /// The argument at a place; empty when there is none.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }
}

/// One CSV record.
pub(crate) fn commas(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("interactive", "").short('i'),
        Flag::switch("tty", "").short('t'),
        Flag::switch("sig-proxy", "").default("true"),
        Flag::text("name", "").short('n'),
        Flag::list("env", "").short('e'),
        Flag::strings("platform", ""),
        Flag::bytes("memory", "").short('m'),
    ];

    fn read(interspersed: bool, words: &str) -> Result<Matches, String> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        parse(FLAGS, interspersed, &words).map_err(|error| error.message)
    }

    #[test]
    fn the_ways_to_write_flags() {
        for words in ["-itn x a", "-i -t -nx a", "-it --name=x a", "-i -t --name x -- a", "-itn=x a"] {
            let matches = read(true, words).unwrap();
            assert!(matches.on("interactive") && matches.on("tty"), "{words}");
            assert_eq!((matches.text("name"), matches.arguments.join(" ").as_str()), ("x", "a"), "{words}");
        }
    }

    #[test]
    fn a_switch_may_be_turned_off() {
        let matches = read(true, "-it=false --sig-proxy=0").unwrap();
        assert!(matches.on("interactive") && !matches.on("tty") && !matches.on("sig-proxy"));
        assert!(read(true, "").unwrap().on("sig-proxy"));
    }

    #[test]
    fn after_the_first_argument() {
        assert_eq!(read(false, "-i image -t --rm").unwrap().arguments, ["image", "-t", "--rm"]);
        assert_eq!(read(false, "-i -- image -- x").unwrap().arguments, ["image", "--", "x"]);
        assert!(read(true, "image -t").unwrap().on("tty"));
        assert_eq!(read(true, "-").unwrap().arguments, ["-"]);
    }

    #[test]
    fn lists() {
        let matches = read(true, "-e A=1,2 --env=B --platform a,b --platform c").unwrap();
        assert_eq!(matches.all("env"), ["A=1,2", "B"]);
        assert_eq!(matches.all("platform"), ["a", "b", "c"]);
        assert_eq!(commas(r#"a,"b,""c""",d"#), ["a", r#"b,"c""#, "d"]);
    }

    #[test]
    fn what_cannot_be_understood() {
        for (words, message) in [
            ("--foo", "unknown flag: --foo"),
            ("-Z", "unknown shorthand flag: 'Z' in -Z"),
            ("-iZt", "unknown shorthand flag: 'Z' in -Zt"),
            ("--name", "flag needs an argument: --name"),
            ("-in", "flag needs an argument: 'n' in -n"),
            ("--=x", "bad flag syntax: --=x"),
            ("---x", "bad flag syntax: ---x"),
            ("-m abc", r#"invalid argument "abc" for "-m, --memory" flag: invalid size: 'abc'"#),
            (
                "-it=maybe",
                r#"invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#,
            ),
        ] {
            assert_eq!(read(true, words).unwrap_err(), message, "{words}");
        }
        let near = parse(FLAGS, true, &["--nam".to_owned()]).unwrap_err().nearest;
        assert_eq!(near.as_deref(), Some("--name"));
    }
}
